"""A route of models that transcribe, asked like one engine."""

from pathlib import Path

import pytest

from baatcheet.audio.engines.model import EngineFailed, Wish
from baatcheet.audio.engines.routed import RoutedEngine
from baatcheet.providers.model import ProviderError, Speech
from baatcheet.providers.routing.model import RouteUnfit
from baatcheet.providers.routing.router import Speaker


class Hears:
    """A provider that answers `text`, or fails; a FAKE."""

    def __init__(self, name: str, text: str | None, error: ProviderError | None = None) -> None:
        self.name = name
        self.text = text
        self.error = error
        self.asked: list[str] = []

    async def transcribe(self, model: str, speech: Speech) -> bytes:
        self.asked.append(model)
        if self.error is not None:
            raise self.error
        return b'{"text": "%s"}' % (self.text or "").encode()


@pytest.fixture
def piece(tmp_path: Path) -> Path:
    path = tmp_path / "piece.flac"
    path.write_bytes(b"fLaC")
    return path


def speaker(provider: Hears, model: str) -> Speaker:
    return Speaker(provider, model)  # type: ignore[arg-type]  # as much of a provider as is asked


async def test_the_first_that_hears_is_taken(piece: Path) -> None:
    tired = Hears("lab", None, ProviderError("lab", "rate_limited", "too many", retry_after=3))
    awake = Hears("den", "good morning")
    engine = RoutedEngine("spoken", lambda _: [speaker(tired, "one"), speaker(awake, "two")])
    assert engine.name == "spoken"
    assert (await engine.transcribe(piece, 1.0, Wish())).text == "good morning"
    assert (tired.asked, awake.asked) == (["one"], ["two"])


async def test_when_nobody_hears_it_is_said_of_each_and_when_to_come_back(piece: Path) -> None:
    tired = Hears("lab", None, ProviderError("lab", "rate_limited", "too many", retry_after=3))
    closed = Hears("den", None, ProviderError("den", "unauthorized", "no"))
    engine = RoutedEngine("spoken", lambda _: [speaker(tired, "one"), speaker(closed, "two")])
    with pytest.raises(EngineFailed, match=r"lab/one: too many\. den/two: no\.") as raised:
        await engine.transcribe(piece, 1.0, Wish())
    assert (raised.value.passing, raised.value.after) == (True, 3)


async def test_who_tells_no_times_of_words_is_passed_over_when_they_are_wanted(piece: Path) -> None:
    timeless, timely = Hears("lab", "a"), Hears("den", "b")
    both = [speaker(timeless, "gpt-4o-transcribe"), speaker(timely, "whisper-1")]
    assert (await RoutedEngine("spoken", lambda _: both).transcribe(piece, 1.0, Wish(words=True))).text == "b"
    with pytest.raises(EngineFailed, match="times of words"):
        await RoutedEngine("spoken", lambda _: both[:1]).transcribe(piece, 1.0, Wish(words=True))


async def test_a_route_that_is_gone_fails_the_piece_with_words(piece: Path) -> None:
    def speakers(name: str) -> list[Speaker]:
        raise RouteUnfit(name, f"There is no route {name!r} for transcription.")

    with pytest.raises(EngineFailed, match="There is no route 'spoken'"):
        await RoutedEngine("spoken", speakers).transcribe(piece, 1.0, Wish())
