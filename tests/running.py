"""A real API process for tests that kill it, pause it, or run several: `python -m baatcheet.entrypoints.api`."""

import json
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests import zygote

ROOT = Path(__file__).parents[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def inherited() -> dict[str, str]:
    """The environment without any settings."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("BAATCHEET_", "OPENAI_"))
    }


@dataclass
class ApiProcess:
    """One API process on a port of its own. `environment` holds its settings.

    `anew`: a Python that was started for it, not a fork of one that has imported it already.
    """

    environment: Mapping[str, str]
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    log: Path | None = None
    anew: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, timeout: float = 90) -> "ApiProcess":
        """Start, and wait until it is ready."""
        with (self.log or Path(os.devnull)).open("ab") as output:
            self.process = zygote.popen(
                ["-m", "baatcheet.entrypoints.api", "--port", str(self.port)],
                env={**inherited(), "OLLAMA_HOST": "", **self.environment},
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                anew=self.anew,
            )
        deadline = time.monotonic() + timeout
        # One client for all the asking: to make one takes longer than an answer.
        with httpx.Client(base_url=self.url, timeout=2, trust_env=False) as client:
            while time.monotonic() < deadline:
                if self.process.poll() is not None:
                    raise RuntimeError(
                        f"the API process ended with {self.process.returncode}: {self._said()}"
                    )
                try:
                    if client.get("/ready").status_code == 200:
                        return self
                except httpx.TransportError:
                    pass
                time.sleep(0.05)
        raise RuntimeError(f"the API process was not ready in {timeout} s: {self._said()}")

    def _said(self) -> str:
        return self.log.read_text()[-4000:] if self.log and self.log.exists() else "(no log)"

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.signal(signal.SIGKILL)
        self.wait()

    def wait(self, timeout: float = 40) -> int:
        assert self.process is not None
        return self.process.wait(timeout)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            try:
                self.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()


@dataclass
class WorkerProcess:
    """One worker. `environment` holds its settings. `anew`: as of ApiProcess."""

    environment: Mapping[str, str]
    log: Path | None = None
    queues: str | None = None
    process: subprocess.Popen[bytes] | None = None
    anew: bool = False

    def start(self) -> "WorkerProcess":
        command = ["-m", "baatcheet.entrypoints.worker"]
        with (self.log or Path(os.devnull)).open("ab") as output:
            self.process = zygote.popen(
                [*command, *(["--queues", self.queues] if self.queues else [])],
                env={**inherited(), "OLLAMA_HOST": "", **self.environment},
                cwd=self.log.parent if self.log is not None else ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                anew=self.anew,
            )
        return self

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.signal(signal.SIGKILL)
        self.wait()

    def wait(self, timeout: float = 40) -> int:
        assert self.process is not None
        return self.process.wait(timeout)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            try:
                self.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()


@contextmanager
def worker_process(
    environment: Mapping[str, str], log: Path | None = None, *, queues: str | None = None, anew: bool = False
) -> Iterator[WorkerProcess]:
    """A worker, which begins whenever it has started: what is queued waits for it."""
    running = WorkerProcess(environment, log, queues, anew=anew)
    try:
        yield running.start()
    finally:
        running.stop()


@contextmanager
def api_process(environment: Mapping[str, str], log: Path | None = None) -> Iterator[ApiProcess]:
    running = ApiProcess(environment, log=log)
    try:
        yield running.start()
    finally:
        running.stop()


def new_user(url: str, admin_token: str, *, scopes: list[str] | None = None) -> str:
    """A new user's token, made as an administrator makes it."""
    headers = {"authorization": f"Bearer {admin_token}"}
    name = f"user-{secrets.token_hex(4)}"
    with httpx.Client(base_url=url, headers=headers, timeout=20, trust_env=False) as client:
        user = client.post("/api/v1/users", json={"name": name})
        assert user.status_code == 201, user.text
        body: dict[str, Any] = {"name": "test", "user_id": user.json()["id"]}
        if scopes is not None:
            body["scopes"] = scopes
        token = client.post("/api/v1/tokens", json=body)
    assert token.status_code == 201, token.text
    return str(token.json()["token"])


@dataclass
class Event:
    """One server-sent event as a client sees it."""

    id: int | None
    name: str | None
    data: Any


def events(lines: Iterator[str]) -> Iterator[Event]:
    """The events of a stream of lines; `[DONE]` comes as its text, comments are left out."""
    id_: int | None = None
    name: str | None = None
    data: list[str] = []
    for line in lines:
        if line.startswith("id: "):
            id_ = int(line[4:])
        elif line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            data.append(line[6:])
        elif not line and data:
            text = "\n".join(data)
            yield Event(id_, name, text if text == "[DONE]" else json.loads(text))
            id_, name, data = None, None, []
