"""The jobs of keys: a rotation, the monthly one of all, and looking after both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.events.outbox import record as record_event
from baatcheet.jobs.declaration import Job, job
from baatcheet.jobs.enqueueing import enqueue
from baatcheet.jobs.schedules import Schedule
from baatcheet.keys.audit import SYSTEM, Actor, note
from baatcheet.keys.models import KeyRotation
from baatcheet.keys.rotation import record
from baatcheet.keys.rotation.machine import RotationParts, Rotator
from baatcheet.keys.stores.model import StoreError
from baatcheet.platform.logging import get_logger

log = get_logger(__name__)

MONTHLY: Final = "keys rotation"  # the schedule's name
LATER: Final = (60.0, 300.0) + (900.0,) * 20  # seconds: a store or a provider may be away for hours
AGAIN: Final = timedelta(days=30)  # after which an old key is told of anew
LATELY: Final = timedelta(days=1)


class Rotating(msgspec.Struct, frozen=True):
    """Which rotation is to be brought to its end."""

    rotation: UUID


class Nothing(msgspec.Struct, frozen=True):
    """The payload of work that is always the same."""


@dataclass(frozen=True)
class KeeperParts:
    """What looking after keys takes. `providers`: those whose keys are replaced every month; none: all that can be."""

    rotation: RotationParts
    known: Callable[[], Sequence[str]]  # every provider that may have keys
    providers: Sequence[str] = ()
    max_age: timedelta = timedelta(days=90)


@job("keys.rotate", queue="keys", seconds=2 * 3600, attempts=6, later=LATER, visible=False)
async def rotate_keys(job: Job[Rotating], parts: KeeperParts) -> None:
    """The rotation has ended: with new keys in use, or with the old ones as before. Run again, it goes on."""
    await Rotator(parts.rotation).run(job.payload.rotation, job.finish)


@job("keys.rotate_all", queue="maintenance", visible=False)
async def rotate_all(job: Job[Nothing], parts: KeeperParts) -> dict[str, Any]:
    """A rotation has begun for each provider that new keys can be had for. One of today is not begun again."""
    begun = []
    for provider in parts.providers or parts.known():
        if not await _can_rotate(parts, provider):
            continue
        async with parts.rotation.db.system() as session:
            if await _rotated_lately(session, provider):
                continue
            if await begin(session, SYSTEM, provider, None, "monthly rotation") is not None:
                begun.append(provider)
    return {"begun": begun}


@job("keys.look_after", queue="maintenance", visible=False)
async def look_after(job: Job[Nothing], parts: KeeperParts) -> None:
    """Rotations whose jobs are gone go on, and administrators know of keys that are too old. Each is told of once."""
    db = parts.rotation.db
    async with db.system() as session:
        resumed = await resume(session)
    async with job.finish({"resumed": resumed}) as session:
        for provider, key, hint, days in (await session.execute(_AGED, _ages(parts.max_age))).all():
            reason = f"The key {hint} is {days} days old; {parts.max_age.days} are allowed."
            log.warning("keys.aged", provider=provider, key=key, hint=hint, days=days)
            told = {"provider": provider, "fingerprint": key, "reason": reason}
            await record_event(session, "key.aged", told, user=None)
            note(session, SYSTEM, "key.aged", f"{provider}/{key}", {"days": days})


def schedules() -> list[Schedule]:
    """When, in UTC: new keys on the first of a month at night; looking after them every ten minutes."""
    return [
        Schedule(MONTHLY, "0 2 1 * *", rotate_all, Nothing()),
        Schedule("keys looked after", "*/10 * * * *", look_after, Nothing()),
    ]


async def begin(
    session: AsyncSession, actor: Actor, provider: str, key_id: str | None, reason: str
) -> KeyRotation | None:
    """A rotation and its job, with this transaction; None when one of this provider is under way."""
    await hold(session, provider)
    row = await record.add(session, provider, key_id, reason)
    if row is not None:
        await _enqueue(session, row.id)
        subject = f"{provider}/{key_id}" if key_id is not None else provider
        note(session, actor, "keys.rotation_begun", subject, {"rotation": str(row.id), "reason": reason})
    return row


async def hold(session: AsyncSession, provider: str) -> None:
    """Until the transaction ends, nobody else begins a rotation of this provider or stages keys for one."""
    lock = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
    await session.execute(lock, {"name": f"baatcheet keys {provider}"})


async def resume(session: AsyncSession) -> int:
    """Give each rotation that has not ended a job again, where it has none; how many."""
    lost = (await session.execute(_WITHOUT_JOB)).scalars().all()
    for id_ in lost:
        await _enqueue(session, id_)
    return len(lost)


async def _enqueue(session: AsyncSession, rotation: UUID) -> None:
    await enqueue(session, rotate_keys, Rotating(rotation), owner=None, subject=rotation, key=str(rotation))


async def _can_rotate(parts: KeeperParts, provider: str) -> bool:
    """Whether new keys can be had. What the settings name is tried anyway, so that administrators are told why not."""
    if parts.providers:
        return True
    store = parts.rotation.ring.store_of(provider)
    if store is None or not store.writable:
        return False
    maker = parts.rotation.provisioners.get(provider)
    if maker is not None and maker.available:
        return True
    try:
        return (await store.versions(provider)).pending is not None
    except StoreError as error:
        log.warning("keys.not_looked_at", provider=provider, reason=str(error))
        return False


async def _rotated_lately(session: AsyncSession, provider: str) -> bool:
    values = {"provider": provider, "lately": LATELY}
    return bool(await session.scalar(_LATELY, values))


def _ages(limit: timedelta) -> dict[str, Any]:
    return {"limit": limit, "again": AGAIN}


_AGED = text("""
SELECT provider, id, hint, extract(day FROM clock_timestamp() - added_at)::int
FROM provider_keys
WHERE state <> 'retired' AND added_at < clock_timestamp() - CAST(:limit AS interval) AND NOT EXISTS (
    SELECT FROM audit_entries
    WHERE subject = provider || '/' || provider_keys.id AND action = 'key.aged'
      AND at > clock_timestamp() - CAST(:again AS interval)
)
ORDER BY provider, id
""")
_WITHOUT_JOB = text("""
SELECT id FROM key_rotations WHERE outcome IS NULL AND NOT EXISTS (
    SELECT FROM jobs WHERE kind = 'keys.rotate' AND unique_key = key_rotations.id::text
      AND status IN ('queued', 'waiting', 'running')
)
""")
_LATELY = text("""
SELECT EXISTS (
    SELECT FROM key_rotations
    WHERE provider = :provider AND started_at > clock_timestamp() - CAST(:lately AS interval)
)
""")
