"""Work for the processor, in processes that may die of it.

    result = await sandbox.run(read_page, Page(path), seconds=120, memory=1_500_000_000, on_progress=job.progress)

`read_page(argument, report)` is a function of a module: it runs in a child that shares nothing with this process but
pipes and the file system. Argument and result are msgspec Structs that travel as msgpack, and are small: much data
goes by the path of a file. `report(percent, phrase)` tells how far it is.

Children are spawned, never forked from a process with an event loop, and kept for further calls. What a hostile file
can do to one (a crash, an endless loop, all the memory there is) ends that child, and the next call gets a new one.
They are a wall against accidents and bombs, not against an attacker who runs code of his own in one: a child may read
and write what this process may.
"""

import asyncio
import contextlib
import math
import os
import re
import signal
import subprocess
import sys
import typing
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from types import TracebackType
from typing import IO, Any, Final, Literal, Self, TypeVar

import msgspec

from baatcheet.jobs import isolation_frames as frames
from baatcheet.jobs.isolation_frames import Refused, Report
from baatcheet.kit.text import storable
from baatcheet.platform.logging import get_logger

__all__ = ["OnProgress", "Refused", "Report", "Sandbox", "SandboxFailed"]

log = get_logger(__name__)

OnProgress = Callable[[float, str], Awaitable[None] | None]
"""What is called outside for that, ten times a second at most; awaited when there is something to await."""
Kind = Literal["memory", "time", "crash", "error"]

A = TypeVar("A", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)

MEMORY: Final = 1_000_000_000  # bytes that a call may take unless it says otherwise
FILE_SIZE: Final = 4_000_000_000  # bytes of the largest file that a child may write
GROWN: Final = 700_000_000  # bytes of a child that is too large to be kept
IDLE_SECONDS: Final = 60.0
START_SECONDS: Final = 60.0  # for a child to start and import, on a machine that is very busy
MOST_ARGUMENT: Final = 1_000_000  # bytes
KEPT_PRINT: Final = 4_000  # bytes of what a child printed last

# All that a child gets of our environment: where programs and data are, and nothing that opens a door.
_INHERITED = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "TESSDATA_PREFIX")
_FIXED = {
    # Two pages at once are two children; threads inside one only wait for each other.
    "OMP_THREAD_LIMIT": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # Each arena of malloc's maps 64 MB or more, which would count against the limit.
    "MALLOC_ARENA_MAX": "2",
    "PYTHONUTF8": "1",
    "HOME": "/nonexistent",
}
# How C++, Rust and FFmpeg say so, before they abort or give up.
_WANT_OF_MEMORY = re.compile(rb"bad_alloc|memory allocation of|[Oo]ut of memory|[Cc]annot allocate memory")

_decoder = msgspec.msgpack.Decoder(frames.Answer)


class SandboxFailed(Exception):
    """What ran in a sandbox came to no result.

    kind    memory (it needed more than it may), time (it took longer than it may), crash (its process died), or
            error (it raised an exception)
    detail  for an administrator: a traceback, or what its process printed last
    """

    def __init__(self, kind: Kind, words: str, detail: str = "") -> None:
        super().__init__(words)
        self.kind: Kind = kind
        self.detail = detail


class _Died(Exception):
    """The child ended, or said what can't be read."""


class _NotStarted(_Died):
    """It did so before the function began."""


class _Late(Exception):
    """The function's time is up."""


class Sandbox:
    """At most `processes` children at a time; who asks first is served first.

    A child goes after `calls` calls, when it has grown beyond `grown` bytes, when a call failed in a way that may
    have left something behind, or after `idle_seconds` without work. `environment` is added to what children get.
    Belongs to one event loop; `close` ends all.
    """

    def __init__(
        self,
        processes: int = 2,
        calls: int = 50,
        *,
        grown: int = GROWN,
        niceness: int = 5,
        file_size: int = FILE_SIZE,
        idle_seconds: float = IDLE_SECONDS,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._calls = calls
        self._grown = grown
        self._idle_seconds = idle_seconds
        self._limits = (str(niceness), str(file_size))
        self._environment = _reduced(os.environ) | dict(environment or {})
        self._places = asyncio.Semaphore(processes)
        self._idle: list[_Child] = []
        self._ending: set[asyncio.Task[None]] = set()
        self._alive: set[_Child] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def pids(self) -> list[int]:
        """The children there are, at work or idle."""
        return [child.pid for child in self._alive]

    async def run(
        self,
        function: Callable[[A, Report], R],
        argument: A,
        *,
        seconds: float = 120.0,
        memory: int = MEMORY,
        on_progress: OnProgress | None = None,
    ) -> R:
        """What `function(argument, report)` returns in a child.

        seconds   of time from its first line to its last; twice that of the processor, all its threads together
        memory    bytes of address space beyond what its process has mapped when it begins: what it maps and does not
                  touch counts, what the imports of its module took does not

        When it is cancelled, or `on_progress` raises, the child is killed at once. Raises Refused, with the words
        that the function raised it with, and SandboxFailed.
        """
        if self._closed:
            raise RuntimeError("the sandbox is closed")
        name = _name(function)
        encoded = msgspec.msgpack.encode(argument)
        if len(encoded) > MOST_ARGUMENT:
            raise ValueError(f"an argument of {len(encoded)} bytes for {name}: that much goes by a file")
        call = _frame(frames.Call(name, msgspec.Raw(encoded), memory, math.ceil(seconds * 2) + 1))
        kind: type[R] = _result_type(function)
        try:
            while (result := await self._attempt(call, kind, seconds, memory, on_progress)) is None:
                pass
        except SandboxFailed as failure:
            log.warning("sandbox.failed", function=name, kind=failure.kind, detail=failure.detail)
            raise
        return result

    async def close(self) -> None:
        """End every child. A call that still runs fails as crashed."""
        self._closed = True
        self._idle.clear()
        for child in tuple(self._alive):
            self._end(child)
        while self._ending:
            await asyncio.wait(tuple(self._ending))

    async def _attempt(
        self, call: bytes, kind: type[R], seconds: float, memory: int, on_progress: OnProgress | None
    ) -> R | None:
        """The result of `call`; None when its child had died since it was last used, which is no fault of this call."""
        child = await self._take()
        try:
            answer = await child.exchange(call, seconds, on_progress)
            return _result(answer, kind, memory)
        except _Late:
            raise SandboxFailed("time", _too_long(seconds), child.printed.text()) from None
        except _Died as death:
            if isinstance(death, _NotStarted) and child.answered:
                return None
            child.keep = False
            raise await child.post_mortem(str(death), seconds, memory) from None
        finally:
            self._give_back(child)

    async def _take(self) -> "_Child":
        """A child to call, in its turn: one that is there already, or a new one."""
        await self._places.acquire()
        try:
            if self._idle:
                child = self._idle.pop()
                child.wake()
                return child
            return await self._spawn()
        except BaseException:
            self._places.release()
            raise

    async def _spawn(self) -> "_Child":
        command = [sys.executable, "-P", "-m", "baatcheet.jobs.isolated", str(os.getpid()), *self._limits]
        # The kernel ties a child's end to the thread that started it: the loop's own, so no other is asked to. It
        # is held up by that for a millisecond or two.
        process = subprocess.Popen(  # noqa: S603, ASYNC220
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=self._environment,
            start_new_session=True,
        )
        child = _Child(process, self._died)
        self._alive.add(child)
        try:
            await child.connect()
        except BaseException:
            self._end(child)
            raise
        return child

    def _give_back(self, child: "_Child") -> None:
        """After a call: keep `child` for the next one, or end it. Its place is free once it is gone."""
        child.answered += 1
        if (
            child.keep
            and not self._closed
            and not child.printed.ended.is_set()
            and child.answered < self._calls
            and child.resident <= self._grown
        ):
            child.keep = False
            self._idle.append(child)
            child.sleep(self._idle_seconds, self._expire)
            self._places.release()
        else:
            self._end(child).add_done_callback(lambda _: self._places.release())

    def _expire(self, child: "_Child") -> None:
        """It had nothing to do for long."""
        self._idle.remove(child)
        self._end(child)

    def _died(self, child: "_Child") -> None:
        """Its last pipe closed; when it was idle nobody else would notice."""
        if child in self._idle:
            self._idle.remove(child)
            self._end(child)

    def _end(self, child: "_Child") -> "asyncio.Task[None]":
        child.kill()
        if child.ending is None:
            child.ending = asyncio.create_task(self._collect(child))
            self._ending.add(child.ending)
            child.ending.add_done_callback(self._ending.discard)
        return child.ending

    async def _collect(self, child: "_Child") -> None:
        await child.collect()
        self._alive.discard(child)


class _Printed(asyncio.Protocol):
    """The last that a child printed, and a notice when it can print no more."""

    def __init__(self, on_end: Callable[[], None]) -> None:
        self.tail = bytearray()
        self.ended = asyncio.Event()
        self._on_end = on_end

    def data_received(self, data: bytes) -> None:
        self.tail += data[-KEPT_PRINT:]
        del self.tail[:-KEPT_PRINT]

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()
        self._on_end()

    def text(self) -> str:
        return storable(self.tail.decode(errors="replace"))


class _Child:
    """One process, from its start until it has been collected."""

    def __init__(self, process: "subprocess.Popen[bytes]", on_death: Callable[["_Child"], None]) -> None:
        self._process = process
        self._answers = asyncio.StreamReader()
        self._calls: asyncio.WriteTransport | None = None
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._pipes: list[IO[bytes]] = [process.stderr, process.stdout, process.stdin]
        self._transports: list[asyncio.BaseTransport] = []
        self._expiry: asyncio.TimerHandle | None = None
        self.printed = _Printed(lambda: on_death(self))
        self.ending: asyncio.Task[None] | None = None
        self.answered = 0
        self.resident = 0
        self.keep = False
        """Whether its last call left it fit for another."""

    @property
    def pid(self) -> int:
        return self._process.pid

    async def connect(self) -> None:
        """Attach to its pipes."""
        loop = asyncio.get_running_loop()
        self._calls, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, self._pipes.pop())
        self._transports.append(self._calls)
        answers = asyncio.StreamReaderProtocol(self._answers)
        self._transports.append((await loop.connect_read_pipe(lambda: answers, self._pipes.pop()))[0])
        self._transports.append((await loop.connect_read_pipe(lambda: self.printed, self._pipes.pop()))[0])

    def sleep(self, seconds: float, expire: Callable[["_Child"], None]) -> None:
        """Have `expire` called unless it is woken within `seconds`."""
        self._expiry = asyncio.get_running_loop().call_later(seconds, expire, self)

    def wake(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    async def exchange(
        self, call: bytes, seconds: float, on_progress: OnProgress | None
    ) -> frames.Returned | frames.Refusal | frames.Failure:
        """What it answers to `call` in the end. Raises _Died and _Late, and what `on_progress` raises."""
        assert self._calls is not None
        del self.printed.tail[:]
        self._calls.write(call)
        answer = await self._first()
        if isinstance(answer, frames.Started):
            limit = asyncio.timeout(seconds)
            try:
                async with limit:
                    answer = await self._last(on_progress)
            except TimeoutError:
                if limit.expired():
                    raise _Late from None
                raise
        match answer:
            case frames.Returned():
                self.resident = answer.resident
                self.keep = True
            case frames.Refusal():
                self.keep = True
            case frames.Failure():
                self.keep = answer.healthy
            case frames.Started() | frames.Progressed():
                raise _Died("It answered with something that can't be read.")
        return answer

    async def _first(self) -> frames.Answer:
        try:
            async with asyncio.timeout(START_SECONDS):
                return await self._answer()
        except TimeoutError:
            raise _NotStarted(f"Its process was not ready within {START_SECONDS:g} s.") from None
        except _Died as death:
            raise _NotStarted(*death.args) from death

    async def _last(self, on_progress: OnProgress | None) -> frames.Answer:
        while isinstance(answer := await self._answer(), frames.Progressed):
            if on_progress is not None and math.isfinite(answer.percent):
                percent = min(100.0, max(0.0, answer.percent))
                waiting = on_progress(percent, storable(answer.phrase[: frames.MOST_PHRASE]))
                if waiting is not None:
                    await waiting
        return answer

    async def _answer(self) -> frames.Answer:
        try:
            (length,) = frames.LENGTH.unpack(await self._answers.readexactly(frames.LENGTH.size))
            if length > frames.MOST_ANSWER:
                raise _Died("It answered with something that can't be read.")
            answer: frames.Answer = _decoder.decode(await self._answers.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError) as gone:
            raise _Died("Its process ended without a result.") from gone
        except msgspec.MsgspecError as error:
            raise _Died("It answered with something that can't be read.") from error
        return answer

    async def post_mortem(self, words: str, seconds: float, memory: int) -> SandboxFailed:
        """Why it died, in plain words."""
        self.kill()
        with contextlib.suppress(
            TimeoutError
        ):  # something that it started and that left its group may hold the pipe
            async with asyncio.timeout(1):
                await self.printed.ended.wait()
        # Being killed a moment ago does not change how a process that was ending already has ended.
        status = await self._status()
        printed = self.printed.text()
        if status == -signal.SIGXCPU:
            return SandboxFailed("time", _too_long(seconds), printed)
        if _WANT_OF_MEMORY.search(self.printed.tail):
            return SandboxFailed("memory", _too_much(memory), printed)
        if status < 0 and status != -signal.SIGKILL:
            return SandboxFailed("crash", f"Its process crashed ({signal.Signals(-status).name}).", printed)
        return SandboxFailed("crash", words, printed)

    def kill(self) -> None:
        """End it, and what it has started, at once. Until its status is taken its id is its own, if only a zombie's."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    async def collect(self) -> None:
        """Close its pipes and take its status, once it has been killed."""
        self.wake()
        for transport in self._transports:
            transport.close()
        for pipe in self._pipes:
            pipe.close()
        await self._status()

    async def _status(self) -> int:
        status = self._process.poll()
        return status if status is not None else await asyncio.to_thread(self._process.wait)


def _result(answer: frames.Returned | frames.Refusal | frames.Failure, kind: type[R], memory: int) -> R:
    match answer:
        case frames.Returned(result):
            try:
                return msgspec.msgpack.decode(result, type=kind)
            except msgspec.MsgspecError as error:
                raise _Died("It answered with something that can't be read.") from error
        case frames.Refusal(words):
            raise Refused(storable(words))
        case frames.Failure(error, trace, of_memory):
            if of_memory:
                raise SandboxFailed("memory", _too_much(memory), storable(trace))
            raise SandboxFailed("error", f"It failed unexpectedly ({storable(error)}).", storable(trace))


def _too_long(seconds: float) -> str:
    return f"It took longer than {seconds:g} s."


def _too_much(memory: int) -> str:
    return f"It needed more than {memory / 1e6:,.0f} MB of memory."


def _frame(call: frames.Call) -> bytes:
    body = msgspec.msgpack.encode(call)
    return frames.LENGTH.pack(len(body)) + body


def _name(function: Callable[..., Any]) -> str:
    """How a child finds `function`."""
    module, name = function.__module__, function.__qualname__
    if module == "__main__" or "<" in name:
        raise ValueError(
            f"{module}:{name} can't be found by another process: it takes a function of a module"
        )
    return f"{module}:{name}"


@lru_cache(maxsize=100)
def _result_type(function: Callable[..., Any]) -> Any:
    return typing.get_type_hints(function)["return"]


def _reduced(environment: Mapping[str, str]) -> dict[str, str]:
    """What of `environment` a child gets. What we can import, it can."""
    kept = {name: environment[name] for name in _INHERITED if name in environment}
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)  # noqa: PTH100 - "" is where we are
    return {"LANG": "C.UTF-8", **kept, **_FIXED, "PYTHONPATH": path}
