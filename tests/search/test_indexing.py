"""However documents come and go, the index says what a look at all of them would."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from baatcheet.platform.database import Database, DatabaseUnavailable
from baatcheet.search import indexing, segments
from baatcheet.search.indexing import Indexer
from baatcheet.search.segments import TITLE
from baatcheet.search.terms import analyse
from tests.search.owner import Owner


@pytest_asyncio.fixture
async def owner(database: Database) -> Owner:
    return await Owner.make(database)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments that are merged when they have a handful of documents."""
    for module in (indexing, segments):
        monkeypatch.setattr(module, "SMALLEST", 3)
    monkeypatch.setattr(segments, "FAN_IN", 3)


async def until(done: Callable[[], Awaitable[bool]], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not await done():
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def running(indexer: Indexer) -> AsyncIterator[None]:
    task = asyncio.create_task(indexer.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


WORDS = ("کتب", "kitaab", "snake_case", "पानी", "one")
WORD = st.sampled_from(["tree", *WORDS])
TEXT = st.lists(WORD, min_size=1, max_size=5).map(" ".join)
TALK = st.integers(0, 3)
ACTION = st.one_of(
    st.tuples(st.just("say"), TALK, st.lists(TEXT, min_size=1, max_size=6)),
    st.tuples(st.just("say"), TALK, st.lists(TEXT, min_size=1, max_size=6)),
    st.tuples(st.just("rename"), TALK, TEXT),
    st.tuples(st.just("delete"), TALK, st.none()),
    st.tuples(st.just("hide"), TALK, st.booleans()),
    st.tuples(st.just("index"), TALK, st.none()),
    st.tuples(st.just("index"), TALK, st.none()),
    st.tuples(st.just("look"), TALK, st.none()),
)


class Model:
    """What there is, kept as simply as can be."""

    def __init__(self) -> None:
        self.talks: dict[int, UUID] = {}
        self.texts: dict[tuple[UUID, int], tuple[int, str]] = {}
        self.hidden: set[int] = set()

    def having(self, term: str) -> set[tuple[UUID, int]]:
        return {
            document
            for document, (talk, text) in self.texts.items()
            if talk not in self.hidden and term in analyse(text).terms
        }


async def act(owner: Owner, model: Model, action: tuple[str, int, object]) -> None:
    what, talk, value = action
    if what == "index":
        await Indexer(owner.db).catch_up(owner.id)
        return
    if what == "look":
        await owner.store.look_up(owner.id, ["wtree"])
        return
    if talk not in model.talks:
        model.talks[talk] = await owner.talk("one tree")
        model.texts[model.talks[talk], TITLE] = (talk, "one tree")
    there = model.talks[talk]
    if what == "say":
        assert isinstance(value, list)
        for message, text in zip(await owner.say(there, value), value, strict=True):
            model.texts[message, 0] = (talk, text)
    elif what == "rename":
        await owner.rename(there, str(value))
        model.texts[there, TITLE] = (talk, str(value))
    elif what == "hide":
        sql = "UPDATE conversations SET deleted_at = CASE WHEN $2 THEN now() END WHERE id = $1"
        await owner.run(sql, there, value)
        (model.hidden.add if value else model.hidden.discard)(talk)
    else:
        await owner.delete(there)
        del model.talks[talk]
        model.hidden.discard(talk)
        model.texts = {key: said for key, said in model.texts.items() if said[0] != talk}


@given(st.lists(ACTION, min_size=1, max_size=25))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_flushes_merges_and_deletions_in_any_order_say_what_a_scan_would(
    small: None, database: Database, actions: list[tuple[str, int, object]]
) -> None:
    owner, model = await Owner.make(database), Model()
    terms = ["wtree", *("w" + word for word in WORDS), "rkitab", "wsnake", "pon"]
    for action in actions:
        await act(owner, model, action)
    for _ in range(2):
        view = await owner.store.look_up(owner.id, terms)
        assert view.waiting == 0
        found = await owner.shown(view, terms)
        assert found == {term: model.having(term) for term in terms}
        await Indexer(database).catch_up(owner.id)
    assert await owner.waiting() == 0
    assert await owner.run("SELECT FROM search_removed WHERE user_id = $1", owner.id) == []
    assert sum(await owner.segments()) >= len(model.texts)


async def test_of_a_deleted_conversation_no_word_stays(owner: Owner) -> None:
    kept, gone = await owner.talk("kept"), await owner.talk("confidential")
    await owner.say(kept, ["an everyday matter"])
    await owner.say(gone, ["the secretword", "long " * 1_500 + "secretword"])
    await Indexer(owner.db).catch_up(owner.id)
    assert len(await owner.found("wsecretword")) == 2
    await owner.delete(gone)
    assert await owner.found("wsecretword") == set()
    await Indexer(owner.db).catch_up(owner.id)
    rows = await owner.run(
        "SELECT payload FROM search_terms WHERE user_id = $1 UNION ALL "
        "SELECT convert_to(words, 'UTF8') FROM search_words WHERE user_id = $1 UNION ALL "
        "SELECT convert_to(content, 'UTF8') FROM search_pieces WHERE user_id = $1",
        owner.id,
    )
    assert len(rows) > 2
    for word, there in ((b"secretword", False), (b"confidential", False), (b"everyday", True)):
        assert any(word in row[0] for row in rows) == there


async def test_many_flushes_leave_few_segments(owner: Owner) -> None:
    talk = await owner.talk()
    indexer = Indexer(owner.db)
    for n in range(9):
        await owner.say(talk, [f"flush number{n}"] * 65)
        await indexer.catch_up(owner.id)
    assert await owner.segments() == [65, 520]
    await owner.say(talk, ["few"])
    await indexer.catch_up(owner.id)
    await owner.say(talk, ["more"])
    await indexer.catch_up(owner.id)
    assert await owner.segments() == [2, 65, 520]
    assert len(await owner.found("wflush")) == 585


async def test_a_long_message_is_indexed_in_pieces_that_are_shown(owner: Owner) -> None:
    text = "\n".join(f"line{n} of a very long text" for n in range(2_000))
    (message,) = await owner.say(await owner.talk(), [text])
    await Indexer(owner.db).catch_up(owner.id)
    for line in ("line0", "line1000", "line1999"):
        (document,) = await owner.documents("w" + line)
        assert document is not None
        assert document.id == message
        assert line in document.text.split()
        assert len(document.text) <= 8_000
    pieces = len(await owner.documents("wlong"))
    assert pieces == len(await owner.found("wlong")) > 8
    assert await owner.found("kpart") == {(message, part) for part in range(1, pieces)}


async def test_roles_models_and_titles_are_terms_of_their_own(owner: Owner) -> None:
    talk = await owner.talk("a title")
    (asked,) = await owner.say(talk, ["asked"])
    (told,) = await owner.say(talk, ["told"], role="assistant", model="openai/gpt-4o")
    await Indexer(owner.db).catch_up(owner.id)
    assert await owner.found("krole:user") == {(asked, 0)}
    assert await owner.found("krole:assistant") == {(told, 0)}
    assert await owner.found("kmodel:openai/gpt-4o") == {(told, 0)}
    assert await owner.found("ktitle") == {(talk, TITLE)}


async def test_what_was_there_before_is_indexed_from_one_mark(owner: Owner) -> None:
    talk = await owner.talk("an old title")
    await owner.say(talk, ["an old message"] * 3)
    # As a migration leaves it, with a message that was written after.
    await owner.run("DELETE FROM search_fresh WHERE user_id = $1", owner.id)
    await owner.run("INSERT INTO search_fresh (user_id, kind, id) VALUES ($1, 'everything', $1)", owner.id)
    await owner.say(talk, ["an old message"])
    await Indexer(owner.db).catch_up(owner.id)
    assert len(await owner.found("wold")) == 5
    assert sum(await owner.segments()) == 5
    assert await owner.waiting() == 0


async def test_several_at_once_index_everything_once(owner: Owner) -> None:
    talk = await owner.talk()
    stop = False

    async def write() -> None:
        for _ in range(15):
            await owner.say(talk, ["written meanwhile"] * 5)

    async def keep_indexing() -> None:
        while not stop:
            await Indexer(owner.db).catch_up(owner.id)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(2):
            tasks.create_task(keep_indexing())
        await write()
        stop = True
    await Indexer(owner.db).catch_up(owner.id)
    assert sum(await owner.segments()) == 75
    assert len(await owner.found("wmeanwhile")) == 75


async def test_a_conversation_that_is_deleted_while_it_is_indexed_is_left_out(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk, other = await owner.talk(), await owner.talk()
    await owner.say(talk, ["vanishing"])
    await owner.say(other, ["staying"])
    indexer = Indexer(owner.db)
    replace, deleted = indexer._replace, False

    async def first_delete(*arguments: object, **named: object) -> None:
        nonlocal deleted
        if not deleted:
            deleted = True
            await owner.delete(talk)
            await Indexer(owner.db)._clean(owner.id)
        await replace(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(indexer, "_replace", first_delete)
    await indexer.catch_up(owner.id)
    assert await owner.segments() == [1]
    assert await owner.documents("wvanishing") == []
    assert len(await owner.documents("wstaying")) == 1


async def test_a_running_indexer_takes_what_is_many_or_old_and_forgets_what_is_deleted(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "PAUSE", 0.05)
    monkeypatch.setattr(indexing, "CLEAN_EVERY", 0.1)
    monkeypatch.setattr(indexing, "SOON", 1.0)
    talk = await owner.talk("a title")
    async with running(Indexer(owner.db)):
        await owner.say(talk, ["many"] * 40)
        await until(lambda: _is(owner.waiting, 0))
        await owner.say(talk, ["few"] * 2)
        await until(lambda: _is(owner.waiting, 0))
        assert sum(await owner.segments()) == 43
        await owner.delete(talk)
        await until(lambda: _is(owner.segments, []))


async def test_an_indexer_survives_a_database_that_is_away_and_a_user_whose_texts_fail(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "PAUSE", 0.05)
    monkeypatch.setattr(indexing, "SOON", 0.0)
    poor, indexer = await Owner.make(owner.db), Indexer(owner.db)
    flush, users, away = indexer._flush, indexer._users, 3

    async def fails_for_one(user: UUID) -> None:
        if user == poor.id:
            raise ValueError("a text that nobody foresaw")
        await flush(user)

    async def away_at_first(statement: str, *arguments: object) -> list[UUID]:
        nonlocal away
        if away:
            away -= 1
            raise DatabaseUnavailable("away")
        return await users(statement, *arguments)

    monkeypatch.setattr(indexer, "_flush", fails_for_one)
    monkeypatch.setattr(indexer, "_users", away_at_first)
    for one in (poor, owner):
        await one.say(await one.talk(), ["hello"])
    async with running(indexer):
        await until(lambda: _is(owner.waiting, 0))
    assert await poor.waiting() == 1
    assert await owner.segments() == [1]


async def test_a_user_who_is_deleted_leaves_nothing(owner: Owner) -> None:
    talk = await owner.talk("a title")
    await owner.say(talk, ["a text", "x " * 5_000])
    await Indexer(owner.db).catch_up(owner.id)
    await owner.say(talk, ["fresh"])
    await owner.delete(await owner.talk("gone"))
    await owner.run("DELETE FROM users WHERE id = $1", owner.id)
    tables = ("fresh", "removed", "segments", "documents", "terms", "words", "pieces", "leases")
    for table in tables:
        assert await owner.run(f"SELECT FROM search_{table} WHERE user_id = $1", owner.id) == [], table
    await Indexer(owner.db).catch_up(owner.id)


async def test_a_user_who_is_being_deleted_holds_nobody_up(owner: Owner, database: Database) -> None:
    other = await Owner.make(database)
    for one in (owner, other):
        await one.say(await one.talk(), [f"text {number}" for number in range(20)])
    async with database.hot(limit=60) as connection, connection.transaction():
        await connection.execute("SELECT FROM users WHERE id = $1 FOR UPDATE", owner.id)
        running = asyncio.create_task(Indexer(database).run())
        try:
            async with asyncio.timeout(20):
                while await other.run("SELECT FROM search_fresh WHERE user_id = $1", other.id):
                    await asyncio.sleep(0.1)
            await connection.execute("DELETE FROM users WHERE id = $1", owner.id)
        except BaseException:
            running.cancel()
            raise
    await asyncio.sleep(2)
    assert not running.done(), "it outlives a user"
    running.cancel()


async def test_a_waiting_row_shows_nobody_elses_message(owner: Owner, database: Database) -> None:
    other = await Owner.make(database)
    talk = await owner.talk()
    (hers,) = await other.say(await other.talk(), ["the secret of the marmot"])
    await owner.run(
        "INSERT INTO search_fresh (user_id, kind, id, conversation_id) VALUES ($1, 'message', $2, $3)",
        owner.id,
        hers,
        talk,
    )
    assert not (await owner.store.look_up(owner.id, ["wmarmot"])).fresh
    await Indexer(database).catch_up(owner.id)
    view = await owner.store.look_up(owner.id, ["wmarmot"])
    assert not any(one.postings for one in view.segments)


async def test_a_title_that_changed_is_found_by_its_new_words_alone(owner: Owner) -> None:
    talk = await owner.talk("before")
    await Indexer(owner.db).catch_up(owner.id)
    await owner.rename(talk, "after")
    for _ in range(2):
        assert await owner.found("wbefore") == set()
        assert await owner.found("wafter") == {(talk, TITLE)}
        await Indexer(owner.db).catch_up(owner.id)
    assert await owner.documents("wbefore") == []
    await owner.rename(talk, "")
    assert await owner.found("wafter") == set()


async def _is(ask: Callable[[], Awaitable[object]], value: object) -> bool:
    return await ask() == value
