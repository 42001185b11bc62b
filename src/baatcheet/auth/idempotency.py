"""A creation that is asked for twice happens once.

The key is claimed in the transaction that creates: both are there or neither is. A second request with the
same key waits for the first one's commit on the claim's unique key, and is then given its answer.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from fastapi import Depends, Header, Request
from pydantic import BaseModel
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from baatcheet.auth.models import IdempotencyKey
from baatcheet.auth.principal import Principal
from baatcheet.platform.database import Database, DatabaseUnavailable
from baatcheet.platform.errors import Conflict, Invalid
from baatcheet.platform.logging import get_logger

log = get_logger(__name__)

KEPT = timedelta(hours=24)
TIDY_EVERY = 3600.0  # seconds
TIDY_LIMIT = 60.0  # seconds: there may be a day's keys to delete
LONGEST_KEY = 255

# By the primary key: a day of a user's at most. Older ones answer nothing, and may be in the hands of a request that
# takes one anew and waits for what its caller here holds.
_FREE = text("""
DELETE FROM idempotency_keys
WHERE user_id = ANY(CAST(:users AS uuid[])) AND created_at >= now() - CAST(:kept AS interval)
  AND (location = ANY(CAST(:locations AS text[])) OR body ->> :member = ANY(CAST(:values AS text[])))
""")

Shape = TypeVar("Shape", bound=BaseModel)


class IdempotencyKeyReused(Invalid):
    """This idempotency key was used with another request."""

    type = "idempotency-key-reused"
    openai_code = "idempotency_key_reused"


@dataclass(frozen=True)
class Made(Generic[Shape]):
    """What a creation answers. `kept` is what a repetition is answered, where that differs."""

    answer: Shape
    location: str
    kept: Shape | None = None


Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=LONGEST_KEY,
        pattern="^[!-~]+$",
        description="Any text of your own: the same request with the same key happens once within 24 hours.",
    ),
]


class Creation:
    """One POST that creates, with the key that it may carry."""

    def __init__(self, request: Request, key: Key = None) -> None:
        self._db: Database = request.app.state.database
        self._key = key
        self._route = f"{request.method} {request.url.path}?{request.url.query}"

    async def run(
        self,
        who: Principal,
        body: BaseModel,
        shape: type[Shape],
        make: Callable[[AsyncSession], Awaitable[Made[Shape]]],
        *,
        as_system: bool = False,
        status: int = 201,
    ) -> Response:
        """The answer of `make`, a `shape`, with `status` (202 where a job makes the rest), or the one given before.

        `make` runs in the tenant's transaction, or with `as_system` in one that sees every row.
        Raises IdempotencyKeyReused and what `make` raises.
        """
        async with self._db.system() if as_system else self._db.tenant(who.user_id) as session:
            if self._key is None:
                made = await make(session)
                return _answer(made.answer, status, made.location)
            fingerprint = self._fingerprint(body)
            if not await _claimed(session, who, self._key, fingerprint):
                row = await _claim_of(session, who, self._key, fingerprint)
                return _answer(shape.model_validate(row.body), row.status, row.location, replayed=True)
            made = await make(session)
            kept = (made.kept or made.answer).model_dump(mode="json")
            await session.execute(
                update(IdempotencyKey)
                .where(IdempotencyKey.user_id == who.user_id, IdempotencyKey.key == self._key)
                .values(status=status, location=made.location, body=kept)
            )
        return _answer(made.answer, status, made.location)

    def _fingerprint(self, body: BaseModel) -> bytes:
        said = body.model_dump_json(exclude_unset=True)
        return hashlib.sha256(f"{self._route}\n{said}".encode()).digest()


async def _claimed(session: AsyncSession, who: Principal, key: str, fingerprint: bytes) -> bool:
    """Whether the key is ours now: it was free, or its time was over."""
    fresh: dict[str, Any] = {"fingerprint": fingerprint, "status": 0, "body": {}, "location": None}
    claim = (
        insert(IdempotencyKey)
        .values(user_id=who.user_id, key=key, **fresh)
        .on_conflict_do_update(
            index_elements=["user_id", "key"],
            set_=fresh | {"created_at": func.now()},
            where=IdempotencyKey.created_at < func.now() - KEPT,
        )
        .returning(IdempotencyKey.key)
    )
    return (await session.scalars(claim)).one_or_none() is not None


async def _claim_of(session: AsyncSession, who: Principal, key: str, fingerprint: bytes) -> IdempotencyKey:
    mine = (IdempotencyKey.user_id == who.user_id, IdempotencyKey.key == key)
    row = (await session.scalars(select(IdempotencyKey).where(*mine))).one_or_none()
    if row is None:
        raise Conflict("The request with this Idempotency-Key was forgotten just now. Send it again.")
    if row.fingerprint != fingerprint:
        raise IdempotencyKeyReused(
            "Use another Idempotency-Key for another request.", param="Idempotency-Key"
        )
    return row


def _answer(body: BaseModel, status: int, location: str | None, *, replayed: bool = False) -> Response:
    headers = {"location": location} if location is not None else {}
    if replayed:
        headers["idempotent-replayed"] = "true"
    return Response(body.model_dump_json(), status, headers, media_type="application/json")


async def free(
    session: AsyncSession,
    users: Sequence[UUID],
    *,
    locations: Sequence[str],
    member: str,
    values: Sequence[str],
) -> None:
    """Forget the answers kept for `users` that are at one of `locations`, or whose `member` is one of `values`.

    Their keys are free again. What the answers tell of is held by the transaction: no further one can come.
    """
    about = {"users": users, "locations": locations, "member": member, "values": values}
    await session.execute(_FREE, about | {"kept": KEPT})


async def keep_tidy(db: Database) -> None:
    """Delete old keys every hour, until cancelled."""
    while True:
        try:
            await forget_old(db)
        except DatabaseUnavailable:
            log.warning("idempotency.not_tidied")
        await asyncio.sleep(TIDY_EVERY)


async def forget_old(db: Database) -> int:
    """Delete keys whose time is over; how many."""
    async with db.system(limit=TIDY_LIMIT) as session:
        gone = await session.execute(
            delete(IdempotencyKey)
            .where(IdempotencyKey.created_at < func.now() - KEPT)
            .returning(IdempotencyKey.key)
        )
        return len(gone.all())


Once = Annotated[Creation, Depends(Creation)]
