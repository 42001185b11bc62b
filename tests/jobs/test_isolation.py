"""Functions in processes of their own, and everything that such a process can do to die."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from baatcheet.jobs import isolation_frames as frames
from baatcheet.jobs.isolation import Refused, Sandbox, SandboxFailed
from tests.jobs import sandboxed
from tests.jobs.sandboxed import Asked

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest_asyncio.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(processes=2) as one:
        yield one


async def becomes(condition: Callable[[], bool], seconds: float = 20) -> bool:
    """Whether `condition` holds within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.01)
    return True


def is_there(pid: int) -> bool:
    """Whether a process lives, or is a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def pid_in(path: Path) -> int:
    assert await becomes(lambda: path.exists() and path.read_text() != "")
    return int(path.read_text())


async def test_a_result_comes_back_from_another_process(sandbox: Sandbox) -> None:
    told = await sandbox.run(sandboxed.reverse, Asked("بات چیت"))
    assert told.text == "تیچ تاب"
    assert told.number not in {0, os.getpid()}


async def test_a_child_is_kept_for_the_next_call(sandbox: Sandbox) -> None:
    pids = {(await sandbox.run(sandboxed.reverse, Asked("a"))).number for _ in range(5)}
    assert len(pids) == 1


async def test_a_child_goes_after_its_calls() -> None:
    async with Sandbox(processes=1, calls=2) as sandbox:
        pids = [(await sandbox.run(sandboxed.reverse, Asked("a"))).number for _ in range(4)]
    assert pids[0] == pids[1] != pids[2] == pids[3]


async def test_a_child_that_has_grown_goes() -> None:
    async with Sandbox(processes=1, grown=1) as sandbox:
        pids = [(await sandbox.run(sandboxed.reverse, Asked("a"))).number for _ in range(2)]
    assert pids[0] != pids[1]


async def test_a_child_without_work_goes() -> None:
    async with Sandbox(processes=1, idle_seconds=0.05) as sandbox:
        pid = (await sandbox.run(sandboxed.reverse, Asked("a"))).number
        assert await becomes(lambda: not is_there(pid) and sandbox.pids == [])
        assert (await sandbox.run(sandboxed.reverse, Asked("a"))).number != pid


async def test_a_child_that_died_idle_is_replaced_without_a_word(sandbox: Sandbox) -> None:
    for _ in range(10):
        pid = (await sandbox.run(sandboxed.reverse, Asked("a"))).number
        os.kill(pid, signal.SIGKILL)
        told = await sandbox.run(sandboxed.reverse, Asked("ab"))
        assert told.text == "ba"
        assert told.number != pid


async def test_a_child_that_died_idle_is_no_zombie_for_long(sandbox: Sandbox) -> None:
    pid = (await sandbox.run(sandboxed.reverse, Asked("a"))).number
    os.kill(pid, signal.SIGKILL)
    assert await becomes(lambda: not is_there(pid) and sandbox.pids == [])


async def test_progress_arrives_in_order_and_bounded(sandbox: Sandbox) -> None:
    seen: list[tuple[float, str]] = []

    async def progress(percent: float, phrase: str) -> None:
        await asyncio.sleep(0)
        seen.append((percent, phrase))

    await sandbox.run(sandboxed.count, Asked(number=4), on_progress=progress)
    assert seen == [(0, "Step 0"), (25, "Step 1"), (50, "Step 2"), (75, "Step 3")]


async def test_a_function_that_reports_without_end_floods_nobody(sandbox: Sandbox) -> None:
    seen: list[str] = []
    with pytest.raises(SandboxFailed) as failed:
        await sandbox.run(
            sandboxed.report_endlessly,
            Asked(),
            seconds=1,
            on_progress=lambda _, phrase: seen.append(phrase),
        )
    assert failed.value.kind == "time"
    assert 1 <= len(seen) <= 30
    assert all(len(phrase) == 200 for phrase in seen)


async def test_whoever_follows_the_progress_can_end_it(sandbox: Sandbox) -> None:
    class Enough(Exception):
        pass

    def progress(percent: float, phrase: str) -> None:
        raise Enough

    with pytest.raises(Enough):
        await sandbox.run(sandboxed.count, Asked(number=1000), on_progress=progress)
    assert await becomes(lambda: sandbox.pids == [])


async def test_a_timeout_of_the_follower_is_not_ours(sandbox: Sandbox) -> None:
    def progress(percent: float, phrase: str) -> None:
        raise TimeoutError("the database")

    with pytest.raises(TimeoutError, match="the database"):
        await sandbox.run(sandboxed.count, Asked(number=1000), on_progress=progress)


async def test_a_refusal_arrives_as_it_is_and_the_child_stays(sandbox: Sandbox) -> None:
    with pytest.raises(Refused, match=r"^cat\.png can't be read: it is empty\.$"):
        await sandbox.run(sandboxed.refuse, Asked("cat.png"))
    assert len(sandbox.pids) == 1


async def test_an_exception_is_told_with_its_traceback(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxFailed) as failed:
        await sandbox.run(sandboxed.fail, Asked("name"))
    assert failed.value.kind == "error"
    assert str(failed.value) == "It failed unexpectedly (KeyError)."
    assert "in fail\n" in failed.value.detail
    assert len(sandbox.pids) == 1


@pytest.mark.parametrize(
    ("function", "asked", "kind", "words"),
    [
        (sandboxed.segfault, Asked(), "crash", "Its process crashed (SIGSEGV)."),
        (sandboxed.kill_itself, Asked(), "crash", "Its process ended without a result."),
        (sandboxed.vanish, Asked(number=0), "crash", "Its process ended without a result."),
        (sandboxed.exit_with_status, Asked(number=0), "error", "It failed unexpectedly (SystemExit)."),
        (sandboxed.abort_for_memory, Asked(), "memory", "It needed more than 200 MB of memory."),
        (sandboxed.allocate, Asked(number=1 << 30), "memory", "It needed more than 200 MB of memory."),
        (sandboxed.recurse, Asked(), "error", "It failed unexpectedly (RecursionError)."),
        (sandboxed.overflow_the_stack, Asked(), "crash", None),
        (sandboxed.spin, Asked(), "time", "It took longer than 1 s."),
        (sandboxed.wrong_result, Asked(), "crash", "It answered with something that can't be read."),
        (sandboxed.unencodable, Asked(), "error", "It failed unexpectedly (TypeError)."),
        (sandboxed.too_much, Asked(), "error", "It failed unexpectedly (ValueError)."),
    ],
)
async def test_whatever_it_dies_of_is_told_in_plain_words(
    sandbox: Sandbox,
    function: Callable[..., sandboxed.Told],
    asked: Asked,
    kind: str,
    words: str | None,
) -> None:
    with pytest.raises(SandboxFailed) as failed:
        await sandbox.run(function, asked, seconds=1 if kind == "time" else 60, memory=200_000_000)
    assert failed.value.kind == kind or (words is None and failed.value.kind in {"crash", "error", "memory"})
    assert words is None or str(failed.value) == words
    assert (await sandbox.run(sandboxed.reverse, Asked("ab"))).text == "ba"


@pytest.mark.parametrize(
    "bytes_of_it",
    [
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x00",
        b"\x00\x00\x00\x04abcd",
        b"\x00\x00\x00\x03\x91\xa7x",
        b"\x00\x00\x00\x09\x91\xa7started",
        b"GIF89a is not an answer, and goes on for a while",
    ],
)
async def test_what_a_child_babbles_is_one_failed_call(sandbox: Sandbox, bytes_of_it: bytes) -> None:
    with pytest.raises(SandboxFailed) as failed:
        await sandbox.run(sandboxed.babble, Asked(bytes_of_it.hex()), seconds=20)
    assert failed.value.kind == "crash"
    assert str(failed.value) == "It answered with something that can't be read."
    assert (await sandbox.run(sandboxed.reverse, Asked("ab"))).text == "ba"


async def test_memory_counts_from_what_the_child_had_before(sandbox: Sandbox) -> None:
    told = await sandbox.run(sandboxed.allocate, Asked(number=80_000_000), memory=100_000_000)
    assert told.number == 80_000_000
    with pytest.raises(SandboxFailed) as failed:
        await sandbox.run(sandboxed.allocate, Asked(number=120_000_000), memory=100_000_000)
    assert failed.value.kind == "memory"


def test_a_child_ends_by_itself_where_its_parent_is_too_busy_to_notice_the_time() -> None:
    call = frames.Call("tests.jobs.sandboxed:spin", msgspec.Raw(msgspec.msgpack.encode(Asked())), 1 << 30, 1)
    body = msgspec.msgpack.encode(call)
    child = subprocess.run(
        [sys.executable, "-m", "baatcheet.jobs.isolated", str(os.getpid()), "5", "1000"],
        input=frames.LENGTH.pack(len(body)) + body,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert child.returncode == -signal.SIGXCPU


async def test_a_child_has_its_limits_and_nothing_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("DATABASE_URL", "postgresql://secret")
    with open(__file__, "rb") as file:  # noqa: PTH123
        os.set_inheritable(file.fileno(), True)
        async with Sandbox(processes=1, environment={"TESSDATA_PREFIX": "/data"}) as sandbox:
            known = await sandbox.run(sandboxed.surroundings, Asked())
    allowed = {
        "PATH",
        "LD_LIBRARY_PATH",
        "LANG",
        "LC_ALL",
        "LC_CTYPE",
        "TZ",
        "TMPDIR",
        "TESSDATA_PREFIX",
        "HOME",
    }
    allowed |= {"OMP_THREAD_LIMIT", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MALLOC_ARENA_MAX"}
    assert set(known.environment) <= allowed | {"PYTHONPATH", "PYTHONUTF8"}
    assert known.environment["TESSDATA_PREFIX"] == "/data"
    assert known.environment["OMP_THREAD_LIMIT"] == "1"
    assert known.niceness == min(19, os.nice(0) + 5)
    assert known.limits["CORE"] == 0
    assert known.limits["NOFILE"] == 256
    assert known.limits["FSIZE"] == 4_000_000_000
    assert known.group == known.pid
    assert not [name for name in known.files if not name.startswith(("pipe:", "/proc/"))]


async def test_a_file_may_not_grow_beyond_its_limit(tmp_path: Path) -> None:
    async with Sandbox(processes=1, file_size=2_000_000) as sandbox:
        with pytest.raises(SandboxFailed) as failed:
            await sandbox.run(sandboxed.write_file, Asked(str(tmp_path / "file"), 10))
        assert "File too large" in failed.value.detail
    assert (tmp_path / "file").stat().st_size <= 2_000_000


async def test_what_a_library_prints_is_kept_apart_and_bounded(sandbox: Sandbox) -> None:
    assert (await sandbox.run(sandboxed.print_much, Asked(number=2000))).text == "printed"
    with pytest.raises(SandboxFailed) as failed:
        await sandbox.run(sandboxed.print_much, Asked("its last words", 2000))
    assert failed.value.detail.endswith("its last words")
    assert len(failed.value.detail) <= 4_000


async def test_cancelling_kills_the_child_at_once(sandbox: Sandbox, tmp_path: Path) -> None:
    running = asyncio.create_task(sandbox.run(sandboxed.sleep, Asked(str(tmp_path / "pid"))))
    pid = await pid_in(tmp_path / "pid")
    running.cancel()
    before = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert time.monotonic() - before < 5
    assert await becomes(lambda: not is_there(pid), 5)
    assert (await sandbox.run(sandboxed.reverse, Asked("ab"))).text == "ba"


async def test_what_a_child_has_started_goes_with_it(sandbox: Sandbox, tmp_path: Path) -> None:
    running = asyncio.create_task(sandbox.run(sandboxed.start_another, Asked(str(tmp_path / "pid"))))
    pid = await pid_in(tmp_path / "pid")
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert await becomes(lambda: not lives(pid))


async def test_a_child_ends_with_its_parent(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from baatcheet.jobs.isolation import Sandbox\n"
        "from tests.jobs import sandboxed\n"
        "asyncio.run(Sandbox().run(sandboxed.sleep, sandboxed.Asked(sys.argv[1])))\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "pid")], cwd=Path(__file__).parents[2]
    )
    try:
        pid = await pid_in(tmp_path / "pid")
    finally:
        parent.kill()
        parent.wait()
    assert await becomes(lambda: not lives(pid))


async def test_as_many_run_at_once_as_there_are_places(sandbox: Sandbox, tmp_path: Path) -> None:
    running = [
        asyncio.create_task(sandbox.run(sandboxed.sleep, Asked(str(tmp_path / str(number)))))
        for number in range(4)
    ]
    await pid_in(tmp_path / "0")
    await pid_in(tmp_path / "1")
    assert len(sandbox.pids) == 2
    assert not (tmp_path / "2").exists()
    running[0].cancel()
    await pid_in(tmp_path / "2")
    assert not (tmp_path / "3").exists()
    for task in running:
        task.cancel()
    await asyncio.wait(running)


async def test_who_asks_first_is_served_first() -> None:
    async with Sandbox(processes=1) as sandbox:
        order: list[int] = []

        async def ask(number: int) -> None:
            await sandbox.run(sandboxed.reverse, Asked("a"))
            order.append(number)

        await asyncio.gather(*(ask(number) for number in range(20)))
    assert order == list(range(20))


async def test_closing_ends_what_runs_and_refuses_what_comes(tmp_path: Path) -> None:
    sandbox = Sandbox(processes=1)
    running = asyncio.create_task(sandbox.run(sandboxed.sleep, Asked(str(tmp_path / "pid"))))
    pid = await pid_in(tmp_path / "pid")
    await sandbox.close()
    assert not is_there(pid)
    with pytest.raises(SandboxFailed) as failed:
        await running
    assert failed.value.kind == "crash"
    with pytest.raises(RuntimeError):
        await sandbox.run(sandboxed.reverse, Asked("a"))


async def test_what_another_process_can_not_find_is_refused_here(sandbox: Sandbox) -> None:
    def local(asked: Asked, report: object) -> sandboxed.Told:
        return sandboxed.Told("")

    with pytest.raises(ValueError, match="a function of a module"):
        await sandbox.run(local, Asked())


async def test_much_data_goes_by_a_file(sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="by a file"):
        await sandbox.run(sandboxed.reverse, Asked("x" * 2_000_000))


async def test_two_hundred_kills_leave_no_process_and_no_descriptor() -> None:
    descriptors = Path("/proc/self/fd")
    async with Sandbox(processes=2) as sandbox:
        await sandbox.run(sandboxed.reverse, Asked("a"))
        seen: set[int] = set()

        async def killed(number: int) -> None:
            # From before the process runs, through its start and its imports, to the middle of its work.
            running = asyncio.create_task(sandbox.run(sandboxed.count, Asked(number=1000)))
            await asyncio.sleep(number % 40 * 0.004)
            seen.update(sandbox.pids)
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running

        await killed(39)
        assert await becomes(lambda: len(sandbox.pids) <= 1)
        before = len(list(descriptors.iterdir()))
        for number in range(0, 200, 2):
            await asyncio.gather(killed(number), killed(number + 1))
        assert (await sandbox.run(sandboxed.reverse, Asked("ab"))).text == "ba"
        assert await becomes(lambda: len(sandbox.pids) <= 1)
        await asyncio.sleep(0)
        assert await becomes(lambda: len(list(descriptors.iterdir())) <= before + 3, 2)
    assert len(seen) > 100
    assert not any(is_there(pid) for pid in seen)
