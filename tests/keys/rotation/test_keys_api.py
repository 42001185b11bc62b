"""`/api/v1/keys` and `/api/v1/audit`, as administrators use them: on the real routes, with a FAKE store behind."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from sqlalchemy import text

from baatcheet.auth.access import Door
from baatcheet.auth.models import User
from baatcheet.auth.principal import SCOPES, Principal
from baatcheet.auth.rate_limits import RateLimits
from baatcheet.auth.service import Authenticator, Tokens
from baatcheet.keys.audit import SYSTEM
from baatcheet.keys.endpoints import router
from baatcheet.keys.rotation.machine import Rotator
from baatcheet.keys.secret import SecretKey
from baatcheet.keys.service import Keys
from baatcheet.kit.ids import new_id
from baatcheet.platform import failures, openapi
from baatcheet.platform.cache import Cache
from baatcheet.platform.errors import Problem
from baatcheet.platform.settings import AuthSettings, CacheSettings
from tests.keys.rotation.conftest import Bench

SOON = (datetime.now(UTC) + timedelta(hours=1)).isoformat()


@pytest_asyncio.fixture
async def app(bench: Bench) -> FastAPI:
    made = FastAPI(generate_unique_id_function=openapi.operation_id)
    failures.install(made)
    made.include_router(router)
    made.add_middleware(Door)
    state = made.state
    state.database = bench.db
    state.authenticator = Authenticator(bench.db)
    state.rate_limits = RateLimits(AuthSettings(), Cache(CacheSettings()))
    state.keys = Keys(bench.db, bench.ring, bench.parts.probe, daily=lambda _: 100, rotating=lambda _: True)
    return made


async def caller(app: FastAPI, bench: Bench, role: str) -> httpx.AsyncClient:
    user = User(id=new_id(), name=f"a {role}", role=role)
    who = Principal(user.id, new_id(), role, frozenset(SCOPES), user.name)
    scopes = ["read", "write", "admin"] if role == "admin" else ["read", "write"]
    async with bench.db.system() as session:
        session.add(user)
        await session.flush()
        _, token = await Tokens(bench.db, app.state.authenticator).create(
            session, who, name="t", scopes=scopes, expires_at=None, user_id=user.id
        )
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app, client=("203.0.113.7", 1)),
        base_url="http://test",
        headers={"authorization": f"Bearer {token}"},
    )


@pytest_asyncio.fixture
async def root(app: FastAPI, bench: Bench) -> AsyncIterator[httpx.AsyncClient]:
    async with await caller(app, bench, "admin") as made:
        yield made


async def test_keys_are_listed_with_how_they_fare_and_never_in_full(
    bench: Bench, root: httpx.AsyncClient
) -> None:
    old = await bench.has(5)
    async with bench.db.system() as session:
        await session.execute(
            text(
                "INSERT INTO key_usage (key_id, day, requests, tokens, errors) "
                "VALUES (:id, (now() AT TIME ZONE 'utc')::date, 30, 700, 2)"
            ),
            {"id": bench.id(old[0])},
        )
        await session.execute(
            text("UPDATE provider_keys SET added_at = now() - interval '100 days' WHERE id = :id"),
            {"id": bench.id(old[0])},
        )
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        query: dict[str, Any] = {"provider": bench.provider, "limit": 2} | (
            {"cursor": cursor} if cursor else {}
        )
        answer = await root.get("/api/v1/keys", params=query)
        assert answer.status_code == 200, answer.text
        assert not any(key in answer.text for key in old)
        found += answer.json()["data"]
        if (cursor := answer.json()["next_cursor"]) is None:
            break
    assert {one["id"] for one in found} == {bench.id(key) for key in old}
    oldest = found[0]
    assert (oldest["id"], oldest["hint"], oldest["state"]) == (
        bench.id(old[0]),
        SecretKey(old[0]).hint,
        "active",
    )
    assert (oldest["requests_today"], oldest["tokens_today"], oldest["errors_today"]) == (30, 700, 2)
    assert (oldest["requests_left"], oldest["age_days"], oldest["too_old"]) == (70, 100, True)
    assert found[1]["too_old"] is False
    assert (await root.get("/api/v1/keys", params={"cursor": "x"})).status_code == 400


async def test_a_key_rests_is_quarantined_and_restored_and_each_is_audited_with_where_from(
    bench: Bench, root: httpx.AsyncClient
) -> None:
    key = bench.id((await bench.has(1))[0])
    where = f"/api/v1/keys/{key}"
    rested = await root.post(f"{where}/rest", json={"until": SOON, "reason": "a little rest"})
    assert (rested.json()["state"], rested.json()["reason"]) == ("resting", "a little rest")
    quarantined = await root.post(f"{where}/quarantine", json={"reason": "seen in a log"})
    assert (quarantined.json()["state"], quarantined.json()["reason"]) == ("quarantined", "seen in a log")
    again = await root.post(f"{where}/rest", json={"until": SOON})
    assert (again.status_code, again.json()["type"]) == (409, "key-quarantined")
    restored = await root.post(f"{where}/restore")
    assert (restored.json()["state"], restored.json()["reason"]) == ("active", None)
    assert (await root.get(where)).json() == restored.json()
    entries = (await root.get("/api/v1/audit", params={"subject": f"{bench.provider}/{key}"})).json()["data"]
    assert [one["action"] for one in entries] == ["key.restored", "key.quarantined", "key.rested"]
    assert {(one["actor"], one["via"], one["address"]) for one in entries} == {
        ("a admin", "api", "203.0.113.7")
    }
    one = (await root.get("/api/v1/audit", params={"action": "key.rested", "limit": 1})).json()
    assert [entry["action"] for entry in one["data"]] == ["key.rested"]


async def test_others_processes_are_told_of_it(bench: Bench, root: httpx.AsyncClient) -> None:
    key = bench.id((await bench.has(1))[0])
    async with bench.db.system() as session:
        before = await session.scalar(text("SELECT states FROM key_changes"))
    await root.post(f"/api/v1/keys/{key}/quarantine", json={})
    async with bench.db.system() as session:
        assert await session.scalar(text("SELECT states FROM key_changes")) > before


async def test_a_key_is_checked_by_asking_its_provider(bench: Bench, root: httpx.AsyncClient) -> None:
    good, bad = await bench.has(2)
    del bench.fake.keys[next(one.at for one in bench.fake.keys.values() if one.key == bad)]
    answers = [(await root.post(f"/api/v1/keys/{bench.id(key)}/check")).json() for key in (good, bad)]
    assert [one["verdict"] for one in answers] == ["good", "refused"]
    assert answers[1]["words"] == "status 401"
    bench.store.away = True
    away = await root.post(f"/api/v1/keys/{bench.id(good)}/check")
    assert (away.status_code, away.json()["type"]) == (503, "store-failed")


@pytest.mark.parametrize(
    ("path", "body", "status", "type_"),
    [
        ("rest", {"until": "2020-01-01T00:00:00Z"}, 422, "invalid"),
        ("rest", {"until": "2999-01-01T00:00:00Z"}, 422, "invalid"),
        ("rest", {}, 422, "invalid"),
        ("quarantine", {"reason": "x" * 301}, 422, "invalid"),
        ("quarantine", {"key": "gsk_1"}, 422, "invalid"),
    ],
)
async def test_what_can_not_be_done_is_said(
    bench: Bench, root: httpx.AsyncClient, path: str, body: Any, status: int, type_: str
) -> None:
    key = bench.id((await bench.has(1))[0])
    answer = await root.post(f"/api/v1/keys/{key}/{path}", json=body)
    assert (answer.status_code, answer.json()["type"]) == (status, type_)
    for unknown in ("0" * 32, "x", str(UUID(int=1))):
        assert (await root.get(f"/api/v1/keys/{unknown}")).status_code == 404


async def test_a_key_that_is_in_no_store_any_more_is_history(bench: Bench, root: httpx.AsyncClient) -> None:
    key = bench.id((await bench.has(1))[0])
    async with bench.db.system() as session:
        await session.execute(
            text("UPDATE provider_keys SET state = 'retired', retired_at = now() WHERE id = :id"), {"id": key}
        )
    for path, body in (("rest", {"until": SOON}), ("quarantine", {}), ("restore", None), ("check", None)):
        answer = await root.post(f"/api/v1/keys/{key}/{path}", json=body)
        assert (answer.status_code, answer.json()["type"]) == (409, "key-retired")
    listed = {"provider": bench.provider}
    assert (await root.get("/api/v1/keys", params=listed)).json()["data"] == []
    assert len((await root.get("/api/v1/keys", params=listed | {"retired": "true"})).json()["data"]) == 1


async def test_a_rotation_is_begun_once_and_followed(bench: Bench, root: httpx.AsyncClient) -> None:
    old = await bench.has(2)
    bench.makes()
    body = {"provider": bench.provider, "reason": "it leaked"}
    begun = await root.post("/api/v1/keys/rotations", json=body, headers={"idempotency-key": "k1"})
    assert begun.status_code == 202, begun.text
    where = begun.headers["location"]
    assert (begun.json()["step"], begun.json()["outcome"], begun.json()["reason"]) == (
        "stage",
        None,
        "it leaked",
    )
    same = await root.post("/api/v1/keys/rotations", json=body, headers={"idempotency-key": "k1"})
    assert same.json() == begun.json()
    second = await root.post("/api/v1/keys/rotations", json=body)
    assert (second.status_code, second.json()["type"]) == (409, "rotation-running")
    with pytest.raises(Problem, match="under way"):
        await bench.keys.stage(SYSTEM, bench.provider, [SecretKey("gsk_new")])
    await Rotator(bench.parts).run(UUID(begun.json()["id"]))
    ended = (await root.get(where)).json()
    assert (ended["outcome"], ended["source"], ended["error"]) == ("rotated", "provisioner", None)
    assert ended["replaced"] == ended["revoked"] == [SecretKey(key).hint for key in old]
    assert len(ended["new"]) == 2
    listed = await root.get("/api/v1/keys/rotations", params={"provider": bench.provider})
    assert listed.json()["data"] == [ended]
    assert not any(key in listed.text for key in (*old, *await bench.set_of()))
    assert (await root.get(f"/api/v1/keys/rotations/{UUID(int=1)}")).status_code == 404


async def test_a_rotation_that_can_not_begin_is_refused_at_once(
    bench: Bench, root: httpx.AsyncClient
) -> None:
    await bench.has(1)

    async def begin(**body: str) -> tuple[int, str]:
        answer = await root.post("/api/v1/keys/rotations", json={"provider": bench.provider} | body)
        return answer.status_code, answer.json()["type"]

    assert await begin(key_id="0" * 32) == (404, "key-not-found")
    assert await begin(provider="no/one") == (422, "invalid")
    bench.store.writable = False
    assert await begin() == (409, "store-read-only")
    bench.ring._empty = [bench.provider]
    assert await begin() == (404, "no-keys")


async def test_staged_keys_wait_in_the_store_and_are_in_no_row(bench: Bench) -> None:
    await bench.has(1)
    new = bench.fake.sell(2)
    keys = [SecretKey(key) for key in (*new, new[0])]
    assert await bench.keys.stage(SYSTEM, bench.provider, keys) == 2
    assert await bench.set_of("pending") == new
    assert await bench.audited() == ["keys.staged"]
    with pytest.raises(Problem, match="1 to 500"):
        await bench.keys.stage(SYSTEM, bench.provider, [])


async def test_nobody_but_an_administrator_comes_in(app: FastAPI, bench: Bench) -> None:
    paths = [
        (method, route.path.format(key_id="0" * 32, rotation_id=UUID(int=1)))  # type: ignore[attr-defined]
        for route in router.routes
        for method in route.methods  # type: ignore[attr-defined]
    ]
    assert len(paths) == 11
    async with await caller(app, bench, "user") as alice:
        for method, path in paths:
            assert (await alice.request(method, path, json={})).status_code == 403, path
        for method, path in paths:
            answer = await alice.request(method, path, headers={"authorization": ""})
            assert answer.status_code == 401, path
