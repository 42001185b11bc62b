"""Which provider is asked for which model."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from pydantic import SecretStr

from baatcheet.keys.pools import pools_with
from baatcheet.keys.secret import SecretKey
from baatcheet.platform.settings import CustomProvider, ProviderSettings, SettingsError
from baatcheet.providers.catalogue import Catalogue, UnknownModel, build_catalogue
from baatcheet.providers.model import ProviderError, Target
from tests.scripted_provider import ScriptedProvider, Step

MakeCatalogue = Callable[..., Catalogue]
GROQ_DEFAULT = "groq/llama-3.3-70b-versatile"


@pytest_asyncio.fixture
async def make(session: aiohttp.ClientSession) -> AsyncIterator[MakeCatalogue]:
    made: list[Catalogue] = []

    def build(**settings: Any) -> Catalogue:
        chosen: dict[str, Any] = {"ollama_url": "", "connect_timeout": 1.0} | settings
        keys = {name: [SecretKey(f"key-of-{name}")] for name in chosen.pop("keys", ())}
        for custom in chosen.get("custom", ()):
            if isinstance(custom, CustomProvider) and custom.api_key is not None:
                keys[custom.name] = [SecretKey(custom.api_key.get_secret_value())]
        made.append(build_catalogue(ProviderSettings(**chosen), session, pools_with(keys)))
        return made[-1]

    yield build
    for catalogue in made:
        await catalogue.close()


@pytest.fixture
def nowhere() -> Iterator[str]:
    """The address of a port where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def lab(upstream: ScriptedProvider, name: str = "lab", **more: Any) -> CustomProvider:
    return CustomProvider(name=name, base_url=upstream.base_url, api_key=SecretStr("sk-lab-key"), **more)


def ids(targets: tuple[Target, ...]) -> list[str]:
    return [target.model.id for target in targets]


KEYS = ("groq", "openrouter", "deepseek", "gemini", "huggingface", "openai")


@pytest.fixture
def offline(session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but loopback is reached, as on a machine without a network."""
    assert session.connector is not None

    async def resolve(*_: object, **__: object) -> list[Any]:
        raise OSError("no network")

    monkeypatch.setattr(session.connector._resolver, "resolve", resolve)  # type: ignore[attr-defined]  # the one seam of aiohttp


@pytest.mark.usefixtures("offline")
async def test_providers_come_in_their_built_in_order_with_custom_ones_first(
    make: MakeCatalogue, upstream: ScriptedProvider, nowhere: str
) -> None:
    catalogue = make(keys=KEYS, custom=(lab(upstream),), ollama_url=nowhere)
    order = [provider.name for provider in catalogue.providers]
    assert order == ["lab", "groq", "openrouter", "deepseek", "gemini", "huggingface", "openai", "ollama"]
    assert [p.name for p in make(keys=KEYS, order=("openai", "groq")).providers][:3] == [
        "openai",
        "groq",
        "openrouter",
    ]


@pytest.mark.usefixtures("offline")
async def test_auto_is_the_default_and_then_every_other_providers_default(make: MakeCatalogue) -> None:
    catalogue = make(keys=("groq", "gemini"))
    expected = [GROQ_DEFAULT, "gemini/gemini-2.5-flash"]
    assert ids(await catalogue.resolve(None)) == expected
    assert ids(await catalogue.resolve("auto")) == expected
    chosen = make(keys=("groq", "gemini"), default_model="gemini/gemini-2.5-pro")
    assert ids(await chosen.resolve(None)) == ["gemini/gemini-2.5-pro", GROQ_DEFAULT]


@pytest.mark.usefixtures("offline")
async def test_an_unreachable_provider_delays_no_chat_whose_models_are_known(make: MakeCatalogue) -> None:
    catalogue = make(keys=("groq",), ollama_url="https://10.255.255.1:1", connect_timeout=3)
    began = time.monotonic()
    assert ids(await catalogue.resolve(None)) == [GROQ_DEFAULT]
    assert ids(await catalogue.resolve(GROQ_DEFAULT)) == [GROQ_DEFAULT]
    assert time.monotonic() - began < 0.5


async def test_a_custom_providers_models_are_asked_from_it(
    make: MakeCatalogue, upstream: ScriptedProvider
) -> None:
    upstream.app.model_entries = [
        {"id": "big", "max_model_len": 200_000, "created": 5},
        {"id": "org/embed-small", "context_length": 512},
        {"id": "plain"},
    ]
    catalogue = make(custom=(lab(upstream, context_window=9_000),))
    cards = {card.id: card for card in await catalogue.models()}
    assert list(cards) == ["lab/big", "lab/org/embed-small", "lab/plain"]
    assert (cards["lab/big"].context_window, cards["lab/big"].created) == (200_000, 5)
    assert cards["lab/org/embed-small"].embedding
    assert cards["lab/plain"].context_window == 9_000
    assert upstream.requests[0].headers["authorization"] == "Bearer sk-lab-key"


async def test_names_are_resolved_with_and_without_their_provider(
    make: MakeCatalogue, upstream: ScriptedProvider, second: ScriptedProvider
) -> None:
    upstream.app.model_entries = [{"id": "shared"}, {"id": "meta/llama"}]
    second.app.model_entries = [{"id": "shared"}, {"id": "own"}]
    catalogue = make(custom=(lab(upstream, "one"), lab(second, "two")))
    assert ids(await catalogue.resolve("shared")) == ["one/shared", "two/shared"]
    assert ids(await catalogue.resolve("two/shared")) == ["two/shared"]
    assert ids(await catalogue.resolve("own")) == ["two/own"]
    assert ids(await catalogue.resolve("meta/llama")) == ["one/meta/llama"]
    assert ids(await catalogue.resolve("one/meta/llama")) == ["one/meta/llama"]
    assert ids(await catalogue.resolve(None)) == ["one/shared", "two/shared"]


async def test_an_open_provider_is_asked_for_what_it_does_not_list(
    make: MakeCatalogue, upstream: ScriptedProvider
) -> None:
    catalogue = make(custom=(lab(upstream, context_window=7_000),))
    (target,) = await catalogue.resolve("lab/org/brand-new")
    assert (target.model.name, target.model.context_window) == ("org/brand-new", 7_000)


async def test_a_provider_whose_models_are_written_down_has_no_others(
    make: MakeCatalogue, upstream: ScriptedProvider
) -> None:
    catalogue = make(custom=(lab(upstream, models=("alpha", "beta"), embedding_models=("vectors",)),))
    assert [card.id for card in await catalogue.models()] == ["lab/alpha", "lab/beta", "lab/vectors"]
    assert ids(await catalogue.resolve(None)) == ["lab/alpha"]
    for name in ("lab/gamma", "gamma", "other/alpha", ""):
        with pytest.raises(UnknownModel):
            await catalogue.resolve(name)
    assert not upstream.requests


async def test_an_unknown_model_is_told_with_what_is_spelt_alike(
    make: MakeCatalogue, upstream: ScriptedProvider
) -> None:
    catalogue = make(custom=(lab(upstream, models=("llama-3.3-70b", "qwen3-32b")),))
    with pytest.raises(UnknownModel) as caught:
        await catalogue.resolve("lama-3.3-70b")
    assert (caught.value.name, caught.value.near) == ("lama-3.3-70b", ["lab/llama-3.3-70b"])
    assert "Did you mean lab/llama-3.3-70b?" in str(caught.value)
    with pytest.raises(UnknownModel) as far:
        await catalogue.resolve("zzz")
    assert far.value.near == []


async def test_a_default_model_of_a_custom_provider_is_used_though_it_is_not_in_its_list(
    make: MakeCatalogue, upstream: ScriptedProvider
) -> None:
    written = make(custom=(lab(upstream, models=("alpha",), default_model="omega"),))
    assert ids(await written.resolve(None)) == ["lab/omega"]
    asked = make(custom=(lab(upstream, default_model="scripted-echo"),))
    assert ids(await asked.resolve(None)) == ["lab/scripted-echo"]


async def test_embedding_models_are_found(make: MakeCatalogue, upstream: ScriptedProvider) -> None:
    catalogue = make(custom=(lab(upstream),))
    expected = ["lab/text-embedding-scripted"]
    assert ids(await catalogue.resolve_embedding(None)) == expected
    assert ids(await catalogue.resolve_embedding("text-embedding-scripted")) == expected
    assert ids(await catalogue.resolve_embedding("lab/text-embedding-scripted")) == expected
    assert all(not target.model.embedding for target in await catalogue.resolve(None))
    with pytest.raises(UnknownModel):
        await catalogue.resolve_embedding("text-embedding-missing")
    without = make(custom=(lab(upstream, models=("chat",)),))
    with pytest.raises(UnknownModel):
        await without.resolve_embedding(None)


@pytest.mark.parametrize("step", [Step(hang="headers"), Step(status=500), Step(raw_body="<html>")], ids=str)
async def test_a_provider_that_does_not_list_its_models_delays_only_the_first_request_and_briefly(
    make: MakeCatalogue, upstream: ScriptedProvider, step: Step
) -> None:
    upstream.app.models_step = step
    catalogue = make(custom=(lab(upstream),), connect_timeout=0.4)
    began = time.monotonic()
    assert await catalogue.models() == []
    assert time.monotonic() - began < 0.9
    began = time.monotonic()
    assert ids(await catalogue.resolve("lab/anything")) == ["lab/anything"]
    assert time.monotonic() - began < 0.9
    with pytest.raises(UnknownModel):
        await catalogue.resolve(None)


async def test_without_any_provider_the_demo_answers(make: MakeCatalogue, nowhere: str) -> None:
    for catalogue in (make(), make(ollama_url=nowhere)):
        assert [card.id for card in await catalogue.models()] == ["demo/demo"]
        for name in (None, "auto", "demo", "demo/demo"):
            assert ids(await catalogue.resolve(name)) == ["demo/demo"]
        with pytest.raises(UnknownModel):
            await catalogue.resolve("gpt-4o")


async def test_with_a_provider_there_is_no_demo(make: MakeCatalogue, upstream: ScriptedProvider) -> None:
    catalogue = make(custom=(lab(upstream, models=("alpha",)),))
    with pytest.raises(UnknownModel):
        await catalogue.resolve("demo/demo")


async def test_an_ollama_that_answers_is_found_by_itself_and_the_demo_steps_back(
    make: MakeCatalogue, upstream: ScriptedProvider
) -> None:
    upstream.app.model_entries = [{"id": "llama3.2:latest"}, {"id": "nomic-embed-text:latest"}]
    catalogue = make(ollama_url=f"127.0.0.1:{upstream.port}")
    assert [card.id for card in await catalogue.models()] == [
        "ollama/llama3.2:latest",
        "ollama/nomic-embed-text:latest",
    ]
    assert ids(await catalogue.resolve(None)) == ["ollama/llama3.2:latest"]


async def test_an_ollama_that_comes_and_goes_is_listed_while_it_is_there(
    make: MakeCatalogue, upstream: ScriptedProvider
) -> None:
    upstream.app.models_step = Step(status=500)
    upstream.app.model_entries = [{"id": "llama3.2"}]
    catalogue = make(ollama_url=upstream.base_url)
    catalogue.providers[0].listing.retry = 0.05

    async def lists(expected: list[str]) -> None:
        async with asyncio.timeout(3):
            while [card.id for card in await catalogue.models()] != expected:
                await asyncio.sleep(0.02)

    await lists(["demo/demo"])
    upstream.app.models_step = None
    await lists(["ollama/llama3.2"])
    upstream.app.models_step = Step(status=500)
    await lists(["demo/demo"])


async def test_a_list_is_refreshed_and_survives_a_failure(
    make: MakeCatalogue, upstream: ScriptedProvider
) -> None:
    upstream.app.model_entries = [{"id": "old"}]
    catalogue = make(custom=(lab(upstream),))
    listing = catalogue.providers[0].listing
    listing.refresh = listing.retry = 0.05
    assert [card.name for card in await catalogue.models()] == ["old"]
    upstream.app.model_entries = [{"id": "new"}]
    async with asyncio.timeout(3):
        while [card.name for card in await catalogue.models()] != ["new"]:
            await asyncio.sleep(0.02)
    upstream.app.models_step = Step(status=500)
    seen = len(upstream.requests)
    async with asyncio.timeout(3):
        while len(upstream.requests) < seen + 3:
            await asyncio.sleep(0.02)
    assert [card.name for card in await catalogue.models()] == ["new"]


async def test_another_server_in_openais_place_is_taken_as_it_is(
    make: MakeCatalogue, upstream: ScriptedProvider
) -> None:
    catalogue = make(openai_base_url=upstream.base_url)
    assert (await catalogue.models())[0].id == "openai/scripted"
    assert "authorization" not in upstream.requests[0].headers
    assert ids(await catalogue.resolve("openai/whatever")) == ["openai/whatever"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"custom": [{"name": "lab", "base_url": "http://llm.example.com/v1"}]},
            "'lab' is at http://llm.example.com",
        ),
        ({"openai_base_url": "http://10.0.0.7/v1"}, "OPENAI_BASE_URL: provider 'openai'"),
        ({"ollama_url": "http://ollama:11434"}, "OLLAMA_HOST: provider 'ollama'"),
        ({"custom": [{"name": "groq", "base_url": "https://x.example"}]}, "built-in provider"),
        ({"custom": [{"name": "a", "base_url": "https://x.example"}] * 2}, "two providers are called 'a'"),
        ({"order": ("grok",)}, "Did you mean groq?"),
        ({"default_model": "groq/llama-3.3-70b-versatile"}, "not configured"),
    ],
)
async def test_what_can_not_be_served_stops_start_up(
    make: MakeCatalogue, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        make(**settings)


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("http://127.0.0.1:11434", "http://127.0.0.1:11434/v1"),
        ("127.0.0.1", "http://127.0.0.1:11434/v1"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080/v1"),
        ("http://localhost/v1/", "http://localhost:11434/v1"),
        ("https://ollama.example.com", "https://ollama.example.com:443/v1"),
        ("[::1]:7", "http://[::1]:7/v1"),
    ],
)
async def test_ollamas_address_is_read_as_ollama_reads_it(
    make: MakeCatalogue, given: str, address: str
) -> None:
    assert make(ollama_url=given).providers[0].profile.base_url == address


async def read_all(target: Target) -> None:
    body = {"messages": [{"role": "user", "content": "hello"}]}
    async with target.provider.stream(target.model, body) as blocks:
        async for _ in blocks:
            pass


@pytest.mark.parametrize(
    ("hang", "told"),
    [
        ("headers", "sent no token within 0.4 s"),
        ("first", "sent no token within 0.4 s"),
        ("mid", "sent nothing for 0.3 s"),
    ],
)
async def test_providers_are_given_the_time_that_the_settings_say(
    make: MakeCatalogue, upstream: ScriptedProvider, hang: Any, told: str
) -> None:
    upstream.script(Step(hang=hang))
    catalogue = make(custom=(lab(upstream, models=("scripted",)),), first_token_timeout=0.4, idle_timeout=0.3)
    (target,) = await catalogue.resolve("lab/scripted")
    async with asyncio.timeout(10):
        with pytest.raises(ProviderError, match=told):
            await read_all(target)
