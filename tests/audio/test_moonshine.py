"""English speech, transcribed on this machine: spoken by a synthetic voice, heard by the real model."""

import re
from pathlib import Path

import pytest

from baatcheet.audio.engines import Engines
from baatcheet.audio.engines.model import EngineFailed, Wish
from baatcheet.audio.engines.moonshine import MoonshineEngine, is_installed
from baatcheet.audio.transcribing import Transcribed, Transcriber
from baatcheet.jobs.isolation import Sandbox
from baatcheet.platform.settings import AudioSettings
from tests.audio import sounds

spoken = pytest.mark.skipif(sounds.ESPEAK is None, reason="espeak-ng is not installed: nobody speaks")
installed = pytest.mark.skipif(not is_installed(), reason="the extra `speech` is not installed")

WORDS = "The quick brown fox jumps over the lazy dog. It was the best of times. It was the worst of times."


async def heard(sandbox: Sandbox, path: Path, *, piece_seconds: float = 300) -> Transcribed:
    settings = AudioSettings(piece_seconds=piece_seconds)
    engine = MoonshineEngine(sandbox)
    transcriber = Transcriber(sandbox, Engines(lambda: [engine]), settings)
    folder = path.parent / "pieces"
    folder.mkdir()
    decoded = await transcriber.decode(path, folder)
    return await transcriber.hear(decoded, [engine], Wish())


def words_of(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


@spoken
@installed
async def test_english_speech_becomes_text_with_its_times(sandbox: Sandbox, tmp_path: Path) -> None:
    transcribed = await heard(sandbox, sounds.speak(tmp_path / "speech.wav", WORDS))
    transcript = transcribed.transcript
    expected = words_of(WORDS)
    assert len(words_of(transcript.text) & expected) >= 0.7 * len(expected), transcript.text
    assert transcript.engine == "local/moonshine-tiny"
    assert transcript.language == "en"
    assert transcript.confidence is None
    assert len(transcript.segments) >= 2
    assert all(0 <= one.start <= one.end <= transcript.seconds for one in transcript.segments)
    assert transcribed.warning is not None
    assert "takes all speech for English" in transcribed.warning


@spoken
@installed
async def test_pieces_are_heard_as_the_whole_is(sandbox: Sandbox, tmp_path: Path) -> None:
    transcript = (
        await heard(sandbox, sounds.speak(tmp_path / "speech.wav", WORDS * 3), piece_seconds=10)
    ).transcript
    assert len(words_of(transcript.text) & words_of(WORDS)) >= 0.7 * len(words_of(WORDS)), transcript.text
    times = [time for one in transcript.segments for time in (one.start, one.end)]
    assert times == sorted(times)
    assert times[-1] > 12


@installed
async def test_what_is_no_speech_is_no_text(sandbox: Sandbox, tmp_path: Path) -> None:
    transcribed = await heard(sandbox, sounds.make(tmp_path / "tone.wav", 5))
    assert transcribed.transcript.text == ""
    assert "No speech was found in it." in (transcribed.warning or "")


@pytest.mark.skipif(is_installed(), reason="the extra `speech` is installed")
async def test_without_the_extra_it_says_how_to_get_it(sandbox: Sandbox, tmp_path: Path) -> None:
    piece = sounds.make(tmp_path / "tone.flac", 1)
    with pytest.raises(EngineFailed, match=r"pip install 'baatcheet\[speech\]'"):
        await MoonshineEngine(sandbox).transcribe(piece, 1.0, Wish())
