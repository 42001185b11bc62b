"""A turn while it runs: what was asked for, and how far it has got."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from uuid import UUID

from baatcheet.budgets.admission import Admission
from baatcheet.chat.feed import Status, TurnFeed
from baatcheet.chat.reply import Reply
from baatcheet.chat.store import NewConversation
from baatcheet.context.manager import Asked
from baatcheet.context.planning import Plan
from baatcheet.context.stateless import Prompt
from baatcheet.providers.model import MOST_TOKENS, Attempt, Target

_PICTURES: Final = frozenset({"image_url", "file"})  # an attachment may be one


@dataclass(frozen=True)
class TurnRequest:
    """What a client asks for, whichever surface it came by."""

    messages: Sequence[Mapping[str, Any]] = ()  # the new ones, in OpenAI's form
    model: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)  # passed on to the provider as they are
    conversation_id: UUID | None = None
    opens: NewConversation | None = None  # a conversation to open
    at: str = "head"  # where the new messages go on from: "head", "root" or a message's id
    answer: UUID | None = None  # an existing message to answer again
    system_prompt: str | None = None  # in place of the conversation's own, for this turn
    idempotency_key: str | None = None
    fingerprint: str | None = None  # hexadecimal digest of the request
    truncation: Literal["auto", "disabled"] | None = (
        None  # of a stateless request; None: as the server is set
    )
    attached: bool = False  # a stateless request that ends with its client

    @property
    def reply_tokens(self) -> int | None:
        """What the reply is to be limited to, where the client says."""
        for name in ("max_completion_tokens", "max_tokens"):
            limit = self.parameters.get(name)
            if isinstance(limit, int) and not isinstance(limit, bool) and 0 < limit <= MOST_TOKENS:
                return limit
        return None

    @property
    def tools(self) -> list[Any] | None:
        tools = self.parameters.get("tools")
        return tools if isinstance(tools, list) else None

    @property
    def schema(self) -> dict[str, Any] | None:
        """The form that the reply is to have, where the client says."""
        schema = self.parameters.get("response_format")
        return schema if isinstance(schema, dict) else None

    @property
    def prompt(self) -> Prompt:
        """A stateless request's, as its client sent it."""
        beside = [part for part in (self.tools, self.schema) if part]
        return Prompt(self.messages, beside, self.reply_tokens or 0)

    @property
    def pictured(self) -> bool:
        """Whether there is a picture among the new messages."""
        return any(
            isinstance(part, Mapping) and part.get("type") in _PICTURES
            for message in self.messages
            if isinstance(content := message.get("content"), list)
            for part in content
        )

    @property
    def stateful(self) -> bool:
        return self.conversation_id is not None or self.opens is not None


@dataclass(eq=False)
class Run:
    """A turn that runs in this process."""

    feed: TurnFeed
    asked: Asked | None = None  # what there is to carry; None: the client sent it all
    admission: Admission | None = None  # what it uses is charged to
    reply: Reply = field(default_factory=Reply)
    task: asyncio.Task[None] | None = None
    started: bool = False
    generating: bool = True
    stopped: Status | None = None  # why the generation was stopped from outside
    plan: Plan | None = None
    receipt: dict[str, Any] | None = None  # of that plan
    most_tokens: int | None = None  # of a plan, since a provider found a larger one too long
    asking: Target | None = None  # the last that was asked
    target: Target | None = None  # the one that answers
    attempts: Sequence[Attempt] = ()  # those that were asked before it, in vain
    flushed: int = 0  # chunks that are durable already
    published: int = 0  # chunks that other processes can read already
    unsaved: bool = False  # the followers were told that saving takes longer

    def stop(self, status: Status) -> None:
        """Stop the generation; what it has said so far is recorded."""
        if self.stopped is None and self.generating:
            self.stopped = status
            if self.started and self.task is not None:  # a task that has not begun would end without a word
                self.task.cancel()
