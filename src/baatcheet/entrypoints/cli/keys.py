"""`baatcheet keys`: providers' keys, how they fare, and replacing them. No key is ever printed."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, TypeVar

import typer

from baatcheet.entrypoints.cli.recording import operator_of_this_machine
from baatcheet.entrypoints.cli.session import with_database
from baatcheet.entrypoints.keeping import build_keys
from baatcheet.entrypoints.keyring import build_ring
from baatcheet.keys.models import KeyRotation
from baatcheet.keys.secret import KeyNotUsable, SecretKey
from baatcheet.keys.service import Checked, Keys, KeyView
from baatcheet.kit.pagination import MAX_LIMIT
from baatcheet.kit.text import printable
from baatcheet.platform.database import Database, DatabaseUnavailable
from baatcheet.platform.errors import Problem
from baatcheet.platform.http import client_session
from baatcheet.platform.redaction import register_secret
from baatcheet.platform.settings import load
from baatcheet.providers.catalogue import build_catalogue

app = typer.Typer(help="Providers' keys: how they fare, and replacing them.", no_args_is_help=True)

Result = TypeVar("Result")

SHORTEST_PREFIX: Final = 6  # characters of a fingerprint
CHECKED_AT_ONCE: Final = 4
LOOK_EVERY: Final = 1.0  # seconds
LARGEST: Final = 1_000_000  # characters on the standard input

Id = Annotated[
    str, typer.Argument(help="The key's fingerprint, as `baatcheet keys list` shows it, or its beginning.")
]
Why = Annotated[str | None, typer.Option(help="Why; it is recorded.")]
Provider = Annotated[str | None, typer.Argument(help="Only this provider's.")]


@app.command("list")
def show(
    provider: Provider = None,
    retired: Annotated[
        bool, typer.Option("--retired", help="Also those that no store has any more.")
    ] = False,
) -> None:
    """List the keys: provider, state, use today, what is left of it, age, next rotation, last error."""
    views = _with_keys(lambda keys: _all(keys, provider, retired=retired))
    if not views:
        print(
            "There are no keys yet. Put one into a store, then start the server: baatcheet secrets set groq"
        )
    for view in views:
        print("  ".join(_line(view)))


@app.command("check")
def check(
    provider: Provider = None,
    key: Annotated[str | None, typer.Option(help="Only the key with this fingerprint.")] = None,
) -> None:
    """Ask the providers, by their cheapest call, which keys are good. Status 1 when one is refused."""
    actor = operator_of_this_machine()

    async def work(keys: Keys) -> list[Checked]:
        room = asyncio.Semaphore(CHECKED_AT_ONCE)

        async def one(view: KeyView) -> Checked:
            async with room:
                return await keys.check(actor, view.id)

        views = await _all(keys, provider)
        if key is not None:
            views = [_found(views, key)]
        return list(await asyncio.gather(*(one(view) for view in views)))

    answers = _with_keys(work)
    for answer in answers:
        print(f"{answer.id}  {answer.provider}  {answer.hint}  {answer.verdict}  {printable(answer.words)}")
    if any(answer.verdict == "refused" for answer in answers):
        raise typer.Exit(1)


@app.command("refresh")
def refresh() -> None:
    """Have every process read the secret stores now. They do so every minute anyway."""
    actor = operator_of_this_machine()
    failing = _with_keys(lambda keys: keys.refresh(actor))
    for reason in failing.values():
        print(printable(reason))
    if failing:
        raise typer.Exit(1)
    print("Within 5 seconds every process serves what is in the stores.")


@app.command("rest")
def rest(
    key: Id,
    hours: Annotated[float, typer.Option(help="For how long, up to 24.", min=0.01, max=24)] = 1.0,
    reason: Why = None,
) -> None:
    """Don't use a key for a while. Every process follows within five seconds."""
    until = datetime.now(UTC) + timedelta(hours=hours)
    actor = operator_of_this_machine()
    _tell(_with_keys(lambda keys: _by(keys, key, lambda id_: keys.rest(actor, id_, until, reason))))


@app.command("quarantine")
def quarantine(key: Id, reason: Why = None) -> None:
    """Don't use a key until it is restored. Every process follows within five seconds."""
    actor = operator_of_this_machine()
    _tell(_with_keys(lambda keys: _by(keys, key, lambda id_: keys.quarantine(actor, id_, reason))))


@app.command("restore")
def restore(key: Id) -> None:
    """Use a key again that rests or is quarantined."""
    actor = operator_of_this_machine()
    _tell(_with_keys(lambda keys: _by(keys, key, lambda id_: keys.restore(actor, id_))))


@app.command("rotate")
def rotate(
    provider: Annotated[str, typer.Argument(help="Whose keys are to be replaced.")],
    key: Annotated[str | None, typer.Option(help="Only the key with this fingerprint.")] = None,
    reason: Why = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow it to its end; status 1 unless it succeeds.")
    ] = False,
) -> None:
    """Replace a provider's keys by new ones, of its own key API or staged before. A worker does it."""
    actor = operator_of_this_machine()

    async def work(database: Database, keys: Keys) -> KeyRotation:
        id_ = _found(await _all(keys, provider), key).id if key is not None else None
        async with database.system() as session:
            row = await keys.rotate(session, actor, provider, id_, reason)
        print(f"The rotation {row.id} of {provider}'s keys has begun.", flush=True)
        return await _followed(keys, row) if wait else row

    row = _with_both(work)
    if not wait:
        print("A worker brings it to its end. Administrators are told how it went.")
        return
    print(f"{row.outcome}: {printable(row.error or 'the new keys are in use.')}")
    if row.outcome != "rotated":
        raise typer.Exit(1)


@app.command("stage")
def stage(provider: Annotated[str, typer.Argument(help="Whose keys they are.")]) -> None:
    """Keep new keys for the next rotation: they come through a pipe, one a line, or are asked for.

    They take the place of what was staged before. Then: baatcheet keys rotate PROVIDER
    """
    new, actor = _typed(), operator_of_this_machine()
    count = _with_keys(lambda keys: keys.stage(actor, provider, new))
    print(f"{count} keys of {provider} are staged. Use them: baatcheet keys rotate {provider}")


async def _all(keys: Keys, provider: str | None, *, retired: bool = False) -> list[KeyView]:
    found: list[KeyView] = []
    cursor: str | None = None
    while True:
        page = await keys.list(provider=provider, retired=retired, limit=MAX_LIMIT, cursor=cursor)
        found += page.rows
        cursor = page.next_cursor
        if cursor is None:
            return found


async def _by(keys: Keys, key: str, act: Callable[[str], Awaitable[Result]]) -> Result:
    return await act(_found(await _all(keys, None), key).id)


def _found(views: Sequence[KeyView], wanted: str) -> KeyView:
    """The key whose fingerprint begins so. Raises typer.BadParameter."""
    if len(wanted) < SHORTEST_PREFIX:
        raise typer.BadParameter(f"Give {SHORTEST_PREFIX} characters of the fingerprint or more.")
    found = [view for view in views if view.id.startswith(wanted.lower())]
    if len(found) == 1:
        return found[0]
    # What was typed may be a key: it is not said again.
    if found:
        raise typer.BadParameter(f"{len(found)} fingerprints begin like this one. Give more of it.")
    raise typer.BadParameter("No key in use has this fingerprint. List them: baatcheet keys list")


async def _followed(keys: Keys, row: KeyRotation) -> KeyRotation:
    told = ""
    while row.outcome is None:
        said = f"{row.step}: {row.error}" if row.error else row.step
        if said != told:
            print(f"  {printable(said)}", flush=True)
            told = said
        await asyncio.sleep(LOOK_EVERY)
        row = await keys.rotation(row.id)
    return row


def _typed() -> list[SecretKey]:
    """New keys, from a pipe or asked for unseen. Raises typer.BadParameter."""
    if sys.stdin.isatty():
        texts = []
        while text := str(
            typer.prompt("Key (empty: that is all)", default="", hide_input=True, err=True)
        ).strip():
            texts.append(text)
    else:
        texts = [line.strip() for line in sys.stdin.read(LARGEST).splitlines() if line.strip()]
    keys = []
    for number, text in enumerate(texts, 1):
        register_secret(text, fragments=True)
        try:
            keys.append(SecretKey(text))
        except KeyNotUsable as error:
            raise typer.BadParameter(f"Line {number} is no key: it {error}.") from None
    return keys


def _line(view: KeyView) -> list[str]:
    left = "" if view.requests_left is None else f", {view.requests_left:,} left"
    words = [
        view.id,
        f"{view.provider:<12}",
        f"{view.hint:<9}",
        f"{view.state:<11}",
        f"{view.requests_today:,} requests today{left}",
        f"{view.age_days} days old{' (too old)' if view.too_old else ''}",
        f"from {view.store}" if view.state != "retired" else "in no store",
    ]
    if view.next_rotation_at is not None:
        words.append(f"next rotation {view.next_rotation_at:%Y-%m-%d}")
    if view.resting_until is not None:
        words.append(f"until {view.resting_until:%Y-%m-%d %H:%M} UTC")
    return words + [printable(said) for said in (view.reason, view.last_error) if said]


def _tell(view: KeyView) -> None:
    print("  ".join(_line(view)))


def _with_keys(work: Callable[[Keys], Awaitable[Result]]) -> Result:
    return _with_both(lambda _database, keys: work(keys))


def _with_both(work: Callable[[Database, Keys], Awaitable[Result]]) -> Result:
    """Run `work` with the stores, the providers and the database that the settings name. A problem ends the command."""
    settings = load()

    async def run(database: Database) -> Result:
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(client_session())
            ring = build_ring(settings, database, listens=False)
            stack.push_async_callback(ring.close)
            await ring.start(serving=False)
            for reason in ring.failing.values():  # what needs no store can be done all the same
                print(f"Without what is in a store that can't be read. {printable(reason)}", file=sys.stderr)
            catalogue = build_catalogue(settings.providers, session, ring.pools)
            stack.push_async_callback(catalogue.close)
            return await work(database, build_keys(settings, database, ring, catalogue, session))

    try:
        return with_database(run)
    except DatabaseUnavailable:
        raise
    except Problem as problem:
        raise typer.BadParameter(str(problem)) from problem
