"""Which rows are a user's, and deleting them: found in the database's own catalogue, so that none is forgotten.

A table whose rows have a `user_id`, or which refers to such a table and goes with its rows, holds what is theirs.
Children come before their parents, so that every row is counted where it is deleted, and no statement takes a
conversation of a million messages at once.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.retention.models import ANALYTICS, HIGHEST, USAGE

OWNER: Final = "user_id"
USERS: Final = "users"


class Reference(NamedTuple):
    """A foreign key of one column. `indexed`: the rows that refer to one can be found."""

    table: str
    column: str
    parent: str
    parent_column: str
    indexed: bool


class Shape(NamedTuple):
    """What the catalogue says: the tables with a `user_id`, those of them where a user's rows can be found by it (an
    index on every row begins with it), and the references that rows follow when what they refer to is deleted.
    """

    owned: frozenset[str]
    found: frozenset[str]
    references: tuple[Reference, ...]


class Belonging(NamedTuple):
    """A table with rows of users, and the references by which they are reached, from the table upwards."""

    table: str
    way: tuple[Reference, ...]


class Sum(NamedTuple):
    """What remains of deleted rows: added up in `table`, for each value of `keys`."""

    table: str
    keys: tuple[str, ...]
    amounts: tuple[str, ...]


# What was used stays used, and is nobody's.
REMAINS: Final[Mapping[str, Sum]] = {
    "model_usage": Sum("forgotten_usage", ("day", "model", "kind"), USAGE),
    "analytics_daily": Sum("forgotten_analytics", ("date", "model"), ANALYTICS),
    "analytics_fresh": Sum("forgotten_analytics", ("date", "model"), ANALYTICS),
}

_TABLES = text("""
SELECT c.relname, bool_or(a.attname = 'user_id'), coalesce(bool_or(a.attname = 'user_id' AND EXISTS (
    SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indkey[0] = a.attnum AND i.indpred IS NULL AND i.indisvalid
)), false)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace GROUP BY c.relname
""")
_REFERENCES = text("""
SELECT t.relname, a.attname, p.relname, b.attname, EXISTS (
    SELECT FROM pg_index i WHERE i.indrelid = t.oid AND i.indkey[0] = a.attnum AND i.indpred IS NULL AND i.indisvalid
)
FROM pg_constraint k
JOIN pg_class t ON t.oid = k.conrelid JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.conkey[1]
JOIN pg_class p ON p.oid = k.confrelid JOIN pg_attribute b ON b.attrelid = p.oid AND b.attnum = k.confkey[1]
WHERE k.contype = 'f' AND k.confdeltype = 'c' AND array_length(k.conkey, 1) = 1
  AND t.relnamespace = 'public'::regnamespace
ORDER BY t.relname, a.attname
""")
# Whatever the statistics say: the rows of one user are found along the indexes, also when most of them are gone.
# Nobody is told of each conversation.
_ALONG_INDEXES = text("""
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
       set_config('enable_mergejoin', 'off', true), set_config('enable_sort', 'off', true),
       set_config('statement_timeout', :milliseconds, true), set_config('baatcheet.quiet', 'on', true)
""")


async def shape_of(session: AsyncSession) -> Shape:
    """The database as it is."""
    tables = (await session.execute(_TABLES)).all()
    references = (await session.execute(_REFERENCES)).all()
    return Shape(
        frozenset(name for name, owned, _ in tables if owned),
        frozenset(name for name, _, found in tables if found),
        tuple(Reference(*row) for row in references),
    )


def belongings(shape: Shape) -> list[Belonging]:
    """Every table with rows of users, but for `users` itself; a table comes before those that it refers to."""
    theirs = set(shape.owned)
    while more := {
        one.table
        for one in shape.references
        if one.parent in theirs and one.table not in theirs and one.table != USERS
    }:
        theirs |= more
    order: TopologicalSorter[str] = TopologicalSorter({name: set() for name in sorted(theirs)})
    for one in shape.references:
        if one.table in theirs and one.parent in theirs and one.table != one.parent:
            order.add(one.parent, one.table)
    return [Belonging(name, _way(name, shape, theirs)) for name in order.static_order()]


def _way(table: str, shape: Shape, theirs: set[str]) -> tuple[Reference, ...]:
    """The way to a table that has a `user_id`, along indexes where there is one; none where the rows are found here.

    Raises LookupError for a table that no way leads from.
    """
    ways: list[tuple[Reference, ...]] = [()]
    usable: list[tuple[Reference, ...]] = []
    while ways:
        usable += [way for way in ways if (way[-1].parent if way else table) in shape.owned]
        ways = [
            (*way, one)
            for way in ways
            for one in shape.references
            if one.table == (way[-1].parent if way else table) and one.parent in theirs
            if one.parent != table and all(one.parent != before.parent for before in way)
        ]
    if not usable:
        raise LookupError(f"the rows of a user in {table} can't be found: it needs a user_id")

    def cost(way: tuple[Reference, ...]) -> tuple[int, int]:
        along_indexes = all(one.indexed for one in way)
        if along_indexes and (way[-1].parent if way else table) in shape.found:
            return 0, len(way)
        return (1 if along_indexes and way else 2 if not way else 3), len(way)

    return min(usable, key=cost)


def statement(one: Belonging) -> TextClause:
    """Deletes at most `:most` rows of `:user`; says how many. What remains of them is added up."""
    joins, at = "", "t"
    for number, reference in enumerate(one.way):
        above = f"p{number}"
        joins += (
            f" JOIN {reference.parent} {above} ON {above}.{reference.parent_column} = {at}.{reference.column}"
        )
        at = above
    # The names are the database's own.
    gone = (
        f"DELETE FROM {one.table} WHERE ctid = ANY(ARRAY("  # noqa: S608
        f"SELECT t.ctid FROM {one.table} t{joins} WHERE {at}.{OWNER} = :user LIMIT :most)) RETURNING *"
    )
    remains = REMAINS.get(one.table)
    kept = f", kept AS ({_adding(remains)})" if remains is not None else ""
    return text(f"WITH gone AS ({gone}){kept} SELECT count(*) FROM gone")  # noqa: S608


def _adding(remains: Sum) -> str:
    keys = ", ".join(remains.keys)
    sums = ", ".join(f"{'max' if one in HIGHEST else 'sum'}({one})" for one in remains.amounts)
    added = ", ".join(
        f"{one} = greatest(r.{one}, excluded.{one})"
        if one in HIGHEST
        else f"{one} = r.{one} + excluded.{one}"
        for one in remains.amounts
    )
    return (
        f"INSERT INTO {remains.table} AS r ({keys}, {', '.join(remains.amounts)}) "  # noqa: S608
        f"SELECT {keys}, {sums} FROM gone GROUP BY {keys} ORDER BY {keys} "
        f"ON CONFLICT ({keys}) DO UPDATE SET {added}"
    )


async def delete_some(session: AsyncSession, one: Belonging, user: UUID, most: int, seconds: float) -> int:
    """Delete at most `most` rows of the user's within `seconds`; how many."""
    await session.execute(_ALONG_INDEXES, {"milliseconds": str(int(seconds * 1000))})
    return int((await session.execute(statement(one), {"user": user, "most": most})).scalar_one())


async def delete_all(
    session: AsyncSession, those: Sequence[Belonging], user: UUID, seconds: float
) -> dict[str, int]:
    """Delete what there is of the user's; how many rows of each table that had any."""
    found: Counter[str] = Counter()
    # What the deletion of a file comes to is written when it goes.
    for one in (*those, *(one for one in those if one.table in REMAINS)):
        found[one.table] += await delete_some(session, one, user, 2**31 - 1, seconds)
    return {table: rows for table, rows in found.items() if rows}
