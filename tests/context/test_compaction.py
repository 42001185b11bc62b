"""What leaves the window is summarised in blocks and found again, on its own branch and for its own user only."""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from baatcheet.context import compaction
from baatcheet.context.compaction import (
    BACKLOG,
    HIGH_WATER,
    HIGHEST_WATER,
    LOW_WATER,
    MOST_BLOCK_MESSAGES,
    MOST_BLOCK_TOKENS,
    SUMMARY,
    Compactor,
    Size,
    block_of,
    surplus,
)
from baatcheet.context.indexing import Indexer, key
from baatcheet.context.planning import KEEP
from baatcheet.context.recall.analysis import terms
from baatcheet.context.store import ContextStore
from baatcheet.context.summaries.extractive import ExtractiveSummarizer
from baatcheet.context.summaries.fallback import WithFallback
from baatcheet.context.summaries.sections import Line, SummaryFailed
from baatcheet.conversations.errors import ConversationNotFound
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database
from tests.context.conftest import (
    MAX_TOKENS,
    NewCompactor,
    NewManager,
    Talk,
    remembered,
    sentences,
    talk_of,
    texts,
)

# What goes, and in which blocks ----------------------------------------------------------------------------


@st.composite
def branches(draw: st.DrawFn, most: int = 80) -> list[Size]:
    """Turns as they come: with tools, with large messages, with odd orders."""
    large = st.one_of(st.integers(0, 60), st.integers(0, 60), st.integers(0, 3_000))
    sizes: list[Size] = []
    while len(sizes) < most and draw(st.integers(0, 60)):
        kind = draw(st.sampled_from(["turn", "turn", "turn", "tools", "alone"]))
        if kind == "alone":
            sizes.append(Size(draw(st.sampled_from(["user", "assistant"])), draw(large)))
            continue
        sizes.append(Size("user", draw(large)))
        if kind == "tools":
            sizes.append(Size("assistant", draw(large)))
            sizes += [Size("tool", draw(large)) for _ in range(draw(st.integers(1, 4)))]
        sizes.append(Size("assistant", draw(large)))
    return sizes


def total(sizes: Sequence[Size]) -> int:
    return sum(one.tokens for one in sizes)


@settings(max_examples=400, deadline=None)
@given(
    sizes=branches(), max_tokens=st.integers(256, 8_000), max_messages=st.integers(2, 60), first=st.booleans()
)
def test_what_goes_is_enough_and_not_too_much(
    sizes: list[Size], max_tokens: int, max_messages: int, first: bool
) -> None:
    goes = surplus(sizes, max_tokens=max_tokens, max_messages=max_messages, first=first)
    assert 0 <= goes <= max(0, len(sizes) - 1)
    high = int(max_tokens * (HIGHEST_WATER if first else HIGH_WATER))
    if len(sizes) < max_messages and total(sizes) <= high:
        assert goes == 0, "below the high-water mark"
        return
    if goes == 0:
        return
    stays = sizes[goes:]
    assert stays[0].role != "tool", "a result is with its call"
    if stays[0].role == "user":  # up to three more stay, so that it begins with a question
        few = min([at for at in range(1, 5) if at >= len(stays) or _newest(stays[at - 1 :], max_tokens)])
        assert few <= 4
    again = surplus(stays, max_tokens=max_tokens, max_messages=max_messages, first=False)
    assert again < goes + len(stays)
    rounds = 0
    while again:
        assert rounds < 4, "it comes to an end"
        rounds += 1
        stays = stays[again:]
        again = surplus(stays, max_tokens=max_tokens, max_messages=max_messages, first=False)
    assert total(stays) <= int(max_tokens * HIGHEST_WATER) or _newest(stays, max_tokens)


def _newest(stays: Sequence[Size], max_tokens: int) -> bool:
    """Whether these are not more than the newest few: less would be too little, but for a seam."""
    beyond = next((at for at, one in enumerate(stays[1:], 1) if one.role != "tool"), len(stays))
    return len(stays) <= KEEP or total(stays[beyond + 3 :]) < max_tokens * LOW_WATER


@settings(deadline=None)
@given(
    tokens=st.integers(1, 600),
    max_tokens=st.integers(1_000, 16_000),
    max_messages=st.sampled_from([50, 100, 1_000]),
    turns=st.integers(30, 300),
)
def test_messages_leave_in_blocks_and_not_one_a_turn(
    tokens: int, max_tokens: int, max_messages: int, turns: int
) -> None:
    """The beginning of the prompt changes with every block: a provider's cache is lost as often."""
    assume(tokens * 12 <= max_tokens)
    sizes: list[Size] = []
    gone: list[int] = []
    for _ in range(turns):
        sizes += [Size("user", tokens), Size("assistant", tokens)]
        goes = surplus(sizes, max_tokens=max_tokens, max_messages=max_messages, first=not gone)
        if goes:
            gone.append(goes)
            sizes = sizes[goes:]
    assert all(goes >= 2 for goes in gone)
    assert len(gone) <= 1 + turns // 2


@settings(max_examples=300, deadline=None)
@given(sizes=branches(most=260), share=st.floats(0, 1), times=st.sampled_from([1, 1, 12]))
def test_blocks_cover_what_goes_once_and_part_no_result_from_its_call(
    sizes: list[Size], share: float, times: int
) -> None:
    sizes = [Size(one.role, one.tokens * times) for one in sizes]
    goes = int(len(sizes) * share)
    done = 0
    while done < goes:
        block = block_of(sizes[done : done + MOST_BLOCK_MESSAGES + 1], goes - done)
        assert 1 <= block <= min(goes - done, MOST_BLOCK_MESSAGES)
        taken = sizes[done : done + block]
        assert block == 1 or total(taken) <= MOST_BLOCK_TOKENS
        done += block
        if done < goes and sizes[done].role == "tool":
            assert all(one.role == "tool" for one in taken[1:]), "only a call larger than a block is parted"
    assert done == goes


def test_a_call_with_more_results_than_a_block_takes_no_block_for_each_of_them() -> None:
    sizes = [Size("assistant", 20), *[Size("tool", 20) for _ in range(400)], Size("user", 5)]
    done = blocks = 0
    while done < 400:
        done += block_of(sizes[done : done + MOST_BLOCK_MESSAGES + 1], 400 - done)
        blocks += 1
    assert blocks <= 5, "a model is asked for each block"


# On the database ---------------------------------------------------------------------------------------------


@dataclass
class Failing:
    """A summariser whose model is away."""

    name: str = "lab/away"
    asked: int = 0

    async def summarize(self, lines: Sequence[Line], tokens: int) -> str:
        self.asked += 1
        raise SummaryFailed("the model is away")


class Held:
    """A summariser that waits before it answers."""

    name = "held"

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.asked = 0

    async def summarize(self, lines: Sequence[Line], tokens: int) -> str:
        self.asked += 1
        self.begun.set()
        await self.go_on.wait()
        return "They talked about caravans."


async def rows_of(db: Database, conversation: UUID) -> tuple[int, int]:
    """Summaries and passages that are left of a conversation."""
    async with db.hot() as connection:
        counts = [
            await connection.fetchval(
                f"SELECT count(*) FROM {table} WHERE conversation_id = $1", conversation
            )
            for table in ("context_summaries", "recall_passages")
        ]
    return counts[0], counts[1]


async def test_a_long_conversation_is_summarised_and_indexed_as_far_as_it_left_the_window(
    talk: Talk, new_compactor: NewCompactor, new_manager: NewManager
) -> None:
    said = sentences(80)
    ids = await talk.say(*said)
    blocks = await new_compactor().run(talk.work)
    summaries = await talk.summaries()
    assert blocks == len(summaries) == await talk.version() >= 1
    (*_, newest) = summaries
    assert newest.last == 80 - KEEP - 1
    assert newest.made_by == "extractive"
    assert (newest.sections[0].first, newest.sections[-1].last) == (0, newest.last)
    assert [(depth, id_) for _, depth, _, id_ in await talk.indexed()] == list(
        enumerate(ids[: newest.last + 1])
    )
    context = await new_manager().get_context(talk.id, user_id=talk.user)
    assert context.receipt["summarised"] == newest.last + 1
    assert context.receipt["summary_by"] == "extractive"
    assert 0 < context.receipt["parts"]["summary"] <= MAX_TOKENS * SUMMARY + 4
    assert context.receipt["left_out"] == 0
    assert [message["content"] for message in context.messages][1:] == said[newest.last + 1 :]


async def test_compacting_twice_changes_nothing(talk: Talk, new_compactor: NewCompactor) -> None:
    await talk.say(*sentences(260))
    assert await new_compactor().run(talk.work) > 1
    before = await talk.summaries(), await talk.indexed(), await talk.version()
    assert await new_compactor().run(talk.work) == 0
    assert (await talk.summaries(), await talk.indexed(), await talk.version()) == before


async def test_two_processes_that_compact_one_conversation_make_what_one_would(
    database: Database, reader: UUID, new_compactor: NewCompactor
) -> None:
    raced, alone = [await talk_of(database, reader) for _ in range(2)]
    for one in (raced, alone):
        one.began = one.began.replace(hour=8)
        await one.say(*sentences(320))
    await asyncio.gather(*[new_compactor().run(raced.work) for _ in range(3)])
    await new_compactor().run(alone.work)
    summaries = await raced.summaries()
    assert summaries == await alone.summaries()
    assert len(summaries) == await raced.version() > 1
    places = [(depth, part) for _, depth, part, _ in await raced.indexed()]
    assert places == [(depth, part) for _, depth, part, _ in await alone.indexed()]
    assert len(set(places)) == len(places)


async def test_two_processes_with_different_sizes_of_the_window_keep_whole_summaries(
    talk: Talk, new_compactor: NewCompactor
) -> None:
    """While a setting is rolled out, both write: each summary covers everything up to where it ends."""
    await talk.say(*sentences(150))
    await asyncio.gather(
        new_compactor().run(talk.work),
        new_compactor(max_messages=10).run(replace(talk.work, max_tokens=600)),
    )
    for summary in await talk.summaries():
        assert summary.sections[0].first == 0
        assert summary.sections[-1].last == summary.last
        reached = -1
        for section in summary.sections:
            assert section.first == reached + 1
            reached = section.last


async def test_another_summariser_stands_in_for_one_that_fails(
    talk: Talk, new_compactor: NewCompactor
) -> None:
    await talk.say(*sentences(80))
    failing = Failing()
    assert await new_compactor(WithFallback(failing, ExtractiveSummarizer())).run(talk.work) == 1
    assert failing.asked == 1
    (summary,) = await talk.summaries()
    assert summary.made_by == "extractive"
    assert "caravan" in summary.sections[0].text


async def test_without_any_summary_the_older_messages_are_still_found(
    talk: Talk, new_compactor: NewCompactor, new_manager: NewManager
) -> None:
    said = sentences(80)
    said[3] = "The key of the observatory is under the blue amphora."
    await talk.say(*said)
    compactor = new_compactor(Failing())
    with pytest.raises(SummaryFailed):
        await compactor.run(talk.work)
    assert (await talk.summaries(), await talk.version()) == ([], 0)
    assert len(await talk.indexed()) == 80 - KEEP
    context = await new_manager().get_context(
        talk.id, user_id=talk.user, message="Where is the key of the observatory?"
    )
    assert context.tokens <= MAX_TOKENS
    assert "under the blue amphora" in texts(context.messages)


async def test_few_messages_in_the_window_leave_no_gap_behind_the_summary(
    talk: Talk, new_compactor: NewCompactor, new_manager: NewManager
) -> None:
    """Where fewer than the newest 20 may be sent, what is older than those is in the summary all the same."""
    await talk.say(*sentences(24))
    assert await new_compactor(max_messages=10).run(talk.work) >= 1
    context = await new_manager(max_messages=10).get_context(talk.id, user_id=talk.user)
    assert context.receipt["summarised"] > 0
    assert context.receipt["left_out"] == 0


@dataclass
class Quick:
    """A summariser that answers at once."""

    name: str = "lab/quick"
    asked: int = 0

    async def summarize(self, lines: Sequence[Line], tokens: int) -> str:
        self.asked += 1
        return "They talked about caravans."


async def test_a_backlog_is_worked_off_in_pages_and_ends_where_it_would_in_one(
    database: Database, reader: UUID, new_compactor: NewCompactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    paged, whole = [await talk_of(database, reader) for _ in range(2)]
    for one in (paged, whole):
        await one.say(*sentences(1_300))
    in_one = Quick()
    assert await new_compactor(in_one).run(whole.work) > BACKLOG
    pages: list[int] = []
    read = ContextStore.sizes

    async def noted(self: ContextStore, *asked: Any) -> list[tuple[int, int, str]]:
        found = await read(self, *asked)
        pages.append(len(found))
        return found

    monkeypatch.setattr(ContextStore, "sizes", noted)
    monkeypatch.setattr(compaction, "SIZES", 1_000)
    quick = Quick()
    assert await new_compactor(quick).run(paged.work) > BACKLOG
    assert len(pages) > 1
    assert max(pages) <= 1_000
    assert abs(quick.asked - in_one.asked) <= 1, "what lies further back is no model's"
    assert (await paged.summaries())[-1].last == (await whole.summaries())[-1].last == 1_300 - KEEP - 1
    assert len(await paged.indexed()) == len(await whole.indexed()) == 1_300 - KEEP
    reached = -1
    for section in (await paged.summaries())[-1].sections:
        assert section.first == reached + 1
        reached = section.last


async def test_a_call_with_more_results_than_a_page_has_sizes_is_worked_off(
    talk: Talk, new_compactor: NewCompactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "SIZES", 1_000)
    await talk.say("Look it all up.")
    await talk.add(*[{"role": "tool", "content": f"number{at}"} for at in range(1_100)])
    await talk.say(*sentences(30))
    async with asyncio.timeout(30):
        assert await new_compactor().run(talk.work) >= 1
    assert (await talk.summaries())[-1].last == 1_131 - KEEP - 1


async def test_closing_the_manager_ends_the_indexing_that_a_turn_did_not_wait_for(
    talk: Talk, new_manager: NewManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    await talk.say(*sentences(80))
    begun, ended = asyncio.Event(), asyncio.Event()

    async def slow(self: Indexer, *_: object, **__: object) -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    monkeypatch.setattr(Indexer, "index", slow)
    monkeypatch.setattr("baatcheet.context.recollection.PATIENCE", 0.05)
    manager = new_manager()
    await manager.get_context(talk.id, user_id=talk.user, message="Which caravan left the valley on day3?")
    assert begun.is_set()
    assert not ended.is_set()
    await asyncio.wait_for(manager.close(0.1), 5)
    assert ended.is_set()


FIRST_SUMMARY = """
import asyncio, time
from baatcheet.context.counting import warm_up
from baatcheet.context.summaries.extractive import ExtractiveSummarizer
from baatcheet.context.summaries.sections import Line, extend

async def summarise():
    block = [(at, Line("user", f"The caravan number{at} left the valley at dawn.", None)) for at in range(30)]
    return await extend((), block, budget=80, section_tokens=40, summarizer=ExtractiveSummarizer())

warm_up()
began = time.process_time()
asyncio.run(summarise())
print(time.process_time() - began)
"""


async def test_the_first_summary_of_a_process_holds_nobody_up() -> None:
    """What it needs is read when the process starts, and not on the event loop while others wait for their turns."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FIRST_SUMMARY, stdout=asyncio.subprocess.PIPE
    )
    told, _ = await process.communicate()
    assert float(told) < 0.15, "seconds of the processor's time"


# Branches ----------------------------------------------------------------------------------------------------


async def grown_twice(talk: Talk, compactor: Compactor) -> tuple[list[UUID], int, int]:
    """A conversation of 140 messages that was summarised twice; where the summaries end. Depth 100 on has `zarafa`."""
    ids = await talk.say(*sentences(80, "spring"))
    await compactor.run(talk.work)
    ids += await talk.say(*sentences(20, "summer"))
    ids += await talk.say(*[f"{text} They met a zarafa." for text in sentences(40, "autumn")])
    await compactor.run(talk.work)
    first, second = [summary.last for summary in await talk.summaries()]
    assert first < 99, first
    assert second > 105, second
    return ids, first, second


async def test_an_edit_between_two_summaries_goes_on_from_the_earlier_one(
    talk: Talk, new_compactor: NewCompactor, new_manager: NewManager
) -> None:
    compactor, manager = new_compactor(), new_manager()
    ids, first, _ = await grown_twice(talk, compactor)
    await talk.say("Let us talk of rivers instead.", "Gladly, which river?", at=ids[99])
    context = await manager.get_context(talk.id, user_id=talk.user, message="Did they meet a zarafa?")
    assert context.receipt["summarised"] == first + 1
    assert context.messages[0]["content"].startswith("Notes on the earlier part")
    said = [message["content"] for message in context.messages]
    at = said.index("Let us talk of rivers instead.")
    assert said[at - 1] == sentences(20, "summer")[-1]
    assert said[at + 1] == "Gladly, which river?"
    assert "zarafa" not in texts(context.messages[:-1]), "that is the other branch's"


async def test_an_edit_before_every_summary_takes_none(
    talk: Talk, new_compactor: NewCompactor, new_manager: NewManager
) -> None:
    compactor, manager = new_compactor(), new_manager()
    ids, _, _ = await grown_twice(talk, compactor)
    await talk.say("Let us talk of rivers instead.", "Gladly, which river?", at=ids[9])
    context = await manager.get_context(
        talk.id, user_id=talk.user, message="Did they meet a zarafa in autumn12?"
    )
    assert context.receipt["summarised"] == 0
    assert len(context.messages) == 10 + 2 + 1
    assert "zarafa" not in texts(context.messages[:-1])


async def test_a_branch_that_grows_long_is_summarised_and_found_without_the_other_one(
    talk: Talk, new_compactor: NewCompactor, new_manager: NewManager
) -> None:
    compactor, manager = new_compactor(), new_manager()
    ids, _, _ = await grown_twice(talk, compactor)
    before, passages = await talk.summaries(), await talk.indexed()
    other = await talk.say(*[f"{text} They saw an okapi." for text in sentences(70, "winter")], at=ids[99])
    await compactor.run(talk.work)
    added = [one for one in await talk.summaries() if one not in before]
    assert added
    for summary in added:
        assert "zarafa" not in " ".join(section.text for section in summary.sections)
        assert summary.sections[0].first == 0
    new_passages = [one for one in await talk.indexed() if one not in passages]
    assert {branch for branch, *_ in new_passages} == {other[0]}, "what the branches share is not done again"
    assert min(depth for _, depth, *_ in new_passages) == 100
    question = "What of the zarafa and the okapi on winter3 and autumn3?"
    here = await manager.get_context(talk.id, user_id=talk.user, message=question)
    assert "zarafa" not in texts(here.messages[:-1])
    assert "winter3 " in texts(here.messages[:-1])
    assert here.receipt["recalled"]
    await talk.switch(ids[-1])
    there = await manager.get_context(talk.id, user_id=talk.user, message=question)
    assert "okapi" not in texts(there.messages[:-1])
    assert "autumn3 " in texts(there.messages[:-1])


async def test_another_reply_near_the_head_invalidates_nothing(
    talk: Talk, new_compactor: NewCompactor, new_manager: NewManager
) -> None:
    compactor, manager = new_compactor(), new_manager()
    ids, _, second = await grown_twice(talk, compactor)
    question = "Where did they meet the zarafa on autumn1?"
    before = await manager.get_context(talk.id, user_id=talk.user, message=question)
    version, passages = await talk.version(), await talk.indexed()
    (reply,) = await talk.say("Another reply.", at=ids[-2], first="assistant")
    assert await compactor.run(talk.work) == 0
    after = await manager.get_context(talk.id, user_id=talk.user, message=question)
    assert after.head == reply
    assert after.receipt["summarised"] == before.receipt["summarised"] == second + 1
    newest = sentences(40, "autumn")[-1] + " They met a zarafa."
    kept = [message["content"] for message in before.messages]
    said = [message["content"] for message in after.messages]
    assert said[: said.index("Another reply.")] == kept[: kept.index(newest)]
    assert (await talk.version(), await talk.indexed()) == (version, passages)


async def test_a_regenerated_reply_leaves_the_summary_that_ends_in_what_it_replaces(
    talk: Talk, new_compactor: NewCompactor, new_manager: NewManager
) -> None:
    """An edit of the very message that a summary ends in: that summary is the other branch's."""
    compactor, manager = new_compactor(), new_manager()
    ids, first, second = await grown_twice(talk, compactor)
    await talk.say("An edit.", at=ids[second - 1])
    context = await manager.get_context(talk.id, user_id=talk.user)
    assert context.receipt["summarised"] == first + 1
    await talk.say("An edit, too.", at=ids[second])
    context = await manager.get_context(talk.id, user_id=talk.user)
    assert context.receipt["summarised"] in {first + 1, second + 1}
    assert "An edit." not in [message["content"] for message in context.messages]


# Deletion ----------------------------------------------------------------------------------------------------


async def test_a_conversation_that_is_deleted_while_it_is_summarised_leaves_nothing_behind(
    talk: Talk, new_compactor: NewCompactor, database: Database
) -> None:
    await talk.say(*sentences(260))
    held = Held()
    compactor = new_compactor(held)
    running = asyncio.create_task(compactor.run(talk.work))
    await asyncio.wait_for(held.begun.wait(), 10)
    await talk.delete()
    held.go_on.set()
    await asyncio.wait_for(running, 10)
    assert held.asked == 1, "there is nothing left to be read"
    assert await rows_of(database, talk.id) == (0, 0)


async def test_a_conversation_that_is_deleted_while_it_is_indexed_is_no_error(
    talk: Talk, new_manager: NewManager, database: Database
) -> None:
    """The deletion is committed between the index's look at the conversation and the writing of its rows."""
    await talk.say(*sentences(80))
    store = ContextStore(database)
    async with database.hot() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("DELETE FROM conversations WHERE id = $1", talk.id)
        indexing = asyncio.create_task(Indexer(store).index(talk.user, talk.id, talk.work.head, upto=50))
        async with asyncio.timeout(10):
            while not await database_waits(database):
                await asyncio.sleep(0.01)
        await transaction.commit()
    await asyncio.wait_for(indexing, 10)  # behind a transaction pooler, it is committed here
    assert await rows_of(database, talk.id) == (0, 0)
    manager = new_manager()
    with pytest.raises(ConversationNotFound):
        await manager.get_context(talk.id, user_id=talk.user)


async def database_waits(database: Database) -> bool:
    """Whether a statement of this database waits for another's lock."""
    async with database.hot() as connection:
        waiting = await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
    return bool(waiting)


# Other users -------------------------------------------------------------------------------------------------


async def test_a_term_has_another_key_in_every_conversation() -> None:
    one, other = new_id(), new_id()
    assert key(one, "amphora") == key(one, "amphora")
    assert key(one, "amphora") != key(other, "amphora")
    assert -(2**63) <= key(one, "amphora") < 2**63


async def test_nothing_of_another_users_conversation_is_found(
    talk: Talk, stranger: UUID, database: Database, new_compactor: NewCompactor, new_manager: NewManager
) -> None:
    secret = "The key of the observatory is under the blue amphora."
    await talk.say(*[secret, *sentences(90)])
    theirs = await talk_of(database, stranger)
    await theirs.say(*sentences(90))
    for one in (talk, theirs):
        await new_compactor().run(one.work)
    store = ContextStore(database)
    words = terms(secret)
    mine, foreign = [[key(one.id, word) for word in words] for one in (talk, theirs)]
    assert talk.head is not None
    assert theirs.head is not None

    async def found(user: UUID, conversation: UUID, head: UUID, keys: list[int]) -> Sequence[int]:
        return (
            await store.hits(user, conversation, head, before=80, keys=keys, caps=[100] * len(keys))
        ).depths

    assert 0 in await found(talk.user, talk.id, talk.head, mine)
    assert not await found(stranger, talk.id, talk.head, mine), "the tenant is not the conversation's"
    assert not await found(stranger, theirs.id, theirs.head, mine), "the keys are another conversation's"
    assert not await found(stranger, theirs.id, talk.head, mine), "the head is another conversation's"
    assert not await found(talk.user, talk.id, talk.head, foreign), "the keys are another conversation's"
    assert await store.texts(stranger, talk.id, talk.head, [(0, 0)]) == []
    assert await store.messages(stranger, talk.id, talk.head, 0, 10) == []
    assert await store.messages(stranger, theirs.id, talk.head, 0, 10) == []
    assert await store.sizes(stranger, talk.id, talk.head, 0, 10) == []
    assert await store.summary(stranger, talk.id, talk.head, upto=1_000) is None
    assert (await store.marker(stranger, talk.id, talk.head)).depth == -1
    manager = new_manager()
    with pytest.raises(ConversationNotFound):
        await manager.get_context(talk.id, user_id=stranger)
    asked = await manager.get_context(
        theirs.id, user_id=stranger, message="Where is the key of the observatory?"
    )
    assert "amphora" not in texts(asked.messages[:-1])


async def test_a_stranger_who_knows_every_id_writes_nothing(
    talk: Talk, stranger: UUID, database: Database, new_compactor: NewCompactor
) -> None:
    await talk.say(*sentences(90))
    work = talk.work
    forged = replace(work, user=stranger)
    assert await new_compactor().run(forged) == 0
    assert await rows_of(database, talk.id) == (0, 0)
    store = ContextStore(database)
    await new_compactor().run(work)
    (summary, *_) = await talk.summaries()
    (message,) = await store.messages(talk.user, talk.id, work.head, 5, 5)
    assert not await store.add_summary(stranger, talk.id, message, summary)
    assert len(await talk.summaries()) == 1


async def test_a_conversation_of_one_process_is_no_help_to_another_user_of_it(
    talk: Talk, stranger: UUID, new_manager: NewManager
) -> None:
    manager = new_manager()
    await remembered(manager, talk, "My secret is an amphora.", "I keep it.")
    with pytest.raises(ConversationNotFound):
        await manager.get_context(talk.id, user_id=stranger)
    assert await new_manager().known(stranger, talk.id) is None, "what Redis holds is the user's own"


# What is found -----------------------------------------------------------------------------------------------


async def test_what_an_abandoned_branch_says_often_hides_nothing_of_the_live_one(
    talk: Talk, new_compactor: NewCompactor, new_manager: NewManager
) -> None:
    await talk.say(*sentences(20))
    fork = talk.head
    await talk.say(*[f"the amphora again, number {at}" for at in range(700)])
    await new_compactor().run(talk.work)
    talk.head = fork
    await talk.say("The amphora stands in the cellar of the museum in Gilgit.", "I see.", *sentences(60))
    await new_compactor().run(talk.work)
    made = await new_manager().get_context(talk.id, user_id=talk.user, message="Where is the amphora?")
    assert "museum in Gilgit" in texts(made.messages)


async def test_the_newest_of_many_are_found_when_they_are_asked_for(
    talk: Talk, new_compactor: NewCompactor, new_manager: NewManager
) -> None:
    await talk.say(*[f"the glacier report number {at} is in" for at in range(900)], *sentences(40))
    await new_compactor().run(talk.work)
    made = await new_manager().get_context(
        talk.id, user_id=talk.user, message="What does the latest glacier report say?"
    )
    excerpts = made.messages[-2]["content"]
    assert "report number 89" in excerpts
    assert "report number 3 " not in excerpts
