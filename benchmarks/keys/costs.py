"""What redaction adds to a log line, and what a pool of 38 adds to a turn."""

import gc
import logging
import statistics
import time
from collections.abc import Callable
from typing import Final

from baatcheet.platform.logging import JsonFormatter
from baatcheet.platform.redaction import redact, register_secret
from benchmarks.clients import body
from benchmarks.keys.deployment import KEYLESS, MANY, Deployment, new_keys
from benchmarks.keys.streams import QUESTION
from benchmarks.load import Connection, FailedError, Script, Server, press
from benchmarks.report import Report, progress

KEYS: Final = 38
LINES: Final = 50  # in a round
CLIENTS: Final = 16
_FIELDS: Final = {
    "method": "POST",
    "path": "/v1/chat/completions",
    "status": 200,
    "ms": 12.51,
    "user_id": "0192f0c1-7e1b-7d6a-9c55-0d6b7f9a2c11",
    "turn_id": "0192f0c1-7e1b-7d6a-9c55-0d6b7f9a2c12",
    "model": "groq/llama-3.3-70b-versatile",
}


def redaction(report: Report, *, quick: bool) -> None:
    """The figures of a line of a request's log, before and after keys are registered, which this process then keeps."""
    progress("redaction")
    rounds = 200 if quick else 2_000
    record = logging.LogRecord(
        "baatcheet.entrypoints.api", logging.INFO, "", 0, "request.answered", None, None
    )
    record.fields = _FIELDS
    formatter = JsonFormatter()
    line = formatter.format(record)
    [without] = _microseconds(rounds, lambda: redact(line))
    for key in new_keys(KEYS):
        register_secret(key, fragments=True)
    with_keys, whole = _microseconds(rounds, lambda: redact(line), lambda: formatter.format(record))
    report.add("redaction.line", with_keys, "µs", better="lower")
    report.add("redaction.line.no_keys", without, "µs", better="lower")
    report.add("redaction.share_of_line", 100 * with_keys / whole, "%", better="lower")
    report.add("redaction.characters", len(line), "characters", better="lower")


def _microseconds(rounds: int, *works: Callable[[], object]) -> list[float]:
    """Of each, for one call, in the round in the middle; their rounds alternate."""
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, some in zip(works, taken, strict=True):
            begun = time.perf_counter()
            for _ in range(LINES):
                work()
            some.append(1e6 * (time.perf_counter() - begun) / LINES)
    return [statistics.median(some) for some in taken]


class Turns:
    """Turns with a pool of 38 keys and its counters, and turns at the same provider without a key, in alternation."""

    def __init__(self, report: Report, deployment: Deployment, *, quick: bool) -> None:
        self._report = report
        self._deployment = deployment
        self._rounds, self._seconds = (3, 0.6) if quick else (9, 3.0)

    async def run(self) -> None:
        scripts = {name: _script(self._deployment.server, name) for name in (MANY, KEYLESS)}
        rates: dict[str, list[float]] = {name: [] for name in scripts}
        spent: dict[str, list[float]] = {name: [] for name in scripts}
        failures = []
        for script in scripts.values():
            await press(self._deployment.server, [script] * CLIENTS, seconds=1.0)
        for number in range(self._rounds):
            progress(f"turns: round {number + 1} of {self._rounds}")
            for name, script in list(scripts.items())[:: 1 if number % 2 else -1]:
                gc.collect()
                before = self._deployment.cpu()
                done = await press(self._deployment.server, [script] * CLIENTS, seconds=self._seconds)
                used = (self._deployment.cpu() - before).total
                failures += done.failures
                rates[name].append(done.rate)
                spent[name].append(1e6 * used / max(1, len(done.latencies)))
        cost = {name: statistics.median(some) for name, some in spent.items()}
        rate = {name: statistics.median(some) for name, some in rates.items()}
        add = self._report.add
        add("turn.cpu.ratio", cost[MANY] / cost[KEYLESS], "x keyless", better="lower")
        add("turn.rate.ratio", rate[MANY] / rate[KEYLESS], "x keyless", better="higher")
        for name in scripts:
            add(f"turn.cpu.{name}", cost[name], "µs", better="lower")
            add(f"turn.rate.{name}", rate[name], "1/s", better="higher")
        add("turn.failed", len(failures), "requests", better="lower", target=0)
        for failure in dict.fromkeys(failures):
            self._report.note(f"FAILED {failure}")


def _script(server: Server, provider: str) -> Script:
    request = server.post(body(model=f"{provider}/fixed", messages=QUESTION))

    async def ask(connection: Connection) -> None:
        answer = await connection.ask(request)
        if answer.status != 200:
            raise FailedError(f"answered {answer.status}: {answer.body[:300].decode(errors='replace')}")

    return ask
