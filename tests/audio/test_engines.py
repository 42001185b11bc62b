"""Who is asked to transcribe, in which order, and what their answers become."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from baatcheet.audio.engines import Engines, build_engines
from baatcheet.audio.engines.model import EngineFailed, NobodyTranscribes, Wish, first_to_hear
from baatcheet.audio.engines.provider import ProviderEngine
from baatcheet.audio.languages import code_of, name_of
from baatcheet.audio.pieces import RATE, CutPiece
from baatcheet.audio.transcript import Heard
from baatcheet.entrypoints.keyring import keys_of_environment
from baatcheet.jobs.isolation import Sandbox
from baatcheet.keys.pool import KeyPool, PooledKey
from baatcheet.keys.pools import pools_with
from baatcheet.keys.secret import SecretKey
from baatcheet.platform.settings import SettingsError, load
from baatcheet.providers.adapters.openai import OpenAIAdapter, TimeLimits
from baatcheet.providers.catalogue import build_catalogue
from baatcheet.providers.pooled import PooledProvider
from baatcheet.providers.profiles import Profile
from tests.audio import sounds
from tests.audio.whisper import Answer, Whisper, refusing, saying


@pytest.fixture
def piece(tmp_path: Path) -> CutPiece:
    path = sounds.make(tmp_path / "piece.flac", 2)
    return CutPiece(str(path), 0, 2 * RATE, audible=True)


class Silent:
    """An engine that has its own mind."""

    def __init__(
        self, name: str, languages: frozenset[str] | None = None, failure: EngineFailed | None = None
    ) -> None:
        self.name = name
        self.languages = languages
        self.words = False
        self.failure = failure
        self.asked = 0

    async def transcribe(self, piece: Path, seconds: float, wish: Wish) -> Heard:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        return Heard(self.name)


NewEngine = Callable[..., ProviderEngine]


@pytest_asyncio.fixture
async def engine(whisper: Whisper, session: aiohttp.ClientSession) -> AsyncIterator[NewEngine]:
    made: list[PooledProvider] = []

    def make(model: str = "whisper-large-v3-turbo", url: str | None = None) -> ProviderEngine:
        limits = TimeLimits(connect=1, first_token=0.3, idle=0.3)
        adapter = OpenAIAdapter(Profile("fake", url or whisper.url), session, limits=limits)
        provider = PooledProvider(adapter, KeyPool("fake"), keyless=True)
        made.append(provider)
        return ProviderEngine(provider, model)

    yield make
    for provider in made:
        await provider.close()


async def heard_by(engine: ProviderEngine, piece: CutPiece, **wish: Any) -> Heard:
    return await engine.transcribe(Path(piece.path), piece.end - piece.start, Wish(**wish))


async def test_a_piece_is_sent_whole_and_its_answer_understood(
    whisper: Whisper, engine: NewEngine, piece: CutPiece
) -> None:
    heard = await heard_by(
        engine(), piece, language="en", prompt='Na\u00efve "names"\r\nand lines', temperature=0.2
    )
    (sent,) = whisper.heard
    assert sent.audio == Path(piece.path).read_bytes()
    assert sent.seconds == 2
    assert sent.filename == "piece.flac"
    assert {name: values[0] for name, values in sent.fields.items()} == {
        "model": "whisper-large-v3-turbo",
        "response_format": "verbose_json",
        "timestamp_granularities[]": "segment",
        "language": "en",
        "prompt": 'Na\u00efve "names"\r\nand lines',
        "temperature": "0.2",
    }
    assert heard.text == "2.0 seconds. And an end."
    assert heard.language == "en"
    assert [(one.start, one.end, one.text) for one in heard.segments] == [
        (0, 1, "2.0 seconds."),
        (1, 2, "And an end."),
    ]
    assert heard.confidence is not None
    assert math.isclose(heard.confidence, (math.exp(-0.1) + math.exp(-0.3)) / 2)


async def test_the_times_of_words_are_asked_for_where_they_are_wanted(
    whisper: Whisper, engine: NewEngine, piece: CutPiece
) -> None:
    heard = await heard_by(engine(), piece, words=True)
    assert whisper.heard[0].fields["timestamp_granularities[]"] == ["segment", "word"]
    assert [one.word for one in heard.words] == ["seconds", "end"]


async def test_a_model_without_times_tells_how_sure_it_is_by_its_tokens(
    whisper: Whisper, engine: NewEngine, piece: CutPiece
) -> None:
    timeless = engine("gpt-4o-transcribe")
    assert not timeless.words
    heard = await heard_by(timeless, piece)
    assert whisper.heard[0].one("response_format") == "json"
    assert whisper.heard[0].one("include[]") == "logprobs"
    assert heard.segments == []
    assert heard.confidence == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("answer", "passing", "words"),
    [
        (
            refusing(429, "Slow down.", Retry_After="7"),
            True,
            "fake/whisper-large-v3-turbo: Slow down.",
        ),
        (refusing(503, "Overloaded"), True, "fake/whisper-large-v3-turbo: Overloaded."),
        (refusing(401, "No key"), False, "fake/whisper-large-v3-turbo: No key."),
        (refusing(400, "What is this"), False, "fake/whisper-large-v3-turbo: What is this."),
        (refusing(302, "Over there"), True, None),
        (saying("<html>"), True, None),
        (saying({"answer": "no text"}), True, None),
        (saying({"text": 12}), True, None),
        (saying({"text": "a", "segments": [{"start": "later"}]}), True, None),
        (saying({"error": {"message": "in a 200"}}), True, None),
    ],
)
async def test_a_failure_says_whether_it_may_pass(
    whisper: Whisper,
    engine: NewEngine,
    piece: CutPiece,
    answer: Answer,
    passing: bool,
    words: str | None,
) -> None:
    whisper.script.append(answer)
    with pytest.raises(EngineFailed) as failed:
        await heard_by(engine(), piece)
    assert failed.value.passing is passing
    assert words is None or str(failed.value) == words
    assert failed.value.after == (7 if words is not None and "Slow down" in words else None)


async def test_a_provider_that_hangs_or_is_not_there_may_come_back(
    whisper: Whisper, engine: NewEngine, piece: CutPiece
) -> None:
    whisper.hang = asyncio.Event()
    for one in (engine(), engine(url="http://127.0.0.1:9/v1")):
        with pytest.raises(EngineFailed) as failed:
            await heard_by(one, piece)
        assert failed.value.passing


async def test_strange_numbers_and_characters_are_made_storable(
    whisper: Whisper, engine: NewEngine, piece: CutPiece
) -> None:
    strange = (
        '{"text": "a\\u0000b\\ud800", "language": "Klingon", "segments": [{"text": "x", "start": 1e400}]}'
    )
    whisper.script.append(saying(strange))
    heard = await heard_by(engine(), piece)
    assert heard.text == "a\ufffdb\ufffd"
    assert heard.language is None
    assert heard.segments[0].start == 0


async def test_the_first_that_answers_is_taken(piece: CutPiece) -> None:
    tired = Silent("a/tired", failure=EngineFailed("a is tired.", passing=True))
    answered = await first_to_hear([tired, Silent("b/fresh"), Silent("c/never")], piece, Wish(), spoken=None)
    assert answered.heard.text == "b/fresh"


async def test_when_nobody_answers_all_say_why(piece: CutPiece) -> None:
    engines = [
        Silent("a/x", failure=EngineFailed("a is tired.", passing=True, after=9)),
        Silent("b/x", failure=EngineFailed("b is shut.", passing=False)),
        Silent("c/x", failure=EngineFailed("c is slow.", passing=True, after=4)),
    ]
    with pytest.raises(EngineFailed) as failed:
        await first_to_hear(engines, piece, Wish(), spoken=None)
    assert str(failed.value) == "a is tired. b is shut. c is slow."
    assert failed.value.passing
    assert failed.value.after == 4


async def test_who_hears_only_english_steps_in_only_for_english(piece: CutPiece) -> None:
    tired = Silent("a/x", failure=EngineFailed("a is tired.", passing=True))
    english = Silent("local/x", languages=frozenset({"en"}))
    for spoken in (None, "ur"):
        with pytest.raises(EngineFailed):
            await first_to_hear([tired, english], piece, Wish(), spoken=spoken)
    assert (await first_to_hear([tired, english], piece, Wish(), spoken="en")).engine is english
    assert (await first_to_hear([english, tired], piece, Wish(), spoken=None)).engine is english


def test_engines_are_chosen_by_name_language_and_what_they_can() -> None:
    groq, local = Silent("groq/whisper-large-v3-turbo"), Silent("local/moonshine-tiny", frozenset({"en"}))
    engines = Engines(lambda: [groq, local])
    for usual in (None, "auto", "whisper-1"):
        assert engines.choose(usual, Wish()) == [groq, local]
    assert engines.choose("groq/whisper-large-v3-turbo", Wish()) == [groq]
    assert engines.choose("moonshine-tiny", Wish(language="en-GB")) == [local]
    assert engines.choose(None, Wish(language="ur")) == [groq]
    with pytest.raises(NobodyTranscribes, match="Urdu can't be transcribed here") as nobody:
        engines.choose("moonshine-tiny", Wish(language="ur"))
    assert nobody.value.param == "language"
    with pytest.raises(NobodyTranscribes, match=r"There is no engine 'elsewhere/x'\. There is: groq/"):
        engines.choose("elsewhere/x", Wish())
    with pytest.raises(NobodyTranscribes, match="times of words"):
        engines.choose(None, Wish(words=True))
    with pytest.raises(NobodyTranscribes, match="No engine for transcription is configured"):
        Engines(list).choose(None, Wish())


async def build(environment: dict[str, str], session: aiohttp.ClientSession, sandbox: Sandbox) -> list[str]:
    settings = load({"OLLAMA_HOST": "", **environment}, dotenv=None)
    catalogue = build_catalogue(settings.providers, session, pools_with(keys_of_environment(settings)))
    return build_engines(settings.audio, catalogue, sandbox).names


async def test_without_a_setting_whoever_is_known_to_transcribe_does(
    session: aiohttp.ClientSession, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("baatcheet.audio.engines.is_installed", lambda: True)
    keys = {"GROQ_API_KEY": "gsk_0123456789", "OPENAI_API_KEY": "sk-0123456789", "DEEPSEEK_API_KEY": "sk-1"}
    assert await build(keys, session, sandbox) == [
        "groq/whisper-large-v3-turbo",
        "openai/whisper-1",
        "local/moonshine-tiny",
    ]
    monkeypatch.setattr("baatcheet.audio.engines.is_installed", lambda: False)
    assert await build({"DEEPSEEK_API_KEY": "sk-0123456789"}, session, sandbox) == []


async def test_a_provider_whose_key_comes_later_transcribes_from_then_on(
    session: aiohttp.ClientSession, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("baatcheet.audio.engines.is_installed", lambda: False)
    settings = load({"OLLAMA_HOST": ""}, dotenv=None)
    pools = pools_with({})
    engines = build_engines(settings.audio, build_catalogue(settings.providers, session, pools), sandbox)
    assert engines.names == []
    pools.of("groq").replace([PooledKey("id", "hint", SecretKey("gsk_0123456789"))])
    assert engines.names == ["groq/whisper-large-v3-turbo"]


async def test_the_setting_is_the_order(session: aiohttp.ClientSession, sandbox: Sandbox) -> None:
    environment = {
        "GROQ_API_KEY": "gsk_0123456789",
        "OPENAI_API_KEY": "sk-0123456789",
        "BAATCHEET_AUDIO_ENGINES": "local, openai/gpt-4o-transcribe, groq",
    }
    assert await build(environment, session, sandbox) == [
        "local/moonshine-tiny",
        "openai/gpt-4o-transcribe",
        "groq/whisper-large-v3-turbo",
    ]


@pytest.mark.parametrize(
    ("engines", "problem"),
    [("groq/whisper-large-v3", "'groq' is not configured"), ("deepseek", "say which model of deepseek")],
)
async def test_a_setting_that_can_not_be_is_told(
    session: aiohttp.ClientSession, sandbox: Sandbox, engines: str, problem: str
) -> None:
    environment = {"DEEPSEEK_API_KEY": "sk-0123456789", "BAATCHEET_AUDIO_ENGINES": engines}
    with pytest.raises(SettingsError, match=problem):
        await build(environment, session, sandbox)


def test_languages_have_codes_and_names() -> None:
    assert [code_of(said) for said in ("English", "ur", "EN-us", "zh_CN", "Klingon", None)] == [
        "en", "ur", "en", "zh", None, None,
    ]  # fmt: skip
    assert name_of("ur") == "urdu"
    assert name_of("es") == "spanish"
    assert name_of("xx") == "xx"
