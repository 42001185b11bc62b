"""One look tells a query all that it needs, of one user, at one moment."""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

import numpy as np
import pytest
import pytest_asyncio

from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database
from baatcheet.search import store
from baatcheet.search.indexing import Indexer
from baatcheet.search.query import parse
from baatcheet.search.ranking import Wanted, rank
from baatcheet.search.segments import TITLE
from baatcheet.search.store import Overtaken, Scope, SearchStore
from baatcheet.search.terms import Analysis, analyse
from tests.search.owner import Owner


@pytest_asyncio.fixture
async def owner(database: Database) -> Owner:
    return await Owner.make(database)


async def index(owner: Owner) -> None:
    await Indexer(owner.db).catch_up(owner.id)


async def test_a_message_is_found_in_the_commit_that_stores_it(owner: Owner) -> None:
    talk = await owner.talk("harvest")
    async with owner.db.hot() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(
            "INSERT INTO messages (id, conversation_id, user_id, role, content) VALUES ($1, $2, $3, 'user', 'wheat')",
            message := new_id(),
            talk,
            owner.id,
        )
        assert await owner.found("wwheat") == set()
        await transaction.commit()
    assert await owner.found("wwheat") == {(message, 0)}
    (shown,) = [one for one in (await owner.store.look_up(owner.id, [])).fresh if one.kind == "message"]
    assert (shown.text, shown.role, shown.model, shown.conversation_id) == ("wheat", "user", None, talk)
    assert await owner.found("wharvest") == {(talk, TITLE)}


async def test_a_user_finds_nothing_of_another(owner: Owner) -> None:
    other = await Owner.make(owner.db)
    talk = await other.talk("private")
    await other.say(talk, ["private words"])
    for _ in range(2):
        view = await owner.store.look_up(owner.id, ["wprivate"], ["pri"])
        assert (view.segments, view.fresh, view.waiting) == ([], [], 0)
        await index(other)
    (segment,) = (await other.store.look_up(other.id, [])).segments
    places = [(segment.id, number) for number in range(segment.count)]
    with pytest.raises(Overtaken):
        await owner.store.documents(owner.id, places)
    assert await owner.store.words(owner.id, ["p"]) == set()
    assert all(await other.store.documents(other.id, places))


async def test_the_second_wall_stands(owner: Owner) -> None:
    other = await Owner.make(owner.db)
    for one in (owner, other):
        await one.say(await one.talk("a title"), ["a text", "long " * 2_000])
        await index(one)
    tables = ("search_segments", "search_documents", "search_terms", "search_words", "search_pieces")
    async with owner.db.tenant(owner.id) as session:
        connection = await session.connection()
        for table in tables:
            seen = await connection.exec_driver_sql(f"SELECT DISTINCT user_id FROM {table}")
            assert seen.scalars().all() == [owner.id], table
    for function in ("search_look_up", "search_documents_at"):
        rows = await owner.run(
            "SELECT has_function_privilege('baatcheet_tenant', oid, 'EXECUTE') FROM pg_proc WHERE proname = $1",
            function,
        )
        assert [row[0] for row in rows] == [False]


async def test_a_tenant_who_writes_or_deletes_by_themselves_keeps_the_index_right(owner: Owner) -> None:
    talk = await owner.talk("first")
    await index(owner)
    async with owner.db.tenant(owner.id) as session:
        connection = await session.connection()
        await connection.exec_driver_sql("UPDATE conversations SET title = 'second'")
    assert await owner.found("wsecond") == {(talk, TITLE)}
    assert await owner.found("wfirst") == set()
    async with owner.db.tenant(owner.id) as session:
        await (await session.connection()).exec_driver_sql("DELETE FROM conversations")
    assert await owner.found("wsecond") == set()
    assert talk.bytes in (await owner.store.look_up(owner.id, [])).removed


async def test_a_scope_is_the_conversations_that_are_all_of_it(owner: Owner) -> None:
    project = new_id()
    await owner.run("INSERT INTO projects (id, user_id, name) VALUES ($1, $2, 'p')", project, owner.id)
    plain = await owner.talk("tree")
    filed = await owner.talk("tree", project_id=project)
    old = await owner.talk("tree", project_id=project, archived=True)
    tagged = await owner.talk("tree", tags=["green"], archived=True)
    scopes: list[tuple[Scope, set[UUID]]] = [
        (Scope(), {plain, filed, old, tagged}),
        (Scope(archived=False), {plain, filed}),
        (Scope(archived=True), {old, tagged}),
        (Scope(project_id=project), {filed, old}),
        (Scope(project_id=project, archived=True), {old}),
        (Scope(tag="green"), {tagged}),
        (Scope(tag="green", archived=False), set()),
        (Scope(conversation_id=filed), {filed}),
        (Scope(conversation_id=filed, archived=True), set()),
        (Scope(conversation_id=new_id()), set()),
        (Scope(tag="green", project_id=project), set()),
    ]
    for _ in range(2):
        for scope, wanted in scopes:
            assert {talk for talk, _ in await owner.found("wtree", scope=scope)} == wanted, scope
        await index(owner)
    assert (await owner.store.look_up(owner.id, [], scope=Scope())).scope is None
    stranger = await Owner.make(owner.db)
    assert (
        await stranger.store.look_up(stranger.id, [], scope=Scope(conversation_id=plain))
    ).scope == frozenset()


async def test_a_prefix_stands_for_the_words_that_begin_so(owner: Owner) -> None:
    await owner.say(await owner.talk(), ["carpet cardigan car", "care cat", "کتابیں کتاب"])
    await index(owner)
    view = await owner.store.look_up(owner.id, ["wcat"], ["car", "care", "کتا", "zeb", "carpets"])
    (segment,) = view.segments
    assert segment.prefixes["car"] == ["wcar", "wcardigan", "wcare", "wcarpet"]
    assert segment.prefixes["care"] == ["wcare"]
    assert len(segment.prefixes["کتا"]) == 2
    assert not segment.prefixes.get("zeb")
    assert not segment.prefixes.get("carpets")
    assert {"wcar", "wcare", "wcardigan", "wcarpet", "wcat"} <= segment.postings.keys()


async def test_of_very_many_words_with_a_prefix_the_frequent_ones_are_taken(owner: Owner) -> None:
    words = [f"pre{a}{b}{c}" for a in "abcdefgh" for b in "abcdefgh" for c in "abcdefgh"]
    frequent = set(words[::3])
    await owner.say(await owner.talk(), [" ".join(words), *[" ".join(sorted(frequent))] * 20])
    await index(owner)
    (segment,) = (await owner.store.look_up(owner.id, [], ["pre"])).segments
    assert len(segment.prefixes["pre"]) == 200 - max(0, 200 - len(words))
    wanted = {"w" + word for word in frequent}
    assert len(wanted & set(segment.prefixes["pre"])) == min(200, len(wanted))
    assert set(segment.prefixes["pre"]) <= segment.postings.keys()


async def test_words_are_those_in_segments_by_their_first_letters(owner: Owner) -> None:
    talk = await owner.talk()
    await owner.say(talk, ["bread apple", "butter آم"])
    await index(owner)
    await owner.say(talk, ["bread " * 100] * 70 + ["beer", "apricot"])
    await index(owner)
    assert await owner.store.words(owner.id, ["b"]) == {"beer", "bread", "butter"}
    assert {"apple", "apricot", "beer"} <= await owner.store.words(owner.id, ["a", "b"])
    assert await owner.store.words(owner.id, []) == set()


async def test_documents_come_in_the_order_of_their_places_with_none_for_what_is_gone(owner: Owner) -> None:
    talk, gone = await owner.talk("a talk"), await owner.talk("gone")
    first, second = await owner.say(talk, ["first", "second"], role="assistant", model="m")
    await owner.say(gone, ["third"])
    await index(owner)
    (segment,) = (await owner.store.look_up(owner.id, [])).segments
    every = [(segment.id, number) for number in range(segment.count)]
    by_id = {
        (one.id, one.kind): (one, place)
        for place, one in zip(every, await owner.store.documents(owner.id, every), strict=True)
        if one
    }
    assert len(by_id) == 5
    shown, place = by_id[second, "message"]
    assert (shown.text, shown.role, shown.model, shown.title) == ("second", "assistant", "m", "a talk")
    assert by_id[talk, "title"][0].text == "a talk"
    places = [place, (segment.id, 99), by_id[first, "message"][1], place]
    found = await owner.store.documents(owner.id, places)
    assert [one and one.id for one in found] == [second, None, first, second]
    with pytest.raises(Overtaken):
        await owner.store.documents(owner.id, [place, (10**12, 0)])
    await owner.run("UPDATE conversations SET deleted_at = now() WHERE id = $1", gone)
    assert sum(one is None for one in await owner.store.documents(owner.id, every)) == 2
    await owner.run("UPDATE conversations SET deleted_at = NULL WHERE id = $1", gone)
    await owner.delete(gone)
    assert sum(one is None for one in await owner.store.documents(owner.id, every)) == 2
    assert await owner.store.documents(owner.id, []) == []


async def test_segments_are_sorted_and_their_columns_are_sent_once(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = await owner.talk("a title")
    for _ in range(3):
        await owner.say(talk, ["some words"] * 70)
        await index(owner)
    first = await owner.store.look_up(owner.id, [])
    second = await owner.store.look_up(owner.id, [])
    assert [one.id for one in first.segments] == sorted(one.id for one in first.segments)
    for one, other in zip(first.segments, second.segments, strict=True):
        assert one.created is other.created
        assert np.all(np.diff(one.created) >= 0)
        assert len(one.created) == len(one.conversations) == one.count
        assert one.conversation_ids == [talk.bytes]
    # Where there is no room for any, every look brings them again.
    monkeypatch.setattr(store, "COLUMNS_BYTES", 0)
    small = SearchStore(owner.db)
    for _ in range(2):
        again = await small.look_up(owner.id, ["wsome"])
        assert [one.created.tolist() for one in again.segments] == [
            one.created.tolist() for one in first.segments
        ]


async def test_a_fresh_text_is_sent_and_analysed_once(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    analysed: list[str] = []

    def noted(text: str) -> Analysis:
        analysed.append(text)
        return analyse(text)

    monkeypatch.setattr(store, "analyse", noted)
    talk = await owner.talk("a title")
    await owner.say(talk, ["one text", "another"])
    for _ in range(3):
        assert await owner.found("wtext") != set()
    assert sorted(analysed) == ["a title", "another", "one text"]
    await owner.rename(talk, "a new title")
    assert await owner.found("wnew") == {(talk, TITLE)}
    assert len(analysed) == 4
    # With next to no room to remember, every user is still answered.
    monkeypatch.setattr(store, "FRESH_PIECES", 1)
    other = await Owner.make(owner.db)
    other.store = owner.store
    await other.say(await other.talk(), ["other text"])
    for _ in range(2):
        assert len(await owner.found("wtext")) == 1
        assert len(await other.found("wtext")) == 1


async def test_what_is_too_much_to_analyse_is_said_to_wait(owner: Owner) -> None:
    talk = await owner.talk()
    await owner.say(talk, ["early"] * 150)
    await owner.say(talk, ["late"])
    view = await owner.store.look_up(owner.id, [])
    assert (len(view.fresh), view.waiting) == (100, 51)
    await owner.say(talk, ["large " * 9_000, "larger " * 8_000, "largest " * 7_000])
    view = await owner.store.look_up(owner.id, [])
    assert view.waiting == 54 + 1  # the texts of the newest two are enough for one query
    assert {word for one in view.fresh for word in one.analysis.words} == {
        "early",
        "late",
        "larger",
        "largest",
    }
    await owner.say(talk, ["huge " * 13_000])
    view = await owner.store.look_up(owner.id, [])
    assert view.waiting == 55 + 1  # the one that is too long for a query
    assert {"large", "huge"} & {word for one in view.fresh for word in one.analysis.words} == {"large"}
    await index(owner)
    assert (await owner.store.look_up(owner.id, [])).waiting == 0
    assert len(await owner.found("wearly")) == 150


async def test_looks_and_flushes_at_once_never_lose_a_message(owner: Owner) -> None:
    talk = await owner.talk()
    sent = 0
    done = False

    async def write() -> None:
        nonlocal sent, done
        for _ in range(25):
            await owner.say(talk, ["wheat"] * 4)
            sent += 4
        done = True

    async def flush() -> None:
        while not done:
            await index(owner)

    async def look(seen: Callable[[], Awaitable[int]]) -> None:
        while not done:
            before = sent
            assert before <= await seen() <= sent + 4

    async def seen() -> int:
        view = await owner.store.look_up(owner.id, ["wwheat"])
        found = [one.id for one in view.fresh]
        in_segments = sum(one.count for one in view.segments)
        assert view.waiting == 0
        return len(found) + in_segments

    async with asyncio.TaskGroup() as tasks:
        for work in (write(), flush(), look(seen)):
            tasks.create_task(work)


@pytest.mark.parametrize("of_others", [1, 20], ids=["most is deleted", "little is deleted"])
async def test_what_is_deleted_takes_no_place_among_what_is_ranked(owner: Owner, of_others: int) -> None:
    """Else a page would be read again and again, to find what can be shown."""
    gone = [await owner.talk() for _ in range(3)]
    there = [await owner.talk() for _ in range(of_others)]
    for talk in (*gone, *there):
        await owner.say(talk, ["a heron"])
    await Indexer(owner.db).catch_up(owner.id)
    for talk in (*gone, *there):
        await owner.say(talk, ["another heron"])  # in no segment yet
    await owner.run("UPDATE conversations SET deleted_at = now() WHERE id = ANY($1::uuid[])", gone)
    wanted = Wanted(parse("heron"))

    view = await owner.store.look_up(owner.id, wanted.terms())
    view = view._replace(fresh=sorted(view.fresh, key=lambda one: one.created))
    places = rank(view, wanted, None, 1_000, ()).places

    assert len(places) == 2 * len(there)
