"""What the context costs and what it holds: `python -m benchmarks.context [--json] [--quick]`.

The product's own context manager in this process, on a durable PostgreSQL and a Valkey that are started for the run.
docs/benchmarks.md says what each figure means.
"""

import asyncio
from dataclasses import dataclass

import uvloop

from baatcheet.platform.settings import Settings
from benchmarks.context.latency import LARGE, MIDDLE, SMALL, Latency
from benchmarks.context.measuring import Noise
from benchmarks.context.overflow import Overflow
from benchmarks.context.recall import Recall
from benchmarks.context.stability import Stability
from benchmarks.context.workplace import services, workplace
from benchmarks.report import Report, options, progress


@dataclass(frozen=True)
class Plan:
    """How much of what is measured."""

    quick: bool
    sizes: tuple[int, ...]  # messages of a conversation
    readings: int  # of each kind
    turns: int
    plans: int


FULL = Plan(quick=False, sizes=(SMALL, MIDDLE, LARGE), readings=450, turns=500, plans=1_000)
QUICK = Plan(quick=True, sizes=(SMALL, MIDDLE), readings=60, turns=100, plans=200)


async def measure(report: Report, settings: Settings, plan: Plan) -> None:
    async with workplace(settings) as place:
        noise = Noise()
        await Latency(place, report, sizes=plan.sizes, readings=plan.readings).run()
        report.add("noise", noise.cores(), "cores", better="lower")
        await Recall(place, report, quick=plan.quick).run()
        await Stability(place, report, turns=plan.turns).run()
    Overflow(report, plans=plan.plans).run()


def main() -> None:
    asked = options("context", "How long planning a turn takes, and what it holds.")
    report = Report("context")
    progress("starting PostgreSQL and Valkey")
    with services() as settings, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measure(report, settings, QUICK if asked.quick else FULL))
    report.show(asked)


if __name__ == "__main__":
    main()
