"""The database servers that the suites run against.

BAATCHEET_TEST_DATABASE chooses: `embedded` (the wheel's PostgreSQL, the default), `debian` (Debian's PostgreSQL 15), or
`pgbouncer` (PgBouncer in transaction mode, before Debian's).
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit, urlunsplit

from baatcheet.platform.embedded import spawn
from baatcheet.platform.embedded.folders import make_folders
from baatcheet.platform.settings import EmbeddedSettings
from tests.running import free_port

DEBIAN: Final = Path("/usr/lib/postgresql/15/bin")
PGBOUNCER: Final = Path("/usr/sbin/pgbouncer")
PGVECTOR: Final = Path("/usr/share/postgresql/15/extension/vector.control")  # of postgresql-15-pgvector
PATIENCE: Final = 20.0  # seconds until PgBouncer listens
_VARIABLE: Final = "BAATCHEET_TEST_DATABASE"
_KEPT: Final = (
    "PYTEST_BAATCHEET_DATABASE"  # where it is passed on: to BaatCheet the variable is an unknown setting
)

if _VARIABLE in os.environ:
    os.environ[_KEPT] = os.environ.pop(_VARIABLE)
KIND: Final = os.environ.get(_KEPT, "embedded")
if KIND not in {"embedded", "debian", "pgbouncer"}:
    raise SystemExit(f"{_VARIABLE} is {KIND!r}; there are embedded, debian and pgbouncer")


def postgres_settings(folder: Path) -> EmbeddedSettings:
    """A PostgreSQL of the chosen kind, its data in `folder`."""
    return EmbeddedSettings(data_dir=folder, postgres_bin=None if KIND == "embedded" else DEBIAN)


@dataclass
class Bouncer:
    """A running PgBouncer. `server` is the address that it leads to."""

    server: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def url(self, server_url: str) -> str:
        """The way through it to the database at `server_url`, which is on its server."""
        parts = urlsplit(server_url)
        return urlunsplit(
            parts._replace(netloc=f"{parts.username}@127.0.0.1:{self.port}", query="pgbouncer=true")
        )

    def direct(self, url: str) -> str:
        """The way past it."""
        return urlunsplit(urlsplit(self.server)._replace(path=urlsplit(url).path))


session_bouncers: list[Bouncer] = []  # the one that the session runs through, where it does


def past_bouncer(url: str) -> str:
    """The same database, past PgBouncer where the session runs through it: a LISTEN is heard there alone."""
    return next((one.direct(url) for one in session_bouncers if f":{one.port}/" in url), url)


def at(environment: Mapping[str, str], url: str) -> dict[str, str]:
    """`environment` with the database at `url` instead of its own: also past PgBouncer, where that is another way."""
    direct = past_bouncer(url)
    others = {name: value for name, value in environment.items() if name != "DATABASE_DIRECT_URL"}
    return {**others, "DATABASE_URL": url, **({} if direct == url else {"DATABASE_DIRECT_URL": direct})}


@contextmanager
def pgbouncer(server_url: str, folder: Path, **settings: object) -> Iterator[Bouncer]:
    """PgBouncer in transaction mode before the embedded-style server at `server_url` (a socket's folder)."""
    parts = urlsplit(server_url)
    sockets = parse_qs(parts.query)["host"][0]
    folders = make_folders(folder)
    port = free_port()
    (folders.valkey / "users.txt").write_text(f'"{parts.username}" ""\n')
    written = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": "trust",
        "auth_file": folders.valkey / "users.txt",
        "stats_users": parts.username,
        "pool_mode": "transaction",
        "default_pool_size": 20,
        "max_client_conn": 1000,
        "server_idle_timeout": 5,  # each test database has a pool of its own
        **settings,
    }
    config = folders.valkey / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n* = host={sockets} port=5432\n[pgbouncer]\n"
        + "".join(f"{name} = {value}\n" for name, value in written.items())
    )
    for path in (config, folders.valkey / "users.txt"):
        folders.give(path)
    log = folders.log / "pgbouncer.log"
    with log.open("wb") as output:
        process = spawn(
            [str(PGBOUNCER), str(config)],
            death_signal=signal.SIGKILL,
            user=folders.user_for(PGBOUNCER, Path(sockets)),
            output=output,
        )
    try:
        _wait(port, process, log)
        yield Bouncer(server_url, port, process, log)
    finally:
        process.kill()
        process.wait(10)


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise RuntimeError(f"PgBouncer did not start: {log.read_text()[-2000:]}")
