"""Knowing who is asking without asking the database at every request."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text

from baatcheet.auth.principal import Principal
from baatcheet.auth.service import Authenticator
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database, DatabaseUnavailable
from baatcheet.platform.errors import Forbidden, Unauthenticated
from baatcheet.platform.settings import load
from tests.conftest import Caller


class CountingDatabase(Database):
    """The real one; `asked` is how often its raw connection was lent."""

    asked = 0

    @asynccontextmanager
    async def hot(self, *, limit: float | None = None) -> AsyncIterator[Any]:
        self.asked += 1
        async with super().hot(limit=limit) as connection:
            yield connection


@asynccontextmanager
async def opened(environ: Mapping[str, str]) -> AsyncIterator[CountingDatabase]:
    db = CountingDatabase(load(environ, dotenv=None).database, pool_size=2)
    try:
        yield db
    finally:
        await db.close()


async def last_use(database: Database, token_id: object) -> datetime | None:
    async with database.system() as session:
        found: datetime | None = await session.scalar(
            text("SELECT last_used_at FROM api_tokens WHERE id = :id"), {"id": token_id}
        )
        return found


async def test_many_requests_with_one_token_ask_the_database_once(
    alice: Caller, services: Mapping[str, str]
) -> None:
    async with opened(services) as db:
        authenticator = Authenticator(db)
        header = f"bearer   {alice.token}"
        found = await asyncio.gather(*(authenticator.authenticate(header) for _ in range(50)))
        await authenticator.authenticate(header)
        assert {one.user_id for one in found} == {alice.user_id}
        assert db.asked == 1


async def test_a_request_that_is_given_up_does_not_fail_those_that_wait_with_it(
    alice: Caller, services: Mapping[str, str]
) -> None:
    async with opened(services) as db:
        authenticator = Authenticator(db)
        first, second = [
            asyncio.create_task(authenticator.authenticate(f"Bearer {alice.token}")) for _ in range(2)
        ]
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).user_id == alice.user_id
        assert db.asked == 1


async def test_an_answer_that_is_on_its_way_when_a_token_is_revoked_is_not_kept(
    alice: Caller, services: Mapping[str, str]
) -> None:
    async with opened(services) as db:
        authenticator = Authenticator(db)
        asking = asyncio.create_task(authenticator.authenticate(f"Bearer {alice.token}"))
        await asyncio.sleep(0)
        authenticator.forget(user_id=alice.user_id)
        await asking
        await authenticator.authenticate(f"Bearer {alice.token}")
        assert db.asked == 2


async def test_a_database_that_is_down_is_503_and_never_401() -> None:
    environ = {
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
        "BAATCHEET_DB_CHECKOUT_TIMEOUT": "0.5",
    }
    async with opened(environ) as db:
        with pytest.raises(DatabaseUnavailable) as refused:
            await Authenticator(db).authenticate("Bearer bc_0123456789")
        assert refused.value.status == 503
        assert "retry-after" in refused.value.headers


async def test_use_is_written_once_a_minute_and_survives_a_database_that_was_down(
    alice: Caller, services: Mapping[str, str], database: Database
) -> None:
    async with opened(services) as db:
        authenticator = Authenticator(db)
        who = await authenticator.authenticate(f"Bearer {alice.token}")
        async with database.system() as session:
            await session.execute(
                text("UPDATE api_tokens SET last_used_at = NULL WHERE id = :id"), {"id": who.token_id}
            )
        await authenticator.flush()
        first = await last_use(database, who.token_id)
        assert first is not None
        assert abs((datetime.now(UTC) - first).total_seconds()) < 10
        await authenticator.authenticate(f"Bearer {alice.token}")
        asked = db.asked
        await authenticator.flush()
        assert db.asked == asked  # nothing to write
        assert await last_use(database, who.token_id) == first


async def test_another_processs_note_of_the_same_minute_is_left_alone(
    alice: Caller, services: Mapping[str, str], database: Database
) -> None:
    async with opened(services) as db:
        here, there = Authenticator(db), Authenticator(db)
        who = await here.authenticate(f"Bearer {alice.token}")
        await there.authenticate(f"Bearer {alice.token}")
        async with database.system() as session:
            await session.execute(
                text("UPDATE api_tokens SET last_used_at = now() - interval '59 seconds' WHERE id = :id"),
                {"id": who.token_id},
            )
        before = await last_use(database, who.token_id)
        await here.flush()
        await there.flush()
        assert await last_use(database, who.token_id) == before


async def test_a_header_without_a_token_asks_nobody(services: Mapping[str, str]) -> None:
    async with opened(services) as db:
        for header in (None, "", "Bearer", "Basic x", "Bearer " + "x" * 513, "Bearer ümlaut"):
            with pytest.raises(Unauthenticated):
                await Authenticator(db).authenticate(header)
        assert db.asked == 0


def test_a_principal_may_do_what_its_scopes_say() -> None:
    who = Principal(new_id(), new_id(), "user", frozenset({"read", "chat"}), "Zoya")
    who.require("read")
    with pytest.raises(Forbidden, match="needs the scope 'write'; the token has: read, chat"):
        who.require("write")
