"""What the database's indexes are good for: which are never used, or made needless by another, or broken."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

_INDEXES = """
SELECT i.relname AS name, t.relname AS "table", pg_relation_size(i.oid) AS bytes, coalesce(s.idx_scan, 0) AS scans,
       x.indisunique AS "unique", x.indisvalid AND x.indisready AS valid, m.amname AS method,
       x.indkey::int2[] AS columns, x.indclass::oid[] AS classes, x.indcollation::oid[] AS collations,
       x.indoption::int2[] AS options, x.indnkeyatts AS keys,
       coalesce(pg_get_expr(x.indexprs, x.indrelid), '') AS expressions,
       coalesce(pg_get_expr(x.indpred, x.indrelid), '') AS condition,
       (SELECT min(c.conname) FROM pg_constraint c
        WHERE c.contype = 'f' AND c.conrelid = x.indrelid AND c.conkey[1] = x.indkey[0]) AS foreign_key
FROM pg_index x
JOIN pg_class i ON i.oid = x.indexrelid
JOIN pg_class t ON t.oid = x.indrelid
JOIN pg_am m ON m.oid = i.relam
JOIN pg_namespace n ON n.oid = t.relnamespace
LEFT JOIN pg_stat_user_indexes s ON s.indexrelid = x.indexrelid
WHERE n.nspname = current_schema() AND t.relkind IN ('r', 'p')
ORDER BY t.relname, i.relname
"""
_SINCE = "SELECT stats_reset FROM pg_stat_database WHERE datname = current_database()"


class Index(NamedTuple):
    """One index. `key`: what it sorts by, in a form that can be compared with another's of the table."""

    name: str
    table: str
    size: int  # bytes
    scans: int  # how often it was used, as the server counts
    unique: bool
    valid: bool  # False: its making was broken off, and it only costs
    key: tuple[tuple[Any, ...], ...]
    columns: frozenset[int]  # by their number; those of its key, and those it only carries (INCLUDE)
    kind: tuple[str, str, str]  # method, condition, expressions
    foreign_key: str | None  # the constraint whose checks it serves

    def covers(self, other: "Index") -> bool:
        """Whether whatever `other` finds is found by this one too, so that `other` is needless."""
        if self.name == other.name or self.table != other.table or self.kind != other.kind or not self.valid:
            return False
        if other.unique and not (self.unique and len(self.key) == len(other.key)):
            return False  # it is a promise, not only a way
        if not other.columns <= self.columns:
            return False
        if self.kind[0] != "btree":
            return self.key == other.key
        begins = self.key[: len(other.key)]
        return begins in (other.key, _backwards(other.key))


class Duplicate(NamedTuple):
    """An index, and one that does all it does."""

    needless: Index
    by: Index


class IndexReport(NamedTuple):
    """`since`: from when on the server has counted; None when it has never been reset."""

    indexes: tuple[Index, ...]
    since: datetime | None

    @property
    def unused(self) -> list[Index]:
        """Never used, largest first. One that keeps values unique is used by every write."""
        found = [one for one in self.indexes if not one.scans and not one.unique and one.valid]
        return sorted(found, key=lambda one: -one.size)

    @property
    def invalid(self) -> list[Index]:
        return [one for one in self.indexes if not one.valid]

    @property
    def duplicates(self) -> list[Duplicate]:
        """Of two that are the same, the one that comes later by its name."""
        found: list[Duplicate] = []
        for one in self.indexes:
            for other in self.indexes:
                if other.covers(one) and not (one.covers(other) and one.name < other.name):
                    found.append(Duplicate(one, other))
                    break
        return found


async def report(connection: Any) -> IndexReport:
    """Every index of the schema, as asyncpg's `connection` sees it."""
    rows = await connection.fetch(_INDEXES)
    return IndexReport(tuple(_index(row) for row in rows), await connection.fetchval(_SINCE))


def _index(row: Any) -> Index:
    keys = row["keys"]
    parts: Sequence[tuple[Any, ...]] = list(
        zip(row["columns"][:keys], row["classes"], row["collations"], row["options"], strict=True)
    )
    return Index(
        name=row["name"],
        table=row["table"],
        size=row["bytes"],
        scans=row["scans"],
        unique=row["unique"],
        valid=row["valid"],
        key=tuple(parts),
        columns=frozenset(row["columns"]),
        kind=(row["method"], row["condition"], row["expressions"]),
        foreign_key=row["foreign_key"],
    )


def _backwards(key: tuple[tuple[Any, ...], ...]) -> tuple[tuple[Any, ...], ...]:
    """The same order from its other end: descending for ascending, NULLs at the other end too."""
    return tuple((*rest, options ^ 0b11) for *rest, options in key)
