"""Python processes that have imported the application before they begin: forks of one that has, and does nothing else.

A process of the application spends most of its start on importing. What a test starts through `popen` is, to the test
and to itself, what `subprocess.Popen([sys.executable, …])` makes: a child of the test's process, with its own
environment, folder, files and `__main__`. Three things differ: `/proc/PID/cmdline` and `/proc/PID/environ` are the
zygote's, and memory is shared with it. Tests of those, and of starting itself, use `subprocess`.

PYTEST_BAATCHEET_FORK=0 in the environment makes all of them true starts.
"""

import atexit
import contextlib
import ctypes
import fcntl
import gc
import json
import os
import runpy
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

ROOT: Final = Path(__file__).parents[1]
AT_START: Final = dict(os.environ)  # before any test changed it
PATIENCE: Final = 120.0  # seconds that the zygote may take to import
_IMPORTED: Final = (
    "baatcheet.entrypoints.api",
    "baatcheet.entrypoints.worker",
    "baatcheet.migrations.tables",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.httptools_impl",
)
# Those of them that are run as `__main__`: they must not have been imported by then.
_RUN: Final = ("baatcheet.entrypoints.api", "baatcheet.entrypoints.worker")
# What the interpreter and libraries in C read when they start.
_OF_C: Final = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_", "GLIBC_", "OMP_", "OPENBLAS_", "SSL_", "TZ", "UV_")
_PR_SET_CHILD_SUBREAPER: Final = 36
_LENGTH: Final = struct.Struct("!I")

File = int | IO[Any] | None


class Forked(subprocess.Popen[bytes]):
    """A process that has been made already, and is a child of this one."""

    def __init__(self, pid: int, args: Sequence[str]) -> None:
        self.args = list(args)
        self.pid = pid
        self.returncode: int | None = None
        self.stdin = self.stdout = self.stderr = None
        self._child_created = True
        self._waitpid_lock = threading.Lock()
        self._input = None
        self._communication_started = False
        self._sigint_wait_secs = 0.25
        self.text_mode = self.encoding = self.errors = None


class _Unfit(Exception):
    """What is asked for must be started truly."""


class Zygote:
    """The one that imports and forks. It ends with the process that started it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from tests.zygote import serve; serve({theirs.fileno()})"],
                env=AT_START,
                cwd=ROOT,
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        self._control = ours
        ours.settimeout(PATIENCE)
        try:
            self._read_at_import = frozenset(_receive(ours)["read"])
        except BaseException:
            self.close()
            raise

    def popen(
        self,
        args: Sequence[str],
        *,
        env: Mapping[str, str] | None,
        cwd: str | os.PathLike[str] | None,
        files: Sequence[int],
        pass_fds: Sequence[int],
    ) -> Forked:
        """A process of `python *args`, its stdin, stdout and stderr being `files`. Raises _Unfit."""
        env = dict(os.environ if env is None else env)
        for name in {name for name, value in (env.items() ^ AT_START.items())}:
            if name in self._read_at_import or name.startswith(_OF_C):
                raise _Unfit(name)
        order = {"args": list(args), "env": env, "cwd": os.fspath(cwd or Path.cwd()), "fds": list(pass_fds)}
        with self._lock:
            # The fork's parent ends at once, and it becomes a child of ours.
            _adopt(True)
            try:
                _send(self._control, order, [*files, *pass_fds])
                pid = int(_receive(self._control)["pid"])
            finally:
                _adopt(False)
        return Forked(pid, [sys.executable, *args])

    def close(self) -> None:
        self._control.close()
        self._process.kill()
        self._process.wait()


_zygote: Zygote | None = None
_making = threading.Lock()
_truly = os.environ.pop("PYTEST_BAATCHEET_FORK", "1") == "0"


def popen(
    args: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    stdin: File = None,
    stdout: File = None,
    stderr: File = None,
    pass_fds: Sequence[int] = (),
    anew: bool = False,
) -> subprocess.Popen[bytes]:
    """`subprocess.Popen([sys.executable, *args], …)`, `args` being `-m MODULE …` or `-c CODE …`.

    `anew`: truly so. That is also done where its environment differs in what is read while importing.
    """
    started = None if _truly or anew else _started()
    if started is not None:
        with contextlib.ExitStack() as stack, contextlib.suppress(_Unfit):
            ends: dict[str, IO[bytes]] = {}
            files: list[int] = []
            for number, (name, file) in enumerate((("stdin", stdin), ("stdout", stdout), ("stderr", stderr))):
                if file == subprocess.PIPE:
                    reading, writing = os.pipe()
                    theirs, own = (reading, writing) if number == 0 else (writing, reading)
                    ends[name] = os.fdopen(own, "wb" if number == 0 else "rb", -1)
                    stack.callback(os.close, theirs)
                    files.append(theirs)
                elif file == subprocess.DEVNULL:
                    files.append(os.open(os.devnull, os.O_RDWR))
                    stack.callback(os.close, files[-1])
                elif file == subprocess.STDOUT:
                    files.append(files[1])
                elif file is None:
                    files.append(number)
                else:
                    files.append(file if isinstance(file, int) else file.fileno())
            try:
                process = started.popen(args, env=env, cwd=cwd, files=files, pass_fds=pass_fds)
            except BaseException:
                for end in ends.values():
                    end.close()
                raise
            for name, end in ends.items():
                setattr(process, name, end)
            return process
    return subprocess.Popen(
        [sys.executable, *args],
        env=env,
        cwd=cwd,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=pass_fds,
    )


def _started() -> Zygote | None:
    """The zygote; None where it cannot import: then what is started says why."""
    global _zygote, _truly  # noqa: PLW0603 - one for the session
    with _making:
        if _zygote is None and not _truly:
            try:
                _zygote = Zygote()
            except (OSError, EOFError):
                _truly = True
            else:
                atexit.register(_zygote.close)
        return _zygote


def _adopt(whether: bool) -> None:
    """Whether processes below this one become its children when their parent ends."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, int(whether), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def _send(control: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    body = json.dumps(message).encode()
    socket.send_fds(control, [_LENGTH.pack(len(body))], list(fds))
    control.sendall(body)


def _receive_with_files(control: socket.socket) -> tuple[dict[str, Any], list[int]]:
    head, fds, _, _ = socket.recv_fds(control, _LENGTH.size, 250)
    if len(head) < _LENGTH.size:
        raise EOFError
    (left,), body = _LENGTH.unpack(head), b""
    while left > len(body):
        part = control.recv(left - len(body))
        if not part:
            raise EOFError
        body += part
    message: dict[str, Any] = json.loads(body)
    return message, fds


def _receive(control: socket.socket) -> dict[str, Any]:
    return _receive_with_files(control)[0]


# The zygote's own part.


class _Recorded(os._Environ):  # type: ignore[type-arg]
    """The environment, while it is seen who asks it for what. Who goes through all of it asks for nothing."""

    def __getitem__(self, name: str) -> str:
        if sys._getframe(1).f_code.co_name != "__iter__":
            _asked.add(name)
        return super().__getitem__(name)  # type: ignore[no-any-return]


_asked: set[str] = set()


def serve(control_fd: int) -> None:
    """Import, then fork whenever it is asked to. Returns never in itself; in each fork, it runs what that is to run."""
    control = socket.socket(fileno=control_fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the tests' business
    before = dict(os.environ)
    kind = os.environ.__class__
    os.environ.__class__ = _Recorded
    for name in _IMPORTED:
        __import__(name)
    os.environ.__class__ = kind
    set_by_imports = {name: value for name, value in os.environ.items() if before.get(name) != value}
    _check()
    for name in _RUN:
        parent, _, own = name.rpartition(".")
        delattr(sys.modules[parent], own)
        del sys.modules[name]
    # The application does the same when it has started. Without it, a fork that ends looks through all of this memory,
    # and so gets its own copy of it.
    gc.collect()
    gc.freeze()
    _send(control, {"read": sorted(_asked)})
    while True:
        try:
            order, fds = _receive_with_files(control)
        except (EOFError, OSError):
            os._exit(0)
        waiting, going = os.pipe()
        telling, told = os.pipe()
        between = os.fork()
        if between == 0:
            if (pid := os.fork()) != 0:
                os.write(told, _LENGTH.pack(pid))
                os._exit(0)
            for fd in (going, telling, told):
                os.close(fd)
            control.close()
            os.read(waiting, 1)  # until whoever asked is its parent
            os.close(waiting)
            break
        for fd in (waiting, told, *fds):
            os.close(fd)
        os.waitpid(between, 0)
        with contextlib.suppress(OSError):
            _send(control, {"pid": _LENGTH.unpack(os.read(telling, _LENGTH.size))[0]})
        os.close(telling)
        os.close(going)
    _become(order, fds, set_by_imports)


def _check() -> None:
    """Nothing is in this process that two of its forks must not share."""
    from baatcheet.kit import ids  # noqa: PLC0415 - of the forked application

    assert not ids._entropy, "an id was made while importing"
    threads = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    assert not threads, f"started while importing: {threads}"


def _become(order: dict[str, Any], fds: list[int], set_by_imports: dict[str, str]) -> None:
    wanted = [0, 1, 2, *order["fds"]]
    above = max(*wanted, *fds) + 1
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for fd in fds]
    for fd in fds:
        os.close(fd)
    for fd, number in zip(moved, wanted, strict=True):
        os.dup2(fd, number, inheritable=True)
        os.close(fd)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"] | set_by_imports)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    option, what, *arguments = order["args"]
    sys.orig_argv = [sys.executable, *order["args"]]
    sys.argv = [option, *arguments]
    main = sys.modules["__main__"].__dict__
    for name in [name for name in main if not name.startswith("__")]:
        del main[name]
    if option == "-m":
        sys.path[0] = order["cwd"]
        runpy._run_module_as_main(what)  # type: ignore[attr-defined]  # what `python -m` itself calls
    else:
        assert option == "-c"
        exec(compile(what, "<string>", "exec"), main)
