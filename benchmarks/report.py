"""The one form in which every benchmark gives its figures.

With `--json` one object: `{"bench": NAME, "figures": {FIGURE: {"value", "unit", "target", "better", "ok"}},
"machine": {…}}`; otherwise a table. A figure without a target is information: its `target` is null and it is
always `ok`. The exit status is 0 whatever the figures.
"""

import argparse
import math
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

Better = Literal["lower", "higher"]


class Figure(msgspec.Struct, frozen=True):
    """One measured figure. `value` is None when it could not be measured, which is never `ok`."""

    value: float | None
    unit: str
    target: float | None
    better: Better
    ok: bool


class Options(msgspec.Struct, frozen=True):
    """What every benchmark can be asked."""

    json: bool
    quick: bool


class Report:
    """The figures of one run, in the order in which they were added, and notes for people."""

    def __init__(self, bench: str) -> None:
        self.bench = bench
        self.figures: dict[str, Figure] = {}
        self._notes: list[str] = []

    def add(
        self, name: str, value: float | None, unit: str, *, better: Better, target: float | None = None
    ) -> None:
        """Add a figure. It is `ok` when it reaches `target`, on the side that is `better`."""
        measured = value if value is not None and math.isfinite(value) else None
        ok = measured is not None and (
            target is None or (measured <= target if better == "lower" else measured >= target)
        )
        rounded = None if measured is None else _rounded(measured)
        self.figures[name] = Figure(rounded, unit, target, better, ok)

    def note(self, text: str) -> None:
        """Add text that is shown under the table and is no part of the JSON."""
        self._notes.append(text)

    def document(self) -> dict[str, Any]:
        """The report as `--json` prints it."""
        return {
            "bench": self.bench,
            "figures": {name: msgspec.to_builtins(figure) for name, figure in self.figures.items()},
            "machine": machine(),
        }

    def table(self) -> str:
        """The report for people."""
        rows = [("figure", "value", "unit", "target", "")]
        for name, figure in self.figures.items():
            target = ""
            if figure.target is not None:
                target = f"{'≤' if figure.better == 'lower' else '≥'} {figure.target:g}"
            verdict = "" if figure.target is None else "ok" if figure.ok else "MISSED"
            rows.append((name, _shown(figure.value), figure.unit, target, verdict))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [_line(row, widths) for row in rows]
        lines.insert(1, "-" * len(lines[0].rstrip()))
        about = ", ".join(f"{key} {value}" for key, value in machine().items())
        return "\n".join([f"{self.bench} ({about})", "", *lines, *(f"\n{note}" for note in self._notes)])

    def show(self, options: Options) -> None:
        """Print it as `options` ask."""
        print(msgspec.json.encode(self.document()).decode() if options.json else self.table())


def options(bench: str, about: str, arguments: Sequence[str] | None = None) -> Options:
    """The command line of a benchmark."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{bench}", description=about)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="finish within 60 s, with coarser figures")
    given = parser.parse_args(arguments)
    return Options(json=given.json, quick=given.quick)


def progress(text: str) -> None:
    """Tell the person who waits; never part of the report."""
    print(text, file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """What is worth knowing of the machine, and nothing that names it."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "cores": available,
        "memory_mb": _memory_mb(),
        "system": platform.system(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
    }


def _memory_mb() -> int | None:
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except FileNotFoundError:
        return None
    return int(text.split()[1]) // 1024


def _rounded(value: float) -> float:
    """Four significant digits: what lies beyond is noise."""
    return float(f"{value:.4g}")


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def _line(row: tuple[str, ...], widths: Sequence[int]) -> str:
    name, value, *rest = row
    cells = [name.ljust(widths[0]), value.rjust(widths[1])]
    cells += [cell.ljust(width) for cell, width in zip(rest, widths[2:], strict=True)]
    return "  ".join(cells).rstrip()
