"""How the keys fare, written down: for people, for other processes, and for the next start.

A pool knows at once; the ledger is told once a second, in batches, and no request waits for it. What another process
must know (a key was quarantined, rests, is used again) counts `key_changes.states` up in the same transaction.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.events.outbox import record
from baatcheet.keys.audit import SYSTEM, Actor, note
from baatcheet.keys.models import ProviderKey
from baatcheet.keys.pool import DAY, LONGEST_REST, Change, Condition, KeyPool, KeyState, PooledKey, Use, fit
from baatcheet.platform.database import Database
from baatcheet.platform.logging import get_logger
from baatcheet.platform.telemetry import Metrics

log = get_logger(__name__)

WORTH_TELLING: Final = (
    2.0  # seconds that a key rests, from which on others are told: they would hear too late
)
SELDOM: Final = 5.0  # seconds between two notes of when a key was used last
LIMIT: Final = 5.0  # seconds that a flush may take in the database
_EPOCH: Final = date(1970, 1, 1)

_LOCK_PROVIDER = text("SELECT id FROM provider_keys WHERE provider = :provider ORDER BY id FOR NO KEY UPDATE")
# Only what differs is written: every process says at its start what it serves.
_KNOW = text(
    "INSERT INTO provider_keys AS k (id, provider, hint, store) "
    "SELECT id, :provider, hint, :store FROM unnest(CAST(:ids AS text[]), CAST(:hints AS text[])) AS d (id, hint) "
    "ORDER BY id "
    "ON CONFLICT (id) DO UPDATE SET store = excluded.store, hint = excluded.hint, retired_at = NULL, "
    "state = CASE WHEN k.state <> 'retired' THEN k.state WHEN k.refused THEN 'quarantined' ELSE 'active' END, "
    "reason = CASE WHEN k.state = 'retired' AND NOT k.refused THEN NULL ELSE k.reason END, changed_at = now() "
    "WHERE k.state = 'retired' OR k.store <> excluded.store OR k.hint <> excluded.hint RETURNING id"
)
_RETIRE = text(
    "UPDATE provider_keys "
    "SET refused = (state = 'quarantined'), state = 'retired', retired_at = now(), changed_at = now() "
    "WHERE provider = :provider AND state <> 'retired' AND id <> ALL (CAST(:ids AS text[])) RETURNING id"
)
_USE = text(
    "INSERT INTO key_usage AS u (key_id, day, requests, tokens, errors) "
    "SELECT k.id, DATE '1970-01-01' + d.day, d.requests, d.tokens, d.errors FROM unnest(CAST(:ids AS text[]), "
    "CAST(:days AS int[]), CAST(:requests AS int[]), CAST(:tokens AS bigint[]), CAST(:errors AS int[])) "
    "AS d (id, day, requests, tokens, errors) JOIN provider_keys k ON k.id = d.id ORDER BY 1, 2 "
    "ON CONFLICT (key_id, day) DO UPDATE SET requests = u.requests + excluded.requests, "
    "tokens = u.tokens + excluded.tokens, errors = u.errors + excluded.errors"
)
_SEEN = text(
    "WITH d AS (SELECT * FROM unnest(CAST(:ids AS text[]), CAST(:used AS float8[]), CAST(:errors AS text[]), "
    "CAST(:failed AS float8[])) AS d (id, used, error, failed)), "
    "k AS (SELECT p.id FROM provider_keys p JOIN d USING (id) ORDER BY p.id FOR NO KEY UPDATE OF p) "
    "UPDATE provider_keys p SET last_used_at = greatest(p.last_used_at, to_timestamp(d.used)), "
    "last_error = CASE WHEN p.last_error_at >= to_timestamp(d.failed) THEN p.last_error "
    "ELSE coalesce(d.error, p.last_error) END, "
    "last_error_at = greatest(p.last_error_at, to_timestamp(d.failed)) "
    "FROM d JOIN k USING (id) WHERE p.id = d.id"
)
_FORGET = text("DELETE FROM key_usage WHERE day < :before")
_COUNT_UP = text("UPDATE key_changes SET states = states + 1")
_STATES = text(
    "SELECT k.id, k.provider, k.hint, k.store, k.state, k.reason, k.resting_until, k.last_error, k.last_error_at, "
    "k.last_used_at, k.added_at, k.retired_at, coalesce(u.granted, 0) AS granted_today, "
    "coalesce(u.requests, 0) AS requests_today, coalesce(u.tokens, 0) AS tokens_today, "
    "coalesce(u.errors, 0) AS errors_today "
    "FROM provider_keys k LEFT JOIN key_usage u ON u.key_id = k.id AND u.day = :today "
    "WHERE :retired OR k.state <> 'retired' ORDER BY k.provider, k.added_at, k.id"
)


class Ledger:
    """The tables `provider_keys` and `key_usage`. Every method raises DatabaseUnavailable.

    `metrics`: told of failures, and with every flush of how many keys there are and how old the oldest is.
    """

    def __init__(
        self, db: Database, metrics: Metrics | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._db = db
        self._metrics = metrics
        self._clock = clock
        self._added: dict[str, float] = {}
        self._seen: dict[str, float] = {}  # when a key's last use was noted
        self._told_providers: set[str] = set()

    async def know(self, provider: str, store: str, keys: Sequence[PooledKey]) -> None:
        """These are the provider's keys now, from this store: new ones get a row, those that are gone retire.

        One that returns is active again. One that is quarantined stays so, gone and back again, too.
        """
        distinct = {key.id: key for key in keys}
        ids = sorted(distinct)
        hints = [distinct[id].hint for id in ids]  # noqa: A001
        values = {"provider": provider, "store": store, "ids": ids, "hints": hints}
        async with self._db.system(limit=LIMIT) as session:
            await session.execute(_LOCK_PROVIDER, {"provider": provider})
            known = (await session.execute(_KNOW, values)).all()
            retired = (await session.execute(_RETIRE, {"provider": provider, "ids": ids})).all()
            if known or retired:
                await session.execute(_COUNT_UP)

    async def states(self, *, retired: bool = False) -> dict[str, KeyState]:
        """Every key that is not retired, or every one that ever was, by id; with what it was used for today (UTC)."""
        as_of = self._clock()
        values = {"today": _EPOCH + timedelta(days=int(as_of // DAY)), "retired": retired}
        async with self._db.system(limit=LIMIT) as session:
            rows = (await session.execute(_STATES, values)).mappings().all()
        states = {row["id"]: _state(row, as_of) for row in rows}
        self._added |= {id: state.added_at for id, state in states.items() if state.added_at is not None}  # noqa: A001
        return states

    # What people do -------------------------------------------------------------------------------------------

    async def rest(self, id: str, until: float, reason: str, actor: Actor) -> bool:  # noqa: A002 - what it is
        """Don't use it before `until` (Unix seconds; 24 hours from now at most). False: there is no such key."""
        until = min(until, self._clock() + LONGEST_REST)
        async with self._db.system(limit=LIMIT) as session:
            row = await _locked(session, id)
            if row is None:
                return False
            row.resting_until = datetime.fromtimestamp(until, UTC)
            if row.state != "quarantined":
                row.reason = fit(reason)
            await self._tell(session, row)
            note(session, actor, "key.rested", _subject(row), {"until": row.resting_until.isoformat()})
        return True

    async def quarantine(self, id: str, reason: str, actor: Actor) -> bool:  # noqa: A002
        """Don't use it until it is restored. False: there is no such key."""
        async with self._db.system(limit=LIMIT) as session:
            row = await _locked(session, id)
            if row is None:
                return False
            await self._quarantine(session, row, reason, actor)
            await self._tell(session, row)
        return True

    async def restore(self, id: str, actor: Actor) -> bool:  # noqa: A002
        """Use it again: what was known against it is void. False: there is no such key."""
        async with self._db.system(limit=LIMIT) as session:
            row = await _locked(session, id)
            if row is None:
                return False
            self._restore(session, row, actor)
            await self._tell(session, row)
        return True

    # What the pools found out ---------------------------------------------------------------------------------

    async def flush(self, pools: Iterable[KeyPool]) -> None:
        """Write down what the pools know since the last time. What can't be written now is kept for the next."""
        known = list(pools)
        self._publish(known)
        await self._flush_changes(known)
        await self._flush_uses(known)

    async def _flush_changes(self, pools: Sequence[KeyPool]) -> None:
        changes = [(pool, change) for pool in pools for change in pool.changes()]
        if not changes:
            return
        async with self._db.system(limit=LIMIT) as session:
            found = await session.scalars(
                select(ProviderKey)
                .where(ProviderKey.id.in_([change.id for _, change in changes]))
                .order_by(ProviderKey.id)
                .with_for_update(key_share=True)
            )
            rows = {row.id: row for row in found}
            worth_telling = False
            for _, change in changes:
                row = rows.get(change.id)
                if row is not None:
                    worth_telling |= await self._take_over(session, row, change)
            await session.flush()
            if worth_telling:
                await session.execute(_COUNT_UP)
        for pool, change in changes:
            if change.id in rows:
                pool.written(change)

    async def _take_over(self, session: AsyncSession, row: ProviderKey, change: Change) -> bool:
        """Whether others must know."""
        if change.restored:
            self._restore(session, row, SYSTEM)
        if change.quarantined:
            await self._quarantine(session, row, change.reason or "", SYSTEM)
            return True
        if change.resting_until is None:
            return change.restored
        until = datetime.fromtimestamp(change.resting_until, UTC)
        row.resting_until = max(until, row.resting_until) if row.resting_until is not None else until
        row.changed_at = self._now()
        if row.state != "quarantined":
            row.reason = fit(change.reason or "")
        return change.restored or change.resting_until - self._clock() >= WORTH_TELLING

    async def _quarantine(self, session: AsyncSession, row: ProviderKey, reason: str, actor: Actor) -> None:
        reason = fit(reason)
        if (
            row.state == "quarantined"
        ):  # Several processes find out at about the same moment: it is told once.
            return
        row.state, row.reason, row.changed_at = "quarantined", reason, self._now()
        told = {"provider": row.provider, "fingerprint": row.id, "reason": reason}
        await record(session, "key.quarantined", told, user=None)
        note(session, actor, "key.quarantined", _subject(row), {"reason": reason})
        log.warning("key.quarantined", provider=row.provider, key=row.id, hint=row.hint, reason=reason)

    def _restore(self, session: AsyncSession, row: ProviderKey, actor: Actor) -> None:
        if row.state == "quarantined":
            row.state = "active"
        row.reason = row.resting_until = None
        row.changed_at = self._now()
        note(session, actor, "key.restored", _subject(row))

    async def _tell(self, session: AsyncSession, row: ProviderKey) -> None:
        row.changed_at = self._now()
        await session.flush()
        await session.execute(_COUNT_UP)

    async def _flush_uses(self, pools: Sequence[KeyPool]) -> None:
        taken = [(pool, pool.take_uses()) for pool in pools]
        merged = _merged([use for _, uses in taken for use in uses])
        if not merged:
            return
        try:
            async with self._db.system(limit=LIMIT) as session:
                noted = await self._note_seen(session, pools, merged)
                await session.execute(
                    _USE,
                    {
                        "ids": [use.id for use in merged],
                        "days": [use.day for use in merged],
                        "requests": [use.requests for use in merged],
                        "tokens": [use.tokens for use in merged],
                        "errors": [use.errors for use in merged],
                    },
                )
        except BaseException:
            for pool, uses in taken:
                pool.give_back_uses(uses)
            raise
        self._seen |= noted

    async def _note_seen(
        self, session: AsyncSession, pools: Sequence[KeyPool], uses: Sequence[Use]
    ) -> dict[str, float]:
        now = self._clock()
        due = {use.id for use in uses if use.errors or now - self._seen.get(use.id, 0.0) >= SELDOM}
        states = [state for pool in pools for state in pool.states() if state.id in due]
        if states:
            await session.execute(
                _SEEN,
                {
                    "ids": [state.id for state in states],
                    "used": [state.last_used_at for state in states],
                    "errors": [state.last_error for state in states],
                    "failed": [state.last_error_at for state in states],
                },
            )
        return dict.fromkeys(due, now)

    def _publish(self, pools: Sequence[KeyPool]) -> None:
        """Tell the metrics."""
        for pool in pools:
            failures = pool.take_failures()
            if self._metrics is None:
                continue
            for kind, count in failures.items():
                self._metrics.key_failures(pool.provider, kind, count)
            states = pool.states()
            if not states and pool.provider not in self._told_providers:
                continue
            self._told_providers.add(pool.provider)
            added = [self._added[state.id] for state in states if state.id in self._added]
            oldest = (self._clock() - min(added)) / DAY if added else 0.0
            counts = Counter[str](state.condition for state in states)
            self._metrics.provider_keys(pool.provider, counts, max(0.0, oldest))

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


async def forget_old(db: Database, keep: timedelta) -> int:
    """Forget what keys were used for before `keep` ago; the keys themselves stay. Returns how many rows went.

    Raises DatabaseUnavailable.
    """
    async with db.system() as session:
        gone = await session.execute(_FORGET, {"before": datetime.now(UTC).date() - keep})
    return gone.rowcount  # type: ignore[attr-defined,no-any-return]  # of a DELETE, it is told


async def _locked(session: AsyncSession, key_id: str) -> ProviderKey | None:
    return await session.get(ProviderKey, key_id, with_for_update={"key_share": True})


def _merged(uses: Iterable[Use]) -> list[Use]:
    """One per key and day."""
    sums: dict[tuple[str, int], tuple[int, int, int]] = {}
    for use in uses:
        requests, tokens, errors = sums.get((use.id, use.day), (0, 0, 0))
        sums[use.id, use.day] = (requests + use.requests, tokens + use.tokens, errors + use.errors)
    return [Use(id, day, *counts) for (id, day), counts in sorted(sums.items())]  # noqa: A001


def _state(row: Mapping[Any, Any], as_of: float) -> KeyState:
    moments = ("resting_until", "last_error_at", "last_used_at", "added_at", "retired_at")
    values = dict(row) | {name: row[name].timestamp() if row[name] is not None else None for name in moments}
    condition: Condition = "usable"
    if values["state"] == "quarantined":
        condition = "quarantined"
    elif values["resting_until"] is not None and values["resting_until"] > as_of:
        condition = "resting"
    return KeyState(**values, condition=condition, as_of=as_of)


def _subject(row: ProviderKey) -> str:
    return f"{row.provider}/{row.id}"
