"""What stands around every page: headers, files, forms, errors."""

import gzip
import re
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from baatcheet.console.frame import COOKIE
from baatcheet.console.pages import POLICY
from baatcheet.platform.database import Database
from baatcheet.platform.settings import DatabaseSettings
from tests.conftest import Caller
from tests.console.conftest import Bench, NewPerson, Person, console_for
from tests.jobs.conftest import nothing

INLINE = re.compile(r"<script(?![^>]* src=)|<style|\son[a-z]+=|\sstyle=|javascript:", re.IGNORECASE)


async def test_a_page_allows_nothing_but_our_own_files(signed_in: NewPerson, alice: Caller) -> None:
    person = await signed_in(alice)
    for path in ("/console/jobs", "/console/sign-in", "/console/nothing"):
        page = await person.get(path, follow_redirects=True)
        assert page.headers["content-security-policy"] == POLICY
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["x-frame-options"] == "DENY"
        assert page.headers["cache-control"] == "no-store"
        assert INLINE.findall(page.text) == []


async def test_files_are_named_by_their_content_and_kept_for_long(stranger: Person) -> None:
    page = await stranger.get("/console/sign-in")
    files = re.findall(r'(?:src|href)="(/console/static/[^"]+)"', page.text)
    assert {Path(file).suffix for file in files} == {".css", ".js", ".svg"}
    for file in files:
        plain = await stranger.get(file, headers={"accept-encoding": "identity"})
        assert plain.status_code == 200
        assert plain.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert plain.headers["vary"] == "accept-encoding"
        async with stranger.stream("GET", file, headers={"accept-encoding": "gzip"}) as packed:
            raw = b"".join([part async for part in packed.aiter_raw()])
        assert packed.headers["content-encoding"] == "gzip"
        assert gzip.decompress(raw) == plain.content


@pytest.mark.parametrize("name", ["console.css", "..%2fsessions.py", "htmx.min.0000000000000000.js"])
async def test_no_other_file_is_served(stranger: Person, name: str) -> None:
    assert (await stranger.get(f"/console/static/{name}")).status_code in {303, 404}


async def test_the_vendored_script_is_the_one_that_its_note_names() -> None:
    static = Path(__file__).parents[2] / "src/baatcheet/console/static"
    assert "4.0.1" in (static / "htmx.min.js").read_text()
    assert "Zero-Clause BSD" in (static / "htmx.LICENSE.txt").read_text()


async def test_a_form_without_its_word_does_nothing(
    bench: Bench, signed_in: NewPerson, alice: Caller
) -> None:
    id_ = await bench.enqueue(bench.kind(nothing), owner=alice.user_id)
    person = await signed_in(alice)
    for fields in ({}, {"csrf": ""}, {"csrf": "x" * 43}):
        refused = await person.post(f"/console/jobs/{id_}/cancel", data=fields)
        assert refused.status_code == 403
        assert "out of date" in refused.text
    assert (await bench.row(id_)).status == "queued"


async def test_another_sessions_word_is_not_taken(
    bench: Bench, signed_in: NewPerson, alice: Caller, bob: Caller
) -> None:
    id_ = await bench.enqueue(bench.kind(nothing), owner=alice.user_id)
    person, other = await signed_in(alice), await signed_in(bob)
    refused = await person.post(f"/console/jobs/{id_}/cancel", data={"csrf": await other.csrf()})
    assert refused.status_code == 403
    assert (await bench.row(id_)).status == "queued"


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {},
    ],
)
async def test_a_form_from_elsewhere_does_nothing(
    bench: Bench, signed_in: NewPerson, alice: Caller, headers: Mapping[str, str]
) -> None:
    id_ = await bench.enqueue(bench.kind(nothing), owner=alice.user_id)
    person = await signed_in(alice)
    word = await person.csrf()
    del person.headers["sec-fetch-site"]
    refused = await person.post(f"/console/jobs/{id_}/cancel", data={"csrf": word}, headers=headers)
    assert refused.status_code == 403
    assert (await bench.row(id_)).status == "queued"
    assert (
        await person.post("/console/sign-in", data={"token": alice.token}, headers=headers)
    ).status_code == 403


async def test_a_browser_that_names_its_origin_only_is_believed(
    bench: Bench, signed_in: NewPerson, alice: Caller
) -> None:
    id_ = await bench.enqueue(bench.kind(nothing), owner=alice.user_id)
    person = await signed_in(alice)
    word = await person.csrf()
    del person.headers["sec-fetch-site"]
    origin = str(person.base_url).rstrip("/")
    answer = await person.post(f"/console/jobs/{id_}/cancel", data={"csrf": word}, headers={"origin": origin})
    assert answer.status_code == 303
    assert (await bench.row(id_)).status == "cancelled"


async def test_a_form_may_not_be_large(stranger: Person) -> None:
    refused = await stranger.post("/console/sign-in", data={"token": "x" * 20_000})
    assert refused.status_code == 413
    many = await stranger.post("/console/sign-in", content="&".join(f"a{n}=" for n in range(50)))
    assert many.status_code == 400
    odd = await stranger.post("/console/sign-in", content=b"token=\xff")
    assert odd.status_code == 400


@pytest.mark.parametrize(
    "path",
    [
        "/console/nothing",
        "/console/jobs/not-an-id",
        "/console/jobs/0190f3a2-7c1e-7d4b-9a51-3f0c2b8e6d10",
        "/console/jobs/0190f3a2-7c1e-7d4b-9a51-3f0c2b8e6d10/cancel",
        "/console/jobs/0190f3a2-7c1e-7d4b-9a51-3f0c2b8e6d10/result",
        "/console/jobs?kind=" + "x" * 200,
    ],
)
async def test_what_is_not_there_is_a_page(signed_in: NewPerson, alice: Caller, path: str) -> None:
    person = await signed_in(alice)
    answer = await person.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "To the console" in answer.text


@pytest.mark.parametrize(
    "path", ["/console/jobs?cursor=x", "/console/jobs?kind=%00", "/console/jobs?status=odd"]
)
async def test_an_odd_address_is_no_fault_of_ours(signed_in: NewPerson, alice: Caller, path: str) -> None:
    assert (await (await signed_in(alice)).get(path)).status_code in {200, 400}


async def test_the_door_leads_to_the_jobs(signed_in: NewPerson, alice: Caller) -> None:
    person = await signed_in(alice)
    for path in ("/console", "/console/"):
        assert (await person.get(path)).headers["location"] == "/console/jobs"


async def test_the_console_is_not_in_the_api_document(client: httpx.AsyncClient) -> None:
    assert "/console" not in (await client.get("/api/openapi.json")).text


async def test_a_database_that_is_away_is_a_page_that_tries_again() -> None:
    address = SecretStr("postgresql://nobody:nothing@127.0.0.1:1/nothing")
    settings = DatabaseSettings(url=address, checkout_timeout=0.3)
    away = Database(settings, pool_size=1)
    async with console_for(away) as (browser, _):
        for answer in (
            await browser.post("/console/sign-in", data={"token": "bc_somebody"}),
            await browser.get("/console/jobs", headers={"cookie": f"{COOKIE}=abc"}),
        ):
            assert answer.status_code == 503
            assert answer.headers["content-type"] == "text/html; charset=utf-8"
            assert int(answer.headers["retry-after"]) > 0
            assert "Traceback" not in answer.text
        assert '<meta http-equiv="refresh"' in answer.text
    await away.close()


async def test_a_fault_of_ours_is_a_page_without_its_insides(database: Database, alice: Caller) -> None:
    async with console_for(database) as (browser, app):
        await browser.post("/console/sign-in", data={"token": alice.token})
        app.state.console_jobs = None
        answer = await browser.get("/console/jobs")
        assert answer.status_code == 500
        assert "It has been logged." in answer.text
        assert "NoneType" not in answer.text
