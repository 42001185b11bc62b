"""What the server answers under /v1 is what OpenAI's own specification says (see extract_schemas.py)."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any
from uuid import uuid4

import pytest
from jsonschema import Draft202012Validator

from baatcheet.providers.adapters.demo import DemoProvider
from tests.conftest import Caller, NewCaller
from tests.openai_api.extract_schemas import EXTRACTED

COMPLETION = "CreateChatCompletionResponse"
CHUNK = "CreateChatCompletionStreamResponse"
ERROR = "ErrorResponse"
MODEL = "scripted-echo"
ADDER = {
    "type": "function",
    "function": {
        "name": "adder",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}


@cache
def validator(name: str) -> Draft202012Validator:
    schemas = json.loads(EXTRACTED.read_bytes())
    assert name in schemas["components"]["schemas"]
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", **schemas})


def faults(name: str, value: object) -> list[str]:
    """Where `value` is not a `name`."""
    return [f"{error.json_path}: {error.message}" for error in validator(name).iter_errors(value)]


def asked(said: str, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": said}], **more}


REQUESTS: dict[str, dict[str, Any]] = {
    "text": asked("hello"),
    "no words": asked('[[scripted {"reply": ""}]]'),
    "tools": asked("use adder on 17 and 25", tools=[ADDER]),
    "parallel tools": asked("the weather", model="scripted-parallel-tools", tools=[WEATHER]),
    "JSON": asked("a 'name' as JSON", response_format={"type": "json_object"}),
    "cut short": asked("one two three four five six seven", max_tokens=3),
    "reasoning": asked("think", model="scripted-reasoning"),
    "a provider that leaves fields out": asked("hello", model="scripted-legacy"),
    "a whole answer in one chunk": asked("hello", model="scripted-whole"),
}
WAYS: dict[str, dict[str, Any]] = {
    "stateless": {},
    "stateless, kept": {"idempotency-key": "specification"},
    "in a conversation": {"x-baatcheet-conversation": "new"},
}


def of_its_own(way: Mapping[str, str]) -> dict[str, str]:
    """The headers of one request; a key, where there is one, that no other request has."""
    return {
        name: f"{value}-{uuid4().hex}" if name == "idempotency-key" else value for name, value in way.items()
    }


async def events(caller: Caller, body: Mapping[str, Any], headers: Mapping[str, str]) -> list[Any]:
    """The data of a stream's events; the last is `[DONE]`, or an error in its place."""
    streamed = {**body, "stream": True}
    async with caller.stream("POST", "/v1/chat/completions", json=streamed, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        data = [line[6:] async for line in answer.aiter_lines() if line.startswith("data: ")]
    return [one if one == "[DONE]" else json.loads(one) for one in data]


def check_stream(found: list[Any], *, usage: bool) -> None:
    *chunks, end = found
    assert end == "[DONE]"
    for chunk in chunks:
        assert not faults(CHUNK, chunk), chunk
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    chosen = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    assert [one["finish_reason"] for one in chosen[:-1]] == [None] * (len(chosen) - 1)
    assert chosen[-1]["finish_reason"]
    assert chosen[0]["delta"]["role"] == "assistant"
    assert len(chunks) - len(chosen) == (1 if usage else 0)
    if usage:
        assert chunks[-1]["choices"] == []
        sums = chunks[-1]["usage"]
        assert sums["total_tokens"] == sums["prompt_tokens"] + sums["completion_tokens"] > 0


def test_the_specification_is_not_so_loose_that_anything_passes() -> None:
    choice = {"index": 0, "delta": {"content": "x"}, "finish_reason": None}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    assert not faults(CHUNK, chunk)
    for wrong in (
        chunk | {"object": "chat.completion"},
        chunk | {"created": "yesterday"},
        chunk | {"choices": [choice | {"finish_reason": "because"}]},
        chunk | {"choices": [choice | {"delta": {"content": 5}}]},
        chunk | {"choices": [{"index": 0, "delta": {}}]},
        chunk | {"usage": {"prompt_tokens": 1}},
    ):
        assert faults(CHUNK, wrong)
    assert faults(ERROR, {"error": {"message": "no type, param and code"}})


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("request_", REQUESTS)
async def test_a_completion(alice: Caller, request_: str, way: str) -> None:
    headers = of_its_own(WAYS[way])
    answers = [await alice.post("/v1/chat/completions", json=REQUESTS[request_], headers=headers)]
    if "idempotency-key" in headers:  # the second one is told from storage
        answers.append(await alice.post("/v1/chat/completions", json=REQUESTS[request_], headers=headers))
        assert answers[1].headers["idempotent-replayed"] == "true"
    for answer in answers:
        assert answer.status_code == 200, answer.text
        assert not faults(COMPLETION, answer.json()), answer.text
        assert answer.json()["usage"]["total_tokens"] > 0
    assert all(answer.json() == answers[0].json() for answer in answers)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("request_", REQUESTS)
async def test_the_chunks_of_a_stream_and_of_its_replay(alice: Caller, request_: str, way: str) -> None:
    for usage in (False, True):
        headers = of_its_own({"idempotency-key": "stream", **WAYS[way]} if way != "stateless" else {})
        body = REQUESTS[request_] | ({"stream_options": {"include_usage": True}} if usage else {})
        live = await events(alice, body, headers)
        check_stream(live, usage=usage)
        if headers:
            replayed = await events(alice, body, headers)
            check_stream(replayed, usage=usage)
            assert said_in(replayed) == said_in(live)


async def test_several_answers_with_the_likelihood_of_their_tokens(alice: Caller) -> None:
    body = asked("hello", n=2, logprobs=True)
    whole = (await alice.post("/v1/chat/completions", json=body)).json()
    assert not faults(COMPLETION, whole)
    assert all(choice["logprobs"]["content"] for choice in whole["choices"])
    *chunks, _ = await events(alice, body, {})
    assert not any(faults(CHUNK, chunk) for chunk in chunks)
    kept = await alice.post("/v1/chat/completions", json=asked("hello", logprobs=True, conversation="new"))
    assert not faults(COMPLETION, kept.json())
    assert kept.json()["choices"][0]["logprobs"]["content"]


def said_in(found: list[Any]) -> tuple[str, str]:
    """The text, and the arguments of the tools, that a stream's chunks add up to."""
    deltas = [chunk["choices"][0]["delta"] for chunk in found[:-1] if chunk["choices"]]
    calls = [call for delta in deltas for call in delta.get("tool_calls") or ()]
    return (
        "".join(delta.get("content") or "" for delta in deltas),
        "".join(call["function"].get("arguments") or "" for call in calls),
    )


async def test_an_error_in_the_middle_of_a_stream(alice: Caller) -> None:
    for headers in WAYS.values():
        *chunks, error = await events(alice, asked("hello", model="scripted-cut"), of_its_own(headers))
        assert chunks
        assert not any(faults(CHUNK, chunk) for chunk in chunks)
        assert not faults(ERROR, error), error


ERRORS: dict[str, tuple[int, dict[str, Any]]] = {
    "not JSON": (400, {"content": b"{"}),
    "not UTF-8": (400, {"content": b'"\xff"'}),
    "no object": (400, {"json": []}),
    "no messages": (400, {"json": {"model": MODEL}}),
    "a NUL": (422, {"json": asked("nul \0")}),
    "an unknown model": (404, {"json": asked("hello", model="no-such-model")}),
    "an unknown conversation": (404, {"json": asked("hello", conversation=str(uuid4()))}),
    "an empty conversation": (400, {"json": asked("hello", conversation="")}),
    "an empty conversation's header": (
        400,
        {"json": asked("hello"), "headers": {"x-baatcheet-conversation": ""}},
    ),
    "a message that is too large": (413, {"json": asked("x" * 2_000_001)}),
    "a body that is too large": (413, {"json": asked("x" * 8_000_001)}),
    "a wrong token": (401, {"json": asked("hello"), "headers": {"authorization": "Bearer bc_wrong"}}),
    "a wrong key": (400, {"json": asked("hello"), "headers": {"idempotency-key": "with a space"}}),
    "the provider refuses": (400, {"json": asked("hello", model="scripted-400")}),
    "the provider forbids": (503, {"json": asked("hello", model="scripted-403")}),
    "the provider is busy": (503, {"json": asked("hello", model="scripted-429")}),
    "the provider fails": (503, {"json": asked("hello", model="scripted-500")}),
    "the provider answers with a page": (503, {"json": asked("hello", model="scripted-html")}),
    "the provider breaks off": (502, {"json": asked("hello", model="scripted-cut", conversation="new")}),
}


@pytest.mark.parametrize("case", ERRORS)
async def test_an_error(alice: Caller, case: str) -> None:
    status, request = ERRORS[case]
    answer = await alice.post("/v1/chat/completions", **request)
    assert answer.status_code == status, answer.text
    assert not faults(ERROR, answer.json()), answer.text


async def test_an_unknown_conversation_is_named_as_this_surface_names_it(alice: Caller) -> None:
    answer = await alice.post("/v1/chat/completions", json=asked("hello", conversation=str(uuid4())))
    assert answer.json()["error"]["param"] == "conversation"


async def test_an_error_at_any_other_address(alice: Caller, new_caller: NewCaller) -> None:
    reader = await new_caller("reader", scopes=["read"])
    answers = {
        403: await reader.post("/v1/chat/completions", json=asked("hello")),
        404: await alice.get("/v1/models/no-such-model"),
        405: await alice.delete("/v1/models"),
        400: await alice.post("/v1/embeddings", json={"model": "text-embedding-scripted", "input": []}),
        401: await alice.get("/v1/models", headers={"authorization": "Basic x"}),
    }
    for status, answer in answers.items():
        assert answer.status_code == status, answer.text
        assert not faults(ERROR, answer.json()), answer.text


async def test_the_models(alice: Caller) -> None:
    listed = (await alice.get("/v1/models")).json()
    assert not faults("ListModelsResponse", listed)
    assert listed["data"]
    for card in listed["data"][:3]:
        one = (await alice.get(f"/v1/models/{card['id']}")).json()
        assert not faults("Model", one)
        assert one == card


async def test_embeddings(alice: Caller) -> None:
    body = {"model": "text-embedding-scripted", "input": ["one", "two"], "encoding_format": "float"}
    answer = (await alice.post("/v1/embeddings", json=body)).json()
    assert not faults("CreateEmbeddingResponse", answer)


async def test_the_built_in_demo() -> None:
    demo = DemoProvider(delay=0)
    (card,) = await demo.models()
    assert not faults(COMPLETION, json.loads((await demo.complete(card, asked("hello"))).raw))
    async with demo.stream(card, asked("hello")) as blocks:
        chunks = [json.loads(chunk.raw) async for block in blocks for chunk in block]
    for chunk in chunks:
        assert not faults(CHUNK, chunk), chunk
    assert {chunk["choices"][0]["finish_reason"] for chunk in chunks if chunk["choices"]} == {None, "stop"}
