"""`baatcheet db indexes`: which of the database's indexes are used, and which are not."""

import asyncio
from typing import Annotated

import typer

from baatcheet.entrypoints.cli.connection import database_url
from baatcheet.platform.database import connect
from baatcheet.platform.indexes import Index, IndexReport, report
from baatcheet.platform.settings import load


def indexes(
    every: Annotated[bool, typer.Option("--all", help="List all of them, not only what stands out.")] = False,
) -> None:
    """Report indexes that are never used, that another one makes needless, and that are broken."""
    with database_url(load(), direct=True) as url:
        found = asyncio.run(_report(url))
    if every:
        _table(found.indexes)
        print()
    size = sum(one.size for one in found.indexes)
    since = f"since {found.since:%Y-%m-%d %H:%M %Z}" if found.since else "since the database was made"
    print(f"{len(found.indexes)} indexes, {_size(size)}. The server has counted their uses {since}.")
    _say(
        "Broken off while they were made; they only cost. DROP INDEX CONCURRENTLY, then make them again",
        found.invalid,
    )
    for one, by in found.duplicates:
        print(f"\n{one.name} on {one.table} ({_size(one.size)}) does nothing that {by.name} does not.")
    _say("Never used", found.unused)
    if found.unused:
        print(
            "\nOne that serves a foreign key is used when what it refers to is deleted. Counts begin anew after a"
        )
        print(
            "restore or an upgrade of the server, and a standby counts by itself: look at them after a busy week."
        )


async def _report(url: str) -> IndexReport:
    connection = await connect(url)
    try:
        return await report(connection)
    finally:
        await connection.close()


def _say(what: str, found: list[Index]) -> None:
    if found:
        print(f"\n{what}:")
        _table(found)


def _table(found: tuple[Index, ...] | list[Index]) -> None:
    for one in found:
        serves = f"  serves {one.foreign_key}" if one.foreign_key else ""
        print(f"  {one.name:<40} {one.table:<24} {_size(one.size):>10} {one.scans:>12,} scans{serves}")


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.0f} kB"
