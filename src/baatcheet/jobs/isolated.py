"""The child of a sandbox: `python -P -m baatcheet.jobs.isolated PARENT NICENESS FILE_SIZE`.

Reads calls from stdin, answers on what was its stdout, and ends when stdin does. Everything that a library prints
goes to stderr: a line of FFmpeg's among the answers would be taken for one.
"""

import contextlib
import ctypes
import faulthandler
import gc
import importlib
import math
import os
import resource
import signal
import sys
import time
import traceback
import typing
from collections.abc import Callable
from typing import Any, BinaryIO, NoReturn

import msgspec

from baatcheet.jobs import isolation_frames as frames

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
FILES = 256  # that it may have open
BETWEEN_REPORTS = 0.1  # seconds

_PAGE = os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parent, niceness, file_size = (int(one) for one in sys.argv[1:])
    answers = _confine(parent, niceness, file_size)
    _Child(sys.stdin.buffer, answers).serve()


def _confine(parent: int, niceness: int, file_size: int) -> BinaryIO:
    """Bind this process to its parent and its limits. Returns where answers go."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the process that asked for it has ended")
    os.nice(niceness)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _lower(resource.RLIMIT_FSIZE, file_size)
    _lower(resource.RLIMIT_NOFILE, FILES)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    faulthandler.enable()  # the stack of a crash, on stderr
    return answers


def _lower(limit: int, value: int) -> None:
    _, hard = resource.getrlimit(limit)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(limit, (value, value))


class _Child:
    def __init__(self, calls: BinaryIO, answers: BinaryIO) -> None:
        self._calls = calls
        self._answers = answers
        self._decoder = msgspec.msgpack.Decoder(frames.Call)
        self._encoder = msgspec.msgpack.Encoder()
        self._reported = -math.inf

    def serve(self) -> None:
        """Answer calls until there are no more."""
        while header := self._calls.read(frames.LENGTH.size):
            (length,) = frames.LENGTH.unpack(header)
            call = self._decoder.decode(self._calls.read(length))
            self._send(self._answer(call))
            del call
            gc.collect()  # while nobody waits

    def _answer(self, call: frames.Call) -> frames.Answer:
        try:
            function = _resolve(call.function)
            argument = msgspec.msgpack.decode(call.argument, type=_type_of_argument(function))
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent logs it
            return _failure(error)
        self._send(frames.Started())
        self._reported = -math.inf
        try:
            with _limited(call.memory, call.cpu):
                result = function(argument, self._report)
                encoded = self._encoder.encode(result)
        except frames.Refused as refusal:
            return frames.Refusal(str(refusal)[: frames.MOST_TEXT])
        except BaseException as error:  # noqa: BLE001 - SystemExit too is but a way to fail
            return _failure(error)
        if len(encoded) > frames.MOST_RESULT:
            return _failure(ValueError(f"a result of {len(encoded)} bytes: that much goes by a file"))
        return frames.Returned(msgspec.Raw(encoded), _pages(1))

    def _report(self, percent: float, phrase: str) -> None:
        now = time.monotonic()
        if now - self._reported < BETWEEN_REPORTS:
            return
        self._reported = now
        self._send(frames.Progressed(float(percent), phrase[: frames.MOST_PHRASE]))

    def _send(self, answer: frames.Answer) -> None:
        body = self._encoder.encode(answer)
        left = memoryview(frames.LENGTH.pack(len(body)) + body)
        try:
            while left:
                left = left[self._answers.write(left) or 0 :]
        except BrokenPipeError:
            _end()


def _end() -> NoReturn:
    """Nobody listens any more."""
    os._exit(1)


def _resolve(name: str) -> Callable[[Any, Callable[[float, str], None]], Any]:
    module, _, attribute = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    function: Callable[[Any, Callable[[float, str], None]], Any] = found
    return function


def _type_of_argument(function: Callable[..., Any]) -> Any:
    hints = typing.get_type_hints(function)
    hints.pop("return", None)
    return next(iter(hints.values()))


@contextlib.contextmanager
def _limited(memory: int, cpu: int) -> typing.Iterator[None]:
    """Inside, what is above the limits fails: an allocation with MemoryError or NULL, the processor with SIGXCPU.

    Address space and not resident memory, since it is the one that the kernel refuses at the allocation itself;
    counted from what the process has mapped already, since a library may map gigabytes that it never touches.
    """
    old_memory = resource.getrlimit(resource.RLIMIT_AS)
    old_cpu = resource.getrlimit(resource.RLIMIT_CPU)
    used = resource.getrusage(resource.RUSAGE_SELF)
    _soft(resource.RLIMIT_AS, _pages(0) + memory, old_memory)
    _soft(resource.RLIMIT_CPU, math.ceil(used.ru_utime + used.ru_stime) + cpu, old_cpu)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, old_memory)
        resource.setrlimit(resource.RLIMIT_CPU, old_cpu)


def _soft(limit: int, value: int, old: tuple[int, int]) -> None:
    hard = old[1]
    resource.setrlimit(limit, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _pages(field: int) -> int:
    """Bytes that this process has mapped (0) or resident (1)."""
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open("/proc/self/statm", "rb", buffering=0) as file:  # noqa: PTH123 - no Path object on every call
        return int(file.read().split()[field]) * _PAGE


def _failure(error: BaseException) -> frames.Failure:
    memory = isinstance(error, MemoryError)
    healthy = isinstance(error, Exception) and not isinstance(error, MemoryError | RecursionError)
    text = "".join(traceback.format_exception(error, limit=-12))
    # The stack of it would keep alive what the function held.
    traceback.clear_frames(error.__traceback__)
    return frames.Failure(type(error).__name__, text[-frames.MOST_TEXT :], memory, healthy)


if __name__ == "__main__":
    main()
