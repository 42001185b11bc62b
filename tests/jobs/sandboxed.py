"""What the tests run inside a sandbox: well-behaved, and every way not to be."""

import contextlib
import ctypes
import hashlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import msgspec

from baatcheet.jobs.isolation_frames import Refused, Report


class Asked(msgspec.Struct, frozen=True):
    text: str = ""
    number: int = 0


class Told(msgspec.Struct, frozen=True):
    text: str
    number: int = 0


class Known(msgspec.Struct, frozen=True):
    environment: dict[str, str]
    niceness: int
    limits: dict[str, int]
    files: list[str]
    group: int
    pid: int


def reverse(asked: Asked, report: Report) -> Told:
    return Told(asked.text[::-1], os.getpid())


def surroundings(asked: Asked, report: Report) -> Known:
    names = ("AS", "CORE", "CPU", "FSIZE", "NOFILE")
    limits = {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[0] for name in names}
    files = [target for number, target in _descriptors() if number > 2]
    return Known(dict(os.environ), os.nice(0), limits, files, os.getpgrp(), os.getpid())


def count(asked: Asked, report: Report) -> Told:
    for step in range(asked.number):
        report(100 * step / asked.number, f"Step {step}")
        time.sleep(0.15)
    return Told("counted", asked.number)


def report_endlessly(asked: Asked, report: Report) -> NoReturn:
    while True:
        report(50, "x" * 1_000_000)


def refuse(asked: Asked, report: Report) -> NoReturn:
    raise Refused(f"{asked.text} can't be read: it is empty.")


def fail(asked: Asked, report: Report) -> NoReturn:
    raise KeyError(asked.text)


def sleep(asked: Asked, report: Report) -> Told:
    Path(asked.text).write_text(str(os.getpid()))
    time.sleep(600)
    return Told("slept")


def start_another(asked: Asked, report: Report) -> Told:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as other:
        Path(asked.text).write_text(str(other.pid))
        other.wait()
    return Told("ended")


def spin(asked: Asked, report: Report) -> NoReturn:
    digest = hashlib.sha256()
    while True:
        digest.update(b"x" * 100_000)


def exit_with_status(asked: Asked, report: Report) -> NoReturn:
    sys.exit(asked.number)


def vanish(asked: Asked, report: Report) -> NoReturn:
    os._exit(asked.number)


def segfault(asked: Asked, report: Report) -> NoReturn:
    ctypes.string_at(0)
    raise AssertionError


def kill_itself(asked: Asked, report: Report) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def abort_for_memory(asked: Asked, report: Report) -> NoReturn:
    os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\n")
    os.abort()


def allocate(asked: Asked, report: Report) -> Told:
    held = bytearray(asked.number)
    return Told("held", len(held))


def recurse(asked: Asked, report: Report) -> Told:
    def deeper(level: int) -> int:
        return deeper(level + 1)

    return Told("", deeper(0))


def overflow_the_stack(asked: Asked, report: Report) -> Told:
    sys.setrecursionlimit(100_000_000)
    nested: list[object] = []
    for _ in range(3_000_000):
        nested = [nested]
    return Told(repr(nested))


def print_much(asked: Asked, report: Report) -> Told:
    os.write(1, b"from a library, on stdout\n")
    for _ in range(asked.number):
        os.write(2, b"noise " * 1000)
    if asked.text:
        os.write(2, asked.text.encode())
        os._exit(3)
    return Told("printed")


def write_file(asked: Asked, report: Report) -> Told:
    with Path(asked.text).open("wb") as file:
        file.writelines(bytes(1_000_000) for _ in range(asked.number))
    return Told("written")


def babble(asked: Asked, report: Report) -> NoReturn:
    """Write to the pipe of the answers what is none."""
    pipe = next(number for number, target in _descriptors() if number > 2 and target.startswith("pipe:"))
    os.write(pipe, bytes.fromhex(asked.text))
    time.sleep(600)
    raise AssertionError


def _descriptors() -> Iterator[tuple[int, str]]:
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            yield int(path.name), str(path.readlink())


def wrong_result(asked: Asked, report: Report) -> Told:
    return 12  # type: ignore[return-value]


def unencodable(asked: Asked, report: Report) -> Told:
    return object()  # type: ignore[return-value]


def too_much(asked: Asked, report: Report) -> Told:
    return Told("x" * 20_000_000)
