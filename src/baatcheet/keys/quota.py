"""A day's requests, shared out in slices: no request waits for a counter, and all together never pass the limit.

`key_usage.granted` is what has been handed out of a key's day; a slice is added to it before it is used, in one
transaction with a look at what others have. A process that dies keeps the slices that it had: the deployment makes
fewer requests then, never more. Each process asks ahead of its need, and for tomorrow (UTC) before midnight. As the
day's quota runs out slices get smaller, and who holds more than it needs gives back, so that nobody is without while
another has some to spare.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.keys.pool import DAY, Holding, KeyPool, PooledKey
from baatcheet.kit.backoff import jittered
from baatcheet.platform.database import Database, DatabaseUnavailable
from baatcheet.platform.logging import get_logger

log = get_logger(__name__)

EVERY: Final = 1.0  # seconds between two rounds
SOONEST: Final = 0.02  # seconds between two rounds when there is need
AHEAD: Final = 10.0  # seconds of use that a slice is to last
BEFORE_MIDNIGHT: Final = 600.0  # seconds before which tomorrow's slices are asked for
SETTLING: Final = 3.0  # seconds over which the rate of requests is taken
CALM: Final = 3.0  # seconds without a request after which a process needs nothing of what is scarce
SCARCE: Final = 10  # when less than one of so many parts of a day is left, only who has need gets some
LARGEST: Final = 2_000  # requests in a slice that is not needed yet
LIMIT: Final = 5.0  # seconds that a round may take in the database
ALIVE: Final = 10.0  # seconds since a process was heard of

_PROCESSES = text(
    "SELECT count(*) FROM key_watchers WHERE seen_at > clock_timestamp() - make_interval(secs => :alive)"
)
_READ = text(
    "SELECT k.id, d.day, u.granted "
    "FROM unnest(CAST(:ids AS text[]), CAST(:days AS int[])) AS d (id, day) JOIN provider_keys k ON k.id = d.id "
    "LEFT JOIN key_usage u ON u.key_id = d.id AND u.day = DATE '1970-01-01' + d.day"
)
_MAKE = text(
    "INSERT INTO key_usage (key_id, day) SELECT k.id, DATE '1970-01-01' + d.day "
    "FROM unnest(CAST(:ids AS text[]), CAST(:days AS int[])) AS d (id, day) JOIN provider_keys k ON k.id = d.id "
    "ORDER BY 1, 2 ON CONFLICT DO NOTHING"
)
_LOCK = text(
    "SELECT u.key_id, u.day - DATE '1970-01-01', u.granted "
    "FROM unnest(CAST(:ids AS text[]), CAST(:days AS int[])) AS d (id, day) "
    "JOIN key_usage u ON u.key_id = d.id AND u.day = DATE '1970-01-01' + d.day "
    "ORDER BY u.key_id, u.day FOR UPDATE OF u"
)
_ADD = text(
    "UPDATE key_usage u SET granted = u.granted + d.more "
    "FROM unnest(CAST(:ids AS text[]), CAST(:days AS int[]), CAST(:more AS int[])) AS d (id, day, more) "
    "WHERE u.key_id = d.id AND u.day = DATE '1970-01-01' + d.day"
)

Place = tuple[str, int]  # a key's id and a day


@dataclass
class _Wish:
    """One key's slice is to have `more` requests; below 0: so many are given back."""

    pool: KeyPool
    limit: int
    more: int


@dataclass
class _Demand:
    """How much a pool was asked for lately."""

    rate: float = 0.0  # requests a second, of all its keys
    asked_at: float = -math.inf


class Quota:
    """This process's slices. `pools`: all pools of the process, looked at anew in every round."""

    def __init__(
        self, db: Database, pools: Iterable[KeyPool], *, clock: Callable[[], float] = time.time
    ) -> None:
        self._db = db
        self._pools = pools
        self._clock = clock
        self._need = asyncio.Event()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._rounds = asyncio.Lock()
        self._processes = 1
        self._looked_at = clock()
        self._demand: dict[str, _Demand] = {}
        self._away = False

    async def start(self) -> None:
        """Get the first slices, then go on in the background. A second call changes nothing.

        Raises DatabaseUnavailable.
        """
        if self._task is not None:
            return
        await self.round()
        self._stopping.clear()
        self._task = asyncio.create_task(self._run(), name="key-quota")

    def wake(self) -> None:
        """Look soon at what is needed."""
        self._need.set()

    async def close(self) -> None:
        """Stop, and give back what was not used. Call it when no more requests come. Raises DatabaseUnavailable."""
        self._stopping.set()
        self._need.set()
        task, self._task = self._task, None
        if task is not None:
            await task
        async with self._rounds:
            await self._give_all_back()

    async def prepare(self, pool: KeyPool, keys: Sequence[PooledKey]) -> None:
        """Get slices for `keys`, which the ledger knows, before they are the pool's. Raises DatabaseUnavailable."""
        limit = pool.limits.requests_per_day
        if limit is None:
            return
        async with self._rounds:
            held = {one.id for one in pool.holdings()} | {one.id for one in pool.kept() if one.left > 0}
            today = int(self._clock() // DAY)
            granted = await self._look([(key.id, today) for key in keys if key.id not in held])
            await self._settle(
                {
                    place: _Wish(pool, limit, self._slice(limit - so_far))
                    for place, so_far in granted.items()
                    if so_far < limit
                }
            )

    # -- rounds --------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(jittered(EVERY)):
                    await self._need.wait()
            self._need.clear()
            if self._stopping.is_set():
                return
            try:
                await self.round()
                if self._away:
                    log.info("quota.database_back")
                self._away = False
            except DatabaseUnavailable:
                if not self._away:
                    log.warning("quota.database_away")
                self._away = True
                await self._pause(EVERY)
            except Exception as error:  # noqa: BLE001 - what is granted goes on being used meanwhile
                log.error("quota.round_failed", error=error)
                await self._pause(EVERY)
            await self._pause(SOONEST)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def round(self) -> None:
        """Look once at what is needed and what is there, and ask for slices or give some back.

        Raises DatabaseUnavailable.
        """
        async with self._rounds:
            await self._round()

    async def _round(self) -> None:
        now = self._clock()
        today, second = divmod(now, DAY)
        late = second > DAY - BEFORE_MIDNIGHT
        seconds = max(now - self._looked_at, 1e-3)
        self._looked_at = now
        held: dict[Place, tuple[KeyPool, int, int]] = {}  # with the pool's limit, and what is left here
        for pool in self._pools:
            pool.on_need = self._need.set
            self._note_demand(pool, now, seconds)
            limit = pool.limits.requests_per_day
            if limit is None:
                continue
            for holding in pool.holdings():
                held[holding.id, holding.day] = (pool, limit, holding.left)
                if late and holding.day == int(today):
                    held[holding.id, holding.day + 1] = (pool, limit, holding.tomorrow)
        granted = await self._look(list(held))
        wishes: dict[Place, _Wish] = {}
        for place, (pool, limit, left) in held.items():
            if place not in granted:  # The ledger does not know this key yet.
                continue
            remaining = max(0, limit - granted[place])
            pool.grant(*place, 0, remaining)
            if more := self._wish(pool, limit, left, remaining, now):
                wishes[place] = _Wish(pool, limit, more)
        await self._settle(wishes)

    def _note_demand(self, pool: KeyPool, now: float, seconds: float) -> None:
        picked, refused = pool.take_demand()
        demand = self._demand.setdefault(pool.provider, _Demand())
        if picked or refused:
            demand.asked_at = now
        fade = math.exp(-seconds / SETTLING)
        demand.rate = demand.rate * fade + (picked + refused) / SETTLING
        pool.divide(self._processes)

    def _wish(self, pool: KeyPool, limit: int, left: int, remaining: int, now: float) -> int:
        """How many more requests are wanted, of `remaining` that nobody has; below 0: how many are not needed."""
        demand = self._demand[pool.provider]
        wanting = now - demand.asked_at < CALM
        need = math.ceil(demand.rate * AHEAD / max(1, len(pool))) + 1 if wanting else 0
        if remaining * SCARCE >= limit:
            target = max(need, self._slice(remaining))
            return target - left if left <= target // 2 else 0
        if remaining < 1:
            return min(0, need - left)
        target = min(need, max(1, remaining // (2 * self._processes)))
        return target - left if left <= target // 2 else 0

    def _slice(self, remaining: int) -> int:
        return min(LARGEST, max(1, remaining // (2 * self._processes)))

    # -- the database --------------------------------------------------------------------------------------------

    async def _look(self, places: Sequence[Place]) -> dict[Place, int]:
        if not places:
            return {}
        async with self._db.system(limit=LIMIT) as session:
            self._processes = max(1, (await session.execute(_PROCESSES, {"alive": ALIVE})).scalar_one())
            rows = await session.execute(_READ, _columns(places))
            granted = {(id, day): granted for id, day, granted in rows}  # noqa: A001
            # Here and not where they are locked: a statement that makes rows, and one that locks those that are there
            # already, could wait for each other in two processes.
            missing = sorted(place for place, so_far in granted.items() if so_far is None)
            if missing:
                await session.execute(_MAKE, _columns(missing))
            return {place: so_far or 0 for place, so_far in granted.items()}

    async def _settle(self, wishes: Mapping[Place, _Wish]) -> None:
        """Ask and give back, all in one transaction."""
        if not wishes:
            return
        async with self._db.system(limit=LIMIT) as session:
            granted = await self._lock(session, list(wishes))
            # From here on what is given back can't be used any more, whatever becomes of the transaction.
            changes = {
                place: (
                    min(wish.more, max(0, wish.limit - granted[place]))
                    if wish.more > 0
                    else -wish.pool.take_back(*place, -wish.more)
                )
                for place, wish in wishes.items()
                if place in granted
            }
            await self._add(session, changes)
        for place, more in changes.items():
            wish = wishes[place]
            wish.pool.grant(*place, max(0, more), max(0, wish.limit - granted[place] - more))

    async def _give_all_back(self) -> None:
        held: list[tuple[KeyPool, Holding]] = [
            (pool, one) for pool in self._pools for one in (*pool.holdings(), *pool.kept())
        ]
        back: dict[Place, tuple[KeyPool, int]] = {}
        for pool, one in held:
            if one.left > 0:
                back[one.id, one.day] = (pool, one.left)
            if one.tomorrow > 0:
                back[one.id, one.day + 1] = (pool, one.tomorrow)
        if not back:
            return
        async with self._db.system(limit=LIMIT) as session:
            known = await self._lock(session, list(back))
            await self._add(
                session,
                {
                    place: -pool.take_back(*place, left)
                    for place, (pool, left) in back.items()
                    if place in known
                },
            )

    async def _lock(self, session: AsyncSession, places: Sequence[Place]) -> dict[Place, int]:
        rows = await session.execute(_LOCK, _columns(places))
        return {(id, day): granted for id, day, granted in rows}  # noqa: A001

    async def _add(self, session: AsyncSession, changes: Mapping[Place, int]) -> None:
        told = {place: more for place, more in changes.items() if more}
        if told:
            await session.execute(_ADD, {**_columns(list(told)), "more": list(told.values())})


def _columns(places: Sequence[Place]) -> dict[str, list[Any]]:
    return {"ids": [id for id, _ in places], "days": [day for _, day in places]}  # noqa: A001
