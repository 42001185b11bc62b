"""Child processes that end with their parent, whatever ends it."""

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from baatcheet.platform.embedded.errors import EmbeddedError

_LAUNCHER = Path(__file__).with_name("launch.py")
_LAUNCH_SECONDS = 30.0


@dataclass(frozen=True)
class User:
    """The unprivileged user that services run as when we are root."""

    uid: int
    gid: int
    keep_access: bool
    """Whether it must still pass folders that are root's alone (CAP_DAC_OVERRIDE)."""


def spawn(
    command: Sequence[str],
    *,
    death_signal: signal.Signals,
    hold: Path | None = None,
    user: User | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: IO[bytes] | int = subprocess.DEVNULL,
    output: IO[bytes] | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start `command` (an absolute path first) in a session of its own; returns once it runs.

    It gets `death_signal` when this process dies, even by SIGKILL. `hold` names a file that stays locked for
    as long as it or any child of it lives. `output` takes its stdout and stderr (None: ours). To be called
    from the main thread: the kernel ties the signal to the thread that spawned. Raises EmbeddedError when it
    can't start.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "to be called from the main thread: its children end with the thread that spawned them"
        )
    reading, writing = os.pipe()
    order = {
        "parent": os.getpid(),
        "death_signal": int(death_signal),
        "report": writing,
        "hold": None if hold is None else str(hold),
        "user": None if user is None else [user.uid, user.gid],
        "keep_access": user is not None and user.keep_access,
    }
    try:
        child = subprocess.Popen(  # noqa: S603 - our own launcher
            [sys.executable, "-I", "-S", str(_LAUNCHER), json.dumps(order), *command],
            stdin=stdin,
            stdout=output,
            stderr=output,
            env=None if env is None else dict(env),
            cwd=cwd,
            pass_fds=(writing, *pass_fds),
            start_new_session=True,
        )
    except OSError as error:
        os.close(reading)
        raise EmbeddedError(f"{command[0]} could not be started: {error}") from error
    finally:
        os.close(writing)
    try:
        problem = _read_report(reading)
    finally:
        os.close(reading)
    if problem is not None:
        kill(child)
        raise EmbeddedError(problem)
    return child


def _read_report(reading: int) -> str | None:
    ready, _, _ = select.select([reading], [], [], _LAUNCH_SECONDS)
    if not ready:
        return f"a process did not start within {_LAUNCH_SECONDS:.0f} s"
    return os.read(reading, 4096).decode(errors="replace") or None


def kill(child: subprocess.Popen[bytes]) -> None:
    """End `child` now and collect it."""
    child.kill()
    child.wait(timeout=10)


def ended_within(child: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether `child` ends within `seconds`."""
    try:
        child.wait(timeout=max(seconds, 0))
    except subprocess.TimeoutExpired:
        return False
    return True
