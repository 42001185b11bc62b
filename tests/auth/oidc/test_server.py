"""A real server that takes tokens of two providers: what works with an API token works with theirs."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from baatcheet.auth.bootstrap import ensure_admin
from baatcheet.platform.settings import Settings
from tests.auth.oidc.fake_provider import AUDIENCE, FakeProvider
from tests.conftest import ADMIN_TOKEN, Caller
from tests.running import ApiProcess


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeProvider]:
    with FakeProvider() as provider:
        yield provider


@pytest.fixture(scope="module")
def clerk() -> Iterator[FakeProvider]:
    with FakeProvider() as provider:
        yield provider


@pytest.fixture(scope="module")
def api(
    environment_of_server: Mapping[str, str],
    settings: Settings,
    fake: FakeProvider,
    clerk: FakeProvider,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ApiProcess]:
    ensure_admin(environment_of_server["DATABASE_URL"], settings.auth)
    environment = {
        **environment_of_server,
        "BAATCHEET_OIDC_ISSUER": fake.issuer,
        "BAATCHEET_OIDC_AUDIENCE": AUDIENCE,
        "BAATCHEET_OIDC_ROLE_CLAIM": "realm_access.roles",
        "BAATCHEET_OIDC_ADMIN_ROLES": "baatcheet-admin",
        "BAATCHEET_OIDC_PROVIDERS": json.dumps(
            [{"issuer": clerk.issuer, "authorized_parties": ["https://app.example.com"], "leeway": 0}]
        ),
    }
    process = ApiProcess(environment, log=tmp_path_factory.mktemp("oidc") / "api.log")
    process.start()
    try:
        yield process
    finally:
        process.kill()


@pytest_asyncio.fixture
async def zoya(api: ApiProcess, fake: FakeProvider) -> AsyncIterator[Caller]:
    async with Caller(api.url, fake.token(sub="zoya", name="Zoya")) as caller:
        yield caller


async def test_me_tells_of_the_identity(zoya: Caller, fake: FakeProvider) -> None:
    me = await zoya.get("/api/v1/me")
    assert me.status_code == 200, me.text
    said = me.json()
    assert said["user"]["name"] == "Zoya"
    assert said["token"] is None
    assert said["identity"]["issuer"] == fake.issuer
    assert said["identity"]["subject"] == "zoya"


async def test_me_with_an_api_token_has_no_identity(api: ApiProcess) -> None:
    async with Caller(api.url, ADMIN_TOKEN) as admin:
        said = (await admin.get("/api/v1/me")).json()
    assert said["identity"] is None
    assert said["token"]["name"]


async def test_both_surfaces_are_open(zoya: Caller) -> None:
    listed = await zoya.get("/v1/models")
    assert listed.status_code == 200
    model = listed.json()["data"][0]["id"]
    said = {"model": model, "messages": [{"role": "user", "content": "Salaam"}]}
    answer = await zoya.post("/v1/chat/completions", json=said)
    assert answer.status_code == 200, answer.text
    native = await zoya.post("/api/v1/chat/completions", json={"message": "Salaam", "stream": False})
    assert native.status_code == 200, native.text


async def test_what_is_made_belongs_to_the_user_and_is_made_once(
    zoya: Caller, api: ApiProcess, fake: FakeProvider
) -> None:
    key = {"idempotency-key": f"k-{time.time_ns()}"}
    first = await zoya.post("/api/v1/projects", json={"name": "Hunza"}, headers=key)
    assert first.status_code == 201, first.text
    async with Caller(api.url, fake.token(sub="zoya", jti="newer")) as renewed:
        again = await renewed.post("/api/v1/projects", json={"name": "Hunza"}, headers=key)
        assert again.headers["idempotent-replayed"] == "true"
        assert again.json()["id"] == first.json()["id"]
    async with Caller(api.url, fake.token(sub="bilal")) as other:
        assert (await other.get(first.headers["location"])).status_code == 404


async def test_an_api_token_can_be_made_and_outlives_the_providers(zoya: Caller, api: ApiProcess) -> None:
    made = await zoya.post("/api/v1/tokens", json={"name": "laptop"})
    assert made.status_code == 201, made.text
    async with Caller(api.url, made.json()["token"]) as ours:
        assert (await ours.get("/api/v1/me")).json()["user"] == (await zoya.get("/api/v1/me")).json()["user"]
    listed = (await zoya.get("/api/v1/tokens")).json()["data"]
    assert [one["name"] for one in listed][:1] == ["laptop"]


async def test_an_administrator_is_whom_the_provider_calls_one(api: ApiProcess, fake: FakeProvider) -> None:
    boss = fake.token(sub="boss", realm_access={"roles": ["baatcheet-admin"]})
    async with Caller(api.url, boss) as caller:
        assert (await caller.get("/api/v1/users")).status_code == 200
    async with Caller(api.url, fake.token(sub="clerk", realm_access={"roles": ["offline_access"]})) as caller:
        refused = await caller.get("/api/v1/users")
        assert refused.status_code == 403
        assert refused.json()["needs"] == "admin"


@pytest.mark.parametrize("path", ["/api/v1/me", "/v1/models", "/api/v1/events"])
async def test_refusals_have_the_surfaces_shape(api: ApiProcess, fake: FakeProvider, path: str) -> None:
    now = int(time.time())
    for token, code in (
        (fake.token(aud="theirs"), "unauthenticated"),
        (fake.token(iat=now - 900, exp=now - 600), "token-expired"),
        ("x." * 20_000, "unauthenticated"),
    ):
        async with Caller(api.url, token) as caller:
            refused = await caller.get(path)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Bearer ")
        said = refused.json()
        if path.startswith("/v1"):
            assert said["error"]["type"] == "authentication_error"
        else:
            assert said["type"] == code


async def test_an_outage_is_503_with_a_time_to_wait_on_both_surfaces(
    api: ApiProcess, clerk: FakeProvider
) -> None:
    fields: dict[str, Any] = {"aud": ..., "azp": "https://app.example.com", "sub": "c"}
    async with Caller(api.url, clerk.token(**fields)) as caller:
        assert (await caller.get("/api/v1/me")).status_code == 200
    clerk.add("second", clerk.private["first"][0], "EdDSA", publish=False)
    clerk.status = 500
    try:
        # Newer than whichever set is held: it can't be told to be a forgery.
        new = clerk.token("second", **fields, iat=int(time.time()))
        async with Caller(api.url, new) as caller:
            for path in ("/api/v1/me", "/v1/models"):
                away = await caller.get(path)
                assert away.status_code == 503, away.text
                assert int(away.headers["retry-after"]) >= 1
        async with Caller(api.url, clerk.token(jti="new", **fields)) as caller:
            assert (await caller.get("/api/v1/me")).status_code == 200
    finally:
        clerk.status = 200


async def test_the_console_is_not_opened_and_says_why(api: ApiProcess, fake: FakeProvider) -> None:
    async with httpx.AsyncClient(base_url=api.url, trust_env=False) as browser:
        answer = await browser.post(
            "/console/sign-in",
            data={"token": fake.token(sub="zoya")},
            headers={"origin": api.url, "sec-fetch-site": "same-origin"},
        )
    assert answer.status_code == 401, answer.text
    assert "API token" in answer.text
    assert "set-cookie" not in answer.headers


async def test_a_stream_of_events_ends_with_its_token(api: ApiProcess, clerk: FakeProvider) -> None:
    fields: dict[str, Any] = {"aud": ..., "azp": "https://app.example.com"}
    end = time.time() + 2
    short = clerk.token(sub="short", exp=end, **fields)
    async with (
        Caller(api.url, short) as caller,
        asyncio.timeout(20),
        caller.stream("GET", "/api/v1/events") as stream,
    ):
        assert stream.status_code == 200
        async for _ in stream.aiter_bytes():
            pass
    assert time.time() >= end


async def test_a_stream_of_events_ends_when_its_user_is_deactivated_and_not_before(
    api: ApiProcess, fake: FakeProvider
) -> None:
    async with (
        Caller(api.url, fake.token(sub="leaver")) as caller,
        Caller(api.url, ADMIN_TOKEN) as admin,
        asyncio.timeout(30),
    ):
        user = (await caller.get("/api/v1/me")).json()["user"]["id"]
        async with caller.stream("GET", "/api/v1/events") as stream:
            reading = asyncio.create_task(_read(stream))
            await asyncio.sleep(4)  # longer than two looks at it are apart
            assert not reading.done()
            changed = await admin.patch(f"/api/v1/users/{user}", json={"active": False})
            assert changed.status_code == 200
            deactivated = time.monotonic()
            await reading
            assert time.monotonic() - deactivated < 5
        assert (await caller.get("/api/v1/me")).status_code == 401


async def _read(stream: httpx.Response) -> None:
    async for _ in stream.aiter_bytes():
        pass


async def test_uses_are_written_down(zoya: Caller) -> None:
    async with asyncio.timeout(20):
        while (await zoya.get("/api/v1/me")).json()["identity"]["last_used_at"] is None:
            await asyncio.sleep(0.2)


async def test_nothing_of_a_token_is_in_the_log(api: ApiProcess, fake: FakeProvider) -> None:
    token = fake.token(sub="zoya", jti="secret")
    async with Caller(api.url, token) as caller:
        await caller.get("/api/v1/me")
    assert api.log is not None
    assert isinstance(api.log, Path)
    log = api.log.read_text()
    assert token.split(".")[2] not in log
    assert "background.died" not in log
