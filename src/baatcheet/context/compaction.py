"""When old messages leave the window, which of them, and making their summary: in blocks, not one a turn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from baatcheet.context.embeddings import Vectors
from baatcheet.context.history import StoredSummary
from baatcheet.context.indexing import Indexer
from baatcheet.context.planning import KEEP
from baatcheet.context.store import ContextStore, PathMessage
from baatcheet.context.summaries.sections import SMALLEST_BUDGET, Line, Summarizer, extend

# Shares of the budget.
HIGH_WATER = 0.65  # what recent messages may take before a block of them is summarised …
HIGHEST_WATER = 0.85  # … while nothing has been yet
KEPT_WATER = 0.5  # what the newest `KEEP` may take to be left out of a block
LOW_WATER = 0.3  # what stays word for word where the newest messages are large
SUMMARY = 0.12
SECTION = 0.04

MOST_BLOCK_MESSAGES = 100
MOST_BLOCK_TOKENS = 24_000  # of one section's messages
BACKLOG = 8  # blocks; what lies further back, as after an import, is summarised without asking a model
SIZES = 5_000  # messages that are decided on at once


class Sized(Protocol):
    """A message as the decision sees it."""

    @property
    def role(self) -> str: ...
    @property
    def tokens(self) -> int: ...


@dataclass(frozen=True)
class Size:
    role: str
    tokens: int


def surplus(sizes: Sequence[Sized], *, max_tokens: int, max_messages: int, first: bool) -> int:
    """How many of the oldest of these messages are to be summarised; 0 below the high-water mark.

    `first`: nothing of the branch has been summarised yet. What stays are the newest `KEEP` messages or, where these
    are large, as many as reach the low-water mark; the plan carries the newest `KEEP` all the same if they fit. A
    tool's result stays with its call, and what stays begins with a user's message where one is near.
    """
    total = sum([one.tokens for one in sizes])
    if len(sizes) < max_messages and total <= int(max_tokens * (HIGHEST_WATER if first else HIGH_WATER)):
        return 0
    keep = min(KEEP, max_messages // 2)
    if sum([one.tokens for one in sizes[-keep:]]) > max_tokens * KEPT_WATER:
        keep, tokens = 0, 0
        while keep < len(sizes) and tokens < max_tokens * LOW_WATER:
            keep += 1
            tokens += sizes[-keep].tokens
    at = max(0, len(sizes) - keep)
    return _seam(sizes, at)


def _seam(sizes: Sequence[Sized], at: int) -> int:
    """A place at or before `at` where no call is parted from its results, if possible before a user's message."""
    for earlier in range(at, max(0, at - 4), -1):
        if earlier < len(sizes) and sizes[earlier].role == "user":
            return earlier
    while 0 < at < len(sizes) and sizes[at].role == "tool":
        at -= 1
    return at


def block_of(sizes: Sequence[Sized], surplus_messages: int) -> int:
    """How many of the surplus messages go into one section. `sizes`: those that one may take, and the next."""
    taken = tokens = 0
    while taken < min(surplus_messages, MOST_BLOCK_MESSAGES):
        tokens += sizes[taken].tokens
        if taken and tokens > MOST_BLOCK_TOKENS:
            break
        taken += 1
    return taken if taken == surplus_messages else _seam(sizes, taken) or taken


@dataclass(frozen=True)
class Compaction:
    """What is to be done: the branch that ends in `head` may have grown too long for `max_tokens`."""

    user: UUID
    conversation: UUID
    head: UUID
    max_tokens: int  # what its recent messages, its summary and its excerpts may take together
    max_messages: int | None = None  # that may travel word for word; None: as the one who does it is set


class Compactions(Protocol):
    """Has compactions done in the background.

    What is to be done follows from what is stored, so a request that is lost is made again by the next turn, and one
    that is made twice changes nothing.
    """

    def submit(self, work: Compaction) -> None:
        """Have it done, at some time, by somebody."""

    async def settle(self, conversation: UUID) -> None:
        """Until what was submitted for this conversation is out of this process's hands."""

    async def close(self, patience: float) -> None:
        """Take nothing more; what is not out of this process's hands within `patience` seconds is dropped."""


class Compactor:
    """Indexes and summarises what leaves the window."""

    def __init__(
        self,
        store: ContextStore,
        indexer: Indexer,
        summarizer: Callable[[], Summarizer],
        *,
        quick: Summarizer,
        max_messages: int,
        vectors: Vectors | None = None,
    ) -> None:
        self._store = store
        self._indexer = indexer
        self._summarizer = summarizer  # makes one for each branch that is worked on
        self._quick = quick  # for what lies far back: it asks no model
        self._max_messages = max_messages
        self._vectors = vectors

    async def run(self, work: Compaction) -> int:
        """Index and summarise until the branch is below the high-water mark. Returns the number of blocks made.

        Raises DatabaseUnavailable.
        """
        summary = await self._store.summary(work.user, work.conversation, work.head, upto=2**31 - 1)
        summarizer = self._summarizer()
        blocks, ended = 0, False
        while not ended:
            start = summary.last + 1 if summary else 0
            sizes, ended = await self._sizes(work, start)
            most = self._surplus(work, sizes, first=summary is None) if ended else self._backlog(work, sizes)
            # Being found again comes before being summarised, and is quicker.
            if not most or not await self._indexer.catch_up(
                work.user, work.conversation, work.head, upto=start + most - 1, patience=None
            ):
                break
            done = 0
            while done < most:
                block = block_of(sizes[done : done + MOST_BLOCK_MESSAGES + 1], most - done)
                first = start + done
                messages = await self._store.messages(
                    work.user, work.conversation, work.head, first, first + block - 1
                )
                if not messages:
                    return blocks  # it has been deleted
                far = not ended or most - done > BACKLOG * MOST_BLOCK_MESSAGES
                summary = await _extended(
                    summary, messages, self._quick if far else summarizer, work.max_tokens
                )
                await self._store.add_summary(work.user, work.conversation, messages[-1], summary)
                done += len(messages)
                blocks += 1
        if blocks and self._vectors is not None:
            await self._vectors.fill(work.user, work.conversation, work.head)
        return blocks

    async def _sizes(self, work: Compaction, first: int) -> tuple[list[Size], bool]:
        """The sizes of the messages from depth `first` on, and whether these are all."""
        last = first + SIZES - 1
        found = await self._store.sizes(work.user, work.conversation, work.head, first, last)
        return [Size(role, tokens) for _depth, tokens, role in found], len(found) < SIZES

    def _surplus(self, work: Compaction, sizes: Sequence[Size], *, first: bool) -> int:
        most = work.max_messages or self._max_messages
        return surplus(sizes, max_tokens=work.max_tokens, max_messages=most, first=first)

    def _backlog(self, work: Compaction, sizes: Sequence[Size]) -> int:
        """How many of these, which others follow, are surplus and too far back to ask a model.

        What is left of them, enough for the decision on the whole, is decided on with those that follow.
        """
        at = len(sizes) - (work.max_messages or self._max_messages) - BACKLOG * MOST_BLOCK_MESSAGES
        return _seam(sizes, at) or at


class ImmediateCompactions:
    """Does what was submitted when it is settled, in this process: for measurements and one-off work."""

    def __init__(self, compactor: Compactor) -> None:
        self._compactor = compactor
        self._submitted: dict[UUID, Compaction] = {}

    def submit(self, work: Compaction) -> None:
        self._submitted[work.conversation] = work

    async def settle(self, conversation: UUID) -> None:
        work = self._submitted.pop(conversation, None)
        if work is not None:
            await self._compactor.run(work)

    async def close(self, patience: float) -> None:
        self._submitted.clear()


async def _extended(
    summary: StoredSummary | None, messages: Sequence[PathMessage], summarizer: Summarizer, max_tokens: int
) -> StoredSummary:
    sections = await extend(
        summary.sections if summary else (),
        [(message.depth, Line(message.role, message.content, message.at)) for message in messages],
        budget=max(SMALLEST_BUDGET, int(max_tokens * SUMMARY)),
        section_tokens=max(SMALLEST_BUDGET // 2, int(max_tokens * SECTION)),
        summarizer=summarizer,
    )
    return StoredSummary(messages[-1].depth, tuple(sections), summarizer.name)
