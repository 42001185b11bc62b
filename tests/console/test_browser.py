"""The console in a real Chromium: live, by keyboard, on a phone, in light and in dark, with and without scripts."""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright, expect

from baatcheet.jobs.declaration import GiveUp, Job
from tests.conftest import Caller, NewCaller, RunningServer
from tests.console.conftest import Bench
from tests.jobs.conftest import Work, nothing

CHROMIUM = shutil.which("chromium")
PATIENCE = 20_000  # milliseconds: the machine may be busy
EVIL = """<script>document.title = "taken"</script><img src=x onerror="document.title = 'taken'">"""

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium here; on Debian: apt install chromium"
)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    # As root it can't put itself into its sandbox.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        await browser.close()


class Tab:
    """A tab of a browser of its own. What its console complains of is in `complaints`."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.set_default_timeout(PATIENCE)

    def _hear(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    async def sign_in(self, caller: Caller, path: str = "/console/jobs") -> Page:
        assert caller.token is not None
        await self.page.goto(self.url + path)
        await self.page.get_by_label("API token").fill(caller.token)
        await self.page.get_by_role("button", name="Sign in").click()
        await self.page.wait_for_url("**" + path)
        return self.page


NewTab = Callable[..., Any]


@pytest_asyncio.fixture
async def new_tab(chromium: Browser, server: RunningServer) -> AsyncIterator[NewTab]:
    """Opens tabs; at the end none of them has complained of anything."""
    async with AsyncExitStack() as stack:
        tabs: list[Tab] = []

        async def open_(**options: Any) -> Tab:
            context = await chromium.new_context(**options)
            stack.push_async_callback(context.close)
            tab = Tab(await context.new_page(), server.url)
            tabs.append(tab)
            return tab

        yield open_
        assert [tab.complaints for tab in tabs] == [[] for _ in tabs]


class Steps:
    """A handler that goes on when it is told to."""

    def __init__(self) -> None:
        self._steps: asyncio.Queue[tuple[int, str] | None] = asyncio.Queue()

    async def __call__(self, job: Job[Work], parts: object) -> None:
        """As far as it was told to go."""
        while (step := await self._steps.get()) is not None:
            await job.progress(*step)

    def go(self, percent: int, phrase: str) -> None:
        self._steps.put_nowait((percent, phrase))

    def end(self) -> None:
        self._steps.put_nowait(None)


def handler(steps: Steps) -> Any:
    async def work(job: Job[Work], parts: object) -> None:
        """As far as it was told to go."""
        await steps(job, parts)

    return work


async def broken(job: Job[Work], parts: object) -> None:
    """Nothing."""
    raise GiveUp("It is broken.")


async def test_a_job_appears_and_goes_on_without_the_page_being_loaded_anew(
    new_tab: NewTab, bench: Bench, alice: Caller
) -> None:
    steps = Steps()
    kind = bench.kind(handler(steps))
    page = await (await new_tab()).sign_in(alice)
    await expect(page.get_by_text("No jobs yet.")).to_be_visible()
    await page.evaluate("window.untouched = true")
    id_ = await bench.enqueue(kind, owner=alice.user_id)
    row = page.locator(f"#job-{id_}")
    await expect(row.locator(".state")).to_have_text("Queued", timeout=PATIENCE)
    await bench.worker(kind)
    await expect(row.locator(".state")).to_have_text("Running", timeout=PATIENCE)
    steps.go(40, f"صفحہ 2 {EVIL}")
    bar = row.get_by_role("progressbar")
    await expect(bar).to_have_attribute("value", "40", timeout=PATIENCE)
    await expect(row.locator(".phrase")).to_contain_text("صفحہ 2 <script>")
    await asyncio.sleep(1.1)  # progress is written down once a second
    steps.go(80, "Nearly there")
    await expect(bar).to_have_attribute("value", "80", timeout=PATIENCE)
    steps.end()
    await expect(row.locator(".state")).to_have_text("Succeeded", timeout=PATIENCE)
    assert await page.evaluate("window.untouched") is True
    assert await page.title() == "Jobs · BaatCheet"


async def test_a_running_job_is_cancelled_and_a_dead_one_tried_again(
    new_tab: NewTab, bench: Bench, alice: Caller
) -> None:
    steps = Steps()
    kind, bad = bench.kind(handler(steps)), bench.kind(broken, name=f"{bench.name}.broken")
    await bench.worker(kind, bad)
    running = await bench.enqueue(kind, owner=alice.user_id)
    dead = await bench.enqueue(bad, owner=alice.user_id)
    await bench.until(dead)
    page = await (await new_tab()).sign_in(alice)
    row = page.locator(f"#job-{running}")
    await row.get_by_role("link", name="Cancel").click()
    dialog = page.get_by_role("dialog", name="Cancel this job?")
    await dialog.get_by_role("button", name="Cancel the job").click()
    await expect(page.get_by_role("status")).to_have_text("The job was asked to stop.")
    await expect(dialog).to_be_hidden()
    await expect(row.locator(".state")).to_have_text("Cancelled", timeout=PATIENCE)
    grave = page.locator(f"#job-{dead}")
    await expect(grave.locator(".error")).to_have_text("It is broken.")
    await grave.get_by_role("link", name="Retry").click()
    await page.get_by_role("button", name="Try it again").click()
    await expect(page.get_by_role("status")).to_have_text("The job is queued again.")
    await bench.until(dead, lambda row: len(row.failures) == 2)


async def test_a_queue_is_paused_and_resumed(new_tab: NewTab, bench: Bench, admin: Caller) -> None:
    kind = bench.kind(nothing)
    await bench.worker(kind)
    page = await (await new_tab()).sign_in(admin)
    row = page.locator(f"[id='queue-{bench.name}']")
    await row.get_by_role("link", name="Pause or limit").click()
    dialog = page.get_by_role("dialog", name=f"The queue {bench.name}")
    await dialog.get_by_role("button", name="Pause the queue").click()
    await expect(row.locator(".state")).to_have_text("Paused", timeout=PATIENCE)
    id_ = await bench.enqueue(kind)
    await expect(row.get_by_role("cell").nth(0)).to_have_text("1", timeout=PATIENCE)
    assert (await bench.row(id_)).status == "queued"
    await row.get_by_role("link", name="Resume or limit").click()
    await dialog.get_by_role("button", name="Resume the queue").click()
    await bench.until(id_)
    await expect(row.locator(".state")).to_have_count(0, timeout=PATIENCE)


async def test_dead_jobs_of_a_kind_are_tried_again_together(
    new_tab: NewTab, bench: Bench, admin: Caller
) -> None:
    kind = bench.kind(broken)
    worker = await bench.worker(kind)
    dead = [await bench.until(await bench.enqueue(kind)) for _ in range(3)]
    await worker.stop()
    page = await (await new_tab()).sign_in(admin, f"/console/jobs?status=dead&kind={kind.name}")
    await page.get_by_role("link", name="Retry or forget dead jobs…").click()
    await expect(page.get_by_label("Only this kind")).to_have_value(kind.name)
    await page.get_by_role("button", name="Try them again").click()
    await expect(page.get_by_role("status")).to_have_text("3 jobs are queued again.")
    await expect(page.get_by_text("No such job.")).to_be_visible(timeout=PATIENCE)
    assert {(await bench.row(row.id)).status for row in dead} == {"queued"}


async def test_a_dead_job_is_forgotten_from_its_own_page(
    new_tab: NewTab, bench: Bench, alice: Caller
) -> None:
    kind = bench.kind(broken)
    await bench.worker(kind)
    row = await bench.until(await bench.enqueue(kind, owner=alice.user_id))
    page = await (await new_tab()).sign_in(alice, f"/console/jobs/{row.id}")
    await page.get_by_role("link", name="Forget").click()
    await (
        page.get_by_role("dialog", name="Forget this job?")
        .get_by_role("button", name="Forget the job")
        .click()
    )
    await expect(page.get_by_text("The job is forgotten.")).to_be_visible()
    assert (await alice.get(f"/api/v1/jobs/{row.id}")).status_code == 404


async def test_everything_is_to_be_done_by_keyboard(new_tab: NewTab, bench: Bench, alice: Caller) -> None:
    steps = Steps()
    kind = bench.kind(handler(steps))
    await bench.worker(kind)
    id_ = await bench.enqueue(kind, owner=alice.user_id)
    await bench.until(id_, lambda row: row.status == "running")
    tab = await new_tab()
    page, keys = tab.page, tab.page.keyboard
    assert alice.token is not None
    await page.goto(tab.url + "/console/jobs")
    await keys.type(alice.token)  # the field has the focus
    await keys.press("Enter")
    await page.wait_for_url("**/console/jobs")
    await keys.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await keys.press("Enter")

    async def tab_to(id_: str) -> None:
        for _ in range(40):
            if await page.evaluate("document.activeElement.id") == id_:
                return
            await keys.press("Tab")
        raise AssertionError(f"{id_} is not reached by Tab")

    await tab_to(f"row-cancel-{id_}")
    await keys.press("Enter")
    button = page.get_by_role("button", name="Cancel the job")
    await expect(button).to_be_focused()
    await keys.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(page.locator(f"#row-cancel-{id_}")).to_be_focused()
    # What is focused stays so while the page goes on around it.
    steps.go(55, "Half of it")
    await expect(page.locator(f"#job-{id_} .phrase")).to_have_text("Half of it", timeout=PATIENCE)
    await expect(page.locator(f"#row-cancel-{id_}")).to_be_focused()
    await keys.press("Enter")
    await expect(button).to_be_focused()
    await keys.press("Enter")
    await expect(page.get_by_role("status")).to_have_text("The job was asked to stop.")
    row = await bench.until(id_)
    assert row.status == "cancelled"


async def test_a_job_s_page_follows_the_job(new_tab: NewTab, bench: Bench, alice: Caller) -> None:
    kind = bench.kind(broken, attempts=2)
    id_ = await bench.enqueue(kind, owner=alice.user_id)
    page = await (await new_tab()).sign_in(alice, f"/console/jobs/{id_}")
    await expect(page.locator(".now .state")).to_have_text("Queued")
    await bench.worker(kind)
    await expect(page.locator(".now .state")).to_have_text("Dead", timeout=PATIENCE)
    await expect(page.locator("#attempt-1 .error")).to_have_text("It is broken.")
    await expect(page.locator("#attempt-1 time")).to_have_text(re.compile(r"^\d+ (s|min) ago$"))


async def test_a_page_that_is_not_seen_asks_for_nothing(new_tab: NewTab, alice: Caller) -> None:
    page = await (await new_tab()).sign_in(alice)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    async def show(*, hidden: bool) -> None:
        await page.evaluate(
            "hidden => { Object.defineProperty(document, 'hidden', {get: () => hidden, configurable: true});"
            "document.dispatchEvent(new Event('visibilitychange')); }",
            hidden,
        )

    async def looks() -> int:
        asked.clear()
        await page.wait_for_timeout(3000)
        return len(asked)

    await show(hidden=True)
    await page.wait_for_timeout(500)
    assert await looks() == 0
    await show(hidden=False)
    assert await looks() >= 1
    await page.get_by_role("button", name="Pause updates").click()
    await page.wait_for_timeout(500)
    assert await looks() == 0
    await page.get_by_role("button", name="Go on").click()
    assert await looks() >= 1


async def test_a_lost_connection_is_told_and_found_again(new_tab: NewTab, alice: Caller) -> None:
    tab = await new_tab()
    page = await tab.sign_in(alice)
    await page.context.set_offline(True)
    await expect(page.locator("#live-state")).to_have_text("Not connected; trying again", timeout=PATIENCE)
    await page.context.set_offline(False)
    await expect(page.locator("#live-state")).to_have_text("Live", timeout=PATIENCE)
    # The console tells of it too, and that is right.
    assert all("Failed to fetch" in one or "DISCONNECTED" in one for one in tab.complaints)
    tab.complaints.clear()


async def test_a_page_ends_with_its_token(new_tab: NewTab, alice: Caller, new_caller: NewCaller) -> None:
    second = await new_caller("again", user_id=alice.user_id)
    tab = await new_tab()
    page = await tab.sign_in(second)
    token = (await second.get("/api/v1/me")).json()["token"]["id"]
    await alice.delete(f"/api/v1/tokens/{token}")
    await page.wait_for_url("**/console/sign-in**", timeout=PATIENCE)
    await expect(page.get_by_text("Your session is over")).to_be_visible()
    tab.complaints = [one for one in tab.complaints if "401" not in one]


async def test_all_of_it_works_without_scripts(new_tab: NewTab, bench: Bench, alice: Caller) -> None:
    id_ = await bench.enqueue(bench.kind(nothing), owner=alice.user_id)
    page = await (await new_tab(java_script_enabled=False)).sign_in(alice)
    await page.locator(f"#job-{id_}").get_by_role("link", name="Cancel").click()
    await page.get_by_role("button", name="Cancel the job").click()
    await expect(page.get_by_role("status")).to_have_text("The job is cancelled.")
    await page.get_by_role("link", name="Retry").click()
    await page.get_by_role("button", name="Try it again").click()
    assert (await bench.row(id_)).status == "queued"
    await page.get_by_role("link", name="Jobs").first.click()
    await page.get_by_label("Kind").fill("no.such")
    await page.get_by_role("button", name="Show").click()
    await expect(page.get_by_text("No such job.")).to_be_visible()
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("status")).to_have_text("You are signed out.")


async def test_a_link_on_another_site_leads_in_for_those_who_have_signed_in(
    new_tab: NewTab, alice: Caller
) -> None:
    tab = await new_tab()
    page = await tab.sign_in(alice)
    await page.goto(tab.url.replace("127.0.0.1", "localhost") + "/api/docs")
    await page.evaluate("address => { location.href = address }", tab.url + "/console/jobs?kind=x")
    await page.wait_for_url("**/console/jobs?kind=x")
    await expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()


# What is seen --------------------------------------------------------------------------------------------------

# Every text against what is painted behind it (WCAG 2.2 § 1.4.3), as [contrast, text, colours].
CONTRASTS = """
() => {
  const channel = (c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const colour = (text) => text.match(/[\\d.]+/g).map(Number);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const found = colour(getComputedStyle(at).backgroundColor);
      if (found.length === 3 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  const low = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.textContent.trim() || !element.checkVisibility()) continue;
    const [front, back] = [colour(getComputedStyle(element).color), behind(element)];
    const [high, dark] = [light(front), light(back)].sort((a, b) => b - a);
    const contrast = (high + 0.05) / (dark + 0.05);
    if (contrast < 4.5) low.push([contrast, node.textContent.trim(), front, back]);
  }
  return low;
}
"""
# What has no name for those who hear the page, and fields without a label.
NAMELESS = """
() => [...document.querySelectorAll("a, button, input:not([type=hidden]), select, progress, table, dialog")]
  .filter((one) => one.checkVisibility() && !one.closest("[aria-hidden]") && one.getAttribute("aria-hidden") === null)
  .filter((one) => !(one.textContent.trim() || one.getAttribute("aria-label") || one.labels?.length
      || one.getAttribute("aria-labelledby")))
  .map((one) => one.outerHTML)
"""
# Ids that are there twice, which confuse labels, focus and morphing.
TWICE = """
() => { const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
        return ids.filter((one, at) => ids.indexOf(one) !== at); }
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
async def test_the_pages_are_right_on_a_phone_and_a_desk_in_light_and_dark(
    new_tab: NewTab,
    bench: Bench,
    admin: Caller,
    alice: Caller,
    tmp_path: Path,
    width: int,
    scheme: str,
) -> None:
    steps = Steps()
    kind, bad = bench.kind(handler(steps)), bench.kind(broken, name=f"{bench.name}.broken")
    await bench.worker(kind, bad)
    await bench.enqueue(kind, owner=alice.user_id, delay=3600)
    running = await bench.enqueue(kind, owner=alice.user_id)
    dead = await bench.enqueue(bad, owner=alice.user_id)
    await bench.until(dead)
    steps.go(42, "x" * 150)
    await bench.until(running, lambda row: row.progress == 42)
    tab = await new_tab(viewport={"width": width, "height": 900}, color_scheme=scheme)
    await tab.page.goto(tab.url + "/console/sign-in")
    pages = {"sign-in": "/console/sign-in"}
    page = await tab.sign_in(admin, f"/console/jobs?queue={bench.name}")
    pages |= {
        "jobs": f"/console/jobs?queue={bench.name}",
        "job": f"/console/jobs/{dead}",
        "running": f"/console/jobs/{running}",
        "question": f"/console/jobs/queues/{bench.name}",
        "nothing": "/console/nothing",
    }
    for name, path in pages.items():
        await page.goto(tab.url + path)
        await page.screenshot(path=tmp_path / f"{name}-{width}-{scheme}.png", full_page=True)
        assert await page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert await page.evaluate(CONTRASTS) == [], name
        assert await page.evaluate(NAMELESS) == [], name
        assert await page.evaluate(TWICE) == [], name
        assert await page.locator("h1").count() == 1, name
    tab.complaints = [one for one in tab.complaints if "404" not in one]
