"""A supervised program: started, watched, started again, stopped."""

import os
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path

from baatcheet.platform.embedded.errors import EmbeddedError
from baatcheet.platform.embedded.folders import Folders, blocked
from baatcheet.platform.embedded.lock import held
from baatcheet.platform.embedded.process import User, ended_within, kill, spawn
from baatcheet.platform.logging import Logger

_START_SECONDS = 120.0  # PostgreSQL may have a log to replay
_EARLIER_RUN_SECONDS = 20.0
_POLL_SECONDS = 0.02
_LONGEST_PAUSE = 10.0
_WELL_AFTER = 60.0
_LOG_BYTES = 8 * 1024 * 1024
_TAIL_BYTES = 2000


class Service(ABC):
    """One embedded program. Its subclass says what to run and when it is ready."""

    name: str
    death_signal: signal.Signals
    """What the program gets when we die: its own quick and clean way out."""
    way_out: tuple[tuple[signal.Signals, float], ...]
    """Signals that end it, mildest first, each with the seconds it is given."""

    def __init__(self, folders: Folders, log: Logger) -> None:
        self._folders = folders
        self._log = log
        self._child: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._retry_at = 0.0
        self._pause = 0.0
        self._log_path = folders.log / f"{self.name}.log"
        self._log_start = 0
        # Held by the program and all its children, so it tells of an earlier run's that are still ending.
        self._hold = folders.locks / f"{self.name}.held"

    @abstractmethod
    def prepare(self) -> None:
        """Whatever must be there before the program runs. Raises EmbeddedError."""

    @abstractmethod
    def command(self) -> list[str]:
        """The program and its arguments."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether the running program serves."""

    @abstractmethod
    def clean(self) -> None:
        """Remove what an earlier run, none of which runs any more, left that would stop a new one."""

    @property
    def pid(self) -> int | None:
        """The running program's process id."""
        return None if self._child is None else self._child.pid

    def launch(self) -> None:
        """Start the program once its predecessor on this folder is gone; does not wait until it is ready."""
        self.wait_for_earlier_run()
        self.prepare()
        self._spawn()

    def wait_for_earlier_run(self) -> None:
        """Wait for a program that is ending since its supervisor was killed. Raises EmbeddedError."""
        deadline = time.monotonic() + _EARLIER_RUN_SECONDS
        while held(self._hold):
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"the {self.name} of an earlier run on {self._folders.data} has not ended within "
                    f"{_EARLIER_RUN_SECONDS:.0f} s. `fuser {self._hold}` names its processes: end them "
                    "and try again."
                )
            time.sleep(_POLL_SECONDS)

    def wait_until_ready(self) -> None:
        """Raises EmbeddedError with the end of the program's log when it doesn't come up."""
        deadline = time.monotonic() + _START_SECONDS
        while not self.ready():
            assert self._child is not None
            if self._child.poll() is not None:
                raise EmbeddedError(
                    f"{self.name} did not start (status {self._child.returncode}).{self._said()}"
                )
            if time.monotonic() > deadline:
                raise EmbeddedError(f"{self.name} was not ready within {_START_SECONDS:.0f} s.{self._said()}")
            time.sleep(_POLL_SECONDS)

    def check(self) -> None:
        """Start the program again if it has ended. What can't be done yet is left for the next call."""
        if self._child is None:
            return
        now = time.monotonic()
        if (status := self._child.poll()) is None:
            if self._pause and now - self._started_at > _WELL_AFTER:
                self._pause = 0.0
            self._bound_log()
            return
        if self._retry_at < self._started_at:
            self._retry_at = now + self._pause
            self._log.error(
                "embedded.died", service=self.name, status=status, retry_in=self._pause, log=self._said()
            )
            self._pause = min(max(self._pause * 2, 0.5), _LONGEST_PAUSE)
        if now < self._retry_at or held(self._hold):
            return
        try:
            self._spawn()
        except (EmbeddedError, OSError) as error:
            self._retry_at = now + max(self._pause, 0.5)
            self._log.error("embedded.not_restarted", service=self.name, reason=str(error))
        else:
            self._log.warning("embedded.restarted", service=self.name, pid=self.pid)

    def ask_to_stop(self) -> None:
        """Send the mildest signal, without waiting."""
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(self.way_out[0][0])

    def stop(self) -> None:
        """Stop the program and wait, by harsher means if need be."""
        if self._child is None:
            return
        for number, seconds in self.way_out:
            if self._child.poll() is None:
                self._child.send_signal(number)
            if ended_within(self._child, seconds):
                break
        else:
            self._log.warning("embedded.killed", service=self.name)
            kill(self._child)
        self._child = None

    def user_for(self, program: Path) -> User | None:
        return self._folders.user_for(program)

    def _spawn(self) -> None:
        self.clean()
        command = self.command()
        user = self.user_for(Path(command[0]))
        with self._log_path.open("ab") as output:
            self._log_start = output.tell()
            try:
                self._child = spawn(
                    command,
                    death_signal=self.death_signal,
                    hold=self._hold,
                    user=user,
                    env={"PATH": os.defpath, "LC_ALL": "C"},
                    cwd=Path("/"),
                    output=output,
                )
            except EmbeddedError as error:
                raise EmbeddedError(f"{error}{self.access_advice(user, Path(command[0]))}") from error
        self._started_at = time.monotonic()

    def access_advice(self, user: User | None, program: Path) -> str:
        """What to do about a folder that the services' user can't pass, when that is the trouble."""
        if user is None or not user.keep_access:
            return ""
        places = (program, self._folders.postgres, self._folders.valkey, self._folders.sockets)
        place = next(found for found in (blocked(place, user.uid, user.gid) for place in places) if found)
        return (
            f". It runs as uid {user.uid}, since we are root, and that user may not pass {place}. Choose "
            "a folder "
            "that it can reach (--data FOLDER; BAATCHEET_POSTGRES_BIN for the programs), run BaatCheet as an "
            "ordinary user, or let this process keep CAP_DAC_OVERRIDE and CAP_SETPCAP."
        )

    def _said(self) -> str:
        """The end of what the program wrote since it was started, on lines of its own."""
        with self._log_path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._log_start if self._log_start <= size else 0, size - _TAIL_BYTES))
            said = file.read().decode(errors="replace").strip()
        return f" {self._log_path} says:\n{said}" if said else ""

    def _bound_log(self) -> None:
        if self._log_path.stat().st_size > _LOG_BYTES:
            # Copied and cut: the program keeps its descriptor, and appends, so it goes on at the start.
            shutil.copyfile(self._log_path, self._log_path.with_suffix(".log.1"))
            os.truncate(self._log_path, 0)
