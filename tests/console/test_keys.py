"""The keys' page, as it is without scripts, and the parts that scripts ask for."""

import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import text

from baatcheet.console.keys.views import Line, back_at, line_of
from baatcheet.console.pages import POLICY
from baatcheet.keys.models import AuditEntry, KeyRotation
from baatcheet.keys.probing import Probed
from baatcheet.keys.secret import SecretKey
from baatcheet.keys.service import Keys, KeyView
from baatcheet.platform.database import Database
from tests.conftest import Caller
from tests.console.conftest import console_for
from tests.keys.rotation.fake_store import FakeRing, FakeStore

LIVE = {"hx-request": "true", "x-console-live": "1"}
SCRIPT = {"hx-request": "true"}
EVIL = """<script>alert(1)</script>"'><img src=x onerror=alert(2)>"""
URDU = "کلید کی میعاد ختم ہو گئی"
OVERRIDE = "\u202egpj.exe"
ADDRESS = "203.0.113.7"
INLINE = re.compile(r"<script(?![^>]* src=)|<style|\son[a-z]+=|\sstyle=|javascript:", re.IGNORECASE)
VERBS = ("rest", "quarantine", "restore", "check")


@dataclass
class Provider:
    """A FAKE provider: what it answers, and which keys it was asked about."""

    answer: Probed = field(default_factory=lambda: Probed("good", "It lists 12 models."))
    asked: list[str] = field(default_factory=list)

    async def probe(self, _provider: str, key: SecretKey) -> Probed:
        self.asked.append(key.reveal())
        return self.answer


@dataclass
class Room:
    """A console whose keys are in a FAKE store, and a provider of the test's own."""

    db: Database
    store: FakeStore
    ring: FakeRing
    browser: httpx.AsyncClient
    service: Provider
    provider: str = field(default_factory=lambda: f"provider-{secrets.token_hex(4)}")
    texts: list[str] = field(default_factory=list)

    async def has(self, count: int, provider: str | None = None) -> list[str]:
        """Keys of a provider, in the store and known to the ledger; their ids."""
        provider = provider or self.provider
        texts = [f"gsk_{secrets.token_hex(20)}" for _ in range(count)]
        self.texts += texts
        await self.store.replace(provider, [SecretKey(one) for one in texts])
        ids = [self.ring.fingerprint(provider, SecretKey(one)) for one in texts]
        add = text(
            "INSERT INTO provider_keys (id, provider, hint, store) VALUES (:id, :provider, :hint, 'file')"
        )
        async with self.db.system() as session:
            for id_, one in zip(ids, texts, strict=True):
                values = {"id": id_, "provider": provider, "hint": SecretKey(one).hint}
                await session.execute(add, values)
        return ids

    async def is_so(self, id_: str, **columns: Any) -> None:
        """Set a key's columns."""
        pairs = ", ".join(f"{name} = :{name}" for name in columns)
        async with self.db.system() as session:
            await session.execute(
                text(f"UPDATE provider_keys SET {pairs} WHERE id = :id"), {"id": id_, **columns}
            )

    async def used(self, id_: str, requests: int, tokens: int, errors: int) -> None:
        statement = text(
            "INSERT INTO key_usage (key_id, day, requests, tokens, errors) "
            "VALUES (:id, (now() AT TIME ZONE 'utc')::date, :requests, :tokens, :errors)"
        )
        values = {"id": id_, "requests": requests, "tokens": tokens, "errors": errors}
        async with self.db.system() as session:
            await session.execute(statement, values)

    async def sign_in(self, caller: Caller) -> None:
        answer = await self.browser.post("/console/sign-in", data={"token": caller.token})
        assert answer.status_code == 303, answer.text

    async def csrf(self) -> str:
        found = re.search(r'name="csrf" value="([^"]+)"', (await self.browser.get("/console/jobs")).text)
        assert found is not None
        return unescape(found[1])

    async def submit(
        self, path: str, headers: dict[str, str] | None = None, /, **fields: str
    ) -> httpx.Response:
        data = {"csrf": await self.csrf(), **fields}
        return await self.browser.post(f"/console/keys/{path}", data=data, headers=headers)

    async def page(self, path: str = "") -> str:
        answer = await self.browser.get(f"/console/keys{path}")
        assert answer.status_code == 200, answer.text
        return answer.text

    async def row(self, id_: str) -> str:
        """A key's row of the table."""
        page = await self.page()
        return page[page.index(f'id="key-{id_}"') :].partition("</tr>")[0]

    async def group(self, provider: str | None = None) -> str:
        """A provider's part of the page."""
        page = await self.page()
        return page[page.index(f'id="provider-{provider or self.provider}"') :].partition("</section>")[0]

    async def audited(self, subject: str) -> list[tuple[str, str, str, str | None]]:
        statement = text(
            "SELECT action, via, actor_id::text, address FROM audit_entries WHERE subject = :subject ORDER BY id"
        )
        async with self.db.system() as session:
            return [tuple(row) for row in (await session.execute(statement, {"subject": subject})).all()]


@asynccontextmanager
async def room_in(database: Database, path: Path) -> AsyncIterator[Room]:
    store = FakeStore(path / "store.json")
    ring = FakeRing(store)
    provider = Provider()
    keys = Keys(database, ring, provider.probe, daily=lambda _: 100, rotating=lambda _: True)
    async with console_for(database, address=ADDRESS, keys=keys) as (browser, _):
        made = Room(database, store, ring, browser, provider)
        yield made
        # What looks after rotations must not find the test's.
        async with database.system() as session:
            await session.execute(
                text(
                    "DELETE FROM jobs WHERE kind = 'keys.rotate' AND subject_id IN "
                    "(SELECT id FROM key_rotations WHERE provider = :p)"
                ),
                {"p": made.provider},
            )
            await session.execute(text("DELETE FROM key_rotations WHERE provider = :p"), {"p": made.provider})
            await session.execute(
                text("DELETE FROM provider_keys WHERE provider LIKE :p || '%'"), {"p": made.provider}
            )


@pytest_asyncio.fixture
async def room(database: Database, tmp_path: Path) -> AsyncIterator[Room]:
    async with room_in(database, tmp_path) as made:
        yield made


@pytest_asyncio.fixture
async def mine(room: Room, admin: Caller) -> Room:
    """The room, with an administrator in front of it."""
    await room.sign_in(admin)
    return room


def cells(row: str) -> list[str]:
    """What a row's cells say."""
    found = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)
    return [" ".join(unescape(re.sub(r"<[^>]+>", "", one)).split()) for one in found]


async def test_the_room_is_for_administrators_and_nobody_else_hears_of_it(
    room: Room, alice: Caller, admin: Caller
) -> None:
    (key,) = await room.has(1)
    assert (await room.browser.get("/console/keys")).headers["location"].startswith("/console/sign-in")
    await room.sign_in(alice)
    assert "/console/keys" not in (await room.browser.get("/console/jobs")).text
    paths = ["", f"/rotate?provider={room.provider}", *(f"/{key}/{verb}" for verb in VERBS)]
    for path in paths:
        for headers in ({}, SCRIPT, LIVE):
            answer = await room.browser.get(f"/console/keys{path}", headers=headers)
            assert answer.status_code == 403, path
            assert room.provider not in answer.text
    fields = {"for": "an-hour", "reason": "x", "provider": room.provider}
    for path in ("rotate", *(f"{key}/{verb}" for verb in VERBS)):
        assert (await room.submit(path, **fields)).status_code == 403, path
    assert room.service.asked == []
    assert await room.audited(f"{room.provider}/{key}") == await room.audited(room.provider) == []
    await room.sign_in(admin)
    assert 'href="/console/keys"' in (await room.browser.get("/console/jobs")).text
    assert "state-usable" in await room.row(key)


async def test_a_form_without_its_word_does_nothing(mine: Room) -> None:
    (key,) = await mine.has(1)
    for path in ("rotate", *(f"{key}/{verb}" for verb in VERBS)):
        for fields in ({}, {"csrf": "x" * 43}):
            data = {"for": "an-hour", "reason": "x", "provider": mine.provider, **fields}
            assert (await mine.browser.post(f"/console/keys/{path}", data=data)).status_code == 403
        foreign = {"sec-fetch-site": "cross-site"}
        assert (await mine.submit(path, foreign, **{"for": "an-hour", "reason": "x"})).status_code == 403
    assert mine.service.asked == []
    assert await mine.audited(f"{mine.provider}/{key}") == []


async def test_a_table_tells_how_each_key_fares(mine: Room) -> None:
    first, second = await mine.has(2)
    long_ago = datetime.now(UTC) - timedelta(days=100)
    await mine.is_so(
        first, added_at=long_ago, last_used_at=long_ago, last_error="502: away", last_error_at=long_ago
    )
    await mine.used(first, 30, 12_345, 2)
    told = cells(await mine.row(first))
    assert told[0] == f"{SecretKey(mine.texts[0]).hint} {first[:8]}"
    assert told[1:6] == ["Usable", "30 of 100 70 left", "12,345", "2", "100 d Too old"]
    assert told[7].endswith("502: away")
    assert told[8].startswith("file")
    fresh = cells(await mine.row(second))
    assert fresh[1:6] == ["Usable", "0 of 100 100 left", "0", "0", "0 d"]
    assert "2 of 2 usable" in (summary := " ".join(unescape(await mine.group()).split()))
    assert "1 too old" in summary


async def test_a_provider_s_line_tells_how_many_can_be_used_and_when_the_next_can(mine: Room) -> None:
    ids = await mine.has(4)
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=3)
    await mine.is_so(ids[0], resting_until=soon, reason="429: slow down")
    await mine.is_so(ids[1], state="quarantined", reason="401: no such key")
    await mine.used(ids[2], 105, 0, 0)
    group = await mine.group()
    summary = re.search(r'<p class="summary">(.*?)</p>', group, re.DOTALL)
    assert summary is not None
    words = " ".join(re.sub(r"<[^>]+>", "", summary[1]).split())
    assert words.startswith(
        "1 of 4 usable · 1 resting · 1 used up for today · 1 quarantined · the next is back"
    )
    assert f'datetime="{soon:%Y-%m-%dT%H:%M:%SZ}"' in summary[1]
    states = [cells(await mine.row(id_))[1] for id_ in ids]
    assert states[0].startswith("Rests until")
    assert states[0].endswith("429: slow down")
    assert states[1] == "Quarantined 401: no such key"
    assert states[2].startswith("Used up")
    assert cells(await mine.row(ids[2]))[2] == "105 of 100 0 left"
    assert states[3] == "Usable"


def view(**columns: Any) -> KeyView:
    known: dict[str, Any] = dict.fromkeys(KeyView.__dataclass_fields__) | {
        "id": "0" * 32,
        "provider": "p",
        "state": "active",
        "requests_left": None,
    }
    return KeyView(**known | columns)


def test_the_next_is_back_at_midnight_utc_unless_another_is_before() -> None:
    now = datetime(2026, 3, 4, 23, 50, tzinfo=UTC)
    midnight = datetime(2026, 3, 5, tzinfo=UTC)
    used_up = line_of(view(requests_left=0))
    out = line_of(view(state="quarantined", reason="x"))

    def rests(minutes: int) -> Line:
        return line_of(view(state="resting", resting_until=now + timedelta(minutes=minutes)))

    assert back_at([out, line_of(view())], now) is None
    assert back_at([out, used_up, rests(20)], now) == midnight
    assert back_at([used_up, rests(5), rests(7)], now) == now + timedelta(minutes=5)


@pytest.mark.parametrize(("length", "seconds"), [("10-minutes", 600), ("an-hour", 3600)])
async def test_a_key_rests_for_as_long_as_was_said(
    mine: Room, admin: Caller, length: str, seconds: int
) -> None:
    (key,) = await mine.has(1)
    question = await mine.page(f"/{key}/rest")
    assert f'action="/console/keys/{key}/rest"' in question
    assert f'value="{length}"' in question
    answer = await mine.submit(f"{key}/rest", **{"for": length})
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/keys?said=key-rested")
    assert "The key rests." in (await mine.browser.get(answer.headers["location"])).text
    async with mine.db.system() as session:
        left = await session.scalar(
            text("SELECT extract(epoch FROM resting_until - now())::float FROM provider_keys WHERE id = :id"),
            {"id": key},
        )
    assert seconds - 30 < left <= seconds
    assert cells(await mine.row(key))[1].endswith("let it rest.")
    assert await mine.audited(f"{mine.provider}/{key}") == [
        ("key.rested", "console", str(admin.user_id), ADDRESS)
    ]


async def test_a_key_is_quarantined_with_a_reason_and_restored(mine: Room, admin: Caller) -> None:
    (key,) = await mine.has(1)
    async with mine.db.system() as session:
        before = await session.scalar(text("SELECT states FROM key_changes"))
    refused = await mine.submit(f"{key}/quarantine")
    assert (refused.status_code, "Say why" in refused.text) == (422, True)
    answer = await mine.submit(f"{key}/quarantine", reason="seen in a log")
    assert answer.headers["location"] == "/console/keys?said=key-quarantined"
    row = await mine.row(key)
    assert cells(row)[1] == "Quarantined seen in a log"
    assert f"{key}/restore" in row
    assert f"{key}/rest&#34;" not in row
    assert f'{key}/rest"' not in row
    assert "0 of 1 usable" in await mine.group()
    # It is not to be let rest meanwhile, whatever an old page offers.
    assert (await mine.submit(f"{key}/rest", **{"for": "an-hour"})).status_code == 409
    assert "seen in a log" in await mine.page(f"/{key}/restore")
    answer = await mine.submit(f"{key}/restore")
    assert answer.headers["location"] == "/console/keys?said=key-restored"
    assert cells(await mine.row(key))[1] == "Usable"
    mine_ = ("console", str(admin.user_id), ADDRESS)
    subject = f"{mine.provider}/{key}"
    assert await mine.audited(subject) == [("key.quarantined", *mine_), ("key.restored", *mine_)]
    async with mine.db.system() as session:
        assert await session.scalar(text("SELECT states FROM key_changes")) >= before + 2
    page = await mine.page()
    audit = page[page.index('id="audit"') :]
    assert f"{mine.provider}/{key[:8]}" in audit
    assert "seen in a log" in audit
    assert ADDRESS in audit


async def test_a_key_is_checked_and_what_its_provider_says_is_told_on_the_spot(
    mine: Room, admin: Caller
) -> None:
    (key,) = await mine.has(1)
    assert "Nothing is changed." in await mine.page(f"/{key}/check")
    assert mine.service.asked == []
    good = await mine.submit(f"{key}/check")
    assert (good.status_code, "The key is good." in good.text, "12 models" in good.text) == (200, True, True)
    assert mine.service.asked == mine.texts
    mine.service.answer = Probed("refused", f"401: {EVIL} {mine.texts[0]} {URDU}")
    for headers in ({}, SCRIPT):
        bad = await mine.submit(f"{key}/check", headers)
        assert "The key is refused." in bad.text
        assert "&lt;script&gt;" in bad.text
        assert URDU in bad.text
        assert "<script>alert" not in bad.text
        assert mine.texts[0] not in bad.text
        assert ("<html" in bad.text) == (not headers)
    assert cells(await mine.row(key))[1] == "Usable"
    assert (
        await mine.audited(f"{mine.provider}/{key}")
        == [("key.checked", "console", str(admin.user_id), ADDRESS)] * 3
    )
    mine.store.away = True
    away = await mine.submit(f"{key}/check")
    assert (away.status_code, "it is away" in away.text) == (503, True)


@pytest_asyncio.fixture
async def no_rotation_runs(mine: Room) -> AsyncIterator[None]:
    """A worker of another test may be there, and would be done with a rotation before it is looked at."""
    pause = text(
        "INSERT INTO job_queues (name, paused) VALUES ('keys', :paused) "
        "ON CONFLICT (name) DO UPDATE SET paused = excluded.paused"
    )
    async with mine.db.system() as session:
        await session.execute(pause, {"paused": True})
    yield
    async with mine.db.system() as session:
        await session.execute(pause, {"paused": False})


async def test_a_provider_s_keys_are_rotated_once_at_a_time(
    mine: Room, admin: Caller, no_rotation_runs: None
) -> None:
    await mine.has(3)
    assert "all 3" in await mine.page(f"/rotate?provider={mine.provider}")
    answer = await mine.submit("rotate", provider=mine.provider, reason=f"a leak of {mine.texts[0]}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/keys?said=rotation-begun")
    page = await mine.page()
    async with mine.db.system() as session:
        made = await session.execute(
            text(
                "SELECT r.id, r.detail->>'reason' AS reason, j.status FROM key_rotations r "
                "JOIN jobs j ON j.subject_id = r.id WHERE r.provider = :p"
            ),
            {"p": mine.provider},
        )
        (row,) = made.all()
    assert row.status in {"queued", "running"}  # a worker may have it already
    assert mine.texts[0] not in row.reason
    shown = page[page.index(f'id="rotation-{row.id}"') :].partition("</li>")[0]
    assert "Under way" in shown
    assert "stage: has new keys made" in shown
    assert "a leak of" in shown
    group = await mine.group()
    assert "Rotation: stage" in group
    assert "/console/keys/rotate" not in group
    again = await mine.submit("rotate", provider=mine.provider)
    assert (again.status_code, "is under way" in again.text) == (409, True)
    assert await mine.audited(mine.provider) == [
        ("keys.rotation_begun", "console", str(admin.user_id), ADDRESS)
    ]


async def test_rotations_tell_how_they_ended(mine: Room) -> None:
    async with mine.db.system() as session:
        session.add(
            KeyRotation(
                provider=mine.provider,
                step="roll_back",
                outcome="rolled_back",
                error=f"The new keys were refused: {EVIL}",
                detail={
                    "reason": "monthly rotation",
                    "fresh": ["a" * 32],
                    "gone": ["b" * 32],
                    "hints": {"a" * 32: "sk-o…1111"},
                    "by_hand": ["b" * 32],
                    "notes": [URDU],
                },
                ended_at=datetime.now(UTC),
            )
        )
    page = unescape(re.sub(r"<(?!/?script)[^>]+>", "", (await mine.page()).replace("&lt;", "[")))
    part = page[page.index("Rotations") : page.index("Last actions")]
    for words in (
        "Rolled back",
        "roll back",
        "monthly rotation",
        "new: sk-o…1111",
        "replaced: bbbbbbbb",
        "to be revoked by hand: bbbbbbbb",
        URDU,
        "The new keys were refused: [script",
    ):
        assert words in part, words


async def test_what_can_not_be_done_is_said(mine: Room) -> None:
    (key,) = await mine.has(1)
    for fields in ({}, {"for": "ever"}):
        assert (await mine.submit(f"{key}/rest", **fields)).status_code == 422
    for reason in ("x" * 301, "two\nlines"):
        assert (await mine.submit(f"{key}/quarantine", reason=reason)).status_code == 422
    for path in (f"{'0' * 32}/rest", "x/rest", f"{key.upper()}/rest", f"{key}/reveal"):
        assert (await mine.browser.get(f"/console/keys/{path}")).status_code == 404
        assert (await mine.submit(path, **{"for": "an-hour"})).status_code == 404
    assert (await mine.browser.get("/console/keys/rotate")).status_code == 404
    assert (await mine.browser.get("/console/keys/rotate?provider=nobody")).status_code == 404
    mine.ring._empty = ["nobody"]
    assert (await mine.submit("rotate", provider="nobody")).status_code == 404
    mine.store.writable = False
    read_only = await mine.submit("rotate", provider=mine.provider)
    assert (read_only.status_code, "only read" in read_only.text) == (409, True)
    await mine.is_so(key, state="retired", retired_at=datetime.now(UTC))
    assert (await mine.submit(f"{key}/quarantine", reason="x")).status_code == 409
    assert f"key-{key}" not in await mine.page()
    assert await mine.audited(f"{mine.provider}/{key}") == []


async def test_nothing_that_others_say_is_markup_and_no_page_holds_a_key(mine: Room) -> None:
    (key,) = await mine.has(1)
    hostile = f"{mine.provider}.{EVIL}{OVERRIDE}"
    (other,) = await mine.has(1, hostile)
    secret = mine.texts[0]
    words = f"{EVIL} {URDU} {OVERRIDE} {secret}"
    await mine.is_so(
        key, state="quarantined", reason=words, last_error=words, last_error_at=datetime.now(UTC)
    )
    await mine.is_so(
        other, store=EVIL + OVERRIDE, resting_until=datetime.now(UTC) + timedelta(hours=1), reason=words
    )
    async with mine.db.system() as session:
        session.add(
            KeyRotation(
                provider=mine.provider,
                step="stage",
                outcome="failed",
                error=words,
                detail={"reason": words, "notes": [words]},
            )
        )
        session.add(
            AuditEntry(
                actor=EVIL + OVERRIDE,
                via="console",
                address=EVIL,
                action=EVIL,
                subject=f"{hostile}/{other}",
                detail={"reason": words, EVIL: [words]},
            )
        )
    answers = [
        await mine.browser.get("/console/keys"),
        await mine.browser.get("/console/keys", headers=LIVE),
        await mine.browser.get("/console/keys/rotate", params={"provider": hostile[:100]}),
        await mine.browser.get("/console/keys/" + EVIL),
        *[await mine.browser.get(f"/console/keys/{key}/{verb}") for verb in VERBS],
        await mine.submit(f"{other}/check"),
        await mine.submit(f"{key}/rest", **{"for": "an-hour", "reason": EVIL}),
        await mine.submit("rotate", provider=EVIL + OVERRIDE),
    ]
    for answer in answers:
        assert "<script>alert" not in answer.text
        assert "<img src=x" not in answer.text
        assert INLINE.findall(tags(answer.text)) == []
        for one in mine.texts:
            assert one not in answer.text
            assert one[4:-4] not in answer.text
        if answer.status_code != 303:
            assert answer.headers["content-security-policy"] == POLICY
            assert answer.headers["cache-control"] == "no-store"
        for found in re.finditer(OVERRIDE, answer.text):
            element = answer.text[: found.start()].rpartition("<")[2]
            hidden = re.match(
                r'(title|p hidden|span class="unseen"|section id=|a class="act" id=|input type="hidden")',
                element,
            )
            assert hidden or 'dir="auto"' in element or element.startswith("bdi"), element
    assert URDU in answers[0].text
    assert "&lt;script&gt;" in answers[0].text


def tags(page: str) -> str:
    """The page's own markup, and none of its texts."""
    return "".join(re.findall(r"<[^>]+>", re.sub(r'="[^"]*"', '=""', page)))


async def test_a_page_that_has_not_changed_is_answered_304_and_a_change_is_seen_at_once(mine: Room) -> None:
    (key,) = await mine.has(1)
    page = await mine.page()
    found = re.search(r'data-tag="([^"]+)"', page)
    assert found is not None
    tag = unescape(found[1])
    same = await mine.browser.get("/console/keys", headers={**LIVE, "if-none-match": tag})
    assert (same.status_code, same.text) == (304, "")
    done = await mine.submit(f"{key}/quarantine", SCRIPT, reason="a test")
    assert (done.status_code, done.text) == (204, "")
    assert "The key is quarantined." in done.headers["hx-trigger"]
    part = await mine.browser.get("/console/keys", headers={**LIVE, "if-none-match": tag})
    assert part.status_code == 200
    assert "<html" not in part.text
    assert "state-quarantined" in part.text
    question = await mine.browser.get(f"/console/keys/{key}/restore", headers=SCRIPT)
    assert "<html" not in question.text
    assert f'data-hx-post="/console/keys/{key}/restore"' in question.text
