"""What a rotation leaves behind, however it goes."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from baatcheet.jobs.declaration import GiveUp, LeaseLost, TryAgain
from baatcheet.keys.probing import Probed
from baatcheet.keys.rotation.machine import Rotator
from baatcheet.keys.rotation.provisioners import name_of
from baatcheet.keys.secret import SecretKey
from baatcheet.kit.ids import new_id
from tests.keys.rotation.conftest import Bench
from tests.keys.rotation.fake_store import FakeRing, FakeStore


async def stage(bench: Bench, keys: list[str]) -> None:
    await bench.store.stage(bench.provider, [SecretKey(key) for key in keys])


async def test_all_keys_are_replaced_by_new_ones_of_the_providers_own_api(bench: Bench) -> None:
    old = await bench.has(3)
    bench.makes()
    row = await bench.rotate()
    assert (row.outcome, row.error) == ("rotated", None)
    current = await bench.set_of()
    assert len(current) == 3
    assert not set(current) & set(old)
    assert all(bench.fake.works(key) for key in current)
    assert not any(bench.fake.works(key) for key in old)
    assert [one.name for one in bench.fake.of(row.id)] == [name_of(row.id, number) for number in (1, 2, 3)]
    assert await bench.set_of("pending") == []
    assert bench.ring.refreshed >= 1
    assert row.detail["revoked"] == [bench.id(key) for key in old]
    (event,) = await bench.told()
    assert event[0] == "key.rotated"
    assert event[1]["reason"] == "3 new keys are in use instead of 3. 3 revoked at the provider."
    assert await bench.audited() == ["keys.rotated"]


async def test_what_was_staged_takes_the_place_of_all_and_the_old_ones_are_named_for_a_person(
    bench: Bench,
) -> None:
    old = await bench.has(2)
    new = bench.fake.sell(4)
    await stage(bench, new)
    row = await bench.rotate()
    assert row.outcome == "rotated"
    assert await bench.set_of() == new
    assert await bench.set_of("previous") == old
    assert row.detail["by_hand"] == [bench.id(key) for key in old]
    ((_, data),) = await bench.told()
    assert f"To be revoked by hand: {SecretKey(old[0]).hint}, {SecretKey(old[1]).hint}." in data["reason"]


async def test_a_key_that_stays_is_neither_probed_nor_revoked(bench: Bench) -> None:
    old = await bench.has(3)
    bench.makes()
    (new,) = bench.fake.sell(1)
    await stage(bench, [old[0], new])
    row = await bench.rotate()
    assert row.outcome == "rotated"
    assert await bench.set_of() == [old[0], new]
    assert [bench.fake.works(key) for key in old] == [True, False, False]


@pytest.mark.parametrize("staged", [False, True])
async def test_one_key_is_replaced_in_its_place(bench: Bench, staged: bool) -> None:
    old = await bench.has(3)
    bench.makes()
    if staged:
        await stage(bench, bench.fake.sell(1))
    row = await bench.rotate(bench.id(old[1]))
    assert row.outcome == "rotated"
    first, second, third = await bench.set_of()
    assert (first, third) == (old[0], old[2])
    assert second not in old
    assert [bench.fake.works(key) for key in (*old, second)] == [True, False, True, True]
    ((_, data),) = await bench.told()
    assert data["fingerprint"] == bench.id(old[1])


async def test_the_second_rotation_revokes_what_the_first_has_made(bench: Bench) -> None:
    await bench.has(2)
    bench.makes()
    await bench.rotate()
    between = await bench.set_of()
    row = await bench.rotate()
    assert row.outcome == "rotated"
    assert not any(bench.fake.works(key) for key in between)
    assert len(bench.fake.keys) == 2


async def test_new_keys_that_are_refused_are_never_used_and_are_deleted(bench: Bench) -> None:
    old = await bench.has(3)
    bench.makes()
    bench.fake.refuse_new = True
    row = await bench.rotate()
    assert row.outcome == "failed"
    assert row.error is not None
    assert row.error.startswith("3 of 3 new keys were refused.")
    assert await bench.set_of() == old
    assert await bench.set_of("pending") == []
    assert bench.fake.of(row.id) == []
    assert all(bench.fake.works(key) for key in old)
    assert [type_ for type_, _ in await bench.told()] == ["key.rotation_failed"]
    assert await bench.audited() == ["keys.failed"]


@pytest.mark.parametrize("one", [False, True])
async def test_staged_keys_that_are_refused_stay_staged_as_they_were(bench: Bench, one: bool) -> None:
    old = await bench.has(2)
    await stage(bench, ["gsk_not_a_key_of_theirs_0123456789"])
    row = await bench.rotate(bench.id(old[0]) if one else None)
    assert row.outcome == "failed"
    assert await bench.set_of() == old
    assert await bench.set_of("pending") == ["gsk_not_a_key_of_theirs_0123456789"]
    assert "gsk_not_a_key" not in f"{row.error}{row.detail}{await bench.told()}"


async def test_a_key_that_works_only_a_moment_later_is_waited_for(bench: Bench) -> None:
    await bench.has(1)
    bench.makes()
    asked: list[int] = []

    async def probe(_provider: str, _key: SecretKey) -> Probed:
        asked.append(1)
        return Probed("good" if len(asked) > 1 else "refused")

    bench.parts = replace(bench.parts, probe=probe)
    assert (await bench.rotate()).outcome == "rotated"


async def test_new_keys_that_are_quarantined_in_use_bring_the_old_ones_back(bench: Bench) -> None:
    old = await bench.has(2)
    bench.makes()
    bench.pace(watch=30.0)
    id_ = await bench.begin()
    running = asyncio.create_task(Rotator(bench.parts).run(id_))
    while (await bench.row(id_)).step != "watch":
        await asyncio.sleep(0.01)
    new = await bench.set_of()
    await bench.know(new)
    async with bench.db.system() as session:
        await session.execute(
            text("UPDATE provider_keys SET state = 'quarantined', reason = 'status 401' WHERE id = :id"),
            {"id": bench.id(new[1])},
        )
    assert await asyncio.wait_for(running, 20) == "rolled_back"
    row = await bench.row(id_)
    assert row.error == (
        f"1 of 2 new keys were refused in use. {SecretKey(new[1]).hint}: status 401. The old keys are in use again."
    )
    assert await bench.set_of() == old
    assert all(bench.fake.works(key) for key in old)
    assert bench.fake.of(id_) == []
    assert [type_ for type_, _ in await bench.told()] == ["key.rotation_failed"]


async def test_old_keys_are_not_revoked_while_a_process_uses_them_or_has_not_heard(bench: Bench) -> None:
    (old,) = await bench.has(1)
    bench.makes()
    bench.pace(watch=0.0, drain=30.0, serve=0.0)
    late = await bench.watcher(sets=0, in_flight=f'{{"{bench.id(old)}": 2}}')
    id_ = await bench.begin()
    running = asyncio.create_task(Rotator(bench.parts).run(id_))

    async def say(statement: str) -> None:
        async with bench.db.system() as session:
            await session.execute(text(statement), {"process": late, "key": bench.id(old)})

    while (await bench.row(id_)).step != "drain":
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    assert bench.fake.works(old)
    await say(
        "UPDATE key_watchers SET in_flight = jsonb_build_object(CAST(:key AS text), 1) "
        "WHERE process = :process"
    )
    await asyncio.sleep(0.2)
    assert bench.fake.works(old)
    assert not running.done()
    await say("UPDATE key_watchers SET in_flight = '{}' WHERE process = :process AND :key <> ''")
    assert await asyncio.wait_for(running, 20) == "rotated"
    assert not bench.fake.works(old)


async def test_a_request_that_never_ends_holds_a_rotation_up_for_a_while_only(bench: Bench) -> None:
    (old,) = await bench.has(1)
    bench.makes()
    await bench.watcher(sets=0, in_flight=f'{{"{bench.id(old)}": 2}}')
    row = await bench.rotate()
    assert row.outcome == "rotated"
    assert any("2 requests with them had not ended" in note for note in row.detail["notes"])


async def test_new_keys_that_a_process_does_not_serve_are_waited_for_and_then_given_up(bench: Bench) -> None:
    old = await bench.has(2)
    bench.makes()
    bench.pace(serve=0.1)
    await bench.watcher(sets=2**62, holds=f'["{bench.id(old[0])}"]')  # whatever it says to have read
    id_ = await bench.begin()
    with pytest.raises(TryAgain, match="1 of the old keys are still used by a process"):
        await Rotator(bench.parts).run(id_)
    bench.pace(serve=0.1, patience=0.0)
    assert await Rotator(bench.parts).run(id_) == "rolled_back"
    assert await bench.set_of() == old
    assert all(bench.fake.works(key) for key in old)
    assert "does not serve the new ones. The old keys are in use again." in str((await bench.row(id_)).error)


async def test_a_process_that_is_a_moment_late_is_waited_for(bench: Bench) -> None:
    (old,) = await bench.has(1)
    bench.makes()
    bench.pace(serve=20.0)
    late = await bench.watcher(sets=0, holds=f'["{bench.id(old)}"]')
    id_ = await bench.begin()
    running = asyncio.create_task(Rotator(bench.parts).run(id_))
    while (await bench.row(id_)).step != "serve":
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    assert not running.done()
    async with bench.db.system() as session:
        free = text("UPDATE key_watchers SET holds = '[]' WHERE process = :process")
        await session.execute(free, {"process": late})
    assert await asyncio.wait_for(running, 20) == "rotated"


async def test_a_key_that_a_process_takes_up_again_is_not_revoked(bench: Bench) -> None:
    first, second = await bench.has(2)
    bench.makes()
    bench.pace(watch=0.5, drain=0.1)
    id_ = await bench.begin()
    running = asyncio.create_task(Rotator(bench.parts).run(id_))
    while (await bench.row(id_)).step != "watch":
        await asyncio.sleep(0.01)
    await bench.watcher(sets=2**62, holds=f'["{bench.id(first)}"]')
    assert await asyncio.wait_for(running, 20) == "rotated"
    row = await bench.row(id_)
    assert bench.fake.works(first)
    assert not bench.fake.works(second)
    assert row.detail["by_hand"] == [bench.id(first)]
    assert "1 old keys are still in use by a process, and were not revoked." in row.detail["notes"]


async def test_new_keys_that_are_in_use_are_not_deleted_when_a_rotation_is_given_up(bench: Bench) -> None:
    await bench.has(1)
    bench.makes()
    id_ = await bench.begin()
    bench.pace(watch=600.0)
    running = asyncio.create_task(Rotator(bench.parts).run(id_))
    while (await bench.row(id_)).step != "watch":
        await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait([running])
    # Somebody sends it back to its beginning: the new keys look foreign to it then.
    async with bench.db.system() as session:
        await session.execute(
            text(
                "UPDATE key_rotations SET step = 'undo', detail = detail || jsonb_build_object('target', '[]'::jsonb) "
                "WHERE id = CAST(:id AS uuid)"
            ),
            {"id": id_},
        )
    assert await Rotator(bench.parts).run(id_) == "failed"
    assert all(bench.fake.works(key) for key in await bench.set_of())
    assert "1 keys that were made are in use" in str((await bench.row(id_)).error)


async def test_old_keys_that_somebody_has_brought_back_are_not_revoked(bench: Bench) -> None:
    old = await bench.has(2)
    bench.makes()
    bench.pace(watch=0.5)
    id_ = await bench.begin()
    running = asyncio.create_task(Rotator(bench.parts).run(id_))
    while (await bench.row(id_)).step != "watch":
        await asyncio.sleep(0.01)
    await bench.store.replace(bench.provider, [SecretKey(key) for key in old])
    assert await asyncio.wait_for(running, 20) == "failed"
    assert all(bench.fake.works(key) for key in old)
    assert "Old keys are in use again" in str((await bench.row(id_)).error)


async def refuses_to_begin(bench: Bench, key_id: str | None = None) -> str:
    before = await bench.set_of()
    row = await bench.rotate(key_id)
    assert row.outcome == "failed"
    assert await bench.set_of() == before
    return str(row.error)


async def test_what_can_not_begin_is_told_with_what_to_do(bench: Bench) -> None:
    old = await bench.has(1)
    assert "stage some (`baatcheet keys stage" in await refuses_to_begin(bench)
    assert "is none of" in await refuses_to_begin(bench, "0" * 32)
    await stage(bench, old)
    assert "Nothing new is staged" in await refuses_to_begin(bench)
    await stage(bench, bench.fake.sell(2))
    assert "2 new keys are staged; to replace one key" in await refuses_to_begin(bench, bench.id(old[0]))
    bench.store.writable = False
    assert "which is only read" in await refuses_to_begin(bench)


async def test_without_keys_there_is_nothing_to_replace(bench: Bench) -> None:
    ring = FakeRing(bench.store, empty=[bench.provider])
    bench.parts = replace(bench.parts, ring=ring)
    assert "There are no keys of" in str((await bench.rotate()).error)


async def test_an_api_that_is_away_is_tried_again_and_given_up_after_a_while(bench: Bench) -> None:
    old = await bench.has(2)
    bench.makes()
    id_ = await bench.begin()
    bench.fake.failures = [503]
    with pytest.raises(TryAgain, match="answered 503"):
        await Rotator(bench.parts).run(id_)
    assert "answered 503" in str((await bench.row(id_)).error)
    bench.pace(patience=0.0)
    bench.fake.failures = [503]
    assert await Rotator(bench.parts).run(id_) == "failed"
    assert await bench.set_of() == old


async def test_a_key_whose_making_was_not_answered_is_not_left_at_the_provider(bench: Bench) -> None:
    await bench.has(2)
    bench.makes()
    id_ = await bench.begin()
    bench.fake.lose_answers = True
    with pytest.raises(TryAgain):
        await Rotator(bench.parts).run(id_)
    assert len(bench.fake.of(id_)) == 1
    assert await Rotator(bench.parts).run(id_) == "rotated"
    assert len(bench.fake.keys) == 2


async def test_a_store_that_goes_away_after_the_promotion_holds_the_rotation_up_and_nothing_else(
    bench: Bench,
) -> None:
    await bench.has(2)
    bench.makes()
    bench.pace(watch=0.3, patience=0.0)
    id_ = await bench.begin()
    running = asyncio.create_task(Rotator(bench.parts).run(id_))
    while (await bench.row(id_)).step != "watch":
        await asyncio.sleep(0.01)
    bench.store.away = True
    with pytest.raises(TryAgain, match="it is away"):
        await running
    assert (await bench.row(id_)).outcome is None
    bench.store.away = False
    assert await Rotator(bench.parts).run(id_) == "rotated"


async def test_a_key_that_can_not_be_revoked_is_left_to_a_person_and_told(bench: Bench) -> None:
    old = await bench.has(1)
    bench.makes()
    bench.pace(watch=0.3)
    id_ = await bench.begin()
    running = asyncio.create_task(Rotator(bench.parts).run(id_))
    while (await bench.row(id_)).step != "watch":
        await asyncio.sleep(0.01)
    bench.fake.failures = [403]
    assert await running == "rotated"
    row = await bench.row(id_)
    assert row.detail["by_hand"] == [bench.id(old[0])]
    assert any("answered 403" in one for one in row.detail["notes"])


async def test_a_run_whose_place_was_taken_writes_no_more(bench: Bench) -> None:
    await bench.has(1)
    bench.makes()
    taken, go_on = asyncio.Event(), asyncio.Event()
    probe = bench.parts.probe

    async def slow(provider: str, key: SecretKey) -> Probed:
        taken.set()
        await go_on.wait()
        return await probe(provider, key)

    id_ = await bench.begin()
    held = asyncio.create_task(Rotator(replace(bench.parts, probe=slow)).run(id_))
    await taken.wait()
    assert await Rotator(bench.parts).run(id_) == "rotated"
    after = await bench.set_of()
    go_on.set()
    with pytest.raises(LeaseLost):
        await held
    assert await bench.set_of() == after
    assert len(await bench.told()) == 1


async def test_what_has_ended_is_not_run_again(bench: Bench) -> None:
    await bench.has(1)
    bench.makes()
    row = await bench.rotate()
    asked = len(bench.fake.asked)
    assert await Rotator(bench.parts).run(row.id) == "rotated"
    assert len(bench.fake.asked) == asked
    with pytest.raises(GiveUp):
        await Rotator(bench.parts).run(new_id())


async def test_no_row_event_or_audit_entry_holds_a_key(bench: Bench) -> None:
    old = await bench.has(2)
    bench.makes()
    row = await bench.rotate()
    new = await bench.set_of()
    written: list[Any] = [row.detail, row.error, await bench.told()]
    async with bench.db.system() as session:
        for table in ("key_rotations", "audit_entries", "provider_keys", "jobs", "outbox", "events"):
            written += (await session.scalars(text(f"SELECT to_jsonb(t)::text FROM {table} t"))).all()
    for key in (*old, *new):
        assert key not in str(written)
        assert key[9:] not in str(written)
    assert FakeStore(bench.path).name == row.store
