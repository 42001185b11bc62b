"""`baatcheet serve` as a person runs it: the real command, the real services, real signals."""

import contextlib
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

BAATCHEET = Path(sys.executable).with_name("baatcheet")
READY = re.compile(r"ready at (http://\S+)")

# A server whose API processes are this command instead.
WITH_API = """
import sys
from baatcheet.entrypoints import supervisor
from baatcheet.platform.settings import load
try:
    idle = [sys.executable, "-c", "import time; time.sleep(600)"]
    supervisor.Supervisor(load(dotenv=None), api_command=sys.argv[1:], worker_command=idle).run()
except supervisor.ServeError as error:
    sys.exit(f"baatcheet: {error}")
"""
STUBBORN_API = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
"""


class Server:
    """One running `baatcheet serve`."""

    def __init__(self, folder: Path, command: list[str], **environment: str) -> None:
        self.data = folder / "data"
        self._output = folder / "output"
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("BAATCHEET_", "DATABASE_", "REDIS_")) and not name.endswith("_API_KEY")
        }
        with self._output.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=kept | {"BAATCHEET_DATA_DIR": str(self.data), "OLLAMA_HOST": ""} | environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def said(self) -> str:
        return self._output.read_text()

    def url(self) -> str:
        """Where it listens, once it is ready."""
        found: list[str] = []

        def ready() -> bool:
            assert self.process.poll() is None, self.said()
            found.extend(READY.findall(self.said()))
            return bool(found)

        within(60, ready)
        return found[-1]

    def ends(self, seconds: float) -> int:
        return self.process.wait(timeout=seconds)

    def children(self) -> list[int]:
        """Its API processes."""
        return [
            pid for pid in processes_naming("baatcheet.entrypoints.api") if parent_of(pid) == self.process.pid
        ]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Runs `baatcheet serve`, or another command, with settings of its own."""
    servers: list[Server] = []

    def begin(*options: str, command: list[str] | None = None, **environment: str) -> Server:
        server = Server(
            tmp_path, command or [str(BAATCHEET), "serve", "--port", "0", *options], **environment
        )
        servers.append(server)
        return server

    yield begin
    for server in servers:
        if server.process.poll() is None:
            server.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.ends(20)
            server.process.kill()
            server.ends(10)


def processes_naming(text: str) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if text.encode() in (process / "cmdline").read_bytes() and int(process.name) != os.getpid():
                found.append(int(process.name))
    return found


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def within(seconds: float, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def measured(url: str, name: str) -> float | None:
    """One of the numbers that `/metrics` tells; None where it is not told."""
    found = re.search(
        rf"^{re.escape(name)} (\S+)$", httpx.get(f"{url}/metrics", timeout=5).text, re.MULTILINE
    )
    return None if found is None else float(found[1])


def test_one_command_serves_and_leaves_nothing_behind(serve: Any) -> None:
    server = serve("--processes", "2", BAATCHEET_POOL_MAX="12")
    url = server.url()
    token = (server.data / "admin-token").read_text().strip()
    assert stat.S_IMODE((server.data / "admin-token").stat().st_mode) == 0o600
    assert token not in server.said()
    models = httpx.get(f"{url}/v1/models", headers={"Authorization": f"Bearer {token}"}, timeout=30)
    assert models.status_code == 200
    # The worker's third of the connections is told of, and it does not say that the cache is away.
    within(30, lambda: measured(url, 'baatcheet_db_pool_connections{state="size"}') == 12)
    assert measured(url, "baatcheet_cache_available") == 1

    first, _ = server.children()
    os.kill(first, signal.SIGKILL)
    within(30, lambda: len(server.children()) == 2 and first not in server.children())
    assert answers(url)

    server.process.send_signal(signal.SIGTERM)
    assert server.ends(40) == 0, server.said()
    within(10, lambda: not processes_naming(str(server.data)))


def test_a_one_off_command_finds_the_running_database(serve: Any, tmp_path: Path) -> None:
    server = serve()
    server.url()
    environment = {"BAATCHEET_DATA_DIR": str(server.data), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [BAATCHEET, "db", "upgrade"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "The schema is at" in done.stdout


def test_the_commands_on_keys_and_routes_find_the_running_database_too(serve: Any, tmp_path: Path) -> None:
    server = serve(GROQ_API_KEY_1="gsk_of_the_tests_0123456789")
    server.url()
    for command in (["keys", "list"], ["keys", "refresh"], ["routes", "list"], ["budget", "prices"]):
        done = one_off(command, tmp_path, GROQ_API_KEY_1="gsk_of_the_tests_0123456789")
        assert done.returncode == 0, done.stderr
        assert "gsk_of_the_tests_0123456789" not in done.stdout + done.stderr
    listed = one_off(["keys", "list"], tmp_path, GROQ_API_KEY_1="gsk_of_the_tests_0123456789")
    assert "gsk_…6789" in listed.stdout


def one_off(command: list[str], folder: Path, **more: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DATABASE_", "REDIS_"))}
    return subprocess.run(
        [str(BAATCHEET), *command],
        cwd=folder,
        env=kept | {"BAATCHEET_DATA_DIR": str(folder / "data"), "OLLAMA_HOST": "", **more},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_users_and_tokens_can_be_made_before_the_first_start(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [BAATCHEET, *arguments],
            env={"BAATCHEET_DATA_DIR": str(tmp_path / "data"), "PATH": os.environ["PATH"]},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    nobody = run("token", "list")
    assert nobody.returncode == 2
    assert "baatcheet user create NAME --admin" in " ".join(nobody.stderr.replace("│", " ").split())
    assert run("user", "create", "Zoya", "--admin").returncode == 0
    assert run("token", "create", "laptop").stdout.startswith("bc_")
    assert "laptop" in run("token", "list").stdout


def test_a_killed_server_takes_all_with_it_and_starts_again_at_once(serve: Any) -> None:
    server = serve()
    url = server.url()
    api = server.children()
    assert api
    server.process.kill()
    server.ends(10)
    port = httpx.URL(url).port
    again = serve("--port", str(port))
    within(60, lambda: answers(url))
    assert not set(api) & set(again.children())
    within(30, lambda: not any(alive(pid) for pid in api))
    again.process.kill()
    again.ends(10)
    within(10, lambda: not processes_naming(str(server.data)))


def test_a_second_server_on_the_same_folder_says_who_uses_it(serve: Any) -> None:
    first = serve()
    first.url()
    second = serve()
    assert second.ends(30) == 1
    assert f"pid {first.process.pid}" in second.said()
    assert "Traceback" not in second.said()


def test_a_given_admin_token_is_the_administrators_and_is_written_nowhere(serve: Any) -> None:
    token = "bc_0123456789abcdef0123456789abcdef"
    server = serve(BAATCHEET_ADMIN_TOKEN=token)
    url = server.url()
    assert not (server.data / "admin-token").exists()
    assert token not in server.said()
    answer = httpx.get(f"{url}/v1/models", headers={"Authorization": f"Bearer {token}"}, timeout=30)
    assert answer.status_code == 200


def test_a_taken_port_is_an_error_that_says_what_to_do(serve: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = serve("--port", str(port))
        assert server.ends(30) == 1
    assert server.said() == f"baatcheet: port {port} is taken; use --port (BAATCHEET_PORT) for another.\n"


def test_a_misspelt_setting_stops_the_start_without_a_traceback(serve: Any) -> None:
    server = serve(BAATCHEET_PROCESES="2")
    assert server.ends(30) == 2
    assert "Did you mean BAATCHEET_PROCESSES?" in server.said()
    assert "Traceback" not in server.said()


def test_a_setting_that_only_the_database_can_refuse_stops_the_start_at_once(serve: Any) -> None:
    server = serve("--processes", "2", BAATCHEET_POOL_MAX="5000")
    assert server.ends(60) == 2
    assert "BAATCHEET_POOL_MAX: 5000 connections are more than the server allows" in server.said()
    assert "Traceback" not in server.said()
    assert "api.died" not in server.said()


def test_a_secret_store_that_is_away_at_the_start_ends_the_server_with_its_name(serve: Any) -> None:
    server = serve(
        BAATCHEET_SECRET_STORES="vault",
        VAULT_ADDR="http://127.0.0.1:9",
        VAULT_TOKEN="hvs.a-token-of-the-tests",
        BAATCHEET_SECRETS_TIMEOUT="1",
    )
    assert server.ends(60) == 1
    said = server.said()
    assert "vault: http://127.0.0.1:9 can't be reached" in said
    assert "VAULT_ADDR" in said
    assert "Traceback" not in said
    assert "hvs.a-token-of-the-tests" not in said


def test_a_process_that_dies_while_a_secret_store_is_away_is_started_until_it_is_back(
    serve: Any, tmp_path: Path
) -> None:
    secrets = tmp_path / ".env.secrets"
    made = subprocess.run(
        [str(BAATCHEET), "secrets", "init"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    server = serve(BAATCHEET_SECRET_STORES="file")
    url = server.url()
    good = secrets.read_bytes()
    secrets.write_text("GROQ_API_KEY_1=encrypted:not-at-all\n")
    [child] = server.children()
    os.kill(child, signal.SIGKILL)
    within(30, lambda: server.said().count("secret stores can't be read") >= 2)
    assert server.process.poll() is None
    secrets.write_bytes(good)
    within(30, lambda: is_ready(url))


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready", timeout=5, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_a_host_that_is_no_name_is_told_without_a_traceback(serve: Any) -> None:
    server = serve("--host", "a..b")
    assert server.ends(30) == 1
    assert server.said().startswith("baatcheet: can't listen on 'a..b'")


def test_a_default_model_that_nobody_has_is_warned_of(serve: Any) -> None:
    server = serve(BAATCHEET_DEFAULT_MODEL="nope")
    server.url()
    within(20, lambda: "models.default_unknown" in server.said())


def test_an_api_that_can_not_start_ends_the_server_with_the_reason(serve: Any) -> None:
    server = serve(command=[sys.executable, "-c", WITH_API, "/bin/false"], BAATCHEET_PORT="0")
    assert server.ends(60) == 1
    assert "ended 5 times in a row right after its start (last status 1)" in server.said()
    within(10, lambda: not processes_naming(str(server.data)))


def test_a_second_signal_ends_all_at_once(serve: Any) -> None:
    api = [sys.executable, "-c", STUBBORN_API]
    server = serve(command=[sys.executable, "-c", WITH_API, *api], BAATCHEET_PORT="0")

    within(60, lambda: "deaf" in server.said())
    server.process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        server.ends(2)
    server.process.send_signal(signal.SIGTERM)
    assert server.ends(10) == 0
    within(10, lambda: not processes_naming(STUBBORN_API))


@pytest.mark.parametrize(
    "command", [["--help"], ["serve", "--help"], ["db", "--help"], ["db", "upgrade", "--help"]]
)
def test_every_command_explains_itself(command: list[str]) -> None:
    done = subprocess.run(
        [BAATCHEET, *command], capture_output=True, text=True, check=True, timeout=60, env={"PATH": ""}
    )
    assert "Usage: baatcheet" in done.stdout


def test_the_version_is_printed() -> None:
    done = subprocess.run([BAATCHEET, "--version"], capture_output=True, text=True, check=True, timeout=60)
    assert re.fullmatch(r"baatcheet \d+\.\d+\.\d+\n", done.stdout)
