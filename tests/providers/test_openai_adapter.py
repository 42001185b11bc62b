"""What the adapter for OpenAI's protocol does beyond what every adapter does (adapters/test_contract.py)."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from baatcheet.providers.model import Body, Chunk, ModelCard, ProviderError
from tests.providers.conftest import MODEL, Direct, MakeProvider
from tests.scripted_provider import ScriptedProvider, Step

EMBEDDER = ModelCard(provider="lab", name="text-embedding-scripted", context_window=8192, embedding=True)


def ask(text: str = "one two three", **more: Any) -> Body:
    return {"messages": [{"role": "user", "content": text}], **more}


async def collect(provider: Direct, body: Body | None = None) -> list[Chunk]:
    async with provider.stream(MODEL, body or ask()) as blocks:
        return [chunk async for block in blocks for chunk in block]


async def collect_until_failure(provider: Direct, body: Body | None = None) -> tuple[str, ProviderError]:
    text = ""
    with pytest.raises(ProviderError) as caught:  # noqa: PT012 - the text that came before counts
        async with provider.stream(MODEL, body or ask()) as blocks:
            async for block in blocks:
                text += text_of(block)
    return text, caught.value


def text_of(chunks: Sequence[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


async def test_parameters_that_we_do_not_know_are_passed_on(
    make_provider: MakeProvider, upstream: ScriptedProvider
) -> None:
    body = ask(seed=7, from_the_future={"a": [1]}, stream_options={"include_obfuscation": False})
    await collect(make_provider(), body)
    sent = upstream.requests[-1].body
    assert sent["seed"] == 7
    assert sent["from_the_future"] == {"a": [1]}
    assert sent["stream_options"] == {"include_obfuscation": False, "include_usage": True}
    assert "stream" not in body


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("given", ["max_tokens", "max_completion_tokens"])
async def test_the_reply_limit_is_sent_under_the_name_that_the_provider_takes(
    make_provider: MakeProvider, upstream: ScriptedProvider, name: str, given: str
) -> None:
    await collect(make_provider(max_tokens_name=name), {**ask(), given: 100})
    sent = upstream.requests[-1].body
    assert {key: sent[key] for key in sent if key.startswith("max_")} == {name: 100}


async def test_a_well_formed_chunk_is_forwarded_byte_for_byte(
    make_provider: MakeProvider, upstream: ScriptedProvider
) -> None:
    upstream.script(Step(reply="a b", extra={"x_vendor": {"kept": True}}))
    chunks = await collect(make_provider())
    assert all(json.loads(chunk.raw)["x_vendor"] == {"kept": True} for chunk in chunks[:-1])
    assert chunks[1].raw.startswith(b'{"id":"chatcmpl-scripted-')


async def test_a_whole_reply_is_given_as_it_came(
    make_provider: MakeProvider, upstream: ScriptedProvider
) -> None:
    completion = await make_provider().complete(
        MODEL, ask(stream=True, stream_options={"include_usage": True})
    )
    value = json.loads(completion.raw)
    assert value["choices"][0]["message"]["content"] == "You said: one two three"
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == value["usage"]["prompt_tokens"]
    assert not {"stream", "stream_options"} & upstream.requests[-1].body.keys()


async def test_a_whole_reply_that_leaves_fields_out_is_completed(
    make_provider: MakeProvider, upstream: ScriptedProvider
) -> None:
    upstream.script(Step(raw_body='{"choices": [\n{"message": {"content": "hi"}}]}'))
    value = json.loads((await make_provider().complete(MODEL, ask())).raw)
    assert (value["object"], value["model"]) == ("chat.completion", "scripted")
    assert value["choices"][0]["message"] == {"role": "assistant", "content": "hi"}
    assert value["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("form", ["float", "base64"])
async def test_embeddings_pass_through(make_provider: MakeProvider, form: str) -> None:
    raw = await make_provider().embed(EMBEDDER, {"input": ["a", "b"], "encoding_format": form})
    value = json.loads(raw)
    assert len(value["data"]) == 2
    assert isinstance(value["data"][0]["embedding"], str if form == "base64" else list)


async def test_a_refusal_keeps_the_type_param_and_code_of_openai(make_provider: MakeProvider) -> None:
    _, error = await collect_until_failure(make_provider(), ask(temperature=9))
    assert (error.kind, error.type, error.param) == ("rejected", "invalid_request_error", "temperature")
    assert error.code == "invalid_value"
    assert not error.another_may_answer


async def test_a_server_that_refuses_stream_options_is_asked_again_without_them(
    make_provider: MakeProvider, upstream: ScriptedProvider
) -> None:
    refusal = Step(status=400, error={"message": "Unrecognized request argument supplied: stream_options"})
    upstream.script(refusal)
    provider = make_provider()
    assert text_of(await collect(provider)) == "You said: one two three"
    assert text_of(await collect(provider)) == "You said: one two three"
    assert ["stream_options" in one.body for one in upstream.requests] == [True, False, False]
