"""Providers' keys: `python -m benchmarks.keys [--json] [--quick]`.

What picking one costs; whether anybody notices that all 38 are replaced, or that some are bad; what they cost a turn
and a log line. docs/benchmarks.md says what each figure means.
"""

import asyncio

import uvloop

from benchmarks.keys.bad_keys import BadKeys
from benchmarks.keys.costs import Turns, redaction
from benchmarks.keys.deployment import deployed
from benchmarks.keys.picking import picking
from benchmarks.keys.rotation import Rotation
from benchmarks.report import Report, options, progress


def main() -> None:
    asked = options("keys", "What providers' keys cost.")
    report, quick = Report("keys"), asked.quick
    picking(report, quick=quick)
    progress("starting a deployment")
    with (
        deployed(watch_seconds=3.0 if quick else 15.0) as deployment,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        for part in (Rotation, BadKeys, Turns):
            runner.run(part(report, deployment, quick=quick).run())
    redaction(report, quick=quick)
    report.show(asked)


if __name__ == "__main__":
    main()
