"""Writing down how a turn ended."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec

from baatcheet.auth.principal import Principal
from baatcheet.budgets import estimates
from baatcheet.chat.errors import ReplyNotSaved
from baatcheet.chat.events import pack
from baatcheet.chat.feed import Outcome, Status, TurnFeed, TurnIdentity, error_of
from baatcheet.chat.finished import finished_feed
from baatcheet.chat.run import Run, TurnRequest
from baatcheet.chat.store import Closing, StoredReply, TurnStore
from baatcheet.context import counting
from baatcheet.context.history import tokens_of
from baatcheet.conversations.wire import stored_form
from baatcheet.kit.ids import new_id
from baatcheet.kit.text import storable, storable_json
from baatcheet.platform import patience
from baatcheet.platform.database import DatabaseUnavailable
from baatcheet.platform.errors import Problem
from baatcheet.platform.logging import get_logger
from baatcheet.platform.telemetry import Metrics
from baatcheet.providers.model import Attempt, Target, Usage

log = get_logger(__name__)

SAVE_PATIENCE = 10.0  # seconds that a client waits for its reply to be saved; saving goes on after that
SAVE_PAUSE = 1.0  # seconds between two attempts to save


class Recorder:
    """Turns what a run has come to into rows, and accounts for what it used."""

    def __init__(
        self,
        store: TurnStore,
        *,
        spend: Callable[[UUID, int], Awaitable[None]],
        metrics: Metrics,
        cost: Callable[[str, Usage], int | None],
    ) -> None:
        self._store = store
        self._spend = spend
        self._metrics = metrics
        self._cost = cost

    async def outcome(self, run: Run, status: Status, problem: Problem | None) -> Outcome:
        """How a run has ended; usage that the provider kept to itself is counted here."""
        reply = run.reply
        usage = reply.usage
        if usage is None and not reply.empty:  # the provider said nothing, or was stopped before it could
            prompt = run.plan.tokens if run.plan else 0
            completion = await counting.count_aside(reply.text)
            usage = Usage(prompt, completion, prompt + completion)
        return Outcome(
            status=status,
            message=reply.message() if not reply.empty or status == "completed" else None,
            answered_by=run.target.model.id if run.target else None,
            finish_reason=(reply.finish_reason or "stop") if status == "completed" else None,
            usage=usage,
            error=error_of(problem) if problem else None,
        )

    async def closing(self, who: Principal, run: Run, request: TurnRequest, outcome: Outcome) -> Closing:
        """What is to be stored of a run that ended with `outcome`."""
        identity, usage = run.feed.identity, outcome.usage
        message = None
        if request.stateful and outcome.message is not None:
            content, parts = stored_form(outcome.message)
            message = StoredReply(content, parts, await tokens_of(content, parts))
        shown = [*run.feed.chunks, *(run.reply.held if outcome.status == "completed" else ())]
        plain = all(chunk.choice is None for chunk in shown)
        return Closing(
            turn=identity.id,
            user=who.user_id,
            conversation=identity.conversation_id,
            record=request.attached,
            created=(identity.id.int >> 80) / 1000,
            model=identity.model,
            status=outcome.status,
            answered_by=outcome.answered_by,
            finish_reason=storable(outcome.finish_reason or outcome.status),
            error=storable_json(outcome.error),
            prompt_tokens=usage.prompt_tokens if usage else None,
            completion_tokens=usage.completion_tokens if usage else None,
            usage=self._account_of(outcome.answered_by, usage),
            receipt=_with_route(run.receipt, run.target, run.attempts),
            reply=outcome.message if not request.stateful and not request.attached else None,
            message=message,
            lengths=[len(chunk.text) for chunk in shown] if plain and not request.attached else None,
            events=pack(shown) if not plain and not request.attached else None,
            flushed=run.flushed > 0,
            free=outcome.status == "failed" and outcome.message is None and _may_pass(outcome.error),
        )

    async def save(self, run: Run, closing: Closing) -> bool:
        """Commit, however long the database is away. After a while the followers are told not to wait."""
        seconds = patience.left(SAVE_PATIENCE)
        impatient = asyncio.get_running_loop().call_later(seconds, self.tell_unsaved, run)
        if closing.record:
            impatient.cancel()
        try:
            return await self._commit(closing)
        finally:
            impatient.cancel()

    async def _commit(self, closing: Closing) -> bool:
        while True:
            try:
                return await self._store.close(closing)
            except DatabaseUnavailable:
                await asyncio.sleep(SAVE_PAUSE)
            except Exception as error:
                if closing.usage is None and closing.receipt is None and closing.events is None:
                    raise
                # Something beside the reply can't be stored. The reply can.
                log.error("turn.stored_without_its_account", error=error, turn_id=str(closing.turn))
                closing = msgspec.structs.replace(
                    closing, usage=None, receipt=None, events=None, prompt_tokens=None, completion_tokens=None
                )

    def tell_unsaved(self, run: Run, *, stopping: bool = False) -> None:
        """Let the followers go: saving takes longer than they should wait, or than this process has."""
        if not run.unsaved and run.feed.outcome is None:
            run.unsaved = True
            problem = ReplyNotSaved(
                "This server stops while the database is away: the text that was saved will be found as an "
                "interrupted turn."
                if stopping
                else "The reply is complete and will be saved once the database is back."
            )
            run.feed.end(Outcome("failed", answered_by=run.feed.answered_by, error=error_of(problem)))

    async def standing(self, run: Run, outcome: Outcome) -> Outcome:
        """How a turn stands that had ended when this process came to end it.

        Either this process had ended it, and the answer was lost, or another that took it for dead.
        """
        identity = run.feed.identity
        try:
            row = await self._store.row(identity.user_id, identity.id)
        except DatabaseUnavailable:
            row = None
        stands = finished_feed(row).outcome if row is not None else None
        if stands is None or stands.status == "running":
            return Outcome("interrupted", outcome.message, outcome.answered_by, usage=outcome.usage)
        return stands

    async def record(
        self,
        who: Principal,
        request: TurnRequest,
        target: Target,
        usage: Usage,
        created: float,
        attempts: Sequence[Attempt] = (),
    ) -> None:
        """Keep what a stateless request used."""
        closing = Closing(
            turn=new_id(),
            user=who.user_id,
            status="completed",
            record=True,
            created=created,
            model=request.model,
            answered_by=target.model.id,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            usage=self._account_of(target.model.id, usage),
            receipt=_with_route(None, target, attempts),
        )
        await self.save(Run(TurnFeed(TurnIdentity(closing.turn, who.user_id))), closing)
        await self.account(who, usage)

    def _account_of(self, model: str | None, usage: Usage | None) -> dict[str, Any] | None:
        """What is kept of `usage`: its numbers, and in `microcents` what it costs, where somebody knows the price."""
        account = _as_json(usage)
        if account is not None and usage is not None and model is not None:
            cost = self._cost(model, usage)
            if cost is not None:
                account["microcents"] = cost
        return account

    @staticmethod
    def charge(run: Run, request: TurnRequest, outcome: Outcome) -> None:
        """Charge what a turn used to its budgets, however it ended; a turn that nobody answered is not counted.

        One that was stopped is charged its prompt, even if its model had not begun to answer.
        """
        if run.admission is None:
            return
        usage, answered = outcome.usage, run.target
        stopped = run.asking if outcome.status == "cancelled" else None
        if usage is None and answered is not None and outcome.status == "completed":
            usage = Usage()
        elif usage is None and stopped is not None:
            usage, answered = Usage(), answered or stopped
        if usage is None or answered is None:
            run.admission.release()
            return
        if not usage.prompt_tokens:  # the provider was stopped before it could say
            prompt = run.plan.tokens if run.plan else estimates.of_messages(request.messages, 0).prompt_tokens
            completion = usage.completion_tokens
            usage = Usage(prompt, completion, prompt + completion)
        run.admission.charge(answered.model.id, usage)

    async def account(self, who: Principal, usage: Usage) -> None:
        """Count what was used, and charge it to the token."""
        self._metrics.tokens(usage.prompt_tokens, usage.completion_tokens)
        await self._spend(who.token_id, usage.total_tokens)


def _may_pass(error: Mapping[str, Any] | None) -> bool:
    """Whether the same request may succeed later."""
    status = int((error or {}).get("status", 500))
    return status == 429 or status >= 500


def _with_route(
    receipt: dict[str, Any] | None, target: Target | None, attempts: Sequence[Attempt]
) -> dict[str, Any] | None:
    """The receipt, and who has answered, why, and who was asked before in vain; None when nobody was asked."""
    if target is None and not attempts:
        return receipt
    route: dict[str, Any] = {}
    if target is not None:
        route = {"model": target.model.id, "reason": target.reason}
    if attempts:
        route["tried"] = [{"model": f"{one.provider}/{one.model}", "failure": one.kind} for one in attempts]
    return {**(receipt or {}), "route": route}


def _as_json(usage: Usage | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    return {name: value for name in Usage.__struct_fields__ if (value := getattr(usage, name)) is not None}
