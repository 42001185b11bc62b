"""Budgets on the real database: let in exactly, charged once, given back."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal

import pytest
import pytest_asyncio
from sqlalchemy import text

from baatcheet.auth.principal import Principal
from baatcheet.budgets import admission
from baatcheet.budgets.admission import Budgets
from baatcheet.budgets.errors import BudgetExhausted, ModelNotAllowed, ModelNotPriced
from baatcheet.budgets.limits import Amounts
from baatcheet.budgets.service import Budgeting, Standing
from baatcheet.keys.audit import SYSTEM
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database, DatabaseUnavailable
from baatcheet.providers.prices import Price
from tests import zygote
from tests.budgets.holders import MODEL, ask, limit, new_holder, used
from tests.conftest import ROOT


@pytest_asyncio.fixture
async def holder(database: Database) -> Principal:
    return await new_holder(database)


@pytest_asyncio.fixture
async def budgets(database: Database) -> AsyncIterator[Budgets]:
    """Of a process; it looks for changes when a test says so."""
    opened = Budgets(database)
    yield opened
    await opened.close()


async def standing(database: Database, who: Principal, *, token: bool = False) -> Standing:
    return await Budgeting(database).standing(who.user_id, who.token_id if token else who.user_id)


async def rows_of(database: Database, who: Principal, table: str) -> int:
    async with database.system() as session:
        found = await session.scalar(
            text(f"SELECT count(*) FROM {table} WHERE user_id = :user"),
            {"user": who.user_id},
        )
    return int(found or 0)


@pytest.mark.parametrize("token", [False, True], ids=["user", "token"])
async def test_of_200_at_once_from_four_processes_exactly_as_many_are_let_in_as_the_budget_has(
    database: Database, services: Mapping[str, str], holder: Principal, token: bool
) -> None:
    await limit(database, holder, day=Amounts(requests=37), token=token)
    command = [
        "-m",
        "tests.budgets.holders",
        services["DATABASE_URL"],
        str(holder.user_id),
        str(holder.token_id),
    ]
    processes = [
        zygote.popen([*command, "50"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    async with asyncio.timeout(60):
        for one in processes:
            assert one.stdout is not None
            assert await asyncio.to_thread(one.stdout.readline) == b"ready\n"
        ending = [asyncio.to_thread(one.communicate, b"go\n") for one in processes]
        said = [out for out, _ in await asyncio.gather(*ending)]
    assert sum(int(one) for one in said) == 37
    for of_token in (False, True):
        day = (await standing(database, holder, token=of_token)).day
        assert day.used == Amounts(37, 37 * 7, 37 * (3 * 200 + 4 * 800))
        assert day.held == Amounts(0, 0, 0)


async def test_200_at_once_spend_no_more_tokens_than_their_estimates_leave_room_for(
    database: Database, holder: Principal, budgets: Budgets
) -> None:
    await limit(database, holder, month=Amounts(tokens=1_000))
    asked = await asyncio.gather(*(ask(budgets, holder, used(60, 40)) for _ in range(200)))
    admitted = [one for one in asked if one is not None]
    assert len(admitted) == 10
    # They were dearer than it was thought: what that comes to is remembered.
    for one in admitted:
        one.charge(MODEL, used(60, 140))
    await budgets.settle()
    assert (await standing(database, holder)).month.used.tokens == 2_000
    assert await ask(budgets, holder) is None


async def test_what_was_estimated_too_high_is_there_again_after_the_end(
    database: Database, holder: Principal, budgets: Budgets
) -> None:
    await limit(database, holder, day=Amounts(tokens=100))
    first = await ask(budgets, holder, used(50, 500))
    assert first is not None
    with pytest.raises(BudgetExhausted) as refused:
        await budgets.admit(holder, [MODEL])
    assert refused.value.headers["retry-after"] == "5"
    assert "under way" in refused.value.detail
    first.charge(MODEL, used(10, 10))
    await budgets.settle()
    assert await ask(budgets, holder) is not None


async def test_a_request_that_nobody_answered_counts_for_nothing(
    database: Database, holder: Principal, budgets: Budgets
) -> None:
    await limit(database, holder, day=Amounts(requests=1))
    for _ in range(3):
        let_in = await ask(budgets, holder)
        assert let_in is not None
        let_in.release()
        let_in.release()
        let_in.charge(MODEL, used(5))  # too late: it was said already
        await budgets.flush()
    assert (await standing(database, holder)).day.used == Amounts(0, 0, 0)


async def test_a_request_is_charged_once_however_often_it_is_said(
    database: Database, holder: Principal, budgets: Budgets
) -> None:
    await limit(database, holder, day=Amounts(requests=5))
    let_in = await ask(budgets, holder)
    assert let_in is not None
    let_in.charge(MODEL, used(1, 2))
    let_in.charge(MODEL, used(1, 2))
    let_in.release()
    await budgets.flush()
    await budgets.flush()
    assert (await standing(database, holder)).day.used == Amounts(1, 3, 200 + 2 * 800)


async def test_a_budget_is_its_users_and_all_tokens_draw_on_it(
    database: Database, holder: Principal, budgets: Budgets
) -> None:
    other = await new_holder(database, holder.user_id)
    await limit(database, holder, day=Amounts(requests=2))
    assert await ask(budgets, holder) is not None
    assert await ask(budgets, other) is not None
    with pytest.raises(BudgetExhausted, match="Your user's budget of 2 requests a day"):
        await budgets.admit(other, [MODEL])


async def test_a_tokens_budget_leaves_its_users_other_tokens_alone(
    database: Database, holder: Principal, budgets: Budgets
) -> None:
    other = await new_holder(database, holder.user_id)
    await limit(database, holder, day=Amounts(requests=0), token=True)
    with pytest.raises(BudgetExhausted, match="This token's budget of 0 requests a day is used up until"):
        await budgets.admit(holder, [MODEL])
    assert await ask(budgets, other) is not None


async def test_a_holder_that_is_no_row_of_the_tokens_is_admitted_and_charged(
    database: Database, holder: Principal, budgets: Budgets
) -> None:
    foreign = Principal(holder.user_id, new_id(), "user", holder.scopes, "signed in elsewhere")
    await limit(database, holder, day=Amounts(requests=1))
    let_in = await ask(budgets, foreign)
    assert let_in is not None
    let_in.charge(MODEL, used(1))
    await budgets.flush()
    assert (await standing(database, foreign, token=True)).day.used.requests == 1
    assert await ask(budgets, foreign) is None


async def test_budgets_begin_anew_at_midnight_utc_and_with_the_month(
    database: Database, holder: Principal
) -> None:
    now = datetime(2031, 1, 31, 23, 59, 30, tzinfo=UTC)
    budgets = Budgets(database, clock=lambda: now)
    await limit(database, holder, day=Amounts(requests=1), month=Amounts(requests=2))

    async def refusal() -> BudgetExhausted:
        with pytest.raises(BudgetExhausted) as refused:
            await budgets.admit(holder, [MODEL])
        return refused.value

    async def spend() -> None:
        (await budgets.admit(holder, [MODEL])).charge(MODEL, used(1))
        await budgets.settle()

    now = datetime(2031, 1, 30, 12, tzinfo=UTC)
    await spend()
    told = await refusal()
    assert "a day is used up until 2031-01-31 00:00 UTC" in told.detail
    assert told.headers["retry-after"] == str(12 * 3600)
    now = datetime(2031, 1, 31, 23, 59, 30, tzinfo=UTC)
    await spend()
    told = await refusal()  # both are used up: the one that lasts longer is told
    assert "a month is used up until 2031-02-01 00:00 UTC" in told.detail
    assert told.headers["retry-after"] == "30"
    assert told.extras["budget"]["resets_at"] == "2031-02-01T00:00:00Z"
    now = datetime(2031, 2, 1, 0, 0, 1, tzinfo=UTC)
    await spend()
    await budgets.close()


async def test_money_is_summed_exactly_and_a_budget_in_it_holds(
    database: Database, holder: Principal, budgets: Budgets
) -> None:
    await limit(database, holder, day=Amounts(microcents=30))
    await budgets.refresh()
    budgets.prices.replace({MODEL: Price(Decimal("0.1"), Decimal("0.2"))})
    for _ in range(3):  # a tenth of a dollar per million: 10 millionths of a cent a token
        let_in = await ask(budgets, holder, used(1))
        assert let_in is not None
        let_in.charge(MODEL, used(1))
        await budgets.settle()
    assert (await standing(database, holder)).day.used.microcents == 30
    with pytest.raises(BudgetExhausted, match=r"0\.0000003 USD a day"):
        await budgets.admit(holder, [MODEL])


async def test_what_was_spent_before_there_was_a_budget_counts_towards_it(
    database: Database, holder: Principal, budgets: Budgets
) -> None:
    for _ in range(3):
        let_in = await ask(budgets, holder)
        assert let_in is not None
        let_in.charge(MODEL, used(2, 2))
    await budgets.flush()
    assert (await standing(database, holder)).day.used.requests == 3
    await limit(database, holder, day=Amounts(requests=3))
    await budgets.refresh()
    assert await ask(budgets, holder) is None


async def test_nobody_without_a_budget_costs_the_database_anything(
    database: Database, holder: Principal, budgets: Budgets, monkeypatch: pytest.MonkeyPatch
) -> None:
    await limit(database, holder, models=("openai/*",))
    await budgets.refresh()
    monkeypatch.setattr(budgets, "_db", None)  # whoever asks it now fails
    for _ in range(100):
        let_in = await budgets.admit(holder, [MODEL])
        let_in.charge(MODEL, used(1))
    monkeypatch.setattr(budgets, "_db", database)
    await budgets.flush()
    assert await rows_of(database, holder, "model_usage") == 1
    assert (await standing(database, holder)).day.used.requests == 100


async def test_a_request_of_a_killed_process_is_charged_as_estimated_and_put_right_if_it_speaks_after_all(
    database: Database, holder: Principal, budgets: Budgets, monkeypatch: pytest.MonkeyPatch
) -> None:
    await limit(database, holder, day=Amounts(requests=10))
    monkeypatch.setattr(admission, "PATIENCE", admission.PATIENCE * 0)
    let_in = await ask(budgets, holder, used(100, 50))
    assert let_in is not None
    before = (await standing(database, holder)).day
    assert (before.used.requests, before.held.requests) == (0, 1)
    await budgets.expire()
    await budgets.expire()
    lost = (await standing(database, holder)).day
    assert (lost.used.requests, lost.used.tokens, lost.held.requests) == (1, 150, 0)
    let_in.charge(MODEL, used(10, 5))
    await budgets.settle()
    right = (await standing(database, holder)).day
    assert right.used == Amounts(1, 15, 10 * 200 + 5 * 800)


@pytest.mark.parametrize("budgeted", [True, False])
async def test_what_was_used_outlasts_a_database_that_is_away(
    database: Database,
    holder: Principal,
    budgets: Budgets,
    monkeypatch: pytest.MonkeyPatch,
    budgeted: bool,
) -> None:
    await limit(database, holder, day=Amounts(requests=10 if budgeted else None))
    await budgets.refresh()
    let_in = await ask(budgets, holder)
    assert let_in is not None
    let_in.charge(MODEL, used(3))

    class Away:
        def hot(self) -> object:
            raise DatabaseUnavailable("away")

    monkeypatch.setattr(budgets, "_db", Away())
    with pytest.raises(DatabaseUnavailable):
        await budgets.flush()
    monkeypatch.setattr(budgets, "_db", database)
    await budgets.flush()
    assert (await standing(database, holder)).day.used.tokens == 3
    assert await rows_of(database, holder, "model_usage") == 1


async def test_the_usage_of_a_user_who_is_gone_keeps_nobody_elses_from_being_written(
    database: Database, holder: Principal, budgets: Budgets
) -> None:
    gone = Principal(new_id(), new_id(), "user", holder.scopes, "gone")
    for who in (gone, holder):
        (await budgets.admit(who, [MODEL])).charge(MODEL, used(1))
    await budgets.flush()
    assert await rows_of(database, holder, "model_usage") == 1
    assert await rows_of(database, gone, "model_usage") == 0


async def test_limits_that_were_taken_away_hold_no_more(
    database: Database, holder: Principal, budgets: Budgets
) -> None:
    await limit(database, holder, day=Amounts(requests=0), models=("groq/*",))
    assert await ask(budgets, holder) is None
    with pytest.raises(ModelNotAllowed):
        await budgets.names(holder, [MODEL])
    await limit(database, holder)
    await budgets.refresh()
    assert await ask(budgets, holder) is not None
    assert await budgets.names(holder, [MODEL]) == [MODEL]


async def test_both_lists_must_allow_a_model_and_the_refusal_names_them(
    database: Database, holder: Principal, budgets: Budgets
) -> None:
    await limit(database, holder, models=("openai/*", "groq/*"))
    await limit(database, holder, models=("gpt-4.1", "deepseek/*"), token=True)
    assert await budgets.names(holder, ["groq/x", MODEL, "deepseek/y"]) == [MODEL]
    with pytest.raises(ModelNotAllowed) as refused:
        await budgets.names(holder, ["groq/x", "deepseek/y"])
    assert "groq/x or deepseek/y" in refused.value.detail
    assert refused.value.extras["allowed"] == {
        "user": ["openai/*", "groq/*"],
        "token": ["gpt-4.1", "deepseek/*"],
    }
    assert await budgets.shown(holder, ["groq/x", MODEL]) == {MODEL}


async def test_a_model_without_a_price_is_left_out_for_whom_money_is_limited(
    database: Database, holder: Principal, budgets: Budgets
) -> None:
    await limit(database, holder, month=Amounts(microcents=10**8))
    assert await budgets.names(holder, ["lab/own", MODEL]) == [MODEL]
    with pytest.raises(ModelNotPriced, match="lab/own"):
        await budgets.names(holder, ["lab/own"])
    await Budgeting(database).set_price(SYSTEM, "lab/*", Price(Decimal(0)))
    await budgets.refresh()
    assert await budgets.names(holder, ["lab/own"]) == ["lab/own"]
    await Budgeting(database).remove_price(SYSTEM, "lab/*")
    await budgets.refresh()
    with pytest.raises(ModelNotPriced):
        await budgets.names(holder, ["lab/own"])


async def test_a_process_settles_at_once_and_follows_changes_by_itself(
    database: Database, holder: Principal
) -> None:
    budgets = Budgets(database)
    await budgets.start()
    await limit(database, holder, day=Amounts(requests=1), month=Amounts(microcents=10**10))

    async def refused() -> None:
        while (let_in := await ask(budgets, holder)) is not None:
            let_in.release()
            await asyncio.sleep(0.05)

    async def settled() -> None:
        while (await standing(database, holder)).day.used.requests != 1:
            await asyncio.sleep(0.02)

    try:
        async with asyncio.timeout(5):  # as the endpoints promise
            while not await budgets.in_money(holder):
                await asyncio.sleep(0.05)
        let_in = await ask(budgets, holder)
        assert let_in is not None
        let_in.charge(MODEL, used(1))
        async with asyncio.timeout(5):
            await settled()
            await refused()
    finally:
        await budgets.close()


async def test_the_usage_of_recordings_is_in_seconds_and_money(
    database: Database, holder: Principal, budgets: Budgets
) -> None:
    await limit(database, holder, day=Amounts(microcents=10**8))
    let_in = await budgets.admit(holder, ["openai/whisper-1"], seconds=60)
    let_in.charge("openai/whisper-1", used(), seconds=90)
    await budgets.flush()
    (row,) = await Budgeting(database).used(holder.user_id, 1)
    assert (row.requests, row.recorded_seconds, row.microcents) == (1, 90, 900_000)
    assert (await standing(database, holder)).day.used.microcents == 900_000
