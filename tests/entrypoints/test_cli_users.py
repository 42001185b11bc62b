"""`baatcheet user`, `baatcheet token`, `baatcheet openapi`, as an operator types them."""

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from typer.testing import CliRunner, Result

from baatcheet.entrypoints.cli import app
from baatcheet.kit.ids import parse_id
from baatcheet.platform.database import connect
from baatcheet.platform.migrate import MigrationError, upgrade
from tests.conftest import Caller, RunningServer

Run = Callable[..., Result]


@pytest.fixture
def run(
    server: RunningServer, services: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Runs a command on the server's database."""
    monkeypatch.chdir(tmp_path)  # no .env of anybody's
    for name in os.environ:
        if name.startswith("BAATCHEET_"):
            monkeypatch.delenv(name)
    for name, value in services.items():
        monkeypatch.setenv(name, value)

    def command(*arguments: str) -> Result:
        # In a thread: a command has an event loop of its own.
        with ThreadPoolExecutor(1) as aside:
            return aside.submit(CliRunner().invoke, app, list(arguments)).result(60)

    return command


def said(done: Result) -> str:
    assert done.exit_code == 0, done.output
    return done.stdout.strip()


async def test_a_user_gets_a_token_that_works_until_it_is_revoked(run: Run, server: RunningServer) -> None:
    user = said(run("user", "create", "Zoya", "--email", f"{os.urandom(4).hex()}@example.com"))
    assert parse_id(user) is not None
    token = said(run("token", "create", "laptop", "--user", user, "--scopes", "read,chat", "--days", "3"))
    async with Caller(server.url, token) as caller:
        me = (await caller.get("/api/v1/me")).json()
    assert me["user"]["id"] == user
    assert me["token"]["name"] == "laptop"
    assert me["token"]["scopes"] == ["read", "chat"]
    assert me["token"]["expires_at"] is not None
    listed = said(run("token", "list", "--user", user))
    assert me["token"]["id"] in listed
    assert token not in listed
    said(run("token", "revoke", me["token"]["id"]))
    assert "revoked" in said(run("token", "list", "--user", user))


def test_a_stored_name_can_not_colour_the_terminal(run: Run, services: Mapping[str, str]) -> None:
    user = said(run("user", "create", "Zoya"))
    said(run("token", "create", "laptop", "--user", user))

    async def rename() -> None:  # as only an older version could have stored it
        connection = await connect(services["DATABASE_URL"])
        await connection.execute(
            "UPDATE api_tokens SET name = $1 WHERE user_id = $2", "\x1b[31mred\u202e", UUID(user)
        )
        await connection.close()

    asyncio.run(rename())
    assert r"\x1b[31mred\u202e" in said(run("token", "list", "--user", user))


def test_an_email_finds_its_user_and_the_first_administrator_is_found_without(run: Run) -> None:
    email = f"{os.urandom(4).hex()}@Example.com"
    said(run("user", "create", "Zoya", "--email", email, "--admin"))
    for owner in (["--user", email.lower()], []):
        assert said(run("token", "create", *owner)).startswith("bc_")


@pytest.mark.parametrize("command", [["token", "list"], ["token", "create", "x"], ["user", "create", "x"]])
def test_a_database_that_is_not_migrated_is_told_in_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, empty_database: str, command: list[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database)
    with pytest.raises(MigrationError, match=r"the database is empty\. Run `baatcheet db upgrade`"):
        raise run(*command).exception or AssertionError("it succeeded")
    upgrade(empty_database, "0001")
    with pytest.raises(MigrationError, match=r"the schema is at 0001, .* Run `baatcheet db upgrade`"):
        raise run(*command).exception or AssertionError("it succeeded")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["user", "create", "x", "--email", "nobody"], "email"),
        (["user", "create", ""], "name: "),
        (["user", "create", "\x1b[31mred"], "name: contains a control character"),
        (["token", "create", ""], "name: "),
        (["token", "create", " \u200b"], "name: has nothing in it that can be seen"),
        (["token", "create", "\x1b[31mred"], "name: contains a control character"),
        (["token", "create", "--user", "nobody@example.com"], "no user nobody@example.com"),
        (["token", "create", "--scopes", "everything"], "scopes are: read, write, chat, admin"),
        (["token", "revoke", "bc_0123"], "not a token's id"),
        (["token", "revoke", "0190f3a2-7c1e-7d4b-9a51-3f0c2b8e6d10"], "There is no token"),
    ],
)
def test_a_mistake_is_told_in_words(run: Run, arguments: list[str], told: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert told in " ".join(done.stderr.replace("│", " ").split())


async def test_the_printed_document_is_the_servers(run: Run, client: httpx.AsyncClient) -> None:
    assert json.loads(said(run("openapi"))) == (await client.get("/api/openapi.json")).json()
