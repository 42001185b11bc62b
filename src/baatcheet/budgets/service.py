"""Setting limits and prices, and looking at what was used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.auth.models import ApiToken, User
from baatcheet.auth.service import TokenNotFound, UserNotFound
from baatcheet.budgets import repository
from baatcheet.budgets.admission import price_of
from baatcheet.budgets.errors import began_on, resets_at
from baatcheet.budgets.limits import UNLIMITED, Amounts, Kind, Limits, Period
from baatcheet.budgets.models import ModelPrice, ModelUsage, SpendingChanges, SpendingLimits
from baatcheet.keys.audit import Actor, note
from baatcheet.platform.database import Database
from baatcheet.platform.errors import NotFound
from baatcheet.providers.prices import Price


class PriceNotFound(NotFound):
    """Nobody has set a price for this."""

    type = "price-not-found"
    openai_code = "price_not_found"


@dataclass(frozen=True, slots=True)
class Spent:
    """In a period so far; `held`: of requests under way, as they were estimated."""

    since: date
    resets_at: datetime
    used: Amounts
    held: Amounts


@dataclass(frozen=True, slots=True)
class Standing:
    """A holder's limits, and what is spent of them."""

    limits: Limits
    day: Spent
    month: Spent


@dataclass(frozen=True, slots=True)
class UsedOfModel:
    """What was used of one model on one day (UTC), by all of a user's tokens."""

    day: date
    model: str
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    recorded_seconds: int
    microcents: int
    unpriced: int


class Budgeting:
    """What an administrator sets, and what its holder sees. Every process obeys a change within 5 seconds."""

    def __init__(self, db: Database) -> None:
        self._db = db

    # Limits ------------------------------------------------------------------------------------------------

    async def of_user(self, user_id: UUID) -> Limits:
        """Raises UserNotFound."""
        async with self._db.system() as session:
            await _user(session, user_id)
            return await _limits(session, user_id)

    async def of_token(self, token_id: UUID) -> Limits:
        """Raises TokenNotFound."""
        async with self._db.system() as session:
            await _token(session, token_id)
            return await _limits(session, token_id)

    async def limit_user(self, actor: Actor, user_id: UUID, limits: Limits) -> Limits:
        """Set all of a user's limits: they hold for their tokens together. Raises UserNotFound."""
        async with self._db.system() as session:
            await _user(session, user_id)
            await _set(session, actor, "user", user_id, user_id, limits)
        return limits

    async def limit_token(self, actor: Actor, token_id: UUID, limits: Limits) -> Limits:
        """Set all of a token's limits: they hold beside its user's. Raises TokenNotFound."""
        async with self._db.system() as session:
            owner = await _token(session, token_id)
            await _set(session, actor, "token", token_id, owner, limits)
        return limits

    # Usage -------------------------------------------------------------------------------------------------

    async def standing(self, user_id: UUID, holder: UUID) -> Standing:
        """Of a user (`holder` is the same) or of one of their tokens."""
        now = datetime.now(UTC)
        async with self._db.tenant(user_id) as session:
            limits = await _limits(session, holder)
            asked = {"holder": holder, "today": began_on("day", now), "first": began_on("month", now)}
            rows = {row.period: row for row in await session.execute(text(repository.STANDING), asked)}
        return Standing(limits, _spent("day", rows["day"], now), _spent("month", rows["month"], now))

    async def used(self, user_id: UUID, days: int) -> list[UsedOfModel]:
        """By day and model, the newest day first, of the last `days` days, today with them."""
        since = datetime.now(UTC).date() - timedelta(days=days - 1)
        counts = [
            func.sum(column).label(column.key)
            for column in (
                ModelUsage.requests,
                ModelUsage.prompt_tokens,
                ModelUsage.cached_tokens,
                ModelUsage.completion_tokens,
                ModelUsage.recorded_seconds,
                ModelUsage.microcents,
                ModelUsage.unpriced,
            )
        ]
        query = (
            select(ModelUsage.day, ModelUsage.model, *counts)
            .where(ModelUsage.user_id == user_id, ModelUsage.day >= since)
            .group_by(ModelUsage.day, ModelUsage.model)
            .order_by(ModelUsage.day.desc(), ModelUsage.model)
        )
        async with self._db.tenant(user_id) as session:
            rows = (await session.execute(query)).all()
        return [UsedOfModel(row[0], row[1], *(int(value) for value in row[2:])) for row in rows]

    async def known_user(self, user_id: UUID) -> None:
        """Raises UserNotFound."""
        async with self._db.system() as session:
            await _user(session, user_id)

    # Prices ------------------------------------------------------------------------------------------------

    async def prices(self) -> dict[str, Price]:
        """Those that were set, by model ids or patterns."""
        async with self._db.system() as session:
            rows: Sequence[ModelPrice] = (
                await session.scalars(select(ModelPrice).order_by(ModelPrice.pattern))
            ).all()
        return {row.pattern: price_of(vars(row)) for row in rows}

    async def set_price(self, actor: Actor, pattern: str, price: Price) -> None:
        fields: Mapping[str, Any] = {
            "prompt": price.prompt,
            "completion": price.completion,
            "cached": price.cached,
            "written": price.written,
            "hour": price.hour,
        }
        async with self._db.system() as session:
            await _count(session, SpendingChanges.prices)
            row = insert(ModelPrice).values(pattern=pattern, **fields)
            await session.execute(
                row.on_conflict_do_update(
                    index_elements=["pattern"], set_={**fields, "updated_at": func.clock_timestamp()}
                )
            )
            told = {name: None if value is None else str(value) for name, value in fields.items()}
            note(session, actor, "price.set", pattern, told)

    async def remove_price(self, actor: Actor, pattern: str) -> None:
        """The built-in table says again what it costs. Raises PriceNotFound."""
        async with self._db.system() as session:
            await _count(session, SpendingChanges.prices)
            gone = await session.scalar(
                delete(ModelPrice).where(ModelPrice.pattern == pattern).returning(ModelPrice.pattern)
            )
            if gone is None:
                raise PriceNotFound(f"Nobody has set a price for {pattern}.")
            note(session, actor, "price.removed", pattern)


async def _user(session: AsyncSession, user_id: UUID) -> None:
    if await session.scalar(select(User.id).where(User.id == user_id)) is None:
        raise UserNotFound(f"There is no user {user_id}.")


async def _token(session: AsyncSession, token_id: UUID) -> UUID:
    owner = await session.scalar(select(ApiToken.user_id).where(ApiToken.id == token_id))
    if owner is None:
        raise TokenNotFound(f"There is no token {token_id}.")
    return owner


async def _limits(session: AsyncSession, holder: UUID) -> Limits:
    row = await session.get(SpendingLimits, holder)
    return UNLIMITED if row is None else repository.limits_of(row)


async def _count(session: AsyncSession, counter: Any) -> int:
    """Count a change: whoever does so next waits for this transaction, so that versions come in order."""
    counted = update(SpendingChanges).values({counter: counter + 1}).returning(counter)
    value: int = (await session.execute(counted)).scalar_one()
    return value


async def _set(
    session: AsyncSession, actor: Actor, kind: Kind, holder: UUID, owner: UUID, limits: Limits
) -> None:
    fields: Mapping[str, Any] = {
        "models": None if limits.models is None else list(limits.models),
        "requests_per_day": limits.day.requests,
        "requests_per_month": limits.month.requests,
        "tokens_per_day": limits.day.tokens,
        "tokens_per_month": limits.month.tokens,
        "microcents_per_day": limits.day.microcents,
        "microcents_per_month": limits.month.microcents,
    }
    version = await _count(session, SpendingChanges.limits)
    row = insert(SpendingLimits).values(holder=holder, user_id=owner, kind=kind, version=version, **fields)
    changed = {**fields, "version": version, "updated_at": func.clock_timestamp()}
    await session.execute(row.on_conflict_do_update(index_elements=["holder"], set_=changed))
    note(session, actor, "limits.set", f"{kind}/{holder}", fields)


def _spent(period: Period, row: Any, now: datetime) -> Spent:
    return Spent(
        began_on(period, now),
        resets_at(period, now),
        Amounts(row.requests, row.tokens, row.microcents),
        Amounts(row.held_requests, row.held_tokens, row.held_microcents),
    )
