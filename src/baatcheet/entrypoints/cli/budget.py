"""`baatcheet budget`: who may spend what, and what models cost."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, TypeVar
from uuid import UUID

import typer

from baatcheet.budgets.limits import UNLIMITED, Amounts, Limits, usd
from baatcheet.budgets.schemas import BudgetIn, LimitsIn
from baatcheet.budgets.service import Budgeting, Spent
from baatcheet.entrypoints.cli.session import checked, find_user, with_database
from baatcheet.keys.audit import Actor
from baatcheet.kit.ids import parse_id
from baatcheet.kit.text import printable
from baatcheet.platform.database import Database
from baatcheet.platform.errors import Problem
from baatcheet.providers.prices import AS_OF, BUILT_IN, DEAREST, PLACES, Price

app = typer.Typer(help="Who may spend what, and what models cost.", no_args_is_help=True)

Result = TypeVar("Result")

NONE = "none"
OPERATOR = Actor("operator", "cli")

User = Annotated[str | None, typer.Option("--user", help="A user's id or e-mail address.")]
Token = Annotated[
    str | None, typer.Option("--token", help="A token's id, as `baatcheet token list` shows it.")
]


def _limit(what: str, period: str) -> Any:
    return typer.Option(f"--{what}-per-{period}", help=f"At most so many a {period}; `{NONE}`: any number.")


def _usd(period: str) -> Any:
    return typer.Option(f"--usd-per-{period}", help=f"US dollars a {period}, as 2.50; `{NONE}`: any number.")


@app.command("show")
def show(user: User = None, token: Token = None) -> None:
    """Print the limits of a user or a token, and what is used of them."""

    async def work(database: Database) -> tuple[Limits, tuple[Spent, Spent] | None]:
        budgeting = Budgeting(database)
        if token is not None:
            return await budgeting.of_token(_token_id(token)), None
        found = await find_user(database, user)
        standing = await budgeting.standing(found.id, found.id)
        return standing.limits, (standing.day, standing.month)

    _one_of(user, token)
    limits, spent = _run(work)
    models = "all" if limits.models is None else ", ".join(printable(one) for one in limits.models)
    print(f"models  {models}")
    for period, amounts, used in zip(
        ("day", "month"), (limits.day, limits.month), spent or (None, None), strict=True
    ):
        told = f"{period:<6}  {_line(amounts, absent='any')}"
        print(told if used is None else f"{told}   used: {_line(used.used, absent='0')}")


@app.command("set")
def set_limits(
    user: User = None,
    token: Token = None,
    models: Annotated[
        str | None,
        typer.Option(help=f"Models that may be asked, comma-separated: groq/*,gpt-4.1-mini; `{NONE}`: all."),
    ] = None,
    requests_per_day: Annotated[str | None, _limit("requests", "day")] = None,
    requests_per_month: Annotated[str | None, _limit("requests", "month")] = None,
    tokens_per_day: Annotated[str | None, _limit("tokens", "day")] = None,
    tokens_per_month: Annotated[str | None, _limit("tokens", "month")] = None,
    usd_per_day: Annotated[str | None, _usd("day")] = None,
    usd_per_month: Annotated[str | None, _usd("month")] = None,
) -> None:
    """Change the limits of a user or a token; those that are not named stay."""
    _one_of(user, token)
    lists = None
    if models is not None and models != NONE:
        lists = [one.strip() for one in models.split(",") if one.strip()]
    wanted = checked(LimitsIn, models=lists).limits()
    day = _amounts(requests_per_day, tokens_per_day, usd_per_day)
    month = _amounts(requests_per_month, tokens_per_month, usd_per_month)

    def changed(limits: Limits) -> Limits:
        limits = replace(limits, day=_over(limits.day, day), month=_over(limits.month, month))
        return limits if models is None else replace(limits, models=wanted.models)

    async def work(database: Database) -> Limits:
        budgeting = Budgeting(database)
        if token is not None:
            token_id = _token_id(token)
            return await budgeting.limit_token(
                OPERATOR, token_id, changed(await budgeting.of_token(token_id))
            )
        found = await find_user(database, user)
        return await budgeting.limit_user(OPERATOR, found.id, changed(await budgeting.of_user(found.id)))

    if models is None and not day and not month:
        raise typer.BadParameter("name a limit to set: see `baatcheet budget set --help`")
    now = _run(work)
    print(f"models  {'all' if now.models is None else ', '.join(now.models)}")
    print(f"day     {_line(now.day, absent='any')}")
    print(f"month   {_line(now.month, absent='any')}")


@app.command("clear")
def clear(user: User = None, token: Token = None) -> None:
    """Take all limits of a user or a token away."""

    async def work(database: Database) -> None:
        budgeting = Budgeting(database)
        if token is not None:
            await budgeting.limit_token(OPERATOR, _token_id(token), UNLIMITED)
        else:
            await budgeting.limit_user(OPERATOR, (await find_user(database, user)).id, UNLIMITED)

    _one_of(user, token)
    _run(work)
    print("No limits.")


@app.command("price")
def price(
    model: Annotated[
        str, typer.Argument(help="provider/name; * stands for any text, as in 'lab/*'.", metavar="MODEL")
    ],
    prompt: Annotated[str | None, typer.Option(help="US dollars per million tokens of prompts.")] = None,
    completion: Annotated[str | None, typer.Option(help="… of replies.")] = None,
    cached: Annotated[str | None, typer.Option(help="… of prompts that the provider has cached.")] = None,
    written: Annotated[
        str | None, typer.Option(help="… of prompts that the provider puts into its cache.")
    ] = None,
    hour: Annotated[str | None, typer.Option(help="US dollars per hour of a recording.")] = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Take the price away: the built-in table says again.")
    ] = False,
) -> None:
    """Say what a model costs, in place of the built-in table."""
    checked(LimitsIn, models=[model])
    if "/" not in model:
        raise typer.BadParameter("a price is for provider/name, as groq/llama-3.3-70b-versatile or 'lab/*'")
    costs = {"prompt": prompt, "completion": completion, "cached": cached, "written": written, "hour": hour}
    given = {name: _cost(name, text) for name, text in costs.items() if text is not None}
    if remove == bool(given):
        raise typer.BadParameter("give either a price or --remove")
    said = Price(**{"prompt": Decimal(0), **given})

    async def work(database: Database) -> None:
        budgeting = Budgeting(database)
        if remove:
            await budgeting.remove_price(OPERATOR, model)
        else:
            await budgeting.set_price(OPERATOR, model, said)

    _run(work)
    print(f"{model}: {'as built in' if remove else _priced(said)}")


@app.command("prices")
def prices() -> None:
    """List what models cost: first what was set here, then the built-in table."""

    async def work(database: Database) -> dict[str, Price]:
        return await Budgeting(database).prices()

    for pattern, one in _run(work).items():
        print(f"{printable(pattern):<52}  {_priced(one)}  (set here)")
    for pattern, one in BUILT_IN.items():
        print(f"{pattern:<52}  {_priced(one)}")
    print(f"USD per million tokens. The built-in table is of {AS_OF:%Y-%m-%d}.")


def _run(work: Callable[[Database], Awaitable[Result]]) -> Result:
    try:
        return with_database(work)
    except Problem as problem:
        raise typer.BadParameter(str(problem)) from problem


def _one_of(user: str | None, token: str | None) -> None:
    if (user is None) == (token is None):
        raise typer.BadParameter("name one holder: --user or --token")


def _token_id(token: str) -> UUID:
    found = parse_id(token)
    if found is None:
        raise typer.BadParameter("that is not a token's id: see `baatcheet token list`")
    return found


def _amounts(requests: str | None, tokens: str | None, dollars: str | None) -> dict[str, int | None]:
    """What was typed, held to what the HTTP API asks of it; what was not is left out."""
    found: dict[str, int | None] = {}
    for name, typed in (("requests", requests), ("tokens", tokens)):
        if typed is None:
            continue
        if typed != NONE and not (typed.isascii() and typed.isdigit()):
            raise typer.BadParameter(f"{name}: {typed!r} is no whole number; an example: 1000, or {NONE}")
        number = None if typed == NONE else int(typed)
        found[name] = getattr(checked(BudgetIn, **{name: number}).amounts(), name)
    if dollars is not None:
        if dollars != NONE and not dollars.replace(".", "", 1).isdigit():
            raise typer.BadParameter(f"usd: {dollars!r} is no amount; an example: 2.50, or {NONE}")
        money = None if dollars == NONE else dollars
        found["microcents"] = checked(BudgetIn, usd=money).amounts().microcents
    return found


def _over(amounts: Amounts, given: dict[str, int | None]) -> Amounts:
    return replace(amounts, **given)


def _cost(name: str, typed: str) -> Decimal:
    try:
        cost = Decimal(typed)
    except InvalidOperation:
        cost = Decimal(-1)
    exponent = cost.as_tuple().exponent
    fits = isinstance(exponent, int) and -exponent <= PLACES
    if not (fits and 0 <= cost <= DEAREST):
        raise typer.BadParameter(
            f"--{name}: {typed!r} is no price: US dollars, from 0 to {DEAREST:,}, with up to {PLACES} decimal places"
        )
    return cost


def _line(amounts: Amounts, *, absent: str) -> str:
    def told(number: int | None) -> str:
        return absent if number is None else f"{number:,}"

    money = absent if amounts.microcents is None else usd(amounts.microcents)
    return f"{told(amounts.requests)} requests, {told(amounts.tokens)} tokens, {money} USD"


def _priced(one: Price) -> str:
    parts = [f"prompt {one.prompt:f}", f"completion {one.completion:f}"]
    parts += [f"cached {one.cached:f}"] if one.cached is not None else []
    parts += [f"written {one.written:f}"] if one.written is not None else []
    parts += [f"hour of a recording {one.hour:f}"] if one.hour is not None else []
    return ", ".join(parts)
