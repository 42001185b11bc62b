"""A PostgreSQL of the test's own, that can be frozen and killed."""

import os
import signal
import subprocess
from collections.abc import Container
from pathlib import Path

from baatcheet.platform.embedded import EmbeddedServices
from baatcheet.platform.migrate import upgrade
from tests.servers import postgres_settings


def family(pid: int) -> list[int]:
    children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
    return [pid, *(one for child in children.split() for one in family(int(child)))]


class OwnDatabase:
    """A PostgreSQL of the test's own, that can be frozen and killed."""

    def __init__(self, folder: Path) -> None:
        self._services = EmbeddedServices(
            postgres_settings(folder), postgres=True, valkey=False, durable=False
        )
        url = self._services.start().database_url
        assert url is not None
        self.url = url
        upgrade(url)
        (self._pidfile,) = folder.glob("**/postmaster.pid")
        self._frozen: list[int] = []

    def freeze(self) -> None:
        """Stop answering, and go on accepting connections as the kernel does."""
        server = int(self._pidfile.read_text().split()[0])
        # The postmaster first: from then on nobody is born, and who ends stays there to be signalled.
        os.kill(server, signal.SIGSTOP)
        self._frozen = family(server)
        self._signal(signal.SIGSTOP)

    def thaw(self, but: Container[int] = ()) -> None:
        """Let all go on but the processes `but`, which the next thaw lets go on."""
        late = [pid for pid in self._frozen if pid in but]
        self._frozen = [pid for pid in self._frozen if pid not in but]
        self._signal(signal.SIGCONT)
        self._frozen = late

    def kill(self) -> None:
        """End it as a power cut would."""
        self.freeze()
        self._signal(signal.SIGKILL)
        self._frozen = []

    def _signal(self, number: signal.Signals) -> None:
        for pid in reversed(self._frozen):  # the postmaster last
            os.kill(pid, number)

    def come_back(self) -> None:
        self._services.check()

    def stop(self) -> None:
        self.thaw()
        self._services.stop()
