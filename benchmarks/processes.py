"""Starting processes for a benchmark, and reading from /proc what they use."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_STOP_SECONDS = 40.0
_KEPT = ("PATH", "HOME", "LANG", "TMPDIR")
_ROOT = Path(__file__).resolve().parent.parent


class NotStartedError(Exception):
    """A process of the benchmark did not start. `str(error)` says which, and what it said."""


@dataclass(frozen=True)
class Cpu:
    """CPU seconds that a process has used, its ended children included."""

    user: float = 0.0
    system: float = 0.0

    @property
    def total(self) -> float:
        return self.user + self.system

    def __add__(self, other: "Cpu") -> "Cpu":
        return Cpu(self.user + other.user, self.system + other.system)

    def __sub__(self, other: "Cpu") -> "Cpu":
        return Cpu(self.user - other.user, self.system - other.system)


def cpu(pids: Sequence[int]) -> Cpu:
    """What `pids` have used together; a process that has ended counts nothing."""
    total = Cpu()
    for pid in pids:
        try:
            fields = _stat(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
        user, system, child_user, child_system = (int(field) / _TICKS for field in fields[11:15])
        total += Cpu(user + child_user, system + child_system)
    return total


def machine_seconds() -> float:
    """CPU seconds that all cores together have been busy, or taken by another machine, since the start."""
    user, nice, system, _idle, _wait, *rest = (
        int(field) / _TICKS for field in Path("/proc/stat").read_text(encoding="ascii").split()[1:9]
    )
    return user + nice + system + sum(rest)


def rss_mb(pid: int) -> float:
    """Resident memory of one process, MB (10^6 bytes)."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE / 1e6


def descendants(pid: int) -> list[int]:
    """`pid` and every process below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
    found, queue = [], [pid]
    while queue:
        found.append(queue.pop())
        queue += children.get(found[-1], [])
    return found


def program(pid: int) -> str:
    """The name of what a process runs, as the kernel keeps it; empty once it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def command(pid: int) -> list[str]:
    """A process's command line; empty once it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name, which may hold blanks: state, parent …"""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


@contextmanager
def running(
    *arguments: str,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
    log: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """`python ARGUMENTS` for as long as the block; ended with SIGTERM, then with SIGKILL.

    `environ` is added to a small environment of its own; `folder` is where it works; `log` takes its standard
    error, which is otherwise ours.
    """
    environment = {
        name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ
    }
    environment["PYTHONPATH"] = os.pathsep.join([str(_ROOT / "src"), str(_ROOT)])
    with (log or Path(os.devnull)).open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env={**environment, **(environ or {})},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if log is None else errors,
            stderr=errors if log is not None else None,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def first_line(process: subprocess.Popen[bytes], seconds: float = 15.0) -> str:
    """The first line that a process prints. Raises NotStartedError when none comes."""
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    line = b""
    end = time.monotonic() + seconds
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([descriptor], [], [], max(0.0, end - time.monotonic()))
        data = os.read(descriptor, 1) if ready else b""
        if not data:
            raise NotStartedError(f"{process.args!r} did not say that it serves")
        line += data
    return line.decode().strip()
