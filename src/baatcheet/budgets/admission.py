"""Letting requests in by their holders' limits, and charging what they used.

Every process knows all limits, and looks for changed ones every `LOOK_EVERY` seconds: a holder without any costs
nothing. Whoever has a budget is admitted by one statement of the database, which counts the request in before the next
is looked at, and is charged by another when it has ended. Until then it counts as it was estimated. What others use is
gathered and written down once a second.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from math import ceil
from types import TracebackType
from typing import Any, Final, Literal
from uuid import UUID
from weakref import WeakValueDictionary

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.auth.principal import Principal
from baatcheet.budgets import repository
from baatcheet.budgets.errors import BudgetExhausted, Exhausted, ModelNotAllowed, ModelNotPriced
from baatcheet.budgets.limits import MOST, UNLIMITED, Kind, Limits
from baatcheet.kit.ids import new_id
from baatcheet.kit.text import storable
from baatcheet.platform import patience
from baatcheet.platform.database import Database, DatabaseUnavailable
from baatcheet.platform.logging import get_logger
from baatcheet.providers.model import Target, Usage
from baatcheet.providers.prices import Price, Prices

log = get_logger(__name__)

LOOK_EVERY: Final = 2.0  # seconds between two looks for changed limits and prices
FLUSH_EVERY: Final = 1.0
EXPIRE_EVERY: Final = 60.0
FORGET_EVERY: Final = 3600.0
PATIENCE: Final = timedelta(hours=1)  # for a request to end; after that it is charged as it was estimated
QUEUE_PATIENCE: Final = 5.0  # seconds that a request may wait for others of its user to be admitted
CLOSE_PATIENCE: Final = 2.0
SECONDS_GUESSED: Final = 60  # of a recording, before it is decoded
AT_ONCE: Final = 1_000  # rows of one statement
LONGEST_NAME: Final = 300  # characters of a model's name

NOTHING: Final = Usage()

UseKind = Literal["chat", "embedding", "recording"]


class Handed(msgspec.Struct, frozen=True):
    """An admission that a job takes over: what it comes to is known when the job has ended. `models`: those allowed."""

    token: UUID
    day: date
    reservation: UUID | None
    models: tuple[str, ...]


class Admission:
    """One request that was let in. What it came to is said once, by `charge` or `release`; later words are ignored.

    As a context it is released by an error, and charged its prompt by a cancellation: its client has left, and whoever
    was asked may answer all the same.
    """

    __slots__ = ("_budgets", "_estimate", "_model", "_reservation", "_said", "day", "who")

    def __init__(
        self,
        budgets: "Budgets",
        who: Principal,
        day: date,
        reservation: UUID | None,
        estimate: Usage,
        model: str | None,
    ) -> None:
        self.who = who
        self.day = day
        self._budgets = budgets
        self._reservation = reservation
        self._estimate = estimate
        self._model = model
        self._said = False

    def __enter__(self) -> None: ...

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if isinstance(error, asyncio.CancelledError):
            self.charge_prompt()
        elif error is not None:
            self.release()

    async def among(self, targets: Sequence[Target]) -> tuple[Target, ...]:
        """As `Budgets.among`, for targets that became known only now."""
        return await self._budgets.among(self.who, targets)

    def charge(self, model: str, usage: Usage, *, seconds: float = 0, kind: UseKind = "chat") -> None:
        """`model` (`provider/name`) answered. `seconds`: of a recording."""
        if not self._said:
            self._said = True
            self._budgets.charged(self, self._reservation, model, usage, seconds, kind)

    def charge_prompt(self) -> None:
        """It will never be known what was used: the prompt counts, as it was estimated."""
        if self._model is None:
            self.release()
        else:
            prompt = self._estimate.prompt_tokens
            self.charge(self._model, Usage(prompt, 0, prompt))

    def hand_over(self, models: Sequence[str]) -> Handed:
        """A job will say what it came to, by `Budgets.charge_job` or by the reservation's end."""
        self._said = True
        return Handed(self.who.token_id, self.day, self._reservation, tuple(models))

    def give_back(self) -> None:
        """Nothing came of it, though it may have been handed over already."""
        self._said = True
        self._budgets.released(self._reservation)

    def release(self) -> None:
        """Nobody answered: it counts for nothing."""
        if not self._said:
            self._said = True
            self._budgets.released(self._reservation)


class Budgets:
    """The limits as they are now, of one process. `clock`: in place of the database's, for tests."""

    def __init__(
        self, db: Database, prices: Prices | None = None, *, clock: Callable[[], datetime] | None = None
    ) -> None:
        self.prices = prices or Prices()
        self._db = db
        self._clock = clock
        self._limits: dict[UUID, Limits] = {}
        self._known_limits = -1  # the counters up to which changes are known
        self._known_prices = -1
        self._used: dict[tuple[UUID, date, UUID, str, UseKind], list[int]] = {}
        self._spent: dict[tuple[UUID, date, UUID], list[int]] = {}
        self._settlements: dict[UUID, tuple[int, int, int]] = {}
        self._queues: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False

    # Knowing the limits ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Read the limits, and keep up with them from then on. A database that is away is waited for."""
        try:
            await self.refresh()
        except DatabaseUnavailable:
            log.warning("budgets.read_later")
        self._tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._write())]

    async def close(self, *, patience: float = CLOSE_PATIENCE) -> None:
        """Stop, having written down what was used if the database lets us within `patience` seconds."""
        self._closing = True
        self._wake.set()
        if self._tasks:  # a statement under way is let end: cancelled, nobody would know whether it was done
            await asyncio.wait(self._tasks[1:], timeout=patience)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(patience):
                await self.flush()
        except (DatabaseUnavailable, TimeoutError):
            log.warning("budgets.usage_lost", requests=len(self._settlements), rows=len(self._used))

    async def refresh(self) -> None:
        """Look for changes of limits and prices now. Raises DatabaseUnavailable."""
        async with self._db.hot() as connection:
            now = await connection.fetchrow(repository.CHANGES)
            if now["prices"] != self._known_prices:
                rows = await connection.fetch(repository.PRICES)
                self.prices.replace({row["pattern"]: price_of(row) for row in rows})
                self._known_prices = now["prices"]
            if now["limits"] != self._known_limits:
                for row in await connection.fetch(repository.LIMITS_SINCE, self._known_limits):
                    limits = repository.limits_of(row)
                    if limits == UNLIMITED:
                        self._limits.pop(row["holder"], None)
                    else:
                        self._limits[row["holder"]] = limits
                self._known_limits = now["limits"]

    async def _follow(self) -> None:
        away = False
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                await self.refresh()
                away = False
            except DatabaseUnavailable:
                if not away:
                    log.warning("budgets.not_refreshed", meaning="limits hold as they were last read")
                away = True
            except Exception as error:  # noqa: BLE001 - one bad round must not end the following
                log.error("budgets.refresh_failed", error=error)

    async def _of(self, who: Principal) -> list[tuple[Kind, Limits]]:
        """The limits that hold for `who`. Raises DatabaseUnavailable before they were ever read."""
        if self._known_limits < 0:
            await self.refresh()
        if not self._limits:
            return []
        both: tuple[tuple[Kind, UUID], ...] = (("user", who.user_id), ("token", who.token_id))
        return [(kind, limits) for kind, holder in both if (limits := self._limits.get(holder)) is not None]

    # Letting in --------------------------------------------------------------------------------------------

    async def among(self, who: Principal, targets: Sequence[Target]) -> tuple[Target, ...]:
        """Those of `targets` that `who` may ask, in their order; never empty unless `targets` is.

        Raises ModelNotAllowed, ModelNotPriced, DatabaseUnavailable.
        """
        limits = await self._of(who)
        if not limits:
            return tuple(targets)
        kept = set(self._allowed(limits, [target.model.id for target in targets]))
        return tuple(target for target in targets if target.model.id in kept)

    async def names(self, who: Principal, models: Sequence[str]) -> list[str]:
        """As `among`, for models by their ids."""
        limits = await self._of(who)
        return self._allowed(limits, models) if limits else list(models)

    async def in_money(self, who: Principal) -> bool:
        """Whether what `who` may spend is limited in money."""
        return any(each.in_money for _, each in await self._of(who))

    async def shown(self, who: Principal, models: Iterable[str]) -> set[str]:
        """Those of `models` that `who` may ask, which may be none."""
        limits = await self._of(who)
        return {model for model in models if all(each.allow(model) for _, each in limits)}

    def _allowed(self, limits: Sequence[tuple[Kind, Limits]], models: Sequence[str]) -> list[str]:
        allowed = [model for model in models if all(each.allow(model) for _, each in limits)]
        if models and not allowed:
            lists = [(kind, each.models) for kind, each in limits if each.models is not None]
            raise ModelNotAllowed(list(dict.fromkeys(models)), lists)
        if not any(each.in_money for _, each in limits):
            return allowed
        priced = [model for model in allowed if self.prices.of(model) is not None]
        if allowed and not priced:
            raise ModelNotPriced(list(dict.fromkeys(allowed)))
        return priced

    async def admit(
        self,
        who: Principal,
        models: Sequence[str],
        estimate: Callable[[], Usage] = lambda: NOTHING,
        *,
        seconds: float = 0,
        reservation: UUID | None = None,
    ) -> Admission:
        """Let a request to one of `models` in; it must be charged or released in the end.

        `estimate`: what it may come to, `seconds`: of a recording, `reservation`: the id that its reservation is to
        have. Raises BudgetExhausted, DatabaseUnavailable.
        """
        now = self._now()
        today, first = now.date(), models[0] if models else None
        limits = await self._of(who)
        if not any(each.budgeted for _, each in limits):
            return Admission(self, who, today, None, NOTHING, first)
        usage = estimate()
        cost = max((self._cost(model, usage, seconds)[0] for model in models), default=0)
        reservation = reservation or new_id()
        exhausted = await self._reserve(who, reservation, _tokens(usage), max(1, cost))
        if exhausted:
            raise BudgetExhausted(exhausted, now)
        return Admission(self, who, today, reservation, usage, first)

    async def _reserve(self, who: Principal, reservation: UUID, tokens: int, cost: int) -> list[Exhausted]:
        queue = self._queues.get(who.user_id)
        if queue is None:
            queue = self._queues[who.user_id] = asyncio.Lock()
        try:  # in line here, not each with a connection in its hand
            async with patience.within(QUEUE_PATIENCE):
                await queue.acquire()
        except TimeoutError:
            raise DatabaseUnavailable(
                "Too many requests wait to be admitted. Try again in a moment."
            ) from None
        try:
            async with self._db.hot() as connection:
                rows = await connection.fetch(
                    repository.ADMIT,
                    reservation,
                    who.user_id,
                    who.token_id,
                    tokens,
                    cost,
                    PATIENCE,
                    self._clock() if self._clock is not None else None,
                )
        except BaseException:
            self.released(reservation)  # it may be there: the answer alone was lost
            raise
        finally:
            queue.release()
        return [Exhausted(*row) for row in rows]

    # Charging ----------------------------------------------------------------------------------------------

    def charged(
        self,
        admission: Admission,
        reservation: UUID | None,
        model: str,
        usage: Usage,
        seconds: float,
        kind: UseKind,
    ) -> None:
        """Of an admission: what it came to."""
        who, day = admission.who, admission.day
        cost, priced = self._cost(model, usage, seconds)
        cached = min((usage.prompt_tokens_details or {}).get("cached_tokens") or 0, usage.prompt_tokens)
        name = storable(model[:LONGEST_NAME])
        _add(
            self._used,
            (who.user_id, day, who.token_id, name, kind),
            (
                1,
                usage.prompt_tokens,
                cached,
                usage.completion_tokens,
                ceil(seconds),
                cost,
                0 if priced else 1,
            ),
        )
        came_to = (1, _tokens(usage), cost)
        if reservation is not None:
            self._settle(reservation, came_to)
        else:
            for holder in (who.user_id, who.token_id):
                _add(self._spent, (holder, day, who.user_id), came_to)

    def charge_job(self, user: UUID, handed: Handed, model: str, *, seconds: float) -> None:
        """A job that had been let in has ended: `model` heard a recording of so many seconds."""
        who = Principal(user, handed.token, "user", frozenset(), "")
        admission = Admission(self, who, handed.day, handed.reservation, NOTHING, model)
        admission.charge(model, NOTHING, seconds=seconds, kind="recording")

    def cost(self, model: str, usage: Usage) -> int | None:
        """Microcents, by the prices as they are now; None: nobody knows the price."""
        cost, priced = self._cost(model, usage, 0)
        return cost if priced else None

    def released(self, reservation: UUID | None) -> None:
        """Of an admission: nobody answered."""
        if reservation is not None:
            self._settle(reservation, (0, 0, 0))

    def _settle(self, reservation: UUID, came_to: tuple[int, int, int]) -> None:
        self._settlements[reservation] = came_to
        self._wake.set()

    def _cost(self, model: str, usage: Usage, seconds: float) -> tuple[int, bool]:
        """In microcents; False: nobody knows the price."""
        price = self.prices.of(model)
        if price is None:
            return 0, False
        return min(MOST, price.cost(usage) + price.cost_of_recording(seconds)), True

    def _now(self) -> datetime:
        return self._clock() if self._clock is not None else datetime.now(UTC)

    # Writing down ------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        """Settle at once what has ended, and write the rest down every second, until closed."""
        flushed = expired = time.monotonic()
        forgot = 0.0
        while not self._closing:
            try:
                async with asyncio.timeout(FLUSH_EVERY):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            now = time.monotonic()
            try:
                await self.settle()
                if now - flushed >= FLUSH_EVERY:
                    flushed = now
                    await self.flush()
                if now - expired >= EXPIRE_EVERY:
                    expired = now
                    await self.expire()
                if now - forgot >= FORGET_EVERY:
                    forgot = now
                    await self._forget()
            except DatabaseUnavailable:
                log.warning("budgets.written_later", requests=len(self._settlements), rows=len(self._used))
                await asyncio.sleep(FLUSH_EVERY)
            except Exception as error:  # noqa: BLE001 - one bad round must not end the writing
                log.error("budgets.round_failed", error=error)

    async def settle(self) -> None:
        """Charge what has ended, of those who have a budget. Raises DatabaseUnavailable, having lost nothing."""
        async with self._writing:
            while self._settlements:
                batch = dict(list(self._settlements.items())[:AT_ONCE])
                columns = [list(column) for column in zip(*batch.values(), strict=True)]
                try:
                    async with self._db.hot() as connection:
                        await connection.execute(repository.SETTLE, list(batch), *columns)
                except DatabaseUnavailable:
                    raise
                except Exception as error:  # noqa: BLE001 - the next ones must not wait for one that can't be written
                    log.error("budgets.not_settled", error=error, requests=len(batch))
                for one in batch:
                    del self._settlements[one]

    async def flush(self) -> None:
        """Write down all that was used. Raises DatabaseUnavailable, having lost nothing."""
        await self.settle()
        async with self._writing:
            await self._pour("_used", repository.ADD_USAGE)
            await self._pour("_spent", repository.ADD_SPENDING)

    async def _pour(self, name: str, statement: str) -> None:
        rows: dict[tuple[Any, ...], list[int]] = getattr(self, name)
        if not rows:
            return
        setattr(self, name, {})
        try:
            await self._insert(statement, rows)
        except (DatabaseUnavailable, asyncio.CancelledError):
            self._keep(name, rows)
            raise
        except Exception:  # noqa: BLE001 - one row is at fault: its holder is gone
            await self._pour_one_by_one(name, statement, rows)

    async def _pour_one_by_one(
        self, name: str, statement: str, rows: dict[tuple[Any, ...], list[int]]
    ) -> None:
        """Write what can be written; what can't takes no other row with it."""
        while rows:
            key, sums = rows.popitem()
            try:
                await self._insert(statement, {key: sums})
            except (DatabaseUnavailable, asyncio.CancelledError):
                self._keep(name, {**rows, key: sums})
                raise
            except Exception as error:  # noqa: BLE001
                log.warning("budgets.not_written", error=error)

    async def _insert(self, statement: str, rows: dict[tuple[Any, ...], list[int]]) -> None:
        columns = [
            list(column) for column in zip(*((*key, *sums) for key, sums in rows.items()), strict=True)
        ]
        async with self._db.hot() as connection:
            await connection.execute(statement, *columns)

    def _keep(self, name: str, rows: dict[tuple[Any, ...], list[int]]) -> None:
        kept = getattr(self, name)
        for key, sums in rows.items():
            _add(kept, key, sums)

    async def expire(self) -> None:
        """Charge, as they were estimated, requests of which nobody has said in time what they used."""
        async with self._db.hot() as connection:
            await connection.execute(repository.EXPIRE)

    async def _forget(self) -> None:
        async with self._db.hot() as connection:
            for statement in repository.FORGET:
                await connection.execute(statement)


async def forget_reservation(session: AsyncSession, reservation: UUID) -> None:
    """What was let in came to nothing: it counts for nothing, from when `session` commits."""
    gone = text("DELETE FROM spending_reservations WHERE id = :id AND NOT expired")
    await session.execute(gone, {"id": reservation})


def price_of(row: Any) -> Price:
    """A row of `model_prices`."""
    return Price(row["prompt"], row["completion"], row["cached"], row["written"], row["hour"])


def _tokens(usage: Usage) -> int:
    return max(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)


def _add(sums: dict[Any, list[int]], key: Any, amounts: Sequence[int]) -> None:
    known = sums.get(key)
    sums[key] = list(amounts) if known is None else [a + b for a, b in zip(known, amounts, strict=True)]
