"""Who counts for which model: its own vocabulary where it is at hand, an estimate that learns where it is not."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Protocol

from baatcheet.context import counting, other_vocabularies
from baatcheet.context.calibration import PROMPT_TOKENS, Calibration, Sums, divided, features
from baatcheet.context.images import picture_tokens, unsent_tokens
from baatcheet.conversations.wire import stored_form
from baatcheet.platform.logging import get_logger
from baatcheet.providers.families import GPT_4O_IMAGES, ImageCost, family_of
from baatcheet.providers.model import ModelCard

log = get_logger(__name__)

MOST_MODELS = 1_000  # that are calibrated; the one that was learned of longest ago is forgotten
LONGEST_ID = 500  # characters of the name of a model that is
EAGER, PAUSE = 40, 1.0  # replies that all teach, and seconds between two after those
LEARNT_CHARACTERS = 100_000  # a longer prompt takes too long to go through, and teaches no more than others

Parts = Mapping[str, Any] | None


class Tokenizer(Protocol):
    """Counts as a model does. `margin` is how far a count may be off, as a share of it."""

    @property
    def name(self) -> str: ...
    @property
    def exact(self) -> bool: ...
    @property
    def overhead(self) -> int: ...
    @property
    def priming(self) -> int: ...
    @property
    def margin(self) -> float: ...

    def count(self, text: str) -> int:
        """The tokens of a text."""
        ...

    def stored(self, content: str, parts: Parts, tokens: int) -> int:
        """The tokens of a message in a prompt, whose stored cost by o200k_base is `tokens`."""
        ...

    def message(self, content: str, parts: Parts) -> int:
        """The tokens of a message in a prompt."""
        ...

    def json(self, value: Any) -> int:
        """The tokens of tools or a schema."""
        ...


@dataclass(frozen=True)
class Vocabulary:
    """A model's own vocabulary."""

    name: str
    counted: Callable[[str], int]
    overhead: int = counting.MESSAGE_OVERHEAD
    priming: int = counting.REPLY_PRIMING
    images: ImageCost = GPT_4O_IMAGES
    exact: bool = True
    margin: float = 0.0
    sees: bool = False

    def count(self, text: str) -> int:
        return self.counted(text)

    def stored(self, content: str, parts: Parts, tokens: int) -> int:
        if self.name != counting.STORED_ENCODING:
            return self.message(content, parts)
        tokens += self.overhead - counting.MESSAGE_OVERHEAD
        if parts and self.images != GPT_4O_IMAGES:
            tokens += picture_tokens(parts, self.images) - picture_tokens(parts, GPT_4O_IMAGES)
        return tokens - unsent_tokens(parts, self.images, self.counted, sees=self.sees)

    def message(self, content: str, parts: Parts) -> int:
        text = counting.counted_text(content, parts)
        unsent = unsent_tokens(parts, self.images, self.counted, sees=self.sees)
        return self.counted(text) + self.overhead + picture_tokens(parts, self.images) - unsent

    def json(self, value: Any) -> int:
        return self.counted(counting.as_json(value))


@dataclass(frozen=True)
class Estimate:
    """o200k_base's counts, weighed as the model's provider has counted so far."""

    calibration: Calibration
    images: ImageCost = GPT_4O_IMAGES
    exact: bool = False
    sees: bool = False

    @property
    def name(self) -> str:
        replies = self.calibration.replies
        learnt = (
            f"calibrated by {replies} repl{'y' if replies == 1 else 'ies'}" if replies else "as an estimate"
        )
        return f"{counting.STORED_ENCODING}, {learnt}"

    @property
    def margin(self) -> float:
        return self.calibration.margin

    @property
    def overhead(self) -> int:
        return round(counting.MESSAGE_OVERHEAD * self.calibration.weights[-2])

    @property
    def priming(self) -> int:
        return round(PROMPT_TOKENS * self.calibration.weights[-1])

    def count(self, text: str) -> int:
        return self._text(text, counting.count(text))

    def stored(self, content: str, parts: Parts, tokens: int) -> int:
        text = counting.counted_text(content, parts)
        of_text = tokens - counting.MESSAGE_OVERHEAD - picture_tokens(parts, GPT_4O_IMAGES)
        return self._text(text, max(0, of_text)) + self.overhead + self._pictures(parts)

    def message(self, content: str, parts: Parts) -> int:
        text = counting.counted_text(content, parts)
        return self.count(text) + self.overhead + self._pictures(parts)

    def json(self, value: Any) -> int:
        return self.count(counting.as_json(value))

    def _pictures(self, parts: Parts) -> int:
        """What is to be added for pictures that are sent, and taken off for texts that are not."""
        unsent = unsent_tokens(parts, self.images, self.count, sees=self.sees)
        return picture_tokens(parts, self.images) - unsent

    def _text(self, text: str, tokens: int) -> int:
        return self.calibration.estimate(divided(text, tokens))


def _is_text(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "text"


class Tokenizers:
    """The tokenizer of every model, and what was learned of those that are estimated, by the model's id."""

    stored: ClassVar[Vocabulary] = Vocabulary(counting.STORED_ENCODING, counting.count)

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.calibrations: dict[str, Calibration] = {}
        self._vocabularies: dict[tuple[Any, ...], Vocabulary] = {}

    def of(self, card: ModelCard) -> Tokenizer:
        """Who counts for this model."""
        family = family_of(card.name)
        images = family.images if family else GPT_4O_IMAGES
        ours = card.encoding in {"o200k_base", "cl100k_base"}
        if not card.exact_encoding or not (ours or other_vocabularies.INSTALLED):
            return Estimate(self.calibrations.get(card.id) or Calibration(), images, sees=card.vision)
        key = (card.encoding, family, card.vision)
        found = self._vocabularies.get(key)
        if found is None:
            counted = partial(counting.count, name=card.encoding)
            found = (
                Vocabulary(card.encoding, counted, family.overhead, family.priming, images, sees=card.vision)
                if family
                else Vocabulary(card.encoding, counted, sees=card.vision)
            )
            if replace(found, counted=self.stored.counted) == self.stored:
                found = self.stored
            self._vocabularies[key] = found
        return found

    def learn(
        self,
        card: ModelCard,
        messages: Sequence[Mapping[str, Any]],
        extra_json: Sequence[Any],
        prompt_tokens: int,
    ) -> None:
        """What the provider counted of a prompt. Pictures teach nothing: nobody publishes what they cost."""
        try:
            if not self.of(card).exact and len(card.id) <= LONGEST_ID and self._is_due(card.id):
                self._learn(card.id, messages, extra_json, prompt_tokens)
        except Exception as error:  # noqa: BLE001 - a reply that has been paid for is not lost over an estimate
            log.warning("calibrations.not_learned", model=card.id[:200], error=error)

    def _is_due(self, model: str) -> bool:
        """Whether another reply is worth its millisecond: the first ones are, then one a second."""
        known, now = self.calibrations.get(model), self._clock()
        if known is not None and known.replies >= EAGER and now - known.learnt_at < PAUSE:
            return False
        if known is not None:
            known.learnt_at = now
        return True

    def _learn(
        self, model: str, messages: Sequence[Mapping[str, Any]], beside: Sequence[Any], prompt_tokens: int
    ) -> None:
        length = counting.extent(list(beside))
        for message in messages:
            content = message.get("content")
            if isinstance(content, list) and any(not _is_text(part) for part in content):
                return
            length += counting.message_extent(content, message)
            if length > LEARNT_CHARACTERS:
                return
        texts = [counting.as_json(value) for value in beside if value]
        texts += [counting.counted_text(*stored_form(message)) for message in messages]
        seen = features(
            [(text, counting.count(text)) for text in texts],
            counting.MESSAGE_OVERHEAD * len(messages),
            PROMPT_TOKENS,
        )
        calibration = self.calibrations.pop(model, None) or Calibration()
        if calibration.learn(seen, prompt_tokens) or calibration.replies:
            self._keep(model, calibration)

    def replace(self, model: str, shared: Sums) -> None:
        """What all processes together know of `model`."""
        calibration = self.calibrations.get(model)
        if calibration is None:
            self._keep(model, Calibration(shared))
        else:
            calibration.replace(shared)

    def _keep(self, model: str, calibration: Calibration) -> None:
        self.calibrations[model] = calibration
        if len(self.calibrations) > MOST_MODELS:
            del self.calibrations[next(iter(self.calibrations))]
