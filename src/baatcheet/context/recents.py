"""The ends of branches that were seen lately: in this process's memory, and in Redis for every process.

Messages never change, so a branch is named by the id of its last message, and its context by that and the number of
summaries made of the conversation. What is kept under the two can be forgotten but never stale: whoever uses it asks
the database for both, in the statement that opens the turn, and is sent the history when they differ.
"""

from collections import OrderedDict
from typing import Annotated, Any
from uuid import UUID

import msgspec

from baatcheet.context.history import History
from baatcheet.context.planning import Item, Summary
from baatcheet.platform.cache import Cache, tolerated
from baatcheet.platform.logging import get_logger

log = get_logger(__name__)

MOST_CHARACTERS = 8_000_000  # of text kept in this process, some 20 MB of memory
OVERHEAD = 300  # what a message weighs beside its text
LARGEST = 256_000  # characters of one branch; a larger one is read again
TTL = 3600.0  # seconds that Redis keeps one
FORM = 2  # of what is kept there

Tokens = Annotated[int, msgspec.Meta(ge=1)]


class _Wire(msgspec.Struct, frozen=True, omit_defaults=True):
    role: str
    content: str | list[Any] | None
    name: Any = None
    tool_calls: Any = None
    tool_call_id: Any = None
    refusal: Any = None


_BESIDE = ("tool_calls", "tool_call_id", "name", "refusal")


class _CachedItem(msgspec.Struct, frozen=True):
    id: UUID
    wire: _Wire
    tokens: Tokens
    depth: int
    cut: bool = False


class _CachedSummary(msgspec.Struct, frozen=True):
    text: str
    tokens: Tokens
    last: int
    made_by: str


class _CachedContext(msgspec.Struct, frozen=True):
    """What Redis holds under `context:{conversation_id}`, as JSON."""

    form: int
    user: UUID
    conversation: UUID
    head: UUID
    version: int
    bounds: tuple[int, int]  # messages and tokens that were read at most
    items: tuple[_CachedItem, ...]
    summary: _CachedSummary | None = None


class RecentBranches:
    """Per conversation, the branch that was read or grew last. The least recently used go first."""

    def __init__(
        self, *, most_messages: int, budget: int, capacity: int = MOST_CHARACTERS, cache: Cache | None = None
    ) -> None:
        self._most_messages = most_messages
        self._budget = budget
        self._capacity = capacity
        self._cache = cache
        self._kept: OrderedDict[UUID, tuple[History, int]] = OrderedDict()
        self._characters = 0

    def get(self, conversation: UUID) -> History | None:
        """What this process knows of the conversation."""
        found = self._kept.get(conversation)
        if found is None:
            return None
        self._kept.move_to_end(conversation)
        return found[0]

    async def find(self, user: UUID, conversation: UUID) -> History | None:
        """What this process knows, else what Redis does. Never raises, and waits for Redis only briefly."""
        found = self.get(conversation)
        if found is not None or self._cache is None:
            return found
        raw = None
        with tolerated(
            because="the history is read instead"
        ):  # what lies under the key may be of another kind
            raw = await self._cache.get(cache_key(conversation))
        if raw is None:
            return None
        try:
            cached = msgspec.json.decode(raw, type=_CachedContext)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            log.warning("context.cache_unreadable", reason=str(error), conversation_id=str(conversation))
            return None
        wanted = (FORM, user, conversation, (self._most_messages, self._budget))
        if (cached.form, cached.user, cached.conversation, cached.bounds) != wanted:
            return None
        history = _thawed(cached)
        self.put(conversation, history)
        return history

    def put(self, conversation: UUID, history: History) -> History | None:
        """Keep the end of a branch: as much of it as the database itself would send. None when it is too large."""
        self._forget(conversation)
        tokens = characters = 0
        at = len(history.items)
        while at > 0 and len(history.items) - at < self._most_messages and tokens <= self._budget:
            item = history.items[at - 1]
            content = item.wire.get("content")
            if characters > LARGEST or item.id is None:
                return None  # it is read again when it is needed
            at -= 1
            tokens += item.tokens
            characters += (len(content) if isinstance(content, str) else len(str(content))) + OVERHEAD
            if len(item.wire) > 2:  # calls, names
                characters += sum([len(str(value)) for key, value in item.wire.items() if key != "content"])
        if history.head is None or at == len(history.items):
            return None
        kept = history._replace(items=history.items[at:])
        self._kept[conversation] = (kept, characters)
        self._characters += characters
        while self._characters > self._capacity:
            _, (_, gone) = self._kept.popitem(last=False)
            self._characters -= gone
        return kept

    async def share(self, user: UUID, conversation: UUID, history: History) -> None:
        """Keep it for every process. A cache that is away costs nothing but a later query."""
        if self._cache is not None and history.head is not None:
            document = msgspec.json.encode(
                _frozen(user, conversation, history.head, history, (self._most_messages, self._budget))
            )
            await self._cache.put(cache_key(conversation), document, seconds=TTL)

    def _forget(self, conversation: UUID) -> None:
        old = self._kept.pop(conversation, None)
        if old is not None:
            self._characters -= old[1]


def cache_key(conversation: UUID) -> str:
    """Where Redis keeps what was read of a conversation."""
    return f"context:{conversation}"


def _frozen(
    user: UUID, conversation: UUID, head: UUID, history: History, bounds: tuple[int, int]
) -> _CachedContext:
    summary = history.summary
    return _CachedContext(
        FORM,
        user,
        conversation,
        head,
        history.version,
        bounds,
        tuple(
            [
                _CachedItem(item.id, msgspec.convert(item.wire, _Wire), item.tokens, item.depth, item.cut)
                for item in history.items
                if item.id is not None
            ]
        ),
        _CachedSummary(summary.item.wire["content"], summary.item.tokens, summary.last, summary.made_by)
        if summary
        else None,
    )


def _unpacked(wire: _Wire) -> dict[str, Any]:
    beside = {name: value for name in _BESIDE if (value := getattr(wire, name)) is not None}
    return {"role": wire.role, "content": wire.content, **beside}


def _thawed(cached: _CachedContext) -> History:
    summary = cached.summary
    return History(
        cached.head,
        cached.version,
        tuple(
            [Item(_unpacked(item.wire), item.tokens, item.id, item.cut, item.depth) for item in cached.items]
        ),
        Summary(
            Item({"role": "user", "content": summary.text}, summary.tokens), summary.last, summary.made_by
        )
        if summary
        else None,
    )
