"""What a turn's provider is sent, and what is kept of it for the next turn."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal
from uuid import UUID

from baatcheet.auth.principal import Principal
from baatcheet.chat.attaching import Attaching
from baatcheet.chat.errors import ContextLengthExceeded
from baatcheet.chat.run import Run, TurnRequest
from baatcheet.chat.store import Closing, Opened, Opening
from baatcheet.context.history import Bounds, History, StoredMessage
from baatcheet.context.manager import Asked, ContextManager
from baatcheet.context.planning import Plan
from baatcheet.platform.logging import get_logger
from baatcheet.providers.model import Target, Usage

log = get_logger(__name__)


class Prompts:
    """The chat's side of the context: what there is to carry, fitted to whoever answers."""

    def __init__(
        self, context: ContextManager, truncation: Literal["auto", "disabled"], attaching: Attaching
    ) -> None:
        self._context = context
        self._truncation = truncation
        self._attaching = attaching

    @property
    def bounds(self) -> Bounds:
        """How much of a branch an opening is to be sent."""
        return self._context.bounds

    # Of a conversation -------------------------------------------------------------------------------------

    async def known(self, who: Principal, request: TurnRequest) -> History | None:
        if request.conversation_id is None or request.at != "head" or request.answer is not None:
            return None
        return await self._context.known(who.user_id, request.conversation_id)

    async def asked(
        self,
        who: Principal,
        request: TurnRequest,
        opening: Opening,
        opened: Opened,
        known: History | None,
        new: Sequence[StoredMessage],
    ) -> Asked | None:
        """What there is to carry; None when the client sent it all."""
        if not request.stateful:
            return None
        if opened.history is None and known is not None and known.head == opened.head:
            history = known
        else:
            history = await self._context.history(opened.head, opened.version, opened.history)
        if opened.answer is not None:  # the message to answer is the newest of the branch
            history, items = history._replace(items=history.items[:-1]), history.items[-1:]
        else:
            items = history.placed([self._context.item(message) for message in new])
        return Asked(
            history,
            items,
            who.user_id,
            opening.conversation,
            opened.system_prompt if request.system_prompt is None else request.system_prompt,
            request.tools,
            request.schema,
        )

    async def body(self, target: Target, run: Run, request: TurnRequest) -> Mapping[str, Any]:
        """The request for `target`. Raises ContextTooSmall, OrphanToolResult."""
        owner = run.feed.identity.user_id
        if run.asked is None:
            return await self.stateless(owner, target, request)
        run.plan = await self._plan(target, run, run.asked, request)
        run.receipt = self._context.receipt(run.plan, target.model)
        messages = await self._attaching.shown(owner, run.plan.messages, sees=target.model.vision)
        return {**request.parameters, "model": target.model.name, "messages": messages}

    async def _plan(self, target: Target, run: Run, asked: Asked, request: TurnRequest) -> Plan:
        config = self._context.reserving(request.reply_tokens)
        if run.most_tokens is not None:
            config = replace(config, max_tokens=min(config.max_tokens, run.most_tokens))
        return await self._context.plan(target.model, asked, config)

    def look_back(self, run: Run, closing: Closing) -> None:
        """What the next turns gain by this one. It is over: whatever goes wrong here is not its followers' concern."""
        try:
            self._remember(run, closing)
            self._learn(run)
        except Exception as error:  # noqa: BLE001 - the reply is saved, and must be told
            log.error("turn.not_remembered", error=error, turn_id=str(run.feed.identity.id))

    def _remember(self, run: Run, closing: Closing) -> None:
        """The branch has grown by what was asked, and by the reply if there is one."""
        identity, reply, asked = run.feed.identity, closing.message, run.asked
        if asked is None or asked.conversation is None:
            return
        made = run.plan if run.most_tokens is None else None  # a smaller plan says nothing of the room
        said = list(asked.new)
        if reply is not None and identity.reply_id is not None:
            message = StoredMessage(identity.reply_id, "assistant", reply.content, reply.tokens, reply.parts)
            said.append(self._context.item(message))
        self._context.remember(identity.user_id, asked.conversation, asked.history.grown(said), made)

    def _learn(self, run: Run) -> None:
        """What the provider itself counted tells how far an estimate was off."""
        usage = run.reply.usage
        if usage is not None and run.plan is not None and run.target is not None and run.asked is not None:
            self._context.learn(run.target.model, run.plan.messages, run.asked.beside, usage.prompt_tokens)

    # Of a stateless request --------------------------------------------------------------------------------

    async def stateless(self, owner: UUID, target: Target, request: TurnRequest) -> Mapping[str, Any]:
        """The request for `target`. Raises ContextTooSmall, OrphanToolResult."""
        messages = request.messages
        if self._truncates(request):
            messages = await self._context.fitted(target.model, request.prompt)
        messages = await self._attaching.shown(owner, messages, sees=target.model.vision)
        return {**request.parameters, "model": target.model.name, "messages": messages}

    def _truncates(self, request: TurnRequest) -> bool:
        return (request.truncation or self._truncation) == "auto"

    async def wide_enough(self, targets: tuple[Target, ...], request: TurnRequest) -> tuple[Target, ...]:
        """Those of `targets` that a stateless request may be sent to; with truncation the others come last.

        Raises ContextLengthExceeded.
        """
        prompt = request.prompt
        excess = [await self._context.excess(target.model, prompt) for target in targets]
        if not any(excess):
            return targets
        wide = tuple([target for target, over in zip(targets, excess, strict=True) if not over])
        if self._truncates(request):
            return wide + tuple([target for target in targets if target not in wide])
        if not wide:
            over, window = min(
                [(over, one.model.context_window) for one, over in zip(targets, excess, strict=True)]
            )
            raise ContextLengthExceeded(
                f"The messages, the tools and the reply that was asked for take about {over:,} tokens more than the "
                f"{window:,} of the model's window. Shorten them, or send truncation: auto.",
                param="messages",
            )
        return wide

    def learn(self, target: Target, request: TurnRequest, usage: Usage) -> None:
        """What a provider counted of a stateless request that was sent as it came."""
        if not self._truncates(request):
            prompt = request.prompt
            self._context.learn(target.model, prompt.messages, prompt.beside, usage.prompt_tokens)
