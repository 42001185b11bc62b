"""Tokens: made, shown once, refused when they are no good."""

import asyncio
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import text

from baatcheet.auth.secrets import token_hash
from baatcheet.platform.database import Database
from tests.conftest import Caller, NewCaller, RunningServer


async def use(server: RunningServer, token: str) -> httpx.Response:
    async with Caller(server.url, token) as caller:
        return await caller.get("/api/v1/me")


async def test_a_token_is_shown_once_and_kept_only_as_its_hash(alice: Caller, database: Database) -> None:
    made = await alice.post("/api/v1/tokens", json={"name": "laptop"})
    assert made.status_code == 201
    token = made.json()["token"]
    assert token.startswith("bc_")
    assert len(token) == 46
    assert made.json()["prefix"] == token[:10]
    assert made.headers["location"] == f"/api/v1/tokens/{made.json()['id']}"
    shown = await alice.get(made.headers["location"])
    assert "token" not in shown.json()
    async with database.system() as session:
        row = (
            await session.execute(
                text("SELECT to_jsonb(t)::text AS kept, hash FROM api_tokens t WHERE id = :id"),
                {"id": made.json()["id"]},
            )
        ).one()
    assert token not in row.kept
    assert row.hash == token_hash(token)


async def test_a_token_has_what_its_user_may_do_unless_told_otherwise(alice: Caller, admin: Caller) -> None:
    assert (await alice.get("/api/v1/me")).json()["token"]["scopes"] == ["read", "write", "chat"]
    assert (await admin.get("/api/v1/me")).json()["token"]["scopes"] == ["read", "write", "chat", "admin"]


async def test_a_token_cannot_be_given_more_than_its_maker_has(alice: Caller, new_caller: NewCaller) -> None:
    assert (await alice.post("/api/v1/tokens", json={"name": "x", "scopes": ["admin"]})).status_code == 403
    writer = await new_caller("writer", scopes=["write"])
    assert (await writer.post("/api/v1/tokens", json={"name": "x", "scopes": ["read"]})).status_code == 403
    assert (await writer.post("/api/v1/tokens", json={"name": "x"})).json()["scopes"] == ["write"]


async def test_a_user_cannot_be_given_an_administrators_token(admin: Caller, alice: Caller) -> None:
    body = {"name": "x", "user_id": str(alice.user_id), "scopes": ["admin"]}
    refused = await admin.post("/api/v1/tokens", json=body)
    assert refused.status_code == 422
    assert refused.json()["param"] == "scopes"


async def test_a_read_only_token_cannot_make_tokens(new_caller: NewCaller) -> None:
    reader = await new_caller("reader", scopes=["read"])
    refused = await reader.post("/api/v1/tokens", json={"name": "x"})
    assert refused.status_code == 403
    assert refused.json()["needs"] == "write"


async def test_a_revoked_token_is_refused_at_once_where_it_was_revoked(
    alice: Caller, server: RunningServer
) -> None:
    made = (await alice.post("/api/v1/tokens", json={"name": "x"})).json()
    assert (await use(server, made["token"])).status_code == 200
    for _ in range(2):
        assert (await alice.delete(f"/api/v1/tokens/{made['id']}")).status_code == 204
        refused = await use(server, made["token"])
        assert refused.status_code == 401
        assert refused.json()["detail"] == "This token was revoked."
    assert (await alice.get(f"/api/v1/tokens/{made['id']}")).json()["revoked_at"] is not None


async def test_a_token_revoked_by_another_process_is_refused_within_five_seconds(
    alice: Caller, server: RunningServer, database: Database
) -> None:
    made = (await alice.post("/api/v1/tokens", json={"name": "x"})).json()
    assert (await use(server, made["token"])).status_code == 200
    async with database.system() as session:
        await session.execute(
            text("UPDATE api_tokens SET revoked_at = now() WHERE id = :id"), {"id": made["id"]}
        )
    async with asyncio.timeout(5):
        while (await use(server, made["token"])).status_code == 200:
            await asyncio.sleep(0.1)


async def test_a_token_is_refused_from_the_moment_it_expires(alice: Caller, server: RunningServer) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1.5)
    made = await alice.post("/api/v1/tokens", json={"name": "x", "expires_at": soon.isoformat()})
    assert made.status_code == 201
    # Known to be good, and good for four seconds more as far as the memory of the process goes.
    assert (await use(server, made.json()["token"])).status_code == 200
    async with asyncio.timeout(3):
        while (answer := await use(server, made.json()["token"])).status_code == 200:
            await asyncio.sleep(0.05)
    assert answer.json()["detail"] == "This token has expired."
    assert datetime.now(UTC) >= soon


async def test_an_inactive_users_token_is_refused_until_they_are_active_again(
    alice: Caller, admin: Caller
) -> None:
    where = f"/api/v1/users/{alice.user_id}"
    assert (await admin.patch(where, json={"active": False})).status_code == 200
    refused = await alice.get("/api/v1/me")
    assert refused.status_code == 401
    assert refused.json()["detail"] == "This token's user is not active."
    assert (await admin.patch(where, json={"active": True})).status_code == 200
    async with asyncio.timeout(5):
        while (await alice.get("/api/v1/me")).status_code != 200:
            await asyncio.sleep(0.1)


async def test_an_administrators_token_loses_its_powers_with_their_role(
    admin: Caller, new_caller: NewCaller
) -> None:
    second = await new_caller("second", role="admin")
    assert (await second.get("/api/v1/users")).status_code == 200
    demoted = await admin.patch(f"/api/v1/users/{second.user_id}", json={"role": "user"})
    assert demoted.status_code == 200
    assert (await second.get("/api/v1/users")).status_code == 403
    assert (await second.get("/api/v1/me")).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Basic YWxpY2U6c2VjcmV0",
        "Bearer bc_nobody_knows_this_token_0123456789_0123456789",
        "Bearer " + "x" * 5000,
        "bc_without_a_scheme",
        b"Bearer bc_\xff\xfe\xfd",
    ],
)
async def test_a_header_that_proves_nothing_is_refused(
    client: httpx.AsyncClient, header: str | bytes | None
) -> None:
    headers = (
        {} if header is None else {b"authorization": header.encode() if isinstance(header, str) else header}
    )
    refused = await client.get("/api/v1/me", headers=headers)
    assert refused.status_code == 401
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["www-authenticate"].startswith("Bearer")


async def test_use_is_written_down_in_the_background(alice: Caller, database: Database) -> None:
    me = (await alice.get("/api/v1/me")).json()
    async with asyncio.timeout(15):
        while (await alice.get(f"/api/v1/tokens/{me['token']['id']}")).json()["last_used_at"] is None:
            await asyncio.sleep(0.2)


async def test_a_stranger_sees_and_revokes_nobody_elses_tokens(alice: Caller, bob: Caller) -> None:
    made = (await alice.post("/api/v1/tokens", json={"name": "mine"})).json()
    assert (await bob.get(f"/api/v1/tokens/{made['id']}")).status_code == 404
    assert (await bob.delete(f"/api/v1/tokens/{made['id']}")).status_code == 404
    assert (await bob.get("/api/v1/tokens", params={"user_id": str(alice.user_id)})).status_code == 403
    assert (
        await bob.post("/api/v1/tokens", json={"name": "x", "user_id": str(alice.user_id)})
    ).status_code == 403
    listed = (await bob.get("/api/v1/tokens")).json()["data"]
    assert {token["user_id"] for token in listed} == {str(bob.user_id)}
    assert (await alice.get(f"/api/v1/tokens/{made['id']}")).json()["revoked_at"] is None


async def test_an_administrator_reaches_everybodys_tokens(admin: Caller, alice: Caller) -> None:
    made = (await alice.post("/api/v1/tokens", json={"name": "mine"})).json()
    listed = (await admin.get("/api/v1/tokens", params={"user_id": str(alice.user_id)})).json()["data"]
    assert made["id"] in {token["id"] for token in listed}
    assert (await admin.get(f"/api/v1/tokens/{made['id']}")).json()["name"] == "mine"
    assert (await admin.delete(f"/api/v1/tokens/{made['id']}")).status_code == 204


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"name": "\x1b[31mred"}, "name"),
        ({"name": "two\nlines"}, "name"),
        ({"name": "  "}, "name"),
        ({"name": "\u200b\u2060"}, "name"),
        ({"name": 7}, "name"),
        ({"name": "x", "scopes": []}, "scopes"),
        ({"name": "x", "scopes": ["read", "read"]}, "scopes"),
        ({"name": "x", "scopes": ["everything"]}, "scopes.0"),
        ({"name": "x", "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"name": "x", "expires_at": "2099-01-01T00:00:00"}, "expires_at"),
        ({"name": "x", "expires_at": "9999-12-31T23:59:59-12:00"}, "expires_at"),
        ({"name": "x", "expires_at": 4102444800}, "expires_at"),
        ({"name": "x", "user_id": "not-an-id"}, "user_id"),
        ({"name": "x", "colour": "red"}, "colour"),
    ],
)
async def test_a_wrong_token_body_is_refused_with_the_fields_name(
    alice: Caller, body: dict[str, object], field: str
) -> None:
    refused = await alice.post("/api/v1/tokens", json=body)
    assert refused.status_code == 422
    assert refused.json()["param"] == field


async def test_tokens_are_paged_newest_first(new_caller: NewCaller) -> None:
    carol = await new_caller("carol")
    made = [(await carol.post("/api/v1/tokens", json={"name": str(n)})).json()["id"] for n in range(4)]
    seen: list[str] = []
    params: dict[str, str] = {"limit": "2"}
    while True:
        page = (await carol.get("/api/v1/tokens", params=params)).json()
        seen += [token["id"] for token in page["data"]]
        if not page["has_more"]:
            break
        params["cursor"] = page["next_cursor"]
    assert seen[:4] == made[::-1]
    assert len(seen) == 5  # and the one that carol came with
