"""One turn, told as a story: open → plan → stream → record.

A turn belongs to the server: once it is open it runs to its end in a task of its own, whoever listens. Only a
stateless request without an idempotency key belongs to its client, and is stopped when that leaves. No database
connection is held while a provider answers.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Literal
from uuid import UUID

from baatcheet.auth.idempotency import IdempotencyKeyReused
from baatcheet.auth.principal import Principal
from baatcheet.budgets import estimates
from baatcheet.budgets.admission import Admission, Budgets
from baatcheet.budgets.errors import BudgetExhausted
from baatcheet.chat.attaching import Attaching
from baatcheet.chat.errors import (
    TurnNotFound,
    model_not_found,
    problem_of_failure,
    problem_of_plan,
    problem_of_provider,
)
from baatcheet.chat.feed import Outcome, Status, TurnFeed, TurnIdentity, error_of
from baatcheet.chat.finished import finished_feed
from baatcheet.chat.prompts import Prompts
from baatcheet.chat.recording import Recorder
from baatcheet.chat.run import Run, TurnRequest
from baatcheet.chat.store import (
    Opened,
    Opening,
    TurnRow,
    TurnStore,
)
from baatcheet.context.history import History, StoredMessage, to_be_stored
from baatcheet.context.manager import ContextManager
from baatcheet.context.planning import ContextTooSmall, OrphanToolResult
from baatcheet.conversations.errors import ConversationNotFound, MessageNotFound, TurnInProgress
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import DatabaseUnavailable
from baatcheet.platform.errors import Problem, ServerFault, ShuttingDown
from baatcheet.platform.logging import get_logger
from baatcheet.platform.telemetry import Metrics
from baatcheet.projects.service import ProjectNotFound
from baatcheet.providers.catalogue import UnknownModel
from baatcheet.providers.failover import complete_first, embed_first, stream_first
from baatcheet.providers.model import (
    AllProvidersFailed,
    Completion,
    ModelCard,
    ProviderError,
    Target,
    Usage,
)
from baatcheet.providers.routing.model import Models

log = get_logger(__name__)

RECORDING = 4.0  # seconds after the grace period in which interrupted turns are written down
PLANS_SMALLER = 2  # times that a turn is planned anew because its provider found the prompt too long
OPEN_AGAIN = (
    2.0  # seconds within which a failed opening is tried once more: later, the client has waited enough
)


class ChatService:
    """Starts turns, finds them again, stops them."""

    def __init__(
        self,
        *,
        store: TurnStore,
        catalogue: Models,
        context: ContextManager,
        process: UUID,
        spend: Callable[[UUID, int], Awaitable[None]],
        metrics: Metrics,
        attaching: Attaching,
        budgets: Budgets,
        truncation: Literal["auto", "disabled"] = "disabled",
        seeing: Models | None = None,
    ) -> None:
        """`seeing`: who finds the models for a request with pictures; `catalogue` unless given."""
        self._store = store
        self._catalogue = catalogue
        self._seeing = seeing or catalogue
        self._prompts = Prompts(context, truncation, attaching)
        self._budgets = budgets
        self._process = process
        self._metrics = metrics
        self._recorder = Recorder(store, spend=spend, metrics=metrics, cost=budgets.cost)
        self._draining = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self.runs: dict[UUID, Run] = {}
        self.on_drain: Callable[[], None] = lambda: None
        self.on_end: Callable[[Run], None] = lambda _run: None

    # Starting ----------------------------------------------------------------------------------------------

    async def start(self, who: Principal, request: TurnRequest) -> TurnFeed:
        """Open a turn and let it run. A repeated idempotency key finds the turn that it started.

        Raises ModelNotFound, ModelNotAllowed, ModelNotPriced, BudgetExhausted, ConversationNotFound, MessageNotFound,
        ProjectNotFound, TurnInProgress, IdempotencyKeyReused, ShuttingDown, DatabaseUnavailable.
        """
        if self._draining:
            raise ShuttingDown("This server is shutting down; another will take over.")
        targets = None
        if request.model is not None:
            targets = await self._budgets.among(who, await self._resolve(request.model, request))
        if not request.stateful and targets is not None:
            targets = await self._prompts.wide_enough(targets, request)
        try:
            admission = await self._admitted(who, request, targets)
        except BudgetExhausted:
            feed = await self.joined(who, request)
            if feed is None:
                raise
            return feed
        try:
            return await self._begin(who, request, targets, admission)
        except BaseException:
            admission.release()
            raise

    async def _admitted(
        self, who: Principal, request: TurnRequest, targets: tuple[Target, ...] | None
    ) -> Admission:
        if targets is None and await self._budgets.in_money(who):  # the conversation's model is not known yet
            targets = await self._resolve(None, request)
        return await self._budgets.admit(
            who,
            [target.model.id for target in targets or ()],
            lambda: estimates.of_messages(request.messages, request.reply_tokens),
        )

    async def _begin(
        self,
        who: Principal,
        request: TurnRequest,
        targets: tuple[Target, ...] | None,
        admission: Admission,
    ) -> TurnFeed:
        if request.attached:
            feed = TurnFeed(TurnIdentity(new_id(), who.user_id, request.model))
            self._launch(who, Run(feed, admission=admission), request, targets)
            return feed
        known = await self._prompts.known(who, request)
        opening, new = await self._opening(who, request, known)
        outcome, opened = await self._open(opening)
        if outcome == "joined":
            assert opened.turn is not None
            admission.release()
            return await self._join(who, opened.turn)
        if outcome != "opened":
            raise _refusal(outcome, opened, request)
        identity = TurnIdentity(
            id=opening.turn,
            user_id=who.user_id,
            model=request.model or opened.model,
            conversation_id=opening.conversation,
            input_id=opened.answer or (new[-1].id if new and request.stateful else None),
            reply_id=opening.reply,
            title=opened.title,
        )
        asked = await self._prompts.asked(who, request, opening, opened, known, new)
        run = Run(TurnFeed(identity), asked, admission)
        self._launch(who, run, request, targets)
        return run.feed

    async def joined(self, who: Principal, request: TurnRequest) -> TurnFeed | None:
        """The turn that the request's idempotency key has started; None when it has started none.

        `start` finds it too. This is for what is to be done only for a new turn. Raises IdempotencyKeyReused,
        DatabaseUnavailable.
        """
        if request.idempotency_key is None:
            return None
        found = await self._store.by_key(who.user_id, request.idempotency_key)
        if found is None:
            return None
        turn, fingerprint = found
        if fingerprint != request.fingerprint:
            raise _refusal("reused", Opened(), request)
        return await self._join(who, turn)

    async def _join(self, who: Principal, turn: UUID) -> TurnFeed:
        feed = await self.find(who, turn)
        feed.joined = True
        return feed

    async def _open(self, opening: Opening) -> tuple[str, Opened]:
        """Commit the opening. An answer that was lost on its way is asked for once more: the opening bears it."""
        began = time.monotonic()
        try:
            return await self._store.open(opening)
        except DatabaseUnavailable:
            if time.monotonic() - began > OPEN_AGAIN:
                raise
            return await self._store.open(opening)

    async def complete(self, who: Principal, request: TurnRequest) -> Completion:
        """A stateless, unstreamed request: the provider's whole answer, passed on as it came. Its usage is recorded."""
        if self._draining:
            raise ShuttingDown("This server is shutting down; another will take over.")
        targets = await self._budgets.among(who, await self._resolve(request.model, request))
        targets = await self._prompts.wide_enough(targets, request)
        created = time.time()
        admission = await self._admitted(who, request, targets)

        async def body_for(target: Target) -> Mapping[str, Any]:
            return await self._prompts.stateless(who.user_id, target, request)

        try:
            with admission:
                completed = await complete_first(targets, body_for)
        except (ContextTooSmall, OrphanToolResult) as error:
            raise problem_of_plan(error) from error
        except ProviderError as error:
            raise problem_of_provider(error) from error
        except AllProvidersFailed as failed:
            raise problem_of_failure(failed) from failed
        usage = completed.completion.usage or Usage()
        raw = completed.completion.raw
        counted = completed.completion.usage or estimates.of_answer(request.messages, raw)
        admission.charge(completed.target.model.id, counted)
        self._prompts.learn(completed.target, request, usage)
        made = self._recorder.record(who, request, completed.target, counted, created, completed.attempts)
        self._background(made)
        return completed.completion

    async def embed(self, who: Principal, model: str, body: Mapping[str, Any]) -> bytes:
        """The answer of a provider that has the embedding model `model`, as JSON."""
        try:
            targets = await self._catalogue.resolve_embedding(model)
        except UnknownModel as unknown:
            raise model_not_found(unknown) from None
        targets = await self._budgets.among(who, targets)
        given = body.get("input")
        models = [target.model.id for target in targets]
        admission = await self._budgets.admit(who, models, lambda: estimates.of_input(given))

        async def body_for(target: Target) -> Mapping[str, Any]:
            return {**body, "model": target.model.name}

        try:
            with admission:
                embedded = await embed_first(targets, body_for)
        except ProviderError as error:
            raise problem_of_provider(error) from error
        except AllProvidersFailed as failed:
            raise problem_of_failure(failed) from failed
        usage = estimates.said_in(embedded.raw) or estimates.of_input(given)
        admission.charge(embedded.target.model.id, usage, kind="embedding")
        return embedded.raw

    async def allowed(self, who: Principal, cards: list[ModelCard]) -> list[ModelCard]:
        """Those of `cards` that `who` may ask."""
        shown = await self._budgets.shown(who, [card.id for card in cards])
        return [card for card in cards if card.id in shown]

    async def model(self, name: str) -> ModelCard:
        """Who would be asked first for `name`. Raises ModelNotFound."""
        return (await self._resolve(name))[0].model

    async def _resolve(self, name: str | None, request: TurnRequest | None = None) -> tuple[Target, ...]:
        models = self._seeing if request is not None and request.pictured else self._catalogue
        try:
            return await models.resolve(name)
        except UnknownModel as unknown:
            raise model_not_found(unknown) from None

    async def _opening(
        self, who: Principal, request: TurnRequest, known: History | None
    ) -> tuple[Opening, list[StoredMessage]]:
        new = (
            [await to_be_stored(new_id(), message) for message in request.messages]
            if request.stateful
            else []
        )
        opening = Opening(
            turn=new_id(),
            user=who.user_id,
            process=self._process,
            reply=new_id(),
            bounds=self._prompts.bounds,
            conversation=request.conversation_id or (new_id() if request.opens else None),
            new=request.opens,
            at=request.at,
            answer=request.answer,
            known=known.head if known is not None else None,
            known_version=known.version if known is not None else 0,
            model=request.model,
            key=request.idempotency_key,
            fingerprint=request.fingerprint,
            messages=tuple(new),
        )
        return opening, new

    def _launch(
        self, who: Principal, run: Run, request: TurnRequest, targets: tuple[Target, ...] | None
    ) -> None:
        self.runs[run.feed.identity.id] = run
        self._metrics.turn_started()
        run.task = self._background(self._run(who, run, request, targets))
        run.task.add_done_callback(partial(self._ended, run))

    # Generating --------------------------------------------------------------------------------------------

    async def _run(
        self, who: Principal, run: Run, request: TurnRequest, targets: tuple[Target, ...] | None
    ) -> None:
        """See a turn to its end, and never leave a follower waiting."""
        status: Status = "completed"
        problem: Problem | None = None
        run.started = True
        try:
            if run.stopped is None:
                await self._generate(run, request, targets)
            else:
                status = run.stopped
        except asyncio.CancelledError:
            assert run.task is not None
            run.task.uncancel()
            status = run.stopped or "interrupted"
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it was is told; a native library's panic is no Exception
            status, problem = "failed", _told(error, run)
        run.generating = False
        await self._conclude(who, run, request, status, problem)

    def _ended(self, run: Run, task: asyncio.Task[None]) -> None:
        """See that a turn whose task broke down runs no more, and that nobody follows it in vain."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        log.error("turn.not_recorded", error=error, turn_id=str(run.feed.identity.id))
        if self.runs.pop(run.feed.identity.id, None) is None:
            return
        # The keeper will find the turn, and end it.
        if run.feed.outcome is None:
            fault = ServerFault("The turn could not be recorded.")
            run.feed.end(Outcome("failed", error=error_of(fault)))
        self._metrics.turn_ended("failed")

    async def _generate(self, run: Run, request: TurnRequest, targets: tuple[Target, ...] | None) -> None:
        """Stream the reply into the run's feed. What ends the reply is held back until it is committed."""
        if targets is None:
            targets = await self._resolve(run.feed.identity.model, request)
            if run.admission is not None:
                targets = await run.admission.among(targets)
        for _ in range(PLANS_SMALLER):
            try:
                await self._stream(run, request, targets)
            except ProviderError as error:
                if not error.too_long or run.plan is None or run.feed.chunks:
                    raise
                # The count was an estimate, or the window is smaller than it was said to be.
                run.most_tokens = run.plan.tokens * 3 // 4
                log.warning("turn.planned_smaller", tokens=run.plan.tokens, reason=str(error))
            else:
                return
        await self._stream(run, request, targets)

    async def _stream(self, run: Run, request: TurnRequest, targets: tuple[Target, ...]) -> None:
        async def body_for(target: Target) -> Mapping[str, Any]:
            body = await self._prompts.body(target, run, request)
            run.asking = target
            return body

        try:
            async with stream_first(targets, body_for) as answering:
                run.target = answering.target
                run.attempts = answering.attempts
                run.feed.answered_by = answering.target.model.id
                async for chunks in answering.chunks:
                    shown = run.reply.take(chunks)
                    if shown:
                        run.feed.push(shown)
        except AllProvidersFailed as failed:
            run.attempts = failed.attempts
            raise

    # Recording ---------------------------------------------------------------------------------------------

    async def _conclude(
        self, who: Principal, run: Run, request: TurnRequest, status: Status, problem: Problem | None
    ) -> None:
        """Commit the end of a turn, and only then tell the followers."""
        outcome = await self._recorder.outcome(run, status, problem)
        self._recorder.charge(run, request, outcome)
        closing = await self._recorder.closing(who, run, request, outcome)
        if request.attached:
            self._end(run, outcome)
            self._background(self._recorder.save(run, closing))
        elif await self._recorder.save(run, closing):
            self._prompts.look_back(run, closing)
            self._end(run, outcome)
        else:
            outcome = await self._recorder.standing(run, outcome)
            self._end(run, outcome)
        log.debug(
            "turn.ended",
            turn_id=str(run.feed.identity.id),
            status=outcome.status,
            answered_by=outcome.answered_by,
        )
        self._metrics.turn_ended(outcome.status)
        if outcome.usage is not None:
            await self._recorder.account(who, outcome.usage)

    def _end(self, run: Run, outcome: Outcome) -> None:
        if not run.unsaved:
            if outcome.status == "completed":
                run.feed.push(run.reply.held)
            run.feed.end(outcome)
        self.runs.pop(run.feed.identity.id, None)
        self.on_end(run)

    # Finding and stopping ----------------------------------------------------------------------------------

    async def find(self, who: Principal, turn_id: UUID) -> TurnFeed:
        """The events of one of `who`'s turns: from memory when it runs here, else from where it was written.

        Raises TurnNotFound, DatabaseUnavailable.
        """
        run = self.runs.get(turn_id)
        if run is not None and run.feed.identity.user_id == who.user_id:
            return run.feed
        row = await self._store.row(who.user_id, turn_id)
        if row is None:
            raise TurnNotFound(f"There is no turn {turn_id}.")
        if row.status == "running":
            return self.mirror(row)
        return finished_feed(row)

    mirror: Callable[[TurnRow], TurnFeed]
    """Follows a turn that another process runs; set by the relay."""

    async def cancel(self, who: Principal, turn_id: UUID) -> None:
        """Stop a turn upstream, keep what it has said. An ended turn stays as it is. Raises TurnNotFound."""
        run = self.runs.get(turn_id)
        if run is not None and run.feed.identity.user_id == who.user_id:
            run.stop("cancelled")
            return
        if not await self._store.request_cancel(who.user_id, turn_id) and (
            await self._store.row(who.user_id, turn_id) is None
        ):
            raise TurnNotFound(f"There is no turn {turn_id}.")

    def abandon(self, feed: TurnFeed) -> None:
        """The client of a stateless request has left: nobody wants the rest."""
        run = self.runs.get(feed.identity.id)
        if run is not None and feed.outcome is None:
            run.stop("cancelled")

    async def drain(self, grace: float) -> None:
        """Take no more turns, let those that run end within `grace` seconds, mark the rest interrupted.

        Called again, the earlier end of the two graces holds.
        """
        self._draining = True
        self.on_drain()
        if self.runs and grace > 0:
            await asyncio.wait([run.task for run in self.runs.values() if run.task], timeout=grace)
        for run in list(self.runs.values()):
            run.stop("interrupted")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=RECORDING)
        for run in list(self.runs.values()):  # the database is away: nobody is kept waiting for it
            self._recorder.tell_unsaved(run, stopping=True)

    def _background(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _told(error: BaseException, run: Run) -> Problem:
    """What the followers of a turn are told when its generation raised `error`."""
    match error:
        case ProviderError():
            return problem_of_provider(error)
        case AllProvidersFailed():
            return problem_of_failure(error)
        case OrphanToolResult() | ContextTooSmall():
            return problem_of_plan(error)
        case Problem():
            return error
        case _:
            log.error("turn.crashed", error=error, turn_id=str(run.feed.identity.id))
            return ServerFault("The turn failed on our side.")


def _refusal(outcome: str, opened: Opened, request: TurnRequest) -> Problem:
    """Why a turn could not be opened."""
    match outcome:
        case "reused":
            return IdempotencyKeyReused("Send a new Idempotency-Key with a new request.")
        case "busy":
            assert opened.turn is not None
            return TurnInProgress(opened.turn)
        case "no-conversation":
            return ConversationNotFound(request.conversation_id, param="conversation_id")
        case "no-project":
            assert request.opens is not None
            assert request.opens.project is not None
            return ProjectNotFound(request.opens.project, param="project_id")
        case "no-message":
            return MessageNotFound(request.answer or request.at, param="message_id")
    raise ValueError(outcome)
