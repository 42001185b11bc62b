"""An engine at a provider that speaks OpenAI's transcription protocol: Groq, OpenAI, and many servers of one's own."""

import math
import re
from pathlib import Path
from typing import Annotated

import msgspec

from baatcheet.audio.engines.model import EngineFailed, Wish
from baatcheet.audio.languages import code_of
from baatcheet.audio.transcript import Heard, Segment, Word, confidence_of
from baatcheet.kit.text import storable
from baatcheet.platform.threads import in_thread
from baatcheet.providers.model import Provider, ProviderError, Speech

MOST_SEGMENTS = 20_000  # of one piece
MOST_TEXT = 1_000_000  # characters of one piece

_TIMELESS = re.compile(r"gpt-.*transcribe")
# A failure of these kinds is the request's or the configuration's; every other may pass.
_LASTING = frozenset({"rejected", "unauthorized"})

Number = float | int | None


class _Token(msgspec.Struct):
    logprob: Number = None


class _Segment(msgspec.Struct):
    text: str = ""
    start: Number = None
    end: Number = None
    avg_logprob: Number = None
    no_speech_prob: Number = None
    compression_ratio: Number = None
    temperature: Number = None


class _Word(msgspec.Struct):
    word: str = ""
    start: Number = None
    end: Number = None


class _Answer(msgspec.Struct):
    text: str
    language: str | None = None
    segments: Annotated[list[_Segment], msgspec.Meta(max_length=MOST_SEGMENTS)] | None = None
    words: Annotated[list[_Word], msgspec.Meta(max_length=MOST_SEGMENTS * 20)] | None = None
    logprobs: list[_Token] | None = None


class ProviderEngine:
    """`model` at `provider`."""

    languages = None

    def __init__(self, provider: Provider, model: str) -> None:
        self._provider = provider
        self._model = model

    @property
    def name(self) -> str:
        return f"{self._provider.name}/{self._model}"

    @property
    def words(self) -> bool:
        return not _TIMELESS.search(self._model)

    async def transcribe(self, piece: Path, seconds: float, wish: Wish) -> Heard:
        audio = await in_thread(piece.read_bytes)
        speech = Speech(
            audio, piece.name, "audio/flac", wish.language, wish.prompt, wish.temperature, words=wish.words
        )
        try:
            raw = await self._provider.transcribe(self._model, speech)
            answer = msgspec.json.decode(raw, type=_Answer)
        except ProviderError as error:
            words = f"{self.name}: {error.message.rstrip('.')}."
            raise EngineFailed(words, passing=error.kind not in _LASTING, after=error.retry_after) from error
        except msgspec.MsgspecError as error:
            raise EngineFailed(f"{self.name} sent an answer that can't be read.", passing=True) from error
        return _heard(answer, wish)


def _heard(answer: _Answer, wish: Wish) -> Heard:
    segments = [
        Segment(
            start=_number(one.start) or 0.0,
            end=_number(one.end) or 0.0,
            text=_text(one.text),
            avg_logprob=_number(one.avg_logprob),
            no_speech_prob=_number(one.no_speech_prob),
            compression_ratio=_number(one.compression_ratio),
            temperature=_number(one.temperature),
        )
        for one in answer.segments or ()
        if one.text.strip()
    ]
    words = [
        Word(_text(one.word), _number(one.start) or 0.0, _number(one.end) or 0.0)
        for one in answer.words or ()
        if one.word.strip()
    ]
    tokens = [value for one in answer.logprobs or () if (value := _number(one.logprob)) is not None]
    confidence = math.exp(min(0.0, sum(tokens) / len(tokens))) if tokens else confidence_of(segments)
    language = code_of(answer.language) or code_of(wish.language)
    return Heard(_text(answer.text), language, confidence, segments, words)


def _text(said: str) -> str:
    return storable(said[:MOST_TEXT]).strip()


def _number(value: Number) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
