"""Both embedded services together, on one data folder."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from baatcheet.platform.embedded.errors import DataFolderInUse, EmbeddedError
from baatcheet.platform.embedded.folders import Folders, make_folders
from baatcheet.platform.embedded.lock import Addresses, FolderLock
from baatcheet.platform.embedded.postgres import Postgres
from baatcheet.platform.embedded.replacing import finish_replacing, refuse_moved
from baatcheet.platform.embedded.service import Service
from baatcheet.platform.embedded.valkey import Valkey
from baatcheet.platform.logging import Logger, get_logger
from baatcheet.platform.settings import EmbeddedSettings

_ATTACH_SECONDS = 60.0
_logger = get_logger(__name__)


class EmbeddedServices:
    """PostgreSQL and Valkey, run for as long as this process lives (and not longer, however it ends).

    `durable=False` spares the disk (no fsync): for tests. To be used from the main thread.
    """

    def __init__(
        self,
        settings: EmbeddedSettings,
        *,
        postgres: bool,
        valkey: bool,
        log: Logger = _logger,
        durable: bool = True,
    ) -> None:
        self._settings = settings
        self._wants_postgres = postgres
        self._wants_valkey = valkey
        self._log = log
        self._durable = durable
        self._lock: FolderLock | None = None
        self._folders: Folders | None = None
        self._services: list[Service] = []

    def start(self) -> Addresses:
        """Start what was asked for and wait until it serves.

        Raises DataFolderInUse when another process works on the data folder, EmbeddedError for other trouble.
        """
        folders = make_folders(self._settings.data_dir)
        lock = FolderLock(folders.data)
        lock.acquire()
        self._lock, self._folders = lock, folders
        if self._wants_postgres:
            try:
                finish_replacing(folders)
                refuse_moved(folders)
            except BaseException:
                self.stop()
                raise
        postgres = valkey = None
        if self._wants_postgres:
            postgres = Postgres(
                folders, self._log, bin_dir=self._settings.postgres_bin, durable=self._durable
            )
            self._services.append(postgres)
        if self._wants_valkey:
            valkey = Valkey(folders, self._log, program=self._settings.valkey_bin)
            self._services.append(valkey)
        try:
            for service in self._services:
                service.launch()
            for service in self._services:
                service.wait_until_ready()
        except OSError as error:
            self.stop()
            advice = " A root without CAP_DAC_OVERRIDE can't serve it: run BaatCheet as an ordinary user."
            no_root = isinstance(error, PermissionError) and os.geteuid() == 0
            raise EmbeddedError(
                f"the data folder {folders.data} can't be used: {error}.{advice if no_root else ''}"
            ) from error
        except BaseException:
            self.stop()
            raise
        addresses = Addresses(postgres.url if postgres else None, valkey.url if valkey else None)
        lock.publish(addresses)
        return addresses

    @property
    def pids(self) -> dict[str, int]:
        """The running programs' process ids by service name."""
        return {service.name: service.pid for service in self._services if service.pid is not None}

    def check(self) -> None:
        """Start again what has ended. To be called about twice a second; returns at once."""
        for service in self._services:
            service.check()

    def stop(self) -> None:
        """Stop both, within half a minute at worst, and let go of the data folder."""
        for service in self._services:
            service.ask_to_stop()
        for service in reversed(self._services):
            service.stop()
        self._services.clear()
        if self._folders is not None:
            self._folders.tidy()
        if self._lock is not None:
            self._lock.release()
            self._lock = self._folders = None


@contextmanager
def attach(settings: EmbeddedSettings, *, valkey: bool = False) -> Iterator[Addresses]:
    """The services of a data folder for a one-off command: those that run there, else its own meanwhile.

    Raises EmbeddedError.
    """
    services = EmbeddedServices(settings, postgres=True, valkey=valkey)
    deadline = time.monotonic() + _ATTACH_SECONDS
    while True:
        try:
            addresses = services.start()
        except DataFolderInUse as in_use:
            running = _running(settings)
            if running is None:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
                continue
            if running.database_url is None:
                raise EmbeddedError(
                    f"the server on {settings.data_dir} (pid {in_use.pid}) uses a database that is not "
                    "embedded: "
                    "set DATABASE_URL as it has it."
                ) from None
            addresses = running
        break
    try:
        yield addresses
    finally:
        services.stop()


def _running(settings: EmbeddedSettings) -> Addresses | None:
    """What the holder of the folder published; None while it starts or ends."""
    holder = FolderLock(make_folders(settings.data_dir).data).holder()
    return holder.addresses if holder else None
