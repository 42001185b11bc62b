"""How PostgreSQL runs the statements that the tests bring about: `python -m tests.platform.plans [pytest's arguments]`.

Tests are run in a process of their own on a database of many messages, whose server notes the plan of every statement
(`auto_explain`), those inside functions too, each with what it has really read. No query has to be listed for that, so
none is forgotten. Sequential scans are made dear: one that is there all the same had no index to use.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from benchmarks.data.seeding import seed

from baatcheet.platform.database import connect
from baatcheet.platform.embedded import EmbeddedServices
from baatcheet.platform.migrate import upgrade
from baatcheet.platform.settings import EmbeddedSettings
from tests.conftest import ROOT

MESSAGES: Final = 10_000
TEMPLATE: Final = "baatcheet_seeded"
READ_AT_MOST: Final = 1_500  # rows of a table that a plan may take and throw away, or read from end to end
PATIENCE: Final = 3_000.0  # seconds
_SETTINGS: Final[Mapping[str, str]] = {
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_buffers": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_nested_statements": "on",
    "auto_explain.log_format": "json",
    "enable_seqscan": "off",
    "log_line_prefix": "%a|",
}
_PLAN: Final = re.compile(rb"^(.*?)\|LOG:  duration: [\d.]+ ms  plan:\n((?:\t.*\n)+)", re.MULTILINE)
_OF_TESTS: Final = b"tests"  # what the tests call themselves where they look into the database
_PARTS: Final = re.compile(r"\s+")


@dataclass
class Fault:
    """A plan that reads too much of a table. `condition`: what it had to look at each row for."""

    table: str
    how: str  # "Seq Scan", or the index that does not help
    rows: int  # that were read
    condition: str
    query: str

    def __str__(self) -> str:
        return f"{self.table}: {self.how}, {self.rows} rows, {self.condition or 'no condition'}\n    {self.query}"


@dataclass
class Plans:
    """What was seen: each index with a query that used it, and each fault once.

    `partial`: indexes of few rows, which may be read from end to end.
    """

    partial: frozenset[str] = frozenset()
    statements: int = 0
    queries: set[str] = field(default_factory=set)
    used: dict[str, str] = field(default_factory=dict)
    faults: dict[tuple[str, str, str], Fault] = field(default_factory=dict)

    def add(self, plan: Mapping[str, Any]) -> None:
        """One plan as auto_explain writes it."""
        query = _PARTS.sub(" ", str(plan.get("Query Text", ""))).strip()
        self.statements += 1
        self.queries.add(query)
        self._walk(plan["Plan"], query, limited=False)

    def _walk(self, node: Mapping[str, Any], query: str, *, limited: bool) -> None:
        kind = node["Node Type"]
        limited = limited or kind == "Limit"
        for below in node.get("Plans", ()):
            self._walk(below, query, limited=limited)
        index = node.get("Index Name")
        # The shortest query is the plainest reason.
        if index is not None and len(query) < len(self.used.get(index, query + " ")):
            self.used[index] = query
        table = node.get("Relation Name")
        loops = node.get("Actual Loops", 1)
        # The server's own tables are none of ours. One that was never begun: there was nothing to look for.
        if table is None or table.startswith("pg_") or not loops:
            return
        dropped = (
            node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
        ) * loops
        rows = node.get("Actual Rows", 0) * loops + dropped
        condition = str(node.get("Filter", ""))
        if kind == "Seq Scan":
            fault = Fault(table, kind, int(rows), condition, query)
        elif dropped > READ_AT_MOST or (
            kind in {"Index Scan", "Index Only Scan"}
            and "Index Cond" not in node
            and index not in self.partial
            and (rows > READ_AT_MOST or (condition and not limited))  # the whole index was gone through
        ):
            fault = Fault(table, f"{kind} {node.get('Index Name', '')}".strip(), int(rows), condition, query)
        else:
            return
        key = (table, fault.how, _PARTS.sub(" ", query)[:300])
        known = self.faults.get(key)
        if known is None or fault.rows > known.rows:
            self.faults[key] = fault


def read(log: Path, partial: frozenset[str] = frozenset()) -> Plans:
    """The plans of a server's log."""
    plans = Plans(partial)
    for found in _PLAN.finditer(log.read_bytes()):
        if found[1] != _OF_TESTS:
            plans.add(json.loads(found[2]))
    return plans


def programs() -> Path | None:
    """The folder of a PostgreSQL's programs that has auto_explain; None when there is none here."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/lib/auto_explain.so"))
    return found[-1].parents[1] / "bin" if found else None


@contextmanager
def watched_server(folder: Path) -> Iterator[tuple[str, Path]]:
    """The address of a server, which has a seeded database named TEMPLATE too, and its log."""
    settings = EmbeddedSettings(data_dir=folder, postgres_bin=programs())
    embedded = EmbeddedServices(settings, postgres=True, valkey=False, durable=False)
    try:
        url = embedded.start().database_url
        assert url is not None
        template = seeded(url)
        _run(url, f"CREATE DATABASE {TEMPLATE}")
        upgrade(template)
        asyncio.run(seed(template, MESSAGES))
        # From here on, for every connection that is made. Its settings are known once it is loaded.
        changes = [f"ALTER SYSTEM SET {name} = '{value}'" for name, value in _SETTINGS.items()]
        _run(url, "LOAD 'auto_explain'", *changes, "SELECT pg_reload_conf()")
        yield url, next(folder.glob("log/postgres*.log"))
    finally:
        embedded.stop()


def seeded(url: str) -> str:
    """The address of the seeded database on the server at `url`."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{TEMPLATE}"))


def _run(url: str, *statements: str) -> list[Any]:
    """The last statement's rows."""

    async def run() -> list[Any]:
        connection = await connect(url)
        try:
            rows: list[Any] = []
            for statement in statements:
                rows = await connection.fetch(statement)
            return rows
        finally:
            await connection.close()

    return asyncio.run(run())


def plans_of(tests: Sequence[str], url: str, log: Path) -> tuple[Plans, str]:
    """What the server at `url` saw while `tests` (pytest's arguments) ran, and the end of what pytest said.

    Raises AssertionError when pytest could not run any.
    """
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *tests],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": url, "BAATCHEET_TEST_TEMPLATE": TEMPLATE},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    said = done.stdout[-6_000:]
    assert done.returncode in {0, 1}, said
    rows = _run(seeded(url), "SELECT indexrelid::regclass::text FROM pg_index WHERE indpred IS NOT NULL")
    return read(log, frozenset(row[0] for row in rows)), said


def main() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="baatcheet-plans-") as folder,
        watched_server(Path(folder)) as (url, log),
    ):
        plans, said = plans_of(sys.argv[1:] or ["tests"], url, log)
    lines = [said, f"{plans.statements} statements, {len(plans.queries)} different ones"]
    lines += map(str, sorted(plans.faults.values(), key=lambda one: (one.table, -one.rows)))
    lines += [f"{index}\t{query[:400]}" for index, query in sorted(plans.used.items())]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
