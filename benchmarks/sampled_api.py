"""The API process with a sampler inside: `python -m benchmarks.sampled_api FOLDER …`, run as `serve` does.

SIGUSR1 begins a profile; SIGUSR2 ends it and writes `FOLDER/NUMBER.json`: stacks, each a list of
`[file, function]` from the outermost, with how often they were seen. A stack is taken each millisecond, by a
signal that is handled between two bytecodes of the main thread. So what is spent in C (uvloop, the kernel,
asyncpg's protocol) counts for the Python code that called it or runs next; a loop that waits is left out.

`python -m benchmarks.sampled_api --serve FOLDER` is `baatcheet serve` with such an API process.
"""

import asyncio.runners
import signal
import sys
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType

import msgspec

from baatcheet.entrypoints import api
from baatcheet.entrypoints.supervisor import Supervisor
from baatcheet.platform import logging
from baatcheet.platform.settings import load
from benchmarks.shares import Stack

# Seconds of the clock, since a timer of CPU time is only as fine as the kernel's tick.
_EVERY = 0.001
_DEEPEST = 80


class Sampler:
    """Counts the stacks at which the process is found."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self._seen: Counter[tuple[CodeType, ...]] = Counter()

    def install(self) -> None:
        signal.signal(signal.SIGALRM, self._look)
        signal.signal(signal.SIGUSR1, self._begin)
        signal.signal(signal.SIGUSR2, self._end)

    def _begin(self, _number: int, _frame: FrameType | None) -> None:
        self._seen.clear()
        signal.setitimer(signal.ITIMER_REAL, _EVERY, _EVERY)

    def _look(self, _number: int, frame: FrameType | None) -> None:
        if frame is not None and frame.f_code.co_filename == asyncio.runners.__file__:
            return  # the loop waits
        stack: list[CodeType] = []
        while frame is not None and len(stack) < _DEEPEST:
            stack.append(frame.f_code)
            frame = frame.f_back
        self._seen[tuple(stack)] += 1

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        stacks: list[Stack] = [
            ([(code.co_filename, code.co_qualname) for code in reversed(stack)], count)
            for stack, count in self._seen.items()
        ]
        unfinished = self._folder / f"{self._number}.part"
        unfinished.write_bytes(msgspec.json.encode(stacks))
        unfinished.rename(self._folder / f"{self._number}.json")
        self._number += 1


def main() -> None:
    if sys.argv[1] == "--serve":
        settings = load()
        logging.configure(settings.telemetry)
        command = (sys.executable, "-m", "benchmarks.sampled_api", sys.argv[2])
        Supervisor(settings, api_command=command).run()
        return
    Sampler(Path(sys.argv.pop(1))).install()
    api.main()


if __name__ == "__main__":
    main()
