"""The embedded PostgreSQL and Valkey, for real: start, stop, every way of dying, and who may use what."""

import asyncio
import contextlib
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import redis

from baatcheet.platform.embedded import (
    Addresses,
    DataFolderInUse,
    EmbeddedError,
    EmbeddedServices,
    attach,
    spawn,
)
from baatcheet.platform.settings import EmbeddedSettings, load

RUNNER = Path(__file__).with_name("runner.py")
DEBIAN_POSTGRES = Path("/usr/lib/postgresql/15/bin")
NOBODY = pwd.getpwnam("nobody")


def settings(folder: Path, **more: str) -> EmbeddedSettings:
    return load({"BAATCHEET_DATA_DIR": str(folder), **more}, dotenv=None).embedded


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def start() -> Iterator[Callable[..., tuple[EmbeddedServices, Addresses]]]:
    """Starts services on a folder; they are stopped at the end of the test."""
    running: list[EmbeddedServices] = []

    def begin(folder: Path, *, valkey: bool = True, **more: str) -> tuple[EmbeddedServices, Addresses]:
        services = EmbeddedServices(settings(folder, **more), postgres=True, valkey=valkey, durable=False)
        addresses = services.start()
        running.append(services)
        return services, addresses

    yield begin
    for services in running:
        services.stop()


@dataclass
class Runner:
    process: subprocess.Popen[str]
    said: dict[str, Any]


@pytest.fixture
def run() -> Iterator[Callable[..., Runner]]:
    """Runs a supervisor of its own process on a folder, as another user if asked to."""
    processes: list[subprocess.Popen[str]] = []

    def begin(folder: Path, *more: str, user: int | None = None, group: int | None = None) -> Runner:
        process = subprocess.Popen(
            [sys.executable, str(RUNNER), str(folder), *more],
            stdout=subprocess.PIPE,
            text=True,
            user=user,
            group=group,
            extra_groups=None if user is None else [],
            cwd="/",
        )
        processes.append(process)
        assert process.stdout is not None
        return Runner(process, json.loads(process.stdout.readline()))

    yield begin
    for process in processes:
        process.terminate()
        process.wait(timeout=60)
        assert process.stdout is not None
        process.stdout.close()


def execute(addresses: Addresses | dict[str, Any], *statements: str) -> Any:
    """Run SQL in one connection; the last statement's first value."""
    url = addresses["database_url"] if isinstance(addresses, dict) else addresses.database_url

    async def inside() -> Any:
        connection = await asyncpg.connect(url, timeout=10)
        try:
            for statement in statements[:-1]:
                await connection.execute(statement)
            return await connection.fetchval(statements[-1])
        finally:
            await connection.close()

    # The session's own loop is not ours to run in.
    with asyncio.Runner() as runner:
        return runner.run(inside())


def cache(addresses: Addresses | dict[str, Any]) -> "redis.Redis":
    url = addresses["redis_url"] if isinstance(addresses, dict) else addresses.redis_url
    assert url is not None
    return redis.Redis.from_url(url, decode_responses=True)


def within(seconds: float, holds: Callable[[], bool]) -> None:
    """Wait until `holds`, and fail when it doesn't in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


def serves(action: Callable[[], object]) -> bool:
    try:
        action()
    except (OSError, asyncpg.PostgresError, redis.RedisError):
        return False
    return True


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def processes_of(folder: Path) -> list[int]:
    """Every process that has something of the folder open, or names it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            named = os.fsencode(folder) in (process / "cmdline").read_bytes()
            inside = (process / "cwd").readlink().is_relative_to(folder)
            if (named or inside) and not gone(int(process.name)):
                found.append(int(process.name))
    return found


def test_what_was_stored_is_there_after_a_restart(data: Path, start: Any) -> None:
    services, addresses = start(data)
    execute(addresses, "CREATE TABLE kept (word text)", "INSERT INTO kept VALUES ('salaam')", "SELECT 1")
    services.stop()
    assert execute(start(data)[1], "SELECT word FROM kept") == "salaam"


def test_a_new_database_is_utf8_and_sorts_by_code_point(data: Path, start: Any) -> None:
    _, addresses = start(data, valkey=False)
    assert execute(addresses, "SHOW server_encoding") == "UTF8"
    assert execute(addresses, "SELECT upper('é')") == "É"
    assert execute(addresses, "SELECT 'Z' < 'a'")


def test_neither_listens_on_tcp_and_the_sockets_are_private(data: Path, start: Any) -> None:
    services, addresses = start(data)
    assert execute(addresses, "SHOW listen_addresses") == ""
    assert cache(addresses).config_get("port")["port"] == "0"
    for pid in services.pids.values():
        inodes = {
            line.split()[9] for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:] if line
        }
        opened = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
        assert not opened & {f"socket:[{inode}]" for inode in inodes}
    for socket_file in (data / "run").iterdir():
        assert socket_file.stat().st_mode & 0o077 == 0
    assert (data / "run").stat().st_mode & 0o777 == 0o700


def test_a_killed_postgres_comes_back_with_what_was_committed(data: Path, start: Any) -> None:
    services, addresses = start(data)
    execute(addresses, "CREATE TABLE kept (word text)", "INSERT INTO kept VALUES ('salaam')", "SELECT 1")
    before = services.pids["postgres"]
    os.kill(before, signal.SIGKILL)

    def back() -> bool:
        services.check()
        return serves(lambda: execute(addresses, "SELECT 1"))

    within(30, back)
    assert services.pids["postgres"] != before
    assert execute(addresses, "SELECT word FROM kept") == "salaam"


def test_a_killed_valkey_comes_back_at_the_same_address(data: Path, start: Any) -> None:
    services, addresses = start(data)
    before = services.pids["valkey"]
    os.kill(before, signal.SIGKILL)

    def back() -> bool:
        services.check()
        return serves(cache(addresses).ping)

    within(15, back)
    assert services.pids["valkey"] != before


def test_nothing_survives_the_supervisor_and_the_next_start_works(data: Path, run: Any) -> None:
    first = run(data)
    execute(first.said, "CREATE TABLE kept (word text)", "INSERT INTO kept VALUES ('salaam')", "SELECT 1")
    first.process.kill()
    first.process.wait(timeout=10)
    second = run(data)  # at once, while the old ones are still ending
    assert execute(second.said, "SELECT word FROM kept") == "salaam"
    assert cache(second.said).ping()
    second.process.kill()
    second.process.wait(timeout=10)
    within(10, lambda: not processes_of(data))


def test_a_second_server_on_one_folder_is_told_who_uses_it(data: Path, start: Any) -> None:
    _, addresses = start(data)
    with pytest.raises(DataFolderInUse, match=rf"pid {os.getpid()}\b.*--data FOLDER"):
        EmbeddedServices(settings(data), postgres=True, valkey=True).start()
    assert execute(addresses, "SELECT 1") == 1


def test_a_one_off_command_uses_the_server_that_runs(data: Path, start: Any) -> None:
    services, addresses = start(data)
    before = services.pids
    with attach(settings(data)) as found:
        assert found == addresses
    assert execute(addresses, "SELECT 1") == 1
    assert services.pids == before


def test_a_one_off_command_starts_the_database_when_no_server_runs(data: Path) -> None:
    with attach(settings(data)) as found:
        assert execute(found, "SELECT 1") == 1
        assert found.redis_url is None
    within(10, lambda: not processes_of(data))


def test_a_path_too_long_for_a_socket_gets_a_short_private_folder(tmp_path: Path, start: Any) -> None:
    data = tmp_path / ("long" * 30) / "data with space"
    services, addresses = start(data)
    assert execute(addresses, "SELECT 1") == 1
    assert cache(addresses).ping()
    assert addresses.redis_url is not None
    folder = Path(addresses.redis_url.removeprefix("unix://")).parent
    assert len(os.fsencode(folder)) < 80
    assert folder.stat().st_mode & 0o777 == 0o700
    services.stop()
    assert not folder.exists()


def test_a_socket_folder_that_others_may_enter_is_refused(tmp_path: Path, start: Any) -> None:
    data = tmp_path / ("long" * 30)
    services, addresses = start(data)
    services.stop()
    folder = Path(addresses.redis_url.removeprefix("unix://")).parent
    folder.mkdir()
    folder.chmod(0o777)
    try:
        with pytest.raises(EmbeddedError, match="is not this user's private folder"):
            start(data)
    finally:
        shutil.rmtree(folder)


def test_a_stale_pid_file_harms_neither_the_start_nor_the_process_that_has_the_number_now(
    data: Path, start: Any
) -> None:
    services, _ = start(data)
    services.stop()
    # As the user that PostgreSQL runs as: of others it would know that they can't be its own.
    owner = (data / "postgres").stat().st_uid
    bystander = subprocess.Popen(["/bin/sleep", "60"], user=owner if os.geteuid() == 0 else None)
    try:
        stale = f"{bystander.pid}\n{data}/postgres\n1\n5432\n{data}/run\n\n  1 1\nready   \n"
        pid_file = data / "postgres" / "postmaster.pid"
        socket_lock = data / "run" / ".s.PGSQL.5432.lock"
        for path in (pid_file, socket_lock):
            path.write_text(stale)
            os.chown(path, owner, -1)
            path.chmod(0o600)
        assert execute(start(data)[1], "SELECT 1") == 1
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait(timeout=10)


def test_a_postgres_that_somebody_started_by_hand_is_neither_joined_nor_killed(start: Any) -> None:
    with tempfile.TemporaryDirectory() as base:
        Path(base).chmod(0o755)
        data = Path(base) / "data"
        services, _ = start(data)
        arguments = Path(f"/proc/{services.pids['postgres']}/cmdline").read_text().rstrip("\0").split("\0")
        services.stop()
        owner = (data / "postgres").stat().st_uid if os.geteuid() == 0 else None
        if owner is not None and not _open_to_all(Path(arguments[0])):
            pytest.skip("the user that PostgreSQL runs as can't reach its programs by itself")
        by_hand = subprocess.Popen(arguments, user=owner, stderr=subprocess.DEVNULL, cwd="/")
        pid_file = data / "postgres" / "postmaster.pid"
        try:
            within(20, lambda: pid_file.exists() and "ready" in pid_file.read_text())
            with pytest.raises(EmbeddedError, match=rf"did not start \(pid {by_hand.pid}\)"):
                start(data)
            assert by_hand.poll() is None
        finally:
            by_hand.send_signal(signal.SIGINT)
            by_hand.wait(timeout=30)


def _open_to_all(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in path.parents)


def test_a_start_that_was_killed_half_way_leaves_no_half_made_database(data: Path, start: Any) -> None:
    (data / "postgres.new" / "base").mkdir(parents=True)
    (data / "postgres.new" / "PG_VERSION").write_text("18\n")
    assert execute(start(data)[1], "SELECT 1") == 1
    assert not (data / "postgres.new").exists()


def test_a_folder_of_another_major_version_is_refused_with_the_way_out(data: Path, start: Any) -> None:
    services, _ = start(data, valkey=False)
    services.stop()
    (data / "postgres" / "PG_VERSION").write_text("12\n")
    with pytest.raises(EmbeddedError, match=r"made by PostgreSQL 12.*BAATCHEET_POSTGRES_BIN"):
        start(data, valkey=False)


def test_a_folder_of_somebody_elses_files_is_left_alone(data: Path, start: Any) -> None:
    (data / "postgres").mkdir(parents=True)
    (data / "postgres" / "holiday.jpg").write_bytes(b"sunset")
    with pytest.raises(EmbeddedError, match="not empty"):
        start(data)
    assert (data / "postgres" / "holiday.jpg").read_bytes() == b"sunset"


def test_a_postgres_that_can_not_start_says_why(data: Path, start: Any) -> None:
    services, _ = start(data, valkey=False)
    services.stop()
    with (data / "postgres" / "postgresql.conf").open("a") as configuration:
        configuration.write("shared_buffers = rubbish\n")
    with pytest.raises(EmbeddedError, match="shared_buffers"):
        start(data, valkey=False)
    within(10, lambda: not processes_of(data))


def test_programs_that_are_not_there_are_named(data: Path, tmp_path: Path) -> None:
    nothing = settings(
        data, BAATCHEET_POSTGRES_BIN=str(tmp_path), BAATCHEET_VALKEY_BIN=str(tmp_path / "valkey")
    )
    with pytest.raises(EmbeddedError, match="BAATCHEET_POSTGRES_BIN"):
        EmbeddedServices(nothing, postgres=True, valkey=False).start()
    with pytest.raises(EmbeddedError, match="BAATCHEET_VALKEY_BIN"):
        EmbeddedServices(nothing, postgres=False, valkey=True).start()


def test_a_data_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    unusable = settings(tmp_path / "file" / "data")
    with pytest.raises(EmbeddedError, match=r"file/data can't be used.*--data FOLDER"):
        EmbeddedServices(unusable, postgres=True, valkey=True).start()


@pytest.mark.skipif(not DEBIAN_POSTGRES.exists(), reason="Debian's PostgreSQL 15 is not installed")
def test_the_systems_own_postgres_serves_as_well(data: Path, run: Any) -> None:
    runner = run(data, str(DEBIAN_POSTGRES))
    assert execute(runner.said, "SHOW server_version_num").startswith("15")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give up")
def test_root_runs_all_under_a_home_that_nobody_else_may_enter(tmp_path: Path, start: Any) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    services, _ = start(home / "data")
    programs = {name: Path(f"/proc/{pid}/exe").readlink() for name, pid in services.pids.items()}
    services.stop()
    shutil.rmtree(home / "data")
    # The programs as well, as in a checkout that is root's alone.
    package = programs["postgres"].parents[2]
    installed = home / package.name / programs["postgres"].parents[1].name
    shutil.copytree(programs["postgres"].parents[1], installed, symlinks=True)
    shutil.copytree(package.with_name(f"{package.name}.libs"), home / f"{package.name}.libs")
    shutil.copy(programs["valkey"], home / "valkey")
    services, addresses = start(
        home / "data",
        BAATCHEET_POSTGRES_BIN=str(installed / "bin"),
        BAATCHEET_VALKEY_BIN=str(home / "valkey"),
    )
    execute(addresses, "CREATE TABLE kept (word text)", "SELECT 1")
    assert cache(addresses).ping()
    for pid in services.pids.values():
        assert Path(f"/proc/{pid}").stat().st_uid == NOBODY.pw_uid
        capabilities = re.search(r"CapPrm:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
        assert capabilities
        assert int(capabilities[1], 16) == 1 << 1  # CAP_DAC_OVERRIDE and no other


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give up")
def test_root_keeps_no_right_where_none_is_needed(start: Any) -> None:
    with tempfile.TemporaryDirectory() as base:
        Path(base).chmod(0o755)
        services, _ = start(Path(base) / "data")
        program = Path(f"/proc/{services.pids['postgres']}/exe").readlink()
        if not _open_to_all(program):
            pytest.skip("the user that PostgreSQL runs as can't reach its programs by itself")
        status = Path(f"/proc/{services.pids['postgres']}/status").read_text()
        services.stop()
    assert re.search(r"CapPrm:\s*0+\n", status)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can choose another user")
def test_root_keeps_the_owner_of_a_data_folder(start: Any) -> None:
    account = next(entry for entry in pwd.getpwall() if entry.pw_uid not in {0, NOBODY.pw_uid})
    with tempfile.TemporaryDirectory() as base:
        data = Path(base) / "data"
        data.mkdir()
        os.chown(data, account.pw_uid, account.pw_gid)
        services, addresses = start(data)
        assert execute(addresses, "SELECT 1") == 1
        assert (data / "postgres").stat().st_uid == account.pw_uid
        services.stop()


def _can_run_our_code(user: int) -> bool:
    programs = (Path(sys.executable).resolve(), Path(sys.executable), RUNNER)
    if not all(_open_to_all(place) for place in programs):
        return False
    command = [sys.executable, "-c", "import baatcheet.platform.embedded"]
    tried = subprocess.run(
        command, user=user, extra_groups=[], capture_output=True, check=False, timeout=60, cwd="/"
    )
    return tried.returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_needs_no_rights(run: Any) -> None:
    if not _can_run_our_code(NOBODY.pw_uid):
        pytest.skip("this environment can't be read by an ordinary user")
    with tempfile.TemporaryDirectory() as base:
        os.chown(base, NOBODY.pw_uid, NOBODY.pw_gid)
        runner = run(Path(base) / "data", user=NOBODY.pw_uid, group=NOBODY.pw_gid)
        assert execute(runner.said, "SELECT 1") == 1
        assert cache(runner.said).ping()
        again = run(Path(base) / "data", user=NOBODY.pw_uid, group=NOBODY.pw_gid)
        assert again.said["kind"] == "DataFolderInUse"
        runner.process.kill()
        runner.process.wait(timeout=10)
        within(10, lambda: not processes_of(Path(base)))


def test_a_program_that_is_not_there_is_an_error_where_it_was_asked_for() -> None:
    with pytest.raises(EmbeddedError, match="/no/such/program could not be started"):
        spawn(["/no/such/program"], death_signal=signal.SIGTERM)


def test_spawning_from_a_thread_is_refused() -> None:
    problems: list[BaseException] = []

    def attempt() -> None:
        try:
            spawn(["/bin/true"], death_signal=signal.SIGTERM)
        except RuntimeError as error:
            problems.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join(timeout=10)
    assert "main thread" in str(problems[0])


def test_a_child_ends_with_its_parent() -> None:
    script = (
        "import signal; from baatcheet.platform.embedded import spawn; "
        "print(spawn(['/bin/sleep', '60'], death_signal=signal.SIGTERM).pid, flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not gone(child)
        parent.kill()
    within(5, lambda: gone(child))
