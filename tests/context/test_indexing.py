"""Indexing keeps off the event loop and off counting's threads, and ends when it is told to."""

import asyncio
import gc
import logging
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from baatcheet.context import indexing
from baatcheet.context.indexing import Indexer
from baatcheet.context.store import ContextStore, Marker, PassageRow, PathMessage
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import DatabaseUnavailable

USER, CONVERSATION, HEAD = new_id(), new_id(), new_id()


class Kept(ContextStore):
    """A path of messages in memory, and what is indexed of it."""

    def __init__(self, texts: Sequence[str]) -> None:
        now = datetime.now(UTC)
        branch = new_id()
        self.path = [
            PathMessage(new_id(), branch, depth, "user", text, True, 1, now)
            for depth, text in enumerate(texts)
        ]
        self.rows: list[PassageRow] = []
        self.asked = 0
        self.held: asyncio.Event | None = None
        self.fault: Exception | None = None

    async def marker(self, user: UUID, conversation: UUID, head: UUID) -> Marker:
        self.asked += 1
        if self.held is not None:
            await self.held.wait()
        if self.fault is not None:
            raise self.fault
        if not self.rows:
            return Marker(-1, 0, 0)
        return Marker(self.rows[-1].depth, self.rows[-1].ordinal, self.rows[-1].total_length)

    async def messages(
        self, user: UUID, conversation: UUID, head: UUID, first: int, last: int
    ) -> list[PathMessage]:
        self.asked += 1
        return self.path[first : last + 1]

    async def add_passages(self, user: UUID, conversation: UUID, rows: Sequence[PassageRow]) -> None:
        self.rows += rows


def catch_up(indexer: Indexer, upto: int, patience: float | None = None) -> Any:
    return indexer.catch_up(USER, CONVERSATION, HEAD, upto=upto, patience=patience)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Of each batch that is analysed: in which thread, how many messages, how many characters."""
    made: list[tuple[str, int, int]] = []
    analyse: Callable[..., list[PassageRow]] = indexing.rows_of

    def noted(conversation: UUID, messages: Sequence[PathMessage], marker: Marker) -> list[PassageRow]:
        characters = sum([len(message.content) for message in messages])
        made.append((threading.current_thread().name, len(messages), characters))
        return analyse(conversation, messages, marker)

    monkeypatch.setattr(indexing, "rows_of", noted)
    return made


async def test_little_is_analysed_at_once_and_more_in_a_thread_of_its_own(
    batches: list[tuple[str, int, int]],
) -> None:
    main = threading.current_thread().name
    await catch_up(Indexer(Kept(["The caravan left."] * 4)), 3)
    await catch_up(Indexer(Kept(["The caravan left. " * 20] * 10)), 9)
    assert [(thread.startswith("recall-index"), messages) for thread, messages, _ in batches] == [
        (False, 4),
        (True, 10),
    ]
    assert batches[0][0] == main


async def test_batches_have_bounded_characters(batches: list[tuple[str, int, int]]) -> None:
    texts = ["to and fro, " * 2_500 for _ in range(20)]
    texts[7] = "to and fro, " * 20_000  # more than a batch by itself
    store = Kept(texts)
    await catch_up(Indexer(store), 19)
    assert all(
        characters <= indexing.BATCH_CHARACTERS or messages == 1 for _, messages, characters in batches
    )
    assert sum([messages for _, messages, _ in batches]) == 20
    assert max([messages for _, messages, _ in batches]) > 1
    assert [row.ordinal for row in store.rows] == list(range(1, len(store.rows) + 1))
    assert sorted({row.depth for row in store.rows}) == list(range(20))


async def test_what_runs_ends_on_close_and_nothing_begins_after_it() -> None:
    store = Kept(["The caravan left."] * 4)
    store.held = asyncio.Event()
    indexer = Indexer(store)
    assert not await catch_up(indexer, 3, patience=0.01)
    waiting = asyncio.create_task(catch_up(indexer, 3))
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await indexer.close()
        assert not await waiting, "who waits is told that it is not done"
        asked = store.asked
        store.held.set()
        assert not await catch_up(indexer, 3)
    await asyncio.sleep(0.01)
    assert (store.rows, store.asked) == ([], asked)


@pytest.mark.parametrize(
    ("fault", "level"), [(DatabaseUnavailable("away"), "WARNING"), (ValueError("odd"), "ERROR")]
)
async def test_a_fault_after_the_turn_has_gone_on_is_logged(
    fault: Exception, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    lost: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: lost.append(told))
    store = Kept(["The caravan left."])
    store.held, store.fault = asyncio.Event(), fault
    with caplog.at_level(logging.WARNING):
        assert not await catch_up(Indexer(store), 0, patience=0.01)
        store.held.set()
        await asyncio.sleep(0.01)
        gc.collect()
    assert lost == []
    assert [record.levelname for record in caplog.records if record.name == indexing.__name__] == [level]


async def test_who_waits_is_told_of_the_fault() -> None:
    store = Kept(["The caravan left."])
    store.fault = DatabaseUnavailable("away")
    with pytest.raises(DatabaseUnavailable):
        await catch_up(Indexer(store), 0)
