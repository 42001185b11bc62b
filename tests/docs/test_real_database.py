"""What `docs/how-to/real-database.md` tells an administrator to run is enough, and needed."""

import asyncio
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import pytest

from baatcheet.platform.database import connect
from baatcheet.platform.migrate import MigrationError, upgrade
from tests.docs.markdown import ROOT, snippets
from tests.servers import past_bouncer

DOCUMENT = ROOT / "docs/how-to/real-database.md"
TENANT = "baatcheet_tenant"


def _statements() -> list[str]:
    first = next(snippet for snippet in snippets(DOCUMENT) if snippet.language == "sql")
    return [line.rstrip(";") for line in first.text.splitlines() if line]


def _renamed(statement: str, name: str) -> str:
    return statement.replace(TENANT, "@").replace("baatcheet", name).replace("@", TENANT)


@contextmanager
def _prepared(server_url: str, *, grants: bool) -> Iterator[str]:
    """A database as the document makes it, under another name. The tenant's role is there already."""
    name = f"documented_{secrets.token_hex(6)}"

    async def run(statements: list[str]) -> None:
        connection = await connect(server_url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    made = [_renamed(one, name) for one in _statements() if not one.startswith(f"CREATE ROLE {TENANT}")]
    asyncio.run(run([one for one in made if grants or not one.startswith("GRANT")]))
    parts = urlsplit(server_url)
    host = parts.netloc.rpartition("@")[2]
    try:
        yield urlunsplit(parts._replace(netloc=f"{name}:secret@{host}", path=f"/{name}"))
    finally:
        asyncio.run(run([f"DROP DATABASE {name} WITH (FORCE)", f"DROP ROLE {name}"]))


def test_the_documented_statements_let_an_ordinary_user_migrate(services: Mapping[str, str]) -> None:
    with _prepared(past_bouncer(services["DATABASE_URL"]), grants=True) as url:
        upgrade(url)


def test_without_the_grant_the_migration_says_what_to_run(services: Mapping[str, str]) -> None:
    with (
        _prepared(past_bouncer(services["DATABASE_URL"]), grants=False) as url,
        pytest.raises(MigrationError, match=f"CREATE ROLE {TENANT} NOLOGIN; GRANT {TENANT} TO documented_"),
    ):
        upgrade(url)
