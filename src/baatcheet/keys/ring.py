"""The keys that this process serves: read from the stores, kept up to date, and what becomes of them made known.

A store that is away while the process runs costs nothing: what was read last stays in force. A change that any process
finds, or makes, is counted up in `key_changes.sets`; all others hear of it by a notice, or see it within `POLL`, read
the stores themselves, and write down which change they serve.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from secrets import token_bytes
from typing import Any, Final
from uuid import UUID

import msgspec

from baatcheet.keys.ledger import Ledger
from baatcheet.keys.pool import KeyPool, PooledKey
from baatcheet.keys.pools import Pools
from baatcheet.keys.quota import Quota
from baatcheet.keys.secret import SecretKey
from baatcheet.keys.stores.model import KeySet, SecretStore, StoreError
from baatcheet.kit.backoff import jittered
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database, DatabaseUnavailable
from baatcheet.platform.logging import get_logger
from baatcheet.platform.notices import listen
from baatcheet.platform.redaction import register_secret
from baatcheet.platform.settings import SettingsError
from baatcheet.platform.signed_links import deployment_secret
from baatcheet.platform.telemetry import Metrics

log = get_logger(__name__)

CHANNEL: Final = "baatcheet_keys"
SECRET: Final = "provider-keys"  # noqa: S105 - the name of the deployment's secret that fingerprints are made with
POLL: Final = 1.5  # seconds
FLUSH: Final = 1.0  # seconds
PATIENCE: Final = 2.0  # seconds
LIVE: Final = 15.0  # seconds after its last sign in which a process counts as alive
FORGOTTEN: Final = 3600.0  # seconds after which a process that was not heard of is no longer listed
_SPREAD: Final = 0.2

_CHANGES = "SELECT sets, states FROM key_changes"
_TELL: Final = """
WITH told AS (UPDATE key_changes SET sets = sets + 1 RETURNING sets) SELECT sets, pg_notify($1, '') FROM told
"""
_WATCH = """
INSERT INTO key_watchers (process, sets, holds, in_flight, seen_at)
VALUES ($1, $2, $3::text::jsonb, $4::text::jsonb, clock_timestamp())
ON CONFLICT (process) DO UPDATE
SET sets = excluded.sets, holds = excluded.holds, in_flight = excluded.in_flight, seen_at = excluded.seen_at
"""
_SERVED = (
    "SELECT EXISTS (SELECT FROM key_watchers WHERE seen_at > clock_timestamp() - make_interval(secs => $1))"
)
_LEAVE = (
    "DELETE FROM key_watchers WHERE process = $1 OR seen_at < clock_timestamp() - make_interval(secs => $2)"
)


async def tell_of_change(db: Database) -> int:
    """Have every process read the stores now; returns the number of the change. Raises DatabaseUnavailable."""
    async with db.hot() as connection:
        told: int = await connection.fetchval(_TELL, CHANNEL)
    return told


class StoresNotRead(SettingsError):
    """A process that starts could not read a secret store. `str(error)` says of each which, and what to do."""


class KeyRing:
    """Every provider's keys in this process.

    `providers`: whose keys the stores are asked for. `connect`: opens a connection on which notices are heard; None:
    changes are polled only.
    """

    def __init__(
        self,
        db: Database,
        stores: Sequence[SecretStore],
        providers: Sequence[str],
        pools: Pools,
        *,
        refresh_seconds: float = 60.0,
        connect: Callable[[], Awaitable[Any]] | None = None,
        process: UUID | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._db = db
        self.stores = tuple(stores)
        self.providers = tuple(providers)
        self.pools = pools
        self.ledger = Ledger(db, metrics)
        self._quota = Quota(db, pools)
        self._refresh_seconds = refresh_seconds
        self._connect = connect
        self.process = process or new_id()
        # Until the database has said what fingerprints are made with, the ids mean nothing outside of this process.
        self._secret = token_bytes(32)
        self._settled = False
        self._read: dict[str, Mapping[str, KeySet]] = {}  # by store: what it said last
        self._current: dict[str, tuple[SecretStore, tuple[SecretKey, ...]]] = {}
        self._serves = 0  # the change of the sets that is served
        self._states = -1  # the change of the keys' states that is known
        self._reading = asyncio.Lock()
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.failing: Mapping[str, str] = {}  # stores that did not answer when they were read last, and why
        self._serving = False

    def pool(self, provider: str) -> KeyPool:
        """The provider's pool, possibly without keys."""
        return self.pools.of(provider)

    def current(self, provider: str) -> tuple[SecretKey, ...]:
        """The keys that are in use."""
        found = self._current.get(provider)
        return found[1] if found is not None else ()

    def store_of(self, provider: str) -> SecretStore | None:
        """The store that the provider's keys come from."""
        found = self._current.get(provider)
        return found[0] if found is not None else None

    def fingerprint(self, provider: str, key: SecretKey) -> str:
        """The key's id, in the ledger and everywhere.

        Raises DatabaseUnavailable until the database has said what ids are made with: those of before mean nothing to
        anybody else, and whoever compared them would take a key that is in use for another.
        """
        if not self._settled:
            raise DatabaseUnavailable("The keys' fingerprints are not known yet. Try again in a moment.")
        return key.fingerprint(self._secret, provider)

    # Life --------------------------------------------------------------------------------------------------

    async def start(self, *, serving: bool = True) -> None:
        """Read the stores, and keep up to date from then on.

        `serving` False: read once, for one command, which goes on without a store that can't be read (`failing`). The
        ledger is told what it found only where nobody serves: its environment may be another than the server's.

        A database that is away is waited for in the background. Raises StoresNotRead when a store is down, refuses or
        can't be read; for one command DatabaseUnavailable, too.
        """
        changes = await self._changes_if_there()
        failed = await self._read_stores()
        if failed and serving:
            raise StoresNotRead("\n".join(str(error) for error in failed))
        self.failing = {error.store: str(error) for error in failed}
        self._serving = serving
        try:
            await self._settle(changes)
        except DatabaseUnavailable:
            if not serving:
                raise
            log.warning("keys.wait_for_database")
            await self._apply()
        if not serving:
            return
        work = [self._keep_read(), self._keep_told(), self._keep_flushed(), self._keep_seen()]
        if self._connect is not None:
            work.append(listen(self._connect, CHANNEL, self._news.set))
        self._tasks = [asyncio.create_task(one) for one in work]

    async def _changes_if_there(self) -> int | None:
        """The number of the last change, which whoever reads the stores now will have read; None: it can't be known."""
        try:
            return (await self._changes())[0]
        except DatabaseUnavailable:
            return None

    async def _settle(self, changes: int | None = None) -> None:
        """Agree with the database: the keys' ids, their states, this process's part of their quota.

        `changes`: the change that was the last before the stores were read; None: it has to be found out.
        """
        secret = await deployment_secret(self._db, SECRET)
        _, states = await self._changes()
        async with self._reading:
            self._serves, self._states = -1 if changes is None else changes, states
            self._secret, self._settled = secret, True
            self._current.clear()
            try:
                await self._apply()
                await self._learn_states()
                if self._serving:
                    await self._quota.start()
                    await self._report()
            except BaseException:  # whatever it was: it is done again, from the beginning
                self._settled = False
                raise

    async def close(self, patience: Callable[[], float] = lambda: PATIENCE) -> None:
        """Write down what is left, and give back what was lent; `patience`: seconds that a part of it may take."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._tasks and self._settled:
            for work in (self._flush, self._quota.close, self._leave):
                await self._finish(work, patience())
        await asyncio.gather(*(store.close() for store in self.stores))

    async def _finish(self, work: Callable[[], Awaitable[None]], seconds: float) -> None:
        """One part of leaving, which must not keep the others from being done."""
        name = getattr(work, "__name__", "?")
        try:
            async with asyncio.timeout(seconds):
                await work()
        except (DatabaseUnavailable, TimeoutError):
            log.warning("keys.not_written_down", work=name)
        except Exception as error:  # noqa: BLE001 - the process ends all the same
            log.error("keys.not_written_down", error=error, work=name)

    async def _leave(self) -> None:
        async with self._db.hot() as connection:
            await connection.execute(_LEAVE, self.process, FORGOTTEN)

    # Reading -----------------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Read the stores now. A change is served here at once, and every process is told.

        A store that fails is passed over: what it said last stays in force. Raises DatabaseUnavailable when the others
        could not be told; they find out by themselves, later.
        """
        async with self._reading:
            self._note(await self._read_stores())
            if await self._apply() and self._settled:
                await tell_of_change(self._db)
        self._news.set()  # which change was read is told by reading once more, as every other process does

    async def _told(self, sets: int) -> None:
        """Somebody has found or made a change."""
        async with self._reading:
            failed = await self._read_stores()
            self._note(failed)
            await self._apply()
            if not failed:  # else it is not known whether the change is served: it is looked for again
                self._serves = max(self._serves, sets)
        await self._report()

    async def _read_stores(self) -> list[StoreError]:
        """Ask every store for everything. Returns what went wrong."""

        async def read(store: SecretStore) -> StoreError | None:
            try:
                self._read[store.name] = await store.fetch(self.providers)
            except StoreError as error:
                if error.found:  # one provider's secret takes nothing from the others
                    self._read[store.name] = {**self._read.get(store.name, {}), **error.found}
                return error
            return None

        failed = await asyncio.gather(*(read(store) for store in self.stores))
        return [error for error in failed if error is not None]

    def _note(self, failed: Sequence[StoreError]) -> None:
        """Tell the log once of each store that begins to fail, and of each that answers again."""
        failing = {error.store: str(error) for error in failed}
        for name, reason in failing.items():
            if name not in self.failing:
                log.warning("keys.store_failed", store=name, reason=reason)
        for name in set(self.failing) - set(failing):
            log.info("keys.store_answers", store=name)
        self.failing = failing

    async def _apply(self) -> bool:
        """Serve what was read. Whether anything has changed.

        Raises DatabaseUnavailable, having changed nothing.
        """
        changed: dict[str, tuple[SecretStore | None, tuple[SecretKey, ...]]] = {}
        for provider in self.providers:
            store, keys = self._chosen(provider)
            if keys != self.current(provider) or (keys and store is not self.store_of(provider)):
                changed[provider] = store, keys
        tells = bool(changed) and (self._serving or await self._stands_in())
        pooled: dict[str, list[PooledKey]] = {}
        for provider, (store, keys) in changed.items():
            for key in keys:
                register_secret(key.reveal(), fragments=True)
            pooled[provider] = [
                PooledKey(key.fingerprint(self._secret, provider), key.hint, key) for key in keys
            ]
            if self._settled and tells:
                await self.ledger.know(provider, store.name if store is not None else "", pooled[provider])
                if self._serving:  # a new key has its quota before it is used
                    await self._quota.prepare(self.pool(provider), pooled[provider])
        # A key that comes back may be one that must not be used: that is known before it is.
        states = await self.ledger.states() if changed and self._settled else {}
        for provider, (store, keys) in changed.items():
            self.pool(provider).replace(pooled[provider])
            self.pool(provider).apply(states)
            if store is not None:
                self._current[provider] = store, keys
            else:
                self._current.pop(provider, None)
            log.info("keys.served", provider=provider, keys=len(keys), store=store.name if store else None)
        if changed and self._settled:
            self._quota.wake()
        return bool(changed)

    async def _stands_in(self) -> bool:
        """Whether one command may say which keys there are: it has read all stores, and no process serves any."""
        if self.failing or not self._settled:
            return False
        async with self._db.hot() as connection:
            return not await connection.fetchval(_SERVED, LIVE)

    def _chosen(self, provider: str) -> tuple[SecretStore | None, tuple[SecretKey, ...]]:
        for store in self.stores:
            found = self._read.get(store.name, {}).get(provider)
            if found is not None and found.keys:
                return store, tuple(dict.fromkeys(found.keys))
        return None, ()

    # Telling -----------------------------------------------------------------------------------------------

    async def _changes(self) -> tuple[int, int]:
        async with self._db.hot() as connection:
            row = await connection.fetchrow(_CHANGES)
        return (row[0], row[1]) if row is not None else (0, 0)

    async def _report(self) -> None:
        holds = [state.id for pool in self.pools for state in pool.states()]
        in_flight = {
            key: count for pool in self.pools for key, count in pool.in_flight(retired=True).items() if count
        }
        async with self._db.hot() as connection:
            await connection.execute(
                _WATCH,
                self.process,
                self._serves,
                msgspec.json.encode(holds).decode(),
                msgspec.json.encode(in_flight).decode(),
            )

    async def _learn_states(self) -> None:
        states = await self.ledger.states()
        for pool in self.pools:
            pool.apply(states)

    # Keeping up to date ------------------------------------------------------------------------------------

    async def _keep_read(self) -> None:
        while True:
            spread = random.uniform(1 - _SPREAD, 1 + _SPREAD)  # noqa: S311 - spreads, keeps no secret
            await asyncio.sleep(self._refresh_seconds * spread)
            await self._safely(self.refresh)

    async def _keep_told(self) -> None:
        while True:
            try:
                async with asyncio.timeout(jittered(POLL)):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()
            await self._safely(self._look)

    async def _keep_seen(self) -> None:
        """However long a store takes to answer, others must see that this process lives, and what it holds."""
        while True:
            await asyncio.sleep(jittered(POLL))
            await self._safely(self._seen)

    async def _seen(self) -> None:
        if self._settled:
            await self._report()

    async def _look(self) -> None:
        if not self._settled:
            await self._settle()
        sets, states = await self._changes()
        if sets > self._serves:
            await self._told(sets)
        if states != self._states:
            await self._learn_states()
            self._states = states

    async def _keep_flushed(self) -> None:
        while True:
            await asyncio.sleep(FLUSH)
            await self._safely(self._flush)

    async def _flush(self) -> None:
        if self._settled:
            await self.ledger.flush(self.pools)

    async def _safely(self, work: Callable[[], Awaitable[None]]) -> None:
        """Whatever goes wrong in one round must not end the rounds."""
        try:
            await work()
        except DatabaseUnavailable:
            pass  # it is said by everybody else; the next round will do
        except Exception as error:  # noqa: BLE001 - keys are served meanwhile as they were
            log.error("keys.round_failed", error=error)
