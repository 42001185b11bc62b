"""The keys' room in a real Chromium, in front of a real server: live, by dialog, on a phone and a desk."""

import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import expect
from sqlalchemy import text

from baatcheet.platform.database import Database
from tests.conftest import Caller
from tests.console.test_browser import (
    CONTRASTS,
    EVIL,
    NAMELESS,
    PATIENCE,
    TWICE,
    NewTab,
    chromium,
    new_tab,
    pytestmark,
)

__all__ = ["chromium", "new_tab", "pytestmark"]

URDU = "کلید کی میعاد ختم ہو گئی"


class Shelf:
    """Keys of a provider of the test's own. No store has them: what may be done with them is what the table says."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.provider = f"shelf-{secrets.token_hex(4)}"

    async def put(self, **columns: object) -> str:
        id_ = secrets.token_hex(16)
        values = {"id": id_, "provider": self.provider, "hint": "gsk_…a1b2", "store": "file", **columns}
        names = ", ".join(values)
        places = ", ".join(f":{name}" for name in values)
        async with self.db.system() as session:
            await session.execute(text(f"INSERT INTO provider_keys ({names}) VALUES ({places})"), values)
        return id_

    async def change(self, id_: str, **columns: object) -> None:
        pairs = ", ".join(f"{name} = :{name}" for name in columns)
        async with self.db.system() as session:
            await session.execute(
                text(f"UPDATE provider_keys SET {pairs} WHERE id = :id"), {"id": id_, **columns}
            )

    async def audited(self, id_: str) -> list[tuple[str, str]]:
        statement = text("SELECT action, via FROM audit_entries WHERE subject = :subject ORDER BY id")
        async with self.db.system() as session:
            rows = await session.execute(statement, {"subject": f"{self.provider}/{id_}"})
            return [(row.action, row.via) for row in rows]


@pytest_asyncio.fixture
async def shelf(database: Database) -> AsyncIterator[Shelf]:
    made = Shelf(database)
    yield made
    async with database.system() as session:
        await session.execute(text("DELETE FROM provider_keys WHERE provider = :p"), {"p": made.provider})


async def test_keys_are_handled_in_dialogs_while_the_page_keeps_itself_up_to_date(
    new_tab: NewTab, shelf: Shelf, admin: Caller
) -> None:
    page = await (await new_tab()).sign_in(admin, "/console/keys")
    await page.evaluate("window.untouched = true")
    key = await shelf.put()
    row = page.locator(f"#key-{key}")
    await expect(row.locator(".state")).to_have_text("Usable", timeout=PATIENCE)

    await row.get_by_role("link", name="Rest").click()
    dialog = page.get_by_role("dialog", name="Let this key rest?")
    await expect(dialog.get_by_role("button", name="Rest for 10 minutes")).to_be_focused()
    await dialog.get_by_role("button", name="For an hour").click()
    await expect(page.get_by_role("status")).to_have_text(
        "The key rests. Within 5 seconds no process uses it."
    )
    await expect(row.locator(".state")).to_have_text("Rests", timeout=PATIENCE)
    await expect(row.locator("time").first).to_contain_text("in 59 min", timeout=PATIENCE)

    await row.get_by_role("link", name="Quarantine").click()
    dialog = page.get_by_role("dialog", name="Quarantine this key?")
    await expect(dialog.get_by_label("Why")).to_be_focused()
    await page.keyboard.type(f"seen in a log {EVIL}")
    await page.keyboard.press("Enter")
    await expect(row.locator(".state")).to_have_text("Quarantined", timeout=PATIENCE)
    await expect(row.locator(".phrase")).to_contain_text("seen in a log <script>")

    await row.get_by_role("link", name="Restore").click()
    await page.get_by_role("dialog").get_by_role("button", name="Use the key again").click()
    await expect(row.locator(".state")).to_have_text("Usable", timeout=PATIENCE)

    # What a provider says arrives by itself, as text.
    await shelf.change(key, last_error=f"401: {URDU} {EVIL}", last_error_at=datetime.now(UTC))
    await expect(row.locator(".error")).to_have_text(f"401: {URDU} {EVIL}"[:159], timeout=PATIENCE)
    assert await page.evaluate("window.untouched") is True
    assert await page.title() == "Keys · BaatCheet"
    assert await shelf.audited(key) == [
        ("key.rested", "console"),
        ("key.quarantined", "console"),
        ("key.restored", "console"),
    ]
    entries = page.locator("#audit li")
    await expect(entries.first).to_contain_text(f"{shelf.provider}/{key[:8]}")


async def test_what_is_refused_is_told_in_the_dialog(new_tab: NewTab, shelf: Shelf, admin: Caller) -> None:
    key = await shelf.put()
    tab = await new_tab()
    page = await tab.sign_in(admin, "/console/keys")
    row = page.locator(f"#key-{key}")
    await row.get_by_role("link", name="Check").click()
    await page.get_by_role("dialog").get_by_role("button", name="Check the key").click()
    await expect(page.get_by_role("dialog")).to_contain_text("No store has the key gsk_…a1b2")
    await page.get_by_role("button", name="Close").click()
    await page.locator(f"#provider-{shelf.provider}").get_by_role("link", name="Rotate the keys…").click()
    await page.get_by_role("dialog").get_by_role("button", name="Rotate the keys").click()
    await expect(page.get_by_role("dialog")).to_contain_text(f"There are no keys of {shelf.provider}.")
    tab.complaints = [one for one in tab.complaints if "409" not in one and "404" not in one]
    assert await shelf.audited(key) == []


async def test_a_key_that_the_server_s_store_has_is_checked(new_tab: NewTab, admin: Caller) -> None:
    page = await (await new_tab()).sign_in(admin, "/console/keys")
    row = page.locator("#provider-openrouter_provisioning tbody tr").first
    await row.get_by_role("link", name="Check").click()
    await page.get_by_role("dialog").get_by_role("button", name="Check the key").click()
    await expect(page.get_by_role("dialog")).to_contain_text(
        "The provider could not be asked.", timeout=PATIENCE
    )
    await page.get_by_role("button", name="Close").click()
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(page.locator("#audit li").first).to_contain_text("key.checked", timeout=PATIENCE)


async def test_all_of_it_works_without_scripts(new_tab: NewTab, shelf: Shelf, admin: Caller) -> None:
    key = await shelf.put()
    page = await (await new_tab(java_script_enabled=False)).sign_in(admin, "/console/keys")
    row = page.locator(f"#key-{key}")
    await row.get_by_role("link", name="Quarantine").click()
    await page.get_by_label("Why").fill("a test")
    await page.get_by_role("button", name="Quarantine the key").click()
    await expect(row.locator(".state")).to_have_text("Quarantined")
    await row.get_by_role("link", name="Restore").click()
    await page.get_by_role("button", name="Use the key again").click()
    await expect(page.get_by_role("status")).to_have_text("The key is used again.")
    await row.get_by_role("link", name="Rest").click()
    await page.get_by_role("button", name="Rest for 10 minutes").click()
    await expect(row.locator(".state")).to_have_text("Rests")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
async def test_the_room_is_right_on_a_phone_and_a_desk_in_light_and_dark(
    new_tab: NewTab, shelf: Shelf, admin: Caller, tmp_path: Path, width: int, scheme: str
) -> None:
    now = datetime.now(UTC)
    old = await shelf.put(
        added_at=now - timedelta(days=120),
        last_used_at=now,
        last_error="502: " + "x" * 150,
        last_error_at=now,
    )
    await shelf.put(
        resting_until=now + timedelta(minutes=9), reason="429: slow down, the minute's tokens are used"
    )
    await shelf.put(state="quarantined", reason=f"401: {URDU}")
    tab = await new_tab(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = await tab.sign_in(admin, "/console/keys")
    pages = {"keys": "/console/keys", "rotate": f"/console/keys/rotate?provider={shelf.provider}"}
    pages |= {verb: f"/console/keys/{old}/{verb}" for verb in ("rest", "quarantine", "restore", "check")}
    for name, path in pages.items():
        await page.goto(tab.url + path)
        await page.screenshot(path=tmp_path / f"{name}-{width}-{scheme}.png", full_page=True)
        assert await page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert await page.evaluate(CONTRASTS) == [], name
        assert await page.evaluate(NAMELESS) == [], name
        assert await page.evaluate(TWICE) == [], name
        assert await page.locator("h1").count() == 1, name
