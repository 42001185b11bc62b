"""The interface of what turns speech into text, and the order in which several are asked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from baatcheet.audio.languages import name_of
from baatcheet.audio.pieces import CutPiece
from baatcheet.audio.transcript import Heard

AUTO = "auto"
# What OpenAI's clients ask for when nobody told them otherwise: here, whoever transcribes.
USUAL = frozenset({AUTO, "whisper-1", "whisper"})


@dataclass(frozen=True)
class Wish:
    """How a recording is to be transcribed. `language`: ISO 639-1; `words`: whether their times are wanted."""

    language: str | None = None
    prompt: str | None = None
    temperature: float | None = None
    words: bool = False


class EngineFailed(Exception):
    """An engine did not transcribe a piece. The message is in plain words.

    `passing`: it may do so later, after `after` seconds where it says so.
    """

    def __init__(self, words: str, *, passing: bool, after: float | None = None) -> None:
        super().__init__(words)
        self.passing = passing
        self.after = after


class Engine(Protocol):
    """Something that turns speech into text."""

    @property
    def name(self) -> str:
        """As `provider/model`."""

    @property
    def languages(self) -> frozenset[str] | None:
        """Codes of those that it understands, and takes all speech for; None: it tells them apart itself."""

    @property
    def words(self) -> bool:
        """Whether it tells the times of words."""

    async def transcribe(self, piece: Path, seconds: float, wish: Wish) -> Heard:
        """What is said in a FLAC file that is `seconds` long. Raises EngineFailed."""


class NobodyTranscribes(Exception):
    """There is no engine for this; the message says which there are, in plain words. `param`: what asks for it."""

    def __init__(self, words: str, param: str | None = None) -> None:
        super().__init__(words)
        self.param = param


class Engines:
    """The engines that there are, the preferred one first. `engines` is asked anew each time: keys come and go."""

    def __init__(self, engines: Callable[[], Sequence[Engine]]) -> None:
        self._now = engines

    @property
    def names(self) -> list[str]:
        return [engine.name for engine in self._now()]

    def choose(self, model: str | None, wish: Wish) -> list[Engine]:
        """Those to ask for `model`, first to last; never empty. None: any.

        Raises NobodyTranscribes.
        """
        engines = self._now()
        if not engines:
            raise NobodyTranscribes("No engine for transcription is configured.")
        named = [one for one in engines if model in {one.name, one.name.partition("/")[2]}]
        chosen = named or (list(engines) if model is None or model in USUAL else [])
        if not chosen:
            raise NobodyTranscribes(
                f"There is no engine {model!r}. There is: {', '.join(self.names)}.", "model"
            )
        able = [one for one in chosen if _understands(one, wish.language)]
        if not able:
            told = name_of(wish.language or "").capitalize()
            raise NobodyTranscribes(
                f"{told} can't be transcribed here: {', '.join(one.name for one in chosen)} does not understand it.",
                "language",
            )
        if wish.words:
            able = [one for one in able if one.words]
            if not able:
                raise NobodyTranscribes(
                    "The times of words are told by none of the engines that there are.",
                    "timestamp_granularities",
                )
        return able


@dataclass(frozen=True)
class Answered:
    """What an engine heard, and which."""

    heard: Heard
    engine: Engine


async def first_to_hear(
    engines: Sequence[Engine], piece: CutPiece, wish: Wish, *, spoken: str | None
) -> Answered:
    """The first of `engines` to transcribe `piece`. `spoken`: the language, as far as is known by now.

    One that takes all speech for its own language steps in for another only where that is what is spoken: its
    nonsense would not be told from a transcription. Raises EngineFailed when nobody does.
    """
    failures: list[EngineFailed] = []
    for place, engine in enumerate(engines):
        if (
            place > 0
            and engine.languages is not None
            and (spoken is None or not _understands(engine, spoken))
        ):
            continue
        try:
            heard = await engine.transcribe(Path(piece.path), piece.end - piece.start, wish)
        except EngineFailed as failure:
            failures.append(failure)
            continue
        return Answered(heard, engine)
    waits = [one.after for one in failures if one.after is not None]
    raise EngineFailed(
        " ".join(str(one) for one in failures),
        passing=any(one.passing for one in failures),
        after=min(waits, default=None),
    ) from failures[-1]


def _understands(engine: Engine, language: str | None) -> bool:
    if language is None or engine.languages is None:
        return True
    return language.partition("-")[0].lower() in engine.languages
