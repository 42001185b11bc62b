"""`baatcheet serve`: the parent of everything that one machine runs.

Starts the embedded services where no address is given, brings the schema up to date, opens the port, and runs
API processes on it, and workers beside them; whatever dies is started again, and nothing outlives this process.
No request passes through it.
"""

import errno
import http.client
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from baatcheet import __version__
from baatcheet.auth.bootstrap import ensure_admin
from baatcheet.platform.embedded import Addresses, EmbeddedServices, spawn
from baatcheet.platform.logging import get_logger
from baatcheet.platform.migrate import upgrade
from baatcheet.platform.redaction import register_secret
from baatcheet.platform.settings import Settings, SettingsError
from baatcheet.platform.telemetry import forget_process, sharing_environment

API_COMMAND = (sys.executable, "-m", "baatcheet.entrypoints.api")
WORKER_COMMAND = (sys.executable, "-m", "baatcheet.entrypoints.worker")

_CHECK_SECONDS = 0.5
_READY_SECONDS = 60.0
_GRACE_MARGIN = 10.0
_QUICK_DEATH_SECONDS = 10.0
_QUICK_DEATHS = 5
_LONGEST_PAUSE = 5.0
_BACKLOG = 2048
_PORT_SECONDS = 3.0

_log = get_logger(__name__)


class ServeError(Exception):
    """The server can't run. `str(error)` says why and what to do."""


class _StopAsked(BaseException):
    """A signal came while we were starting; no Exception, so that nobody on the way takes it for an error."""


@dataclass
class _Child:
    name: str
    command: tuple[str, ...]
    listens: bool  # whether it is given the socket
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_at: float = 0.0
    quick_deaths: int = 0


class Supervisor:
    """Runs until a signal or a failure that it can't mend; `run` may be called once, from the main thread."""

    def __init__(
        self,
        settings: Settings,
        *,
        api_command: Sequence[str] = API_COMMAND,
        worker_command: Sequence[str] = WORKER_COMMAND,
    ) -> None:
        self._settings = settings
        apis = [_Child("api", tuple(api_command), listens=True) for _ in range(settings.server.processes)]
        workers = [
            _Child("worker", tuple(worker_command), listens=False) for _ in range(settings.jobs.workers)
        ]
        self._children = apis + workers
        self._signals = 0
        self._starting = True
        self._ready = threading.Event()  # all have started once
        self._ending = threading.Event()
        # Where several processes add up their metrics; emptied at each start.
        self._metrics = settings.embedded.data_dir.absolute() / "metrics"
        self._wake_reading, self._wake_writing = os.pipe()
        for descriptor in (self._wake_reading, self._wake_writing):
            os.set_blocking(descriptor, False)

    def run(self) -> None:
        """Serve until SIGTERM, SIGINT or SIGHUP.

        Running turns then have the grace period; a second signal ends all at once. Raises ServeError,
        SettingsError, EmbeddedError, MigrationError, DatabaseUnavailable.
        """
        signal.set_wakeup_fd(self._wake_writing, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)  # only to wake up
        settings = self._settings
        with bind(settings.server.host, settings.server.port) as listener:
            embedded = EmbeddedServices(
                settings.embedded, postgres=settings.database.url is None, valkey=settings.cache.url is None
            )
            try:
                addresses = self._start(embedded)
                listener.listen(_BACKLOG)
                self._starting = False
                self._serve(listener, addresses, embedded)
            except _StopAsked:
                pass
            finally:
                self._starting = False
                self._ending.set()
                try:
                    self._stop_children(embedded)
                finally:
                    embedded.stop()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._signals += 1
        if self._starting:
            self._starting = False
            raise _StopAsked

    def _start(self, embedded: EmbeddedServices) -> Addresses:
        settings = self._settings
        found = embedded.start()
        database, cache = settings.database.url, settings.cache.url
        addresses = Addresses(
            database_url=database.get_secret_value() if database else found.database_url,
            redis_url=cache.get_secret_value() if cache else found.redis_url,
        )
        assert addresses.database_url is not None
        direct = settings.database.direct_url
        upgrade(direct.get_secret_value() if direct else addresses.database_url)
        token = ensure_admin(addresses.database_url, settings.auth)
        if token is not None:
            register_secret(token)
            self._hand_over(token)
        return addresses

    def _hand_over(self, token: str) -> None:
        """Show the first administrator's token, once: to a person, else in a file that only we can read."""
        if sys.stdout.isatty():
            _say(f"The administrator's token, shown this once:\n\n    {token}\n")
            return
        path = self._token_path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # of an earlier database
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{token}\n")
        _say(f"The administrator's token is in {path}")

    @property
    def _token_path(self) -> Path:
        return self._settings.embedded.data_dir.absolute() / "admin-token"

    def _serve(self, listener: socket.socket, addresses: Addresses, embedded: EmbeddedServices) -> None:
        environment = self._environment(listener, addresses)
        if len(self._children) > 1:
            environment |= sharing_environment(self._metrics)
        address = listener.getsockname()[:2]
        # A thread, which ends with us: waiting for an answer must not hold up signals.
        threading.Thread(target=self._announce, args=address, daemon=True).start()
        while not self._signals:
            for child in self._children:
                self._keep_alive(child, listener, environment)
            self._wait(_CHECK_SECONDS)
            embedded.check()

    def _environment(self, listener: socket.socket, addresses: Addresses) -> dict[str, str]:
        server = self._settings.server
        in_force = {
            "DATABASE_URL": addresses.database_url,
            "REDIS_URL": addresses.redis_url,
            "BAATCHEET_HOST": server.host,
            "BAATCHEET_PORT": str(listener.getsockname()[1]),
            "BAATCHEET_PROCESSES": str(server.processes),
            "BAATCHEET_WORKERS": str(self._settings.jobs.workers),
            "BAATCHEET_DATA_DIR": str(self._settings.embedded.data_dir.absolute()),
        }
        return dict(os.environ) | {name: value for name, value in in_force.items() if value is not None}

    def _keep_alive(self, child: _Child, listener: socket.socket, environment: dict[str, str]) -> None:
        now = time.monotonic()
        if child.process is not None:
            if (status := child.process.poll()) is None:
                return
            if status == os.EX_CONFIG:
                raise SettingsError(f"what the {child.name} process said of them is above.")
            quick = now - child.started_at < _QUICK_DEATH_SECONDS
            storeless = status == os.EX_UNAVAILABLE  # a secret store is away
            if storeless and not self._ready.is_set():
                raise ServeError(f"what the {child.name} process said of the secret stores is above.")
            child.quick_deaths = child.quick_deaths + 1 if quick else 0
            pause = min(0.1 * 2**child.quick_deaths, _LONGEST_PAUSE) if quick else 0.0
            if len(self._children) > 1:
                forget_process(child.process.pid, self._metrics)
            _log.error(f"{child.name}.died", pid=child.process.pid, status=status, restart_in=pause)
            # Without a worker jobs wait; without an API process there is no server.
            if child.listens and child.quick_deaths >= _QUICK_DEATHS and not storeless:
                raise ServeError(
                    f"the {child.name} process ended {_QUICK_DEATHS} times in a row right after its start "
                    f"(last status {status}); what it said is above."
                )
            child.process, child.start_at = None, now + pause
        if now < child.start_at:
            return
        descriptor = listener.fileno()
        child.process = spawn(
            [*child.command, *(["--fd", str(descriptor)] if child.listens else [])],
            death_signal=signal.SIGTERM,
            env=environment,
            pass_fds=(descriptor,) if child.listens else (),
        )
        child.started_at = time.monotonic()

    def _stop_children(self, embedded: EmbeddedServices) -> None:
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            process.terminate()
        already = self._signals
        deadline = time.monotonic() + self._settings.server.grace_seconds + _GRACE_MARGIN
        while any(process.poll() is None for process in running):
            if time.monotonic() > deadline or self._signals > max(already, 1):
                _log.warning(
                    "processes.killed", reason="asked twice" if self._signals > already else "out of time"
                )
                for process in running:
                    process.kill()
                for process in running:
                    process.wait(timeout=10)
                return
            self._wait(_CHECK_SECONDS)
            embedded.check()

    def _wait(self, seconds: float) -> None:
        """Until a signal comes, a child ends, or `seconds` are over."""
        ready, _, _ = select.select([self._wake_reading], [], [], seconds)
        if ready:
            os.read(self._wake_reading, 4096)

    def _announce(self, host: str, port: int) -> None:
        """Say so once the server is ready, or why it is not."""
        deadline = time.monotonic() + _READY_SECONDS
        why = ""
        while time.monotonic() < deadline:
            try:
                status, body = _get_ready(_reachable(host), port)
            except (OSError, http.client.HTTPException) as error:
                why = f"{type(error).__name__}: {error}"
            else:
                if status == http.HTTPStatus.OK:
                    self._ready.set()
                    self._greet(host, port)
                    return
                why = f"/ready answers {status}: {body}"
            if self._ending.wait(0.1):
                return
        _say(f"BaatCheet is not ready after {_READY_SECONDS:.0f} s, and goes on trying. {why}")

    def _greet(self, host: str, port: int) -> None:
        name = _reachable(host)
        base = f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"
        if self._settings.auth.admin_token is not None:
            written = "$BAATCHEET_ADMIN_TOKEN"
        elif self._token_path.exists():
            written = f"$(cat {self._token_path})"
        else:
            written = "$TOKEN"
        _say(
            f"BaatCheet {__version__} is ready at {base}\n"
            f'Try:  curl -N {base}/v1/chat/completions -H "Authorization: Bearer {written}" '
            "-H 'Content-Type: application/json' -d '"
            '{"model": "auto", "stream": true, "messages": [{"role": "user", "content": "Hello"}]}\''
        )


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address, not listening yet. Raises ServeError.

    The API processes of a server that was killed let go of the port a moment later: it is waited for briefly.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "that is no host's name"
        raise ServeError(f"can't listen on {host!r}: {why}. Choose with --host (BAATCHEET_HOST).") from None
    family, kind, protocol, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    deadline = time.monotonic() + _PORT_SECONDS
    while True:
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise _not_bound(host, port, error) from None
            time.sleep(0.1)
        else:
            return listener


def _not_bound(host: str, port: int, error: OSError) -> ServeError:
    if error.errno == errno.EADDRINUSE:
        return ServeError(f"port {port} is taken; use --port (BAATCHEET_PORT) for another.")
    if error.errno == errno.EACCES:
        return ServeError(f"port {port} is reserved; use --port (BAATCHEET_PORT) for another.")
    return ServeError(f"can't listen on {host} port {port}: {error.strerror}.")


def _reachable(host: str) -> str:
    # What to ask when we listen on every address.
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound


def _get_ready(host: str, port: int) -> tuple[int, str]:
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/ready")
        answer = connection.getresponse()
        return answer.status, answer.read(2000).decode(errors="replace")
    finally:
        connection.close()


def _say(text: str) -> None:
    try:
        print(text, flush=True)  # noqa: T201 - for the person or the log that reads our output
    except OSError:
        _log.warning("supervisor.mute")  # nobody reads our output any more, which must not end the server
