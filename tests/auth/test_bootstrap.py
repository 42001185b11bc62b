"""The first administrator."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import SecretStr

from baatcheet.auth.bootstrap import ensure_admin
from baatcheet.auth.secrets import token_hash
from baatcheet.platform.database import DatabaseUnavailable, connect
from baatcheet.platform.settings import AuthSettings

GIVEN = "an-administrators-own-token"


@pytest.fixture
def fresh(migrated_database: str) -> str:
    return migrated_database


def rows(url: str, query: str) -> list[dict[str, Any]]:
    async def fetch() -> list[dict[str, Any]]:
        connection = await connect(url)
        try:
            return [dict(row) for row in await connection.fetch(query)]
        finally:
            await connection.close()

    return asyncio.run(fetch())


def good_tokens(url: str) -> list[bytes]:
    return [
        row["hash"] for row in rows(url, "SELECT hash FROM api_tokens WHERE revoked_at IS NULL ORDER BY id")
    ]


def test_the_first_administrators_token_is_made_once(fresh: str) -> None:
    token = ensure_admin(fresh, AuthSettings())
    assert token is not None
    assert token.startswith("bc_")
    assert ensure_admin(fresh, AuthSettings()) is None
    assert good_tokens(fresh) == [token_hash(token)]
    assert [user["role"] for user in rows(fresh, "SELECT role FROM users")] == ["admin"]


def test_of_two_processes_at_once_one_makes_it(fresh: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda _: ensure_admin(fresh, AuthSettings()), range(6)))
    (token,) = [one for one in made if one is not None]
    assert good_tokens(fresh) == [token_hash(token)]


def test_a_given_token_is_the_administrators_and_its_forerunner_is_not(fresh: str) -> None:
    first = ensure_admin(fresh, AuthSettings())
    assert first is not None
    for given in (GIVEN, GIVEN, "another-token-of-theirs"):
        assert ensure_admin(fresh, AuthSettings(admin_token=SecretStr(given))) is None
        assert sorted(good_tokens(fresh)) == sorted([token_hash(first), token_hash(given)])
    assert len(rows(fresh, "SELECT 1 FROM users")) == 1


def test_a_given_token_that_was_revoked_works_again(fresh: str) -> None:
    settings = AuthSettings(admin_token=SecretStr(GIVEN))
    ensure_admin(fresh, settings)
    rows(fresh, "UPDATE api_tokens SET revoked_at = now(), expires_at = now(), scopes = '{read}'")
    ensure_admin(fresh, settings)
    (kept,) = rows(fresh, "SELECT revoked_at, expires_at, scopes FROM api_tokens")
    assert kept == {"revoked_at": None, "expires_at": None, "scopes": ["read", "write", "chat", "admin"]}


def test_a_short_token_shows_little_of_itself(fresh: str) -> None:
    ensure_admin(fresh, AuthSettings(admin_token=SecretStr("sixteen-letters!")))
    assert [row["prefix"] for row in rows(fresh, "SELECT prefix FROM api_tokens")] == ["sixte"]


def test_a_database_that_is_not_there_is_said_to_be_unavailable() -> None:
    with pytest.raises(DatabaseUnavailable):
        ensure_admin("postgresql://nobody@127.0.0.1:1/nothing", AuthSettings())
