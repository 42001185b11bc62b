"""What is written down of a rotation: its row, and what the fleet says of itself."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal
from uuid import UUID, uuid4

import msgspec
from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.jobs.declaration import GiveUp, LeaseLost
from baatcheet.keys.models import KeyRotation, ProviderKey
from baatcheet.keys.ring import CHANNEL, LIVE
from baatcheet.kit.ids import new_id

Step = Literal[
    "stage",  # have new keys, and keep them pending in the store
    "probe",  # each new key is asked about
    "promote",  # the store's pending set becomes the current one
    "serve",  # every process uses it
    "watch",  # are the new keys refused in use?
    "drain",  # requests that still use an old key end
    "revoke",  # the old keys are revoked at the provider
    "verify",  # what was meant to be is so
    "undo",  # nothing was promoted: the new keys go
    "roll_back",  # the store's previous set becomes the current one again
    "withdraw",  # every process uses that again, and the new keys go
]
Outcome = Literal["rotated", "rolled_back", "failed"]
Source = Literal["provisioner", "staged"]


class Made(msgspec.Struct, frozen=True):
    """A key that this rotation had made: its fingerprint, and what the provider calls it."""

    key: str
    at: str


class Detail(msgspec.Struct, omit_defaults=True):
    """What a rotation must remember from one step to the next. Keys are fingerprints; moments Unix seconds."""

    reason: str = ""
    run: str = ""  # which run of the job may write
    source: Source | None = None
    before: list[str] = []  # the set that was current at the beginning, in its order
    target: list[str] = []  # the set that is to be current
    fresh: list[str] = []  # the new ones in it
    gone: list[str] = []  # those that they replace
    hints: dict[str, str] = {}  # what people may see of each
    made: list[Made] = []
    sets: int = 0  # the change of the sets that every process must serve
    until: float = 0.0  # when the step that waits is over
    at: dict[str, str] = {}  # what the provider calls the old ones, where that is known
    revoked: list[str] = []
    by_hand: list[str] = []  # old keys that a person must revoke
    why: str = ""  # the new keys go again
    notes: list[str] = []


class State(msgspec.Struct):
    """A rotation under way."""

    id: UUID
    provider: str
    key_id: str | None
    store: str | None
    step: Step
    started_at: float
    detail: Detail
    outcome: Outcome | None = None


async def add(session: AsyncSession, provider: str, key_id: str | None, reason: str) -> KeyRotation | None:
    """A new rotation; None when one of this provider is under way."""
    row = (
        insert(KeyRotation)
        .values(id=new_id(), provider=provider, key_id=key_id, step="stage", detail={"reason": reason})
        .on_conflict_do_nothing()
        .returning(KeyRotation)
    )
    return (await session.scalars(row)).one_or_none()


async def take(session: AsyncSession, id_: UUID) -> State:
    """The rotation, for this run to write on: an earlier run of it may write no more. Raises GiveUp."""
    row = (
        await session.scalars(select(KeyRotation).where(KeyRotation.id == id_).with_for_update())
    ).one_or_none()
    if row is None:
        raise GiveUp(f"There is no rotation {id_}.")
    state = State(
        row.id,
        row.provider,
        row.key_id,
        row.store,
        row.step,  # type: ignore[arg-type]
        row.started_at.timestamp(),
        msgspec.convert(row.detail, Detail),
        row.outcome,  # type: ignore[arg-type]
    )
    if state.outcome is None:
        state.detail.run = uuid4().hex
        row.detail = msgspec.to_builtins(state.detail)
    return state


async def write(session: AsyncSession, state: State, error: str | None = None) -> None:
    """The row is as `state`. Raises LeaseLost when another run has taken it, or it has ended."""
    await _update(session, state, {"error": error})


async def end(session: AsyncSession, state: State, outcome: Outcome, error: str | None) -> None:
    """As `write`, for the last time."""
    await _update(session, state, {"outcome": outcome, "error": error, "ended_at": func.clock_timestamp()})
    state.outcome = outcome


async def _update(session: AsyncSession, state: State, values: Mapping[str, Any]) -> None:
    changed = (
        update(KeyRotation)
        .where(
            KeyRotation.id == state.id,
            KeyRotation.outcome.is_(None),
            KeyRotation.detail["run"].astext == state.detail.run,
        )
        .values(
            step=state.step,
            store=state.store,
            detail=msgspec.to_builtins(state.detail),
            updated_at=func.clock_timestamp(),
            **values,
        )
        .returning(KeyRotation.id)
    )
    if await session.scalar(changed) is None:
        raise LeaseLost


async def made_before(session: AsyncSession, provider: str, keys: Sequence[str]) -> dict[str, str]:
    """What the provider calls those of `keys` that rotations had made, by fingerprint."""
    query = text("""
        SELECT made->>'key' AS key, made->>'at' AS at FROM key_rotations, jsonb_array_elements(detail->'made') AS made
        WHERE provider = :provider AND jsonb_typeof(detail->'made') = 'array' AND made->>'key' = ANY(:keys)
    """)
    rows = await session.execute(query, {"provider": provider, "keys": list(keys)})
    return {row.key: row.at for row in rows}


async def now(session: AsyncSession) -> float:
    """The database's clock, which is everybody's, in Unix seconds."""
    moment: float = await session.scalar(text("SELECT extract(epoch FROM clock_timestamp())::float8"))
    return moment


async def announce(session: AsyncSession) -> int:
    """Tell every process that the sets have changed; the number of the change."""
    told = text(
        "WITH told AS (UPDATE key_changes SET sets = sets + 1 RETURNING sets) "
        "SELECT sets, pg_notify(:channel, '') FROM told"
    )
    number: int = await session.scalar(told, {"channel": CHANNEL})
    return number


async def held(session: AsyncSession, keys: Sequence[str]) -> set[str]:
    """Those of `keys` that a live process still picks from, whatever it says to have read."""
    query = text(
        "SELECT DISTINCT held.key FROM key_watchers, jsonb_array_elements_text(holds) AS held (key) "
        "WHERE held.key = ANY(:keys) AND seen_at > clock_timestamp() - make_interval(secs => :live)"
    )
    return set((await session.scalars(query, {"keys": list(keys), "live": LIVE})).all())


async def in_flight(session: AsyncSession, keys: Sequence[str]) -> int:
    """Requests under way with `keys`, in live processes."""
    query = text(
        "SELECT coalesce(sum(flying.value::bigint), 0) FROM key_watchers, jsonb_each_text(in_flight) AS flying "
        "WHERE flying.key = ANY(:keys) AND seen_at > clock_timestamp() - make_interval(secs => :live)"
    )
    return int(await session.scalar(query, {"keys": list(keys), "live": LIVE}) or 0)


async def quarantined(session: AsyncSession, keys: Sequence[str]) -> list[tuple[str, str]]:
    """Those of `keys` that are: what people may see of each, and why."""
    query = select(ProviderKey.hint, ProviderKey.reason).where(
        ProviderKey.id.in_(keys), ProviderKey.state == "quarantined"
    )
    return [(hint, reason or "no reason was given") for hint, reason in (await session.execute(query)).all()]
