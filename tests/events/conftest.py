"""A database of the events' own: one relay works on a whole database."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from uuid import UUID

import pytest
import pytest_asyncio
from pydantic import SecretStr
from sqlalchemy import text

from baatcheet.auth.principal import DEFAULT_SCOPES
from baatcheet.auth.secrets import new_token, shown_part, token_hash
from baatcheet.events.outbox import record
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database
from baatcheet.platform.settings import DatabaseSettings
from tests.conftest import database_on

NewUser = Callable[[], Awaitable[UUID]]


@pytest.fixture(scope="session")
def events_url(services: Mapping[str, str], template: str) -> Iterator[str]:
    with database_on(services["DATABASE_URL"], template) as url:
        yield url


@pytest_asyncio.fixture(loop_scope="session")
async def db(events_url: str) -> AsyncIterator[Database]:
    """The database, with nothing waiting to be relayed and nothing relayed."""
    opened = Database(DatabaseSettings(url=SecretStr(events_url)), pool_size=6, name="events")
    async with opened.system() as session:
        await session.execute(text("DELETE FROM users"))
        await session.execute(text("DELETE FROM outbox"))
        await session.execute(text("DELETE FROM events"))
        await session.execute(text("UPDATE event_horizon SET seq = 0"))
        await session.execute(text("CREATE TABLE IF NOT EXISTS effects (name text PRIMARY KEY)"))
    yield opened
    await opened.close()


async def add_user(db: Database, *, role: str = "user") -> UUID:
    user = new_id()
    async with db.system() as session:
        await session.execute(
            text("INSERT INTO users (id, name, role) VALUES (:id, 'somebody', :role)"),
            {"id": user, "role": role},
        )
    return user


async def add_token(db: Database, user: UUID, *, scopes: frozenset[str] = DEFAULT_SCOPES["admin"]) -> str:
    token = new_token()
    async with db.system() as session:
        await session.execute(
            text(
                "INSERT INTO api_tokens (id, user_id, name, prefix, hash, scopes) "
                "VALUES (:id, :user, 't', :prefix, :hash, :scopes)"
            ),
            {
                "id": new_id(),
                "user": user,
                "prefix": shown_part(token),
                "hash": token_hash(token),
                "scopes": sorted(scopes),
            },
        )
    return token


async def tell(db: Database, user: UUID | None, *numbers: int, type: str = "job.updated") -> None:  # noqa: A002
    """Record one event for each number, in one transaction."""
    async with db.system() as session:
        for number in numbers:
            await record(session, type, {"number": number}, user=user)


async def tell_many(db: Database, user: UUID, first: int, count: int, *, padding: int = 0) -> None:
    """Record so many events, in one statement."""
    async with db.system(limit=60) as session:
        await session.execute(
            text(
                "INSERT INTO outbox (user_id, type, data) SELECT CAST(:user AS uuid), 'job.updated', "
                "jsonb_build_object('number', n, 'phrase', repeat('x', CAST(:padding AS int))) "
                "FROM generate_series(CAST(:first AS int), CAST(:last AS int)) n"
            ),
            {"user": user, "first": first, "last": first + count - 1, "padding": padding},
        )


async def numbers_of(db: Database, user: UUID | None) -> list[int]:
    """The numbers of a user's relayed events, in their order."""
    async with db.system() as session:
        found = await session.execute(
            text(
                "SELECT (data ->> 'number')::int FROM events WHERE user_id IS NOT DISTINCT FROM :user ORDER BY seq"
            ),
            {"user": user},
        )
        return list(found.scalars())


async def waiting(db: Database) -> int:
    async with db.system() as session:
        return int(await session.scalar(text("SELECT count(*) FROM outbox")) or 0)
