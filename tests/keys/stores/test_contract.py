"""One suite over all four stores: what is promised of one holds for each, on real files and real sockets."""

import asyncio
import contextlib
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

import baatcheet
from baatcheet.keys.secret import SecretKey
from baatcheet.keys.stores.model import (
    KeySet,
    ReadOnlyStore,
    SecretStore,
    StoreChanged,
    StoreError,
    StoreMalformed,
    StoreRefused,
    StoreUnavailable,
)
from tests.keys.stores.bench import StoreBench
from tests.keys.stores.benches_of_services import AwsBench, VaultBench

ALL = ["environment", "file", "aws", "vault"]
WRITABLE = ["file", "aws", "vault"]
REMOTE = ["aws", "vault"]
CANARY = "gsk_CanaryOfTheContract0123456789"
PACKAGE = str(Path(baatcheet.__file__).parent)

every_store = pytest.mark.parametrize("bench", ALL, indirect=True)
writable_stores = pytest.mark.parametrize("bench", WRITABLE, indirect=True)
remote_stores = pytest.mark.parametrize("bench", REMOTE, indirect=True)


def keys(*texts: str) -> tuple[SecretKey, ...]:
    return tuple(SecretKey(text) for text in texts)


def of(kept: KeySet | None) -> list[str] | None:
    return None if kept is None else [key.reveal() for key in kept.keys]


@pytest_asyncio.fixture
async def stores(bench: StoreBench) -> AsyncIterator[Callable[[], SecretStore]]:
    """Makes clients of the place, and closes them."""
    async with contextlib.AsyncExitStack() as stack:

        def new() -> SecretStore:
            store = bench.store()
            stack.push_async_callback(store.close)
            return store

        yield new


NewStore = Callable[[], SecretStore]


def holds_no_key(error: BaseException, *texts: str) -> None:
    """Neither the error, nor what it came from, nor the locals of our frames under it, shows any of `texts`."""
    seen: BaseException | None = error
    while seen is not None:
        told = f"{seen!s} {seen!r} {seen.args!r} {vars(seen)!r}"
        for frame in traceback.TracebackException.from_exception(seen, capture_locals=True).stack:
            if frame.filename.startswith(PACKAGE):
                told += f" {frame.line} {frame.locals}"
        for text in texts:
            assert text not in told
        seen = seen.__cause__ or seen.__context__


async def refused(kind: type[StoreError], action: Awaitable[object], *texts: str) -> StoreError:
    with pytest.raises(kind) as caught:
        await action
    holds_no_key(caught.value, CANARY, *texts)
    return caught.value


@every_store
async def test_what_an_operator_has_put_there_is_fetched_in_its_order(
    bench: StoreBench, stores: NewStore
) -> None:
    await bench.put("groq", ["gsk_two", "gsk_one", "gsk_three"])
    await bench.put("ocr_space", ["K1"])
    fetched = await stores().fetch(["groq", "ocr_space", "openrouter"])
    assert {name: of(one) for name, one in fetched.items()} == {
        "groq": ["gsk_two", "gsk_one", "gsk_three"],
        "ocr_space": ["K1"],
    }
    assert all(one.provider == name and one.version for name, one in fetched.items())


@every_store
async def test_an_empty_place_has_no_keys(bench: StoreBench, stores: NewStore) -> None:
    store = stores()
    assert store.name == bench.name
    assert store.writable is bench.writable
    assert dict(await store.fetch(["groq", "my_lab"])) == {}
    versions = await store.versions("groq")
    assert (versions.current, versions.previous, versions.pending) == (None, None, None)
    assert dict(await store.fetch([])) == {}


@every_store
async def test_the_versions_of_what_an_operator_has_put_there_agree_with_what_is_fetched(
    bench: StoreBench, stores: NewStore
) -> None:
    await bench.put("groq", ["gsk_one"])
    store = stores()
    versions = await store.versions("groq")
    assert versions.current == (await store.fetch(["groq"]))["groq"]
    assert versions.previous is None
    assert versions.pending is None
    assert versions.current == (await stores().versions("groq")).current


@every_store
async def test_no_set_of_keys_shows_them(bench: StoreBench, stores: NewStore) -> None:
    await bench.put("groq", [CANARY])
    store = stores()
    shown = f"{await store.fetch(['groq'])!r} {await store.versions('groq')!r} {store!r} {vars(store)!r}"
    assert CANARY not in shown


@pytest.mark.parametrize("bench", ["environment"], indirect=True)
async def test_a_store_that_is_only_read_says_so(bench: StoreBench, stores: NewStore) -> None:
    await bench.put("groq", ["gsk_one"])
    store = stores()
    version = (await store.fetch(["groq"]))["groq"].version
    for change in (
        store.replace("groq", keys(CANARY)),
        store.stage("groq", keys(CANARY)),
        store.promote("groq", version),
        store.roll_back("groq", version),
        store.discard("groq"),
    ):
        error = await refused(ReadOnlyStore, change)
        assert "groq" in str(error).lower()
    assert of((await store.fetch(["groq"]))["groq"]) == ["gsk_one"]


@writable_stores
async def test_replacing_makes_the_keys_current_and_the_old_ones_previous(
    bench: StoreBench, stores: NewStore
) -> None:
    await bench.put("groq", ["gsk_one", "gsk_two"])
    store = stores()
    version = await store.replace("groq", keys("gsk_three"))
    versions = await stores().versions("groq")
    assert of(versions.current) == ["gsk_three"]
    assert versions.current is not None
    assert versions.current.version == version
    assert of(versions.previous) == ["gsk_one", "gsk_two"]
    assert versions.pending is None
    await store.replace("groq", keys("gsk_four"))
    versions = await stores().versions("groq")
    assert of(versions.current) == ["gsk_four"]
    assert of(versions.previous) == ["gsk_three"]


@writable_stores
async def test_the_first_keys_of_a_provider_can_be_written(bench: StoreBench, stores: NewStore) -> None:
    await bench.put("groq", ["gsk_one"])
    version = await stores().replace("ocr_space", keys("K1", "K2"))
    versions = await stores().versions("ocr_space")
    assert of(versions.current) == ["K1", "K2"]
    assert versions.current is not None
    assert versions.current.version == version
    assert versions.previous is None
    assert of((await stores().fetch(["groq"]))["groq"]) == ["gsk_one"]


@writable_stores
async def test_staged_keys_serve_nobody_until_they_are_promoted(bench: StoreBench, stores: NewStore) -> None:
    await bench.put("groq", ["gsk_old"])
    store = stores()
    version = await store.stage("groq", keys("gsk_new", "gsk_newer"))
    versions = await stores().versions("groq")
    assert of(versions.current) == ["gsk_old"]
    assert of(versions.pending) == ["gsk_new", "gsk_newer"]
    assert versions.pending is not None
    assert versions.pending.version == version
    assert of((await store.fetch(["groq"]))["groq"]) == ["gsk_old"]
    current = await store.promote("groq", version)
    versions = await stores().versions("groq")
    assert of(versions.current) == ["gsk_new", "gsk_newer"]
    assert versions.current is not None
    assert versions.current.version == current
    assert of(versions.previous) == ["gsk_old"]
    assert versions.pending is None
    assert of((await stores().fetch(["groq"]))["groq"]) == ["gsk_new", "gsk_newer"]


@writable_stores
async def test_keys_can_be_staged_where_there_are_none(bench: StoreBench, stores: NewStore) -> None:
    store = stores()
    version = await store.stage("groq", keys("gsk_new"))
    versions = await store.versions("groq")
    assert versions.current is None
    assert of(versions.pending) == ["gsk_new"]
    assert dict(await store.fetch(["groq"])) == {}
    current = await store.promote("groq", version)
    versions = await store.versions("groq")
    assert of(versions.current) == ["gsk_new"]
    assert (versions.previous, versions.pending) == (None, None)
    await refused(StoreChanged, store.roll_back("groq", current))
    assert of((await store.fetch(["groq"]))["groq"]) == ["gsk_new"]


@writable_stores
async def test_a_promotion_that_is_repeated_changes_nothing(bench: StoreBench, stores: NewStore) -> None:
    await bench.put("groq", ["gsk_old"])
    one, other = stores(), stores()
    version = await one.stage("groq", keys("gsk_new"))
    current = await one.promote("groq", version)
    before = await other.versions("groq")
    assert await other.promote("groq", current) == current
    assert await other.promote("groq", version) == current
    assert await one.versions("groq") == before
    assert of(before.previous) == ["gsk_old"]


@writable_stores
async def test_what_is_staged_last_is_what_is_pending(bench: StoreBench, stores: NewStore) -> None:
    await bench.put("groq", ["gsk_old"])
    store = stores()
    first = await store.stage("groq", keys("gsk_new"))
    second = await store.stage("groq", keys("gsk_newer"))
    assert first != second
    assert of((await store.versions("groq")).pending) == ["gsk_newer"]
    error = await refused(StoreChanged, store.promote("groq", first))
    assert "groq" in str(error).lower()
    assert of((await store.versions("groq")).current) == ["gsk_old"]
    await store.promote("groq", second)
    assert of((await store.versions("groq")).current) == ["gsk_newer"]


@writable_stores
async def test_what_was_never_staged_is_not_promoted(bench: StoreBench, stores: NewStore) -> None:
    store = stores()
    await refused(StoreChanged, store.promote("groq", "0" * 32))
    await bench.put("groq", ["gsk_old"])
    await refused(StoreChanged, store.promote("groq", "0" * 32))
    assert of((await store.fetch(["groq"]))["groq"]) == ["gsk_old"]


@writable_stores
async def test_rolling_back_brings_the_previous_keys_into_force(bench: StoreBench, stores: NewStore) -> None:
    await bench.put("groq", ["gsk_old", "gsk_older"])
    store = stores()
    current = await store.promote("groq", await store.stage("groq", keys("gsk_new")))
    back = await store.roll_back("groq", current)
    versions = await stores().versions("groq")
    assert of(versions.current) == ["gsk_old", "gsk_older"]
    assert versions.current is not None
    assert versions.current.version == back
    assert of(versions.previous) == ["gsk_new"]
    assert versions.pending is None


@writable_stores
async def test_only_the_keys_that_are_meant_are_rolled_back(bench: StoreBench, stores: NewStore) -> None:
    await bench.put("groq", ["gsk_one"])
    store = stores()
    await refused(StoreChanged, store.roll_back("groq", (await store.fetch(["groq"]))["groq"].version))
    second = await store.replace("groq", keys("gsk_two"))
    await store.replace("groq", keys("gsk_three"))
    error = await refused(StoreChanged, store.roll_back("groq", second))
    assert "groq" in str(error).lower()
    versions = await store.versions("groq")
    assert of(versions.current) == ["gsk_three"]
    assert of(versions.previous) == ["gsk_two"]
    await refused(StoreChanged, store.roll_back("openrouter", second))


@writable_stores
async def test_a_rotation_can_follow_a_rollback_and_a_replacement(
    bench: StoreBench, stores: NewStore
) -> None:
    await bench.put("groq", ["gsk_one"])
    store = stores()
    current = await store.promote("groq", await store.stage("groq", keys("gsk_two")))
    await store.roll_back("groq", current)
    await store.promote("groq", await store.stage("groq", keys("gsk_three")))
    versions = await store.versions("groq")
    assert (of(versions.current), of(versions.previous)) == (["gsk_three"], ["gsk_one"])
    await store.replace("groq", keys("gsk_four"))
    versions = await store.versions("groq")
    assert (of(versions.current), of(versions.previous)) == (["gsk_four"], ["gsk_three"])
    assert versions.pending is None


@writable_stores
async def test_replacing_leaves_what_is_pending(bench: StoreBench, stores: NewStore) -> None:
    await bench.put("groq", ["gsk_one"])
    store = stores()
    staged = await store.stage("groq", keys("gsk_three"))
    await store.replace("groq", keys("gsk_two"))
    versions = await store.versions("groq")
    assert (of(versions.current), of(versions.pending)) == (["gsk_two"], ["gsk_three"])
    await store.promote("groq", staged)
    versions = await store.versions("groq")
    assert (of(versions.current), of(versions.previous)) == (["gsk_three"], ["gsk_two"])


@writable_stores
async def test_what_is_discarded_is_pending_no_more(bench: StoreBench, stores: NewStore) -> None:
    store = stores()
    await store.discard("groq")  # nothing is there
    await bench.put("groq", ["gsk_one"])
    await store.discard("groq")  # nothing is pending
    version = await store.stage("groq", keys("gsk_two"))
    await store.discard("groq")
    assert (await store.versions("groq")).pending is None
    await refused(StoreChanged, store.promote("groq", version))
    assert of((await store.fetch(["groq"]))["groq"]) == ["gsk_one"]


@writable_stores
async def test_writers_of_different_providers_lose_nothing_of_each_other(
    bench: StoreBench, stores: NewStore
) -> None:
    providers = ["groq", "openrouter", "deepseek", "gemini", "ocr_space", "my_lab"]
    await bench.put("huggingface", ["hf_one"])
    await asyncio.gather(*(stores().replace(one, keys(f"key_of_{one}")) for one in providers))
    found = await stores().fetch([*providers, "huggingface"])
    assert {name: of(one) for name, one in found.items()} == {
        **{one: [f"key_of_{one}"] for one in providers},
        "huggingface": ["hf_one"],
    }


@writable_stores
async def test_writers_of_one_provider_are_put_in_an_order_or_told(
    bench: StoreBench, stores: NewStore
) -> None:
    await bench.put("groq", ["gsk_old"])
    names = [f"gsk_of_writer_{number}" for number in range(5)]
    done = await asyncio.gather(
        *(stores().replace("groq", keys(name)) for name in names), return_exceptions=True
    )
    written = [name for name, one in zip(names, done, strict=True) if isinstance(one, str)]
    assert written
    assert all(isinstance(one, str | StoreChanged) for one in done), done
    versions = await stores().versions("groq")
    current, previous = of(versions.current), of(versions.previous)
    assert current is not None
    assert previous is not None
    assert current[0] in written
    # What is previous is what some writer found there; with one writer, the oldest keys of all.
    assert previous[0] in (set(written) - set(current) if len(written) > 1 else {"gsk_old"})


@writable_stores
async def test_a_promotion_and_a_rollback_at_once_end_in_one_of_both_states(
    bench: StoreBench, stores: NewStore
) -> None:
    await bench.put("groq", ["gsk_one"])
    current = await stores().promote("groq", await stores().stage("groq", keys("gsk_two")))
    staged = await stores().stage("groq", keys("gsk_three"))
    done = await asyncio.gather(
        stores().promote("groq", staged), stores().roll_back("groq", current), return_exceptions=True
    )
    assert all(isinstance(one, str | StoreChanged) for one in done), done
    versions = await stores().versions("groq")
    pair = (of(versions.current), of(versions.previous))
    assert pair in [
        (["gsk_three"], ["gsk_two"]),  # the promotion alone
        (["gsk_one"], ["gsk_two"]),  # the rollback alone
        (["gsk_three"], ["gsk_one"]),  # the rollback, then the promotion
    ]


@writable_stores
async def test_several_that_promote_the_same_keys_agree(bench: StoreBench, stores: NewStore) -> None:
    await bench.put("groq", ["gsk_old"])
    version = await stores().stage("groq", keys("gsk_new"))
    done = await asyncio.gather(*(stores().promote("groq", version) for _ in range(4)))
    assert len(set(done)) == 1
    versions = await stores().versions("groq")
    assert (of(versions.current), of(versions.previous), of(versions.pending)) == (
        ["gsk_new"],
        ["gsk_old"],
        None,
    )


@writable_stores
async def test_what_cannot_be_read_as_keys_is_named_and_not_repeated(
    bench: StoreBench, stores: NewStore
) -> None:
    await bench.put("openrouter", ["sk-or-one"])
    await bench.spoil("groq", CANARY)
    store = stores()
    reads: list[Callable[[], Awaitable[object]]] = [
        lambda: store.fetch(["openrouter", "groq"]),
        lambda: store.versions("groq"),
    ]
    for read in reads:
        error = await refused(StoreMalformed, read())
        assert str(error).startswith(f"{bench.name}: ")
        assert "groq" in str(error).lower()
    assert of((await store.fetch(["openrouter"]))["openrouter"]) == ["sk-or-one"]


@remote_stores
@pytest.mark.parametrize("trouble", ["take_away", "hang", "refuse"])
async def test_a_store_that_does_not_answer_is_an_error_in_time_and_comes_back(
    bench: StoreBench, stores: NewStore, trouble: str
) -> None:
    await bench.put("groq", ["gsk_old"])
    store = stores()
    assert of((await store.fetch(["groq"]))["groq"]) == ["gsk_old"]
    staged = await store.stage("groq", keys("gsk_new"))
    await getattr(bench, trouble)()
    kind = StoreRefused if trouble == "refuse" else StoreUnavailable
    actions: list[Callable[[], Awaitable[object]]] = [
        lambda: store.fetch(["groq", "openrouter"]),
        lambda: store.replace("groq", keys(CANARY)),
        lambda: store.versions("groq"),
        lambda: store.stage("groq", keys(CANARY)),
        lambda: store.promote("groq", staged),
        lambda: store.discard("groq"),
    ]
    for action in actions[:2] if trouble == "hang" else actions:  # each hangs for its whole time
        begun = time.monotonic()
        error = await refused(kind, action())
        assert time.monotonic() - begun < 6
        assert str(error).startswith(f"{bench.name}: ")
        assert error.store == bench.name
    await bench.bring_back()
    versions = await store.versions("groq")
    assert (of(versions.current), of(versions.pending)) == (["gsk_old"], ["gsk_new"])
    await store.promote("groq", staged)
    assert of((await store.fetch(["groq"]))["groq"]) == ["gsk_new"]


@remote_stores
async def test_a_store_that_is_away_for_a_moment_is_asked_again(bench: StoreBench, stores: NewStore) -> None:
    await bench.put("groq", ["gsk_one"])
    store = stores()
    await bench.take_away()
    asking = asyncio.create_task(store.fetch(["groq"]))
    await asyncio.sleep(0.15)
    await bench.bring_back()
    assert of((await asking)["groq"]) == ["gsk_one"]


@remote_stores
async def test_a_store_that_hangs_holds_up_nothing_else(bench: StoreBench, stores: NewStore) -> None:
    await bench.put("groq", ["gsk_one"])
    store = stores()
    await store.fetch(["groq"])
    await bench.hang()
    asking = asyncio.create_task(store.fetch(["groq"]))
    longest, last = 0.0, time.monotonic()
    while not asking.done():
        await asyncio.sleep(0.005)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    assert longest < 0.3
    await refused(StoreUnavailable, asking)


@remote_stores
async def test_whoever_is_cancelled_leaves_a_store_that_works(bench: StoreBench, stores: NewStore) -> None:
    await bench.put("groq", ["gsk_one"])
    store = stores()
    await store.fetch(["groq"])
    await bench.hang()
    asking = asyncio.create_task(store.replace("groq", keys("gsk_two")))
    await asyncio.sleep(0.05)
    asking.cancel()
    begun = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert time.monotonic() - begun < 3
    await bench.bring_back()
    assert of((await store.fetch(["groq"]))["groq"]) == ["gsk_one"]
    await store.replace("groq", keys("gsk_three"))
    assert of((await store.fetch(["groq"]))["groq"]) == ["gsk_three"]


@remote_stores
async def test_a_store_that_is_closed_answers_with_an_error(bench: StoreBench) -> None:
    await bench.put("groq", ["gsk_one"])
    unused, store = bench.store(), bench.store()
    await unused.close()
    assert isinstance(bench, AwsBench | VaultBench)
    # More than there are threads: some still wait for one.
    under_way = [asyncio.create_task(store.fetch(["groq"])) for _ in range(12)]
    while not bench.gate.passed:
        await asyncio.sleep(0.001)
    await store.close()
    for one in under_way:
        assert of((await one)["groq"]) == ["gsk_one"]
    await refused(StoreUnavailable, store.fetch(["groq"]))
    await store.close()


@every_store
async def test_a_store_is_closed_cleanly(bench: StoreBench) -> None:
    before = asyncio.all_tasks()
    store = bench.store()
    await store.fetch(["groq"])
    await store.close()
    assert {one for one in asyncio.all_tasks() - before if one.get_name() == "vault-renewal"} == set()
