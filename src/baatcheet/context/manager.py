"""What goes into a model's window for one turn: from what is stored to a plan, and what is done after the turn."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from uuid import UUID

from baatcheet.context import counting, cutting
from baatcheet.context.compaction import Compaction, Compactions, Size, surplus
from baatcheet.context.history import Bounds, History, StoredHistory, StoredMessage, item_of, read
from baatcheet.context.planning import KEEP, Item, Plan, Recall, Recalled, Summary, plan
from baatcheet.context.recents import RecentBranches
from baatcheet.context.recollection import Question, Recaller, Recollection
from baatcheet.context.stateless import Prompt
from baatcheet.context.store import ContextStore
from baatcheet.context.tokenizers import Tokenizer, Tokenizers
from baatcheet.conversations.errors import ConversationNotFound
from baatcheet.conversations.wire import stored_form, text_of
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import DatabaseUnavailable
from baatcheet.platform.logging import get_logger
from baatcheet.platform.settings import ContextSettings
from baatcheet.providers.model import ModelCard

log = get_logger(__name__)

INLINE_ITEMS = 2_000  # more messages than this take a while to go through
ASKED_CHARACTERS = 4_000  # of a text's beginning and of its end that a search is made of
SMALLEST_ROOM = 512  # tokens: with less, a summary would be made at every turn
BEFORE = 4  # messages before the new one that tell what it may refer to


@dataclass(frozen=True)
class ContextConfig:
    """How much a turn may carry. Sizes are tokens of the model that is asked."""

    max_tokens: int = 8_000
    max_messages: int = 50  # recent and new ones
    keep: int = KEEP  # the newest messages that stay word for word whenever they fit
    system_prompt_tokens: int = 0  # room that is kept for a system prompt that is not given here
    reserve: int = 1_024  # room in the model's window for its reply


@dataclass
class Asked:
    """What is to be carried, before it is fitted to a model. `recollection` is kept from one model to the next."""

    history: History
    new: Sequence[Item]
    user: UUID | None = None
    conversation: UUID | None = None
    system_prompt: str | None = None
    tools: Sequence[Any] | None = None
    schema: Any = None  # of the reply, where one is asked for
    recollection: Recollection | None = field(default=None, compare=False)

    @property
    def beside(self) -> list[Any]:
        """What is sent as JSON beside the messages."""
        return [part for part in (self.tools, self.schema) if part]


@dataclass(frozen=True)
class Context:
    """What a turn would carry. `receipt` accounts for it."""

    head: UUID | None
    model: str | None
    messages: tuple[dict[str, Any], ...]
    tokens: int
    receipt: dict[str, Any]


class ContextManager:
    """Plans turns within the deployment's settings. It holds no database connection while it thinks."""

    def __init__(
        self,
        settings: ContextSettings,
        *,
        store: ContextStore,
        recents: RecentBranches,
        recaller: Recaller,
        compactions: Compactions,
        tokenizers: Tokenizers,
    ) -> None:
        self._store = store
        self._recents = recents
        self._recaller = recaller
        self._compactions = compactions
        self._tokenizers = tokenizers
        self.config = ContextConfig(
            max_tokens=settings.max_tokens, max_messages=settings.max_messages, reserve=settings.reply_reserve
        )
        self.bounds = Bounds.within(settings.max_tokens, settings.max_messages)
        self._tasks: set[asyncio.Task[None]] = set()

    # Reading -----------------------------------------------------------------------------------------------

    async def known(self, user: UUID, conversation: UUID) -> History | None:
        """What was kept of the conversation; the database must be asked whether it still holds."""
        return await self._recents.find(user, conversation)

    async def history(self, head: UUID | None, version: int, stored: StoredHistory | None) -> History:
        """What the database sent, with those messages counted that were not, or not as they are sent."""
        work = partial(read, head, version, stored)
        length = sum([len(one.content) for one in stored.messages if one.uncounted]) if stored else 0
        return await counting.aside(length, work) if length > counting.INLINE_CHARACTERS else work()

    def item(self, message: StoredMessage) -> Item:
        """A message as the planner takes it."""
        return item_of(message)

    async def get_context(
        self,
        conversation_id: UUID,
        config: ContextConfig | None = None,
        *,
        user_id: UUID,
        message: str | list[dict[str, Any]] | None = None,
        model: ModelCard | None = None,
    ) -> Context:
        """What the next turn of a user's conversation would carry, with `message` when it is given.

        Without a model, the budget is `config.max_tokens` and the count is of the stored encoding. Raises
        ConversationNotFound, ContextTooSmall, DatabaseUnavailable.
        """
        config = config or self.config
        bounds = self._bounds(config)
        known = await self._recents.find(user_id, conversation_id) if bounds == self.bounds else None
        standing = await self._store.standing(
            user_id,
            conversation_id,
            bounds=bounds,
            known=(known.head, known.version) if known else (None, 0),
        )
        if standing is None:
            raise ConversationNotFound(conversation_id)
        if standing.history is None and known is not None and known.head == standing.head:
            history = known
        else:
            history = await self.history(standing.head, standing.version, standing.history)
            if bounds == self.bounds:
                self._keep(user_id, conversation_id, history)
        new = []
        if message is not None:
            content, parts = stored_form({"role": "user", "content": message})
            tokens = await counting.count_message(content, parts)
            new = [Item({"role": "user", "content": message}, tokens, new_id(), depth=history.depth)]
        asked = Asked(history, new, user_id, conversation_id, standing.system_prompt)
        made = await self.plan(model, asked, config)
        receipt = self.receipt(made, model)
        return Context(standing.head, model.id if model else None, made.messages, made.tokens, receipt)

    def _bounds(self, config: ContextConfig) -> Bounds:
        if config.max_tokens <= self.config.max_tokens and config.max_messages <= self.config.max_messages:
            return self.bounds
        return Bounds.within(config.max_tokens, config.max_messages)

    # Planning ----------------------------------------------------------------------------------------------

    def budget(self, model: ModelCard | None, config: ContextConfig) -> int:
        """Tokens of prompt for `model`; where they are estimated, its window is not filled to the brim."""
        if model is None:
            return config.max_tokens
        room = model.context_window - min(config.reserve, model.context_window // 2)
        return min(config.max_tokens, int(room * (1 - self._tokenizers.of(model).margin)))

    def reserving(self, reply_tokens: int | None) -> ContextConfig:
        """The deployment's configuration for a reply of that many tokens."""
        if reply_tokens is None or reply_tokens <= self.config.reserve:
            return self.config
        return replace(self.config, reserve=reply_tokens)

    async def plan(self, model: ModelCard | None, asked: Asked, config: ContextConfig) -> Plan:
        """Fit a turn into `model`'s window.

        Raises ContextTooSmall when the system prompt and the tools alone are too large, OrphanToolResult.
        """
        tokenizer = self._tokenizers.of(model) if model is not None else self._tokenizers.stored
        fitted = await _Fitting.of(tokenizer, asked, config, self.budget(model, config))
        needed: list[tuple[int, int]] = []

        def probe(tokens: int, before: int) -> Recalled | None:
            needed.append((before, tokens))
            return None

        made = await fitted.plan(probe if asked.conversation is not None else None)
        if not needed or not (found := await self._recollect(asked, *needed[0])):
            return made

        def recall(tokens: int, before: int) -> Recalled | None:
            return found.excerpts(tokens, before, tokenizer)

        return await fitted.plan(recall)

    def receipt(self, made: Plan, model: ModelCard | None) -> dict[str, Any]:
        """The account of a plan, by the tokenizer that it was made with."""
        tokenizer = self._tokenizers.of(model) if model is not None else self._tokenizers.stored
        return made.receipt(tokenizer=tokenizer.name, exact=tokenizer.exact)

    async def _recollect(self, asked: Asked, before: int, budget: int) -> Recollection | None:
        """What the question finds above depth `before`. A database that is away costs the excerpts, not the turn."""
        if asked.recollection is not None and asked.recollection.before >= before:
            return asked.recollection
        question = _question(asked)
        if question is None:
            return None
        try:
            asked.recollection = await self._recaller.find(question, before, budget)
        except DatabaseUnavailable:
            log.warning("context.nothing_recalled", conversation_id=str(asked.conversation))
            return None
        except Exception as error:  # noqa: BLE001 - excerpts are a help: a fault of ours there must not cost the reply
            log.error("context.recall_failed", error=error, conversation_id=str(asked.conversation))
            return None
        return asked.recollection

    # What clients send whole ---------------------------------------------------------------------------------

    async def excess(self, model: ModelCard, prompt: Prompt, reserve: int = 0) -> int:
        """By how many tokens `prompt` surely exceeds `model`'s window; 0 when it fits or may fit.

        A window that nobody has stated is exceeded by nothing.
        """
        if not model.window_stated or prompt.surely_fits(model):
            return 0
        tokenizer = self._tokenizers.of(model)
        least = int(await prompt.least(tokenizer) * (1 - tokenizer.margin))
        return max(0, least - prompt.room(model, reserve))

    async def fitted(self, model: ModelCard, prompt: Prompt) -> Sequence[Mapping[str, Any]]:
        """The messages of `prompt`, without the oldest where they exceed `model`'s window.

        Raises ContextTooSmall when the system prompt and the tools alone are too large, OrphanToolResult.
        """
        reserve = min(self.config.reserve, model.context_window // 2)
        if not await self.excess(model, prompt, reserve):
            return prompt.messages
        tokenizer = self._tokenizers.of(model)
        return (
            await prompt.fitted(tokenizer, int(prompt.room(model, reserve) * (1 - tokenizer.margin)))
        ).messages

    # After a turn ------------------------------------------------------------------------------------------

    def remember(self, user: UUID, conversation: UUID, history: History, made: Plan | None = None) -> None:
        """The branch that has just grown is probably the one that grows next; if it grew too long, it is compacted.

        `made` is the plan that it grew by: it tells how much room a system prompt, tools and the model left.
        """
        self._keep(user, conversation, history)
        room = made.room if made is not None else self.config.max_tokens
        self.compact(user, conversation, history, max(room, SMALLEST_ROOM))

    def compact(self, user: UUID, conversation: UUID, history: History, max_tokens: int) -> None:
        """Have the oldest messages summarised in the background when the branch is above its high-water mark."""
        if history.head is None or not history.items:
            return
        after = history.summary.last + 1 if history.summary else 0
        sizes = [Size(item.wire["role"], item.tokens) for item in history.items if item.depth >= after]
        if history.items[0].depth > after or surplus(
            sizes,
            max_tokens=max_tokens,
            max_messages=self.config.max_messages,
            first=history.summary is None,
        ):
            self._compactions.submit(
                Compaction(user, conversation, history.head, max_tokens, self.config.max_messages)
            )

    def learn(
        self,
        model: ModelCard,
        messages: Sequence[Mapping[str, Any]],
        beside: Sequence[Any],
        prompt_tokens: int,
    ) -> None:
        """What a provider counted, of a prompt whose count was an estimate."""
        self._tokenizers.learn(model, messages, beside, prompt_tokens)

    def _keep(self, user: UUID, conversation: UUID, history: History) -> None:
        kept = self._recents.put(conversation, history)
        if kept is not None:
            self._background(self._recents.share(user, conversation, kept))

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settle(self, conversation: UUID) -> None:
        """Until the background work for this conversation is done."""
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._compactions.settle(conversation)

    async def close(self, patience: float) -> None:
        """Give up background work after `patience` seconds: whatever is lost is made again when it is needed."""
        await self._compactions.close(patience)
        await self._recaller.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience)


@dataclass(frozen=True)
class _Fitting:
    """A turn's parts, counted by the tokenizer of the model that is asked."""

    arguments: dict[str, Any]
    cuttable: int  # characters that may have to be gone through to cut a message
    items: int

    @classmethod
    async def of(cls, tokenizer: Tokenizer, asked: Asked, config: ContextConfig, budget: int) -> "_Fitting":
        lengths = [_length(item) for item in asked.history.items]
        new = sum([_length(item) for item in asked.new])
        beside = asked.beside
        work = partial(_counted, tokenizer, asked, config)
        recount = 0 if tokenizer.name == counting.STORED_ENCODING else sum(lengths) + new
        prompt = len(asked.system_prompt or "") + sum([len(str(part)) for part in beside])
        counted = (
            await counting.aside(recount + prompt, work)
            if recount + prompt > counting.INLINE_CHARACTERS
            else work()
        )
        arguments = {
            **counted,
            "budget": budget,
            "max_messages": config.max_messages,
            "keep": min(config.keep, config.max_messages // 2),
            "priming": max(counting.REPLY_PRIMING, tokenizer.priming),
            "cut": partial(cutting.cut_item, tokenizer=tokenizer),
        }
        # Of the history one message at most is cut; of the new ones, all may be.
        return cls(arguments, max(max(lengths, default=0), new), len(lengths) + len(asked.new))

    async def plan(self, recall: Recall | None) -> Plan:
        work = partial(plan, **self.arguments, recall=recall)
        if self.cuttable > counting.INLINE_CHARACTERS or self.items > INLINE_ITEMS:
            return await counting.aside(self.cuttable, work)
        return work()


def _counted(tokenizer: Tokenizer, asked: Asked, config: ContextConfig) -> dict[str, Any]:
    def costed(item: Item) -> Item:
        tokens = tokenizer.stored(*stored_form(item.wire), item.tokens)
        return item if tokens == item.tokens else item._replace(tokens=tokens)

    system = None
    if asked.system_prompt:
        wire = {"role": "system", "content": asked.system_prompt}
        system = Item(wire, tokenizer.message(asked.system_prompt, None))
    summary: Summary | None = asked.history.summary
    return {
        "system": system,
        "history": [costed(item) for item in asked.history.items],
        "summary": summary._replace(item=costed(summary.item)) if summary else None,
        "new": [costed(item) for item in asked.new],
        "tool_tokens": sum([tokenizer.json(part) for part in asked.beside]),
        "system_room": config.system_prompt_tokens,
    }


def _question(asked: Asked) -> Question | None:
    """What a search is made of: the new texts, or for a tool's results what the user asked last."""
    if asked.user is None or asked.conversation is None or asked.history.head is None or not asked.new:
        return None
    before = [item.wire for item in asked.history.items]
    new = [_asked_text(item.wire) for item in asked.new if item.wire["role"] != "tool"]
    while not any(new) and before:
        wire = before.pop()
        new = [_asked_text(wire)] if wire["role"] == "user" else []
    if not any(new):
        return None
    return Question(
        asked.user,
        asked.conversation,
        asked.history.head,
        new,
        [_asked_text(wire) for wire in before[-BEFORE:]],
    )


def _asked_text(wire: Mapping[str, Any]) -> str:
    text = text_of(wire.get("content"))
    if len(text) <= 2 * ASKED_CHARACTERS:
        return text
    return f"{text[:ASKED_CHARACTERS]}\n{text[-ASKED_CHARACTERS:]}"


def _length(item: Item) -> int:
    return len(text_of(item.wire.get("content")))
