"""A creation that is asked for twice happens once."""

import asyncio
import secrets
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from baatcheet.auth.idempotency import forget_old
from baatcheet.platform.database import Database
from tests.conftest import Caller


def key() -> dict[str, str]:
    return {"idempotency-key": secrets.token_hex(8)}


async def count(caller: Caller, path: str) -> int:
    return len((await caller.get(path, params={"limit": 200})).json()["data"])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/v1/conversations", {"title": "once"}),
        ("/api/v1/projects", {"name": "once"}),
    ],
)
async def test_a_repeated_creation_is_answered_with_the_first_ones_answer(
    alice: Caller, path: str, body: dict[str, Any]
) -> None:
    headers = key()
    first = await alice.post(path, json=body, headers=headers)
    again = await alice.post(path, json=body, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert await count(alice, path) == 1


async def test_a_repeated_message_is_added_once(alice: Caller) -> None:
    conversation = (await alice.post("/api/v1/conversations", json={})).json()
    path, headers = f"/api/v1/conversations/{conversation['id']}/messages", key()
    body = {"role": "user", "content": "once"}
    first, again = [await alice.post(path, json=body, headers=headers) for _ in range(2)]
    assert again.content == first.content
    assert await count(alice, path) == 1


async def test_a_repeated_user_is_added_once(admin: Caller) -> None:
    headers, body = key(), {"name": "once", "email": f"{secrets.token_hex(6)}@example.com"}
    first, again = [await admin.post("/api/v1/users", json=body, headers=headers) for _ in range(2)]
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content


async def test_a_repeated_token_is_not_shown_again(alice: Caller, database: Database) -> None:
    headers = key()
    first, again = [
        await alice.post("/api/v1/tokens", json={"name": "once"}, headers=headers) for _ in range(2)
    ]
    assert again.status_code == 201
    assert again.json() == first.json() | {"token": None}
    async with database.system() as session:
        kept = await session.scalar(
            text("SELECT body::text FROM idempotency_keys WHERE key = :key"),
            {"key": headers["idempotency-key"]},
        )
    assert first.json()["token"] not in kept


async def test_a_key_is_not_for_another_body_or_another_route(alice: Caller) -> None:
    headers = key()
    await alice.post("/api/v1/projects", json={"name": "one"}, headers=headers)
    for path, body in (
        ("/api/v1/projects", {"name": "two"}),
        ("/api/v1/projects", {"name": "one", "description": ""}),
        ("/api/v1/tokens", {"name": "one"}),
    ):
        refused = await alice.post(path, json=body, headers=headers)
        assert refused.status_code == 422
        assert refused.json()["type"] == "idempotency-key-reused"
    assert await count(alice, "/api/v1/projects") == 1


async def test_a_key_is_its_users_own(alice: Caller, bob: Caller) -> None:
    headers = key()
    made = [await who.post("/api/v1/projects", json={"name": "x"}, headers=headers) for who in (alice, bob)]
    assert [one.status_code for one in made] == [201, 201]
    assert made[0].json()["id"] != made[1].json()["id"]


async def test_of_many_at_once_one_creates_and_all_get_its_answer(alice: Caller) -> None:
    headers = key()
    answers: list[httpx.Response] = await asyncio.gather(
        *(alice.post("/api/v1/projects", json={"name": "race"}, headers=headers) for _ in range(12))
    )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert await count(alice, "/api/v1/projects") == 1


async def test_a_creation_that_failed_leaves_its_key_free(alice: Caller) -> None:
    headers = key()
    path = "/api/v1/conversations"
    missing = {"project_id": "0190f3a2-7c1e-7d4b-9a51-3f0c2b8e6d10"}
    assert (await alice.post(path, json=missing, headers=headers)).status_code == 404
    assert (await alice.post(path, json={"title": "x"}, headers=headers)).status_code == 201


@pytest.mark.parametrize("bad", ["", "x" * 256, "two words", b"\xd8\xa8\xd8\xa7\xd8\xaa"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/v1/projects", {"name": "x"}),
        ("/api/v1/projects", {"name": 5}),
        ("/api/v1/chat/completions", {"message": "x"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
    ],
)
async def test_a_key_that_is_no_key_is_refused_in_the_same_words_everywhere(
    alice: Caller, bad: str | bytes, path: str, body: dict[str, Any]
) -> None:
    value = bad if isinstance(bad, bytes) else bad.encode()
    refused = await alice.post(path, json=body, headers={b"idempotency-key": value})
    assert refused.status_code == 400, refused.text
    told = refused.json()
    said = told.get("error", told)
    assert said["param"] == "Idempotency-Key"
    assert (said["message"] if "error" in told else said["detail"]) == (
        "Idempotency-Key must be 1 to 255 visible ASCII characters."
    )
    assert told.get("type") in {"bad-request", None}
    for made in ("/api/v1/projects", "/api/v1/turns"):
        assert await count(alice, made) == 0


async def test_a_key_is_free_again_after_a_day(alice: Caller, database: Database) -> None:
    headers = key()
    first = await alice.post("/api/v1/projects", json={"name": "old"}, headers=headers)
    async with database.system() as session:
        await session.execute(
            text("UPDATE idempotency_keys SET created_at = now() - interval '25 hours' WHERE key = :key"),
            {"key": headers["idempotency-key"]},
        )
    other = await alice.post("/api/v1/projects", json={"name": "new"}, headers=headers)
    assert other.status_code == 201
    assert other.json()["id"] != first.json()["id"]
    again = await alice.post("/api/v1/projects", json={"name": "new"}, headers=headers)
    assert again.content == other.content


async def test_old_keys_are_deleted(alice: Caller, database: Database) -> None:
    old, new = key(), key()
    for headers in (old, new):
        await alice.post("/api/v1/projects", json={"name": "x"}, headers=headers)
    async with database.system() as session:
        await session.execute(
            text("UPDATE idempotency_keys SET created_at = now() - interval '25 hours' WHERE key = :key"),
            {"key": old["idempotency-key"]},
        )
    assert await forget_old(database) >= 1
    async with database.system() as session:
        kept = await session.scalars(
            text("SELECT key FROM idempotency_keys WHERE user_id = :user"), {"user": alice.user_id}
        )
        assert kept.all() == [new["idempotency-key"]]
