"""Coming in and going out."""

import asyncio
import time
from http.cookies import SimpleCookie

import pytest
from sqlalchemy import text

from baatcheet.auth.rate_limits import FailureLimit, RateLimits
from baatcheet.console.frame import COOKIE
from baatcheet.console.sessions import MOST_OF_A_TOKEN
from baatcheet.platform.database import Database
from baatcheet.platform.errors import Unauthenticated
from baatcheet.platform.settings import AuthSettings
from tests.conftest import Caller, NewCaller
from tests.console.conftest import NewPerson, Person, console_for


async def test_a_token_opens_the_console_where_one_was_going(stranger: Person, alice: Caller) -> None:
    turned_away = await stranger.get("/console/jobs?status=dead")
    assert turned_away.status_code == 303
    assert turned_away.headers["location"] == "/console/sign-in?next=%2Fconsole%2Fjobs%3Fstatus%3Ddead"
    form = await stranger.get(turned_away.headers["location"])
    assert 'name="next" value="/console/jobs?status=dead"' in form.text
    assert alice.token is not None
    answer = await stranger.sign_in(alice.token, next="/console/jobs?status=dead")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/jobs?status=dead")
    assert (await stranger.get("/console/jobs?status=dead")).status_code == 200


async def test_the_cookie_is_for_the_console_alone_and_holds_no_token(
    stranger: Person, alice: Caller
) -> None:
    assert alice.token is not None
    answer = await stranger.sign_in(alice.token)
    cookie = SimpleCookie(answer.headers["set-cookie"])[COOKIE]
    assert cookie["httponly"] is True
    assert (cookie["samesite"], cookie["path"], cookie["secure"]) == ("strict", "/console", "")
    assert alice.token not in answer.headers["set-cookie"]
    assert len(cookie.value) == 43


async def test_behind_https_the_cookie_travels_by_https_only(stranger: Person, alice: Caller) -> None:
    assert alice.token is not None
    host = stranger.base_url.netloc.decode()
    headers = {"origin": f"https://{host}"}
    answer = await stranger.post("/console/sign-in", data={"token": alice.token}, headers=headers)
    assert SimpleCookie(answer.headers["set-cookie"])[COOKIE]["secure"] is True


async def test_a_database_holds_the_sessions_hash_only(
    signed_in: NewPerson, alice: Caller, database: Database
) -> None:
    person = await signed_in(alice)
    assert person.session is not None
    async with database.system() as session:
        rows = (
            (await session.execute(text("SELECT to_jsonb(s)::text FROM console_sessions s"))).scalars().all()
        )
    assert rows
    assert all(person.session not in row for row in rows)


@pytest.mark.parametrize("token", ["", "bc_nobody", "with blank", "ü", "x" * 600])
async def test_a_wrong_token_is_refused_in_words(stranger: Person, token: str) -> None:
    answer = await stranger.sign_in(token)
    assert answer.status_code == 401
    assert 'role="alert"' in answer.text
    assert stranger.session is None


@pytest.mark.parametrize(
    "next_",
    [
        "https://evil.example/",
        "//evil.example/",
        "/console/..//evil.example",
        "/\\evil.example",
        "/api/v1/me",
        "x",
    ],
)
async def test_nobody_is_sent_elsewhere_after_signing_in(stranger: Person, alice: Caller, next_: str) -> None:
    assert alice.token is not None
    answer = await stranger.sign_in(alice.token, next=next_)
    assert answer.headers["location"] == "/console/jobs"


async def test_signing_out_ends_the_session_everywhere(signed_in: NewPerson, alice: Caller) -> None:
    person = await signed_in(alice)
    name = person.session
    answer = await person.submit("/console/sign-out")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/sign-in?said=signed-out")
    assert person.session is None
    person.cookies.set(COOKIE, name or "", path="/console")
    assert (await person.get("/console/jobs")).status_code == 303


async def test_a_session_ends_within_five_seconds_of_its_token(
    signed_in: NewPerson, alice: Caller, new_caller: NewCaller
) -> None:
    second = await new_caller("again", user_id=alice.user_id)
    person = await signed_in(second)
    assert (await person.get("/console/jobs")).status_code == 200
    token = (await second.get("/api/v1/me")).json()["token"]["id"]
    await alice.delete(f"/api/v1/tokens/{token}")
    since = time.monotonic()
    while (await person.get("/console/jobs")).status_code == 200:
        assert time.monotonic() - since < 5
        await asyncio.sleep(0.1)
    told = await person.get("/console/jobs")
    assert told.headers["location"].endswith("over=1")
    assert "session is over" in (await person.get(told.headers["location"])).text


async def test_a_session_ends_with_its_user(signed_in: NewPerson, alice: Caller, admin: Caller) -> None:
    person = await signed_in(alice)
    await admin.patch(f"/api/v1/users/{alice.user_id}", json={"active": False})
    assert (await person.get("/console/jobs")).status_code == 303


async def test_a_script_is_told_to_sign_in_rather_than_given_a_page(stranger: Person) -> None:
    answer = await stranger.get("/console/jobs", headers={"hx-request": "true"})
    assert (answer.status_code, answer.text) == (401, "")
    assert answer.headers["hx-redirect"].startswith("/console/sign-in")


async def test_who_has_signed_in_needs_no_form(signed_in: NewPerson, alice: Caller) -> None:
    person = await signed_in(alice)
    answer = await person.get("/console/sign-in?next=/console/jobs?kind=x")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/jobs?kind=x")


async def test_a_token_that_may_not_read_sees_no_jobs(
    signed_in: NewPerson, alice: Caller, new_caller: NewCaller
) -> None:
    person = await signed_in(await new_caller("chat", scopes=["chat"], user_id=alice.user_id))
    answer = await person.get("/console/jobs")
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "needs the scope" in answer.text


async def test_too_many_wrong_tokens_are_answered_429_and_a_right_one_passes(
    database: Database, alice: Caller
) -> None:
    async with console_for(database, address="192.0.2.1") as (browser, app):
        app.state.console_guesses = FailureLimit(app.state.cache, limit=20)
        codes = [
            (await browser.post("/console/sign-in", data={"token": f"bc_{n}"})).status_code for n in range(25)
        ]
        assert codes == [401] * 20 + [429] * 5
        answer = await browser.post("/console/sign-in", data={"token": alice.token})
        assert answer.status_code == 303


async def test_signing_in_counts_as_a_request_of_the_token(database: Database, alice: Caller) -> None:
    async with console_for(database) as (browser, app):
        app.state.rate_limits = RateLimits(AuthSettings(requests_per_minute=3), app.state.cache)
        answers = [await browser.post("/console/sign-in", data={"token": alice.token}) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [303] * 3 + [429] * 2
        assert int(answers[-1].headers["retry-after"]) > 0
        assert "3 requests a minute" in answers[-1].text
        assert "set-cookie" not in answers[-1].headers


async def test_a_token_has_so_many_sessions_and_the_oldest_go(
    database: Database, alice: Caller, bob: Caller
) -> None:
    assert alice.token is not None
    assert bob.token is not None
    async with console_for(database) as (_, app):
        sessions, limits = app.state.console_sessions, app.state.rate_limits
        his, _ = await sessions.begin(bob.token, limits)
        hers = [(await sessions.begin(alice.token, limits))[0] for _ in range(MOST_OF_A_TOKEN + 2)]
        for name in hers[:2]:
            with pytest.raises(Unauthenticated):
                await sessions.visitor(name, active=True)
        for name in (*hers[2:4], hers[-1], his):
            await sessions.visitor(name, active=True)
        count = text("SELECT count(*) FROM console_sessions WHERE token_id = :token")
        who = (await sessions.visitor(hers[-1], active=True)).who
        async with database.system() as session:
            assert await session.scalar(count, {"token": who.token_id}) == MOST_OF_A_TOKEN


async def test_a_session_that_is_left_alone_is_over(database: Database, alice: Caller) -> None:
    async with console_for(database, idle=1) as (browser, app):
        answer = await browser.post("/console/sign-in", data={"token": alice.token})
        name = answer.cookies[COOKIE]
        sessions = app.state.console_sessions
        assert (await sessions.visitor(name, active=True)).who.user_id == alice.user_id
        async with database.system() as session:
            old = (
                "UPDATE console_sessions SET used_at = now() - interval '61 minutes' WHERE token_id = :token"
            )
            who = (await sessions.visitor(name, active=True)).who
            await session.execute(text(old), {"token": who.token_id})
        sessions._known.clear()
        assert (await browser.get("/console/jobs")).status_code == 303


async def test_keeping_a_page_up_to_date_is_no_use_of_a_session(database: Database, alice: Caller) -> None:
    async with console_for(database) as (browser, app):
        answer = await browser.post("/console/sign-in", data={"token": alice.token})
        sessions = app.state.console_sessions
        used = text("SELECT used_at FROM console_sessions WHERE hash = sha256(:name)")
        name = answer.cookies[COOKIE]

        async def last_used() -> object:
            async with database.system() as session:
                return await session.scalar(used, {"name": name.encode()})

        first = await last_used()
        await sessions.visitor(name, active=False)
        assert await last_used() == first
        await sessions.visitor(name, active=True)
        assert await last_used() != first
