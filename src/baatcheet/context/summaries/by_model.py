"""A summary written by a model, in as many requests as its window needs."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from baatcheet.context import counting
from baatcheet.context.summaries import chunking, prompts
from baatcheet.context.summaries.chunking import Measure
from baatcheet.context.summaries.replies import Unusable, notes
from baatcheet.context.summaries.sampling import bounded
from baatcheet.context.summaries.sections import EARLIER, Line, SummaryFailed
from baatcheet.providers.adapters.demo import NAME as DEMO
from baatcheet.providers.catalogue import UnknownModel
from baatcheet.providers.failover import complete_first
from baatcheet.providers.model import AllProvidersFailed, Body, ProviderError, Target

MOST_CHARACTERS = 240_000  # of a block that are sent at all; the longest messages are sampled
LARGEST_CHUNK = 12_000  # tokens; more at once, and models overlook things
SMALLEST_CHUNK = 256
_THOUGHTS = 1_024  # tokens that a model may think before it writes
_GUESS = 0.6  # how much of a window is used by a count that is not the model's own: Urdu may cost it more


@dataclass(frozen=True)
class _Desk:
    """Who is asked, and what all of them can read and write at once."""

    targets: tuple[Target, ...]
    measure: Measure
    chunk: int  # tokens of conversation
    reply: int  # tokens asked for, thoughts included


class ModelSummarizer:
    """Asks the first of `targets` that answers. Give each job its own: `name` is who answered it last."""

    def __init__(
        self,
        targets: Callable[[], Awaitable[Sequence[Target]]],
        *,
        patience: float = 60.0,
        largest_chunk: int = LARGEST_CHUNK,
    ) -> None:
        self._targets = targets
        self._patience = patience  # seconds for one request, all providers that are tried included
        self._largest_chunk = largest_chunk
        self._name = "model"

    @property
    def name(self) -> str:
        return self._name

    async def summarize(self, lines: Sequence[Line], tokens: int) -> str:
        if tokens < 1 or not any(line.text.strip() for line in lines):
            return ""
        try:
            targets = await self._targets()
        except UnknownModel as error:
            raise SummaryFailed(str(error)) from None
        desk = _desk(targets, tokens, self._largest_chunk)
        looked_at = bounded(lines, MOST_CHARACTERS)
        before = None
        while True:
            length = sum(len(line.text) for line in looked_at)
            divide = partial(_divided, looked_at, desk)
            whole = length <= counting.INLINE_CHARACTERS
            divided = divide() if whole else await counting.aside(length, divide)
            if len(divided) == 1:
                return await self._ask(desk, divided[0], tokens)
            if before is not None and len(divided) >= before:
                raise SummaryFailed("the notes do not get shorter in the window of the model")
            before = len(divided)
            # A third of a chunk each, so that every round has fewer chunks than the one before.
            part = max(1, min(max(tokens, SMALLEST_CHUNK), desk.chunk // 3) - 32)
            looked_at = [Line(EARLIER, await self._ask(desk, chunk, part), chunk[0].at) for chunk in divided]

    async def _ask(self, desk: _Desk, chunk: Sequence[Line], tokens: int) -> str:
        """The notes on one chunk, of the first who gives some."""
        body: Body = {
            "messages": prompts.request(chunk, tokens),
            "max_tokens": desk.reply,
            "temperature": 0,
        }
        targets = desk.targets
        try:
            async with asyncio.timeout(self._patience):
                while True:
                    target, raw = await _complete(targets, body)
                    try:
                        text = notes(raw, tokens)
                    except Unusable as error:
                        targets = targets[targets.index(target) + 1 :]
                        if not targets:
                            raise SummaryFailed(f"{target.model.id}: {error}") from None
                        continue
                    self._name = target.model.id
                    return text
        except TimeoutError:
            raise SummaryFailed(f"no answer within {self._patience:g} s") from None
        except (ProviderError, AllProvidersFailed) as error:
            raise SummaryFailed(str(error)) from None


async def _complete(targets: Sequence[Target], body: Body) -> tuple[Target, bytes]:
    async def body_for(_: Target) -> Body:
        return body

    try:
        done = await complete_first(targets, body_for)
    except ProviderError as error:
        if "temperature" not in body or "temperature" not in (error.param, *error.message.lower().split("'")):
            raise
        # Models that think take no temperature but their own.
        return await _complete(targets, {key: value for key, value in body.items() if key != "temperature"})
    return done.target, done.completion.raw


def _desk(targets: Sequence[Target], tokens: int, largest_chunk: int) -> _Desk:
    """What `targets` can do together; those whose window is too small are left out. Raises SummaryFailed."""
    models = [target for target in targets if target.provider.name != DEMO]
    if not models:
        raise SummaryFailed("no model is configured")
    encodings = {target.model.encoding for target in models}

    def measure(text: str) -> int:
        return max(counting.count(text, name) for name in encodings)

    asking = sum(measure(message["content"]) for message in prompts.request([], tokens))
    asking += 2 * counting.MESSAGE_OVERHEAD + counting.REPLY_PRIMING + 16
    usable, chunk, reply = [], largest_chunk, tokens * 2 + _THOUGHTS
    for target in models:
        window = target.model.context_window
        answer = min(reply, target.model.max_output or reply, window // 3)
        readable = (window - answer) if target.model.exact_encoding else int((window - answer) * _GUESS)
        if readable - asking >= SMALLEST_CHUNK and answer >= min(tokens, SMALLEST_CHUNK):
            usable.append(target)
            chunk, reply = min(chunk, readable - asking), answer
    if not usable:
        raise SummaryFailed("no model has a window that is large enough to summarise in")
    return _Desk(tuple(usable), measure, chunk, reply)


def _divided(lines: Sequence[Line], desk: _Desk) -> list[list[Line]]:
    return list(chunking.chunks([line for line in lines if line.text.strip()], desk.chunk, desk.measure))
