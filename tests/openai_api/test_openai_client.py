"""The `openai` package works unchanged with another base URL."""

import json

import httpx
import openai
import pytest
from openai.types.chat import (
    ChatCompletionContentPartImageParam,
    ChatCompletionMessage,
    ChatCompletionMessageParam,
    ChatCompletionToolParam,
)

from tests.chat.conftest import Upstream

MODEL = "scripted-echo"
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
ADDER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "adder",
        "description": "Add two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}


async def test_a_completion(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model=MODEL, messages=HELLO)
    assert answer.choices[0].message.content == "You said: hello"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


async def test_a_stream(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
    chunks = [chunk async for chunk in stream]
    assert (
        "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        == "You said: hello"
    )
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert all(chunk.choices for chunk in chunks), "usage comes only to those who ask"


async def test_a_stream_with_usage(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model=MODEL, messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens > 0


@pytest.mark.parametrize("streamed", [False, True])
async def test_tools_are_called_and_answered(client: openai.AsyncOpenAI, streamed: bool) -> None:
    asked: list[ChatCompletionMessageParam] = [{"role": "user", "content": "use adder on 17 and 25"}]
    message: ChatCompletionMessage
    if streamed:
        async with client.chat.completions.stream(model=MODEL, messages=asked, tools=[ADDER]) as stream:
            message = (await stream.get_final_completion()).choices[0].message
    else:
        message = (
            (await client.chat.completions.create(model=MODEL, messages=asked, tools=[ADDER]))
            .choices[0]
            .message
        )
    assert message.tool_calls
    call = message.tool_calls[0]
    assert call.type == "function"
    assert call.function.name == "adder"
    assert json.loads(call.function.arguments) == {"a": 17, "b": 25}
    final = await client.chat.completions.create(
        model=MODEL,
        tools=[ADDER],
        messages=[
            *asked,
            {
                "role": "assistant",
                "tool_calls": [
                    {
                        "id": call.id,
                        "type": "function",
                        "function": {"name": call.function.name, "arguments": call.function.arguments},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": call.id, "content": "42"},
        ],
    )
    assert "42" in (final.choices[0].message.content or "")


async def test_tools_in_a_conversation_need_only_the_result(
    client: openai.AsyncOpenAI, upstream: Upstream
) -> None:
    first = await client.chat.completions.with_raw_response.create(
        model=MODEL,
        messages=[{"role": "user", "content": "use adder on 30 and 12"}],
        tools=[ADDER],
        extra_body={"conversation": "new"},
    )
    conversation = first.headers["x-baatcheet-conversation"]
    calls = first.parse().choices[0].message.tool_calls
    assert calls
    final = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "tool", "tool_call_id": calls[0].id, "content": "forty-two"}],
        tools=[ADDER],
        extra_body={"conversation": conversation},
    )
    assert "forty-two" in (final.choices[0].message.content or "")
    assert [m["role"] for m in upstream.last_messages("forty-two")] == ["user", "assistant", "tool"]


async def test_a_tool_result_that_answers_nothing_is_the_clients_error(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="tool_call_id"):
        await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "tool", "tool_call_id": "lost", "content": "42"}],
            extra_body={"conversation": "new"},
        )


async def test_json_mode(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "a person as JSON"}],
        response_format={
            "type": "json_schema",
            "json_schema": {
                "name": "person",
                "schema": {
                    "type": "object",
                    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
                    "required": ["name", "age"],
                },
            },
        },
    )
    person = json.loads(answer.choices[0].message.content or "")
    assert isinstance(person["age"], int)


async def test_parameters_and_those_nobody_knows_yet_reach_the_provider(
    client: openai.AsyncOpenAI, upstream: Upstream
) -> None:
    for more in ({}, {"conversation": "new"}):
        await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "pass it on"}],
            temperature=0.25,
            stop=["zzz"],
            seed=7,
            n=1,
            extra_body={"from_the_future": {"deep": [1, 2.5]}, **more},
        )
        body = upstream.provider.requests[-1].body
        assert body["temperature"] == 0.25
        assert body["stop"] == ["zzz"]
        assert body["seed"] == 7
        assert body["from_the_future"] == {"deep": [1, 2.5]}
        assert "conversation" not in body


async def test_an_image_reaches_the_provider_and_is_remembered(
    client: openai.AsyncOpenAI, upstream: Upstream
) -> None:
    image: ChatCompletionContentPartImageParam = {
        "type": "image_url",
        "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="},
    }
    first = await client.chat.completions.with_raw_response.create(
        model=MODEL,
        messages=[{"role": "user", "content": [{"type": "text", "text": "what is this?"}, image]}],
        extra_body={"conversation": "new"},
    )
    await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "and what colour?"}],
        extra_body={"conversation": {"id": first.headers["x-baatcheet-conversation"]}},
    )
    assert upstream.last_messages("and what colour?")[0]["content"][1] == image


async def test_a_conversation_by_header_remembers(
    client: openai.AsyncOpenAI, alice: httpx.AsyncClient
) -> None:
    made = (await alice.post("/api/v1/conversations", json={"title": "Names", "model": MODEL})).json()
    headers = {"X-BaatCheet-Conversation": made["id"]}
    await client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "I am Zafar"}], extra_headers=headers
    )
    stream = await client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "who?"}], extra_headers=headers, stream=True
    )
    async for _ in stream:
        pass
    page = (await alice.get(f"/api/v1/conversations/{made['id']}/messages")).json()
    assert [m["content"] for m in page["data"]] == [
        "I am Zafar",
        "You said: I am Zafar",
        "who?",
        "You said: who?",
    ]


async def test_a_repeated_idempotency_key_joins_the_completion(
    client: openai.AsyncOpenAI, upstream: Upstream
) -> None:
    for more in ({}, {"conversation": "new"}):
        said = f"once and no more, please {bool(more)}"
        headers = {"Idempotency-Key": f"key-{bool(more)}"}
        texts = []
        for streamed in (False, False):
            answer = await client.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": said}],
                extra_headers=headers,
                extra_body=more,
                stream=streamed,
            )
            texts.append(answer.choices[0].message.content)
        assert texts == [f"You said: {said}"] * 2
        assert upstream.times_asked(said) == 1


async def test_a_stream_is_resumed_by_key_and_last_event_id(
    client: openai.AsyncOpenAI, alice: httpx.AsyncClient
) -> None:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "resume me word by word"}],
        "stream": True,
    }
    headers = {"idempotency-key": "resume"}
    async with alice.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
        whole = [line async for line in response.aiter_lines() if line]
    ids = [int(line[4:]) for line in whole if line.startswith("id: ")]
    assert ids == sorted(set(ids))
    resumed = {**headers, "last-event-id": str(ids[1])}
    async with alice.stream("POST", "/v1/chat/completions", json=body, headers=resumed) as response:
        rest = [line async for line in response.aiter_lines() if line]
    assert [int(line[4:]) for line in rest if line.startswith("id: ")] == ids[2:]
    assert rest[-1] == whole[-1] == "data: [DONE]"

    def text(lines: list[str]) -> str:
        chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])

    assert text(whole).endswith(text(rest))


async def test_models_are_listed_and_found(client: openai.AsyncOpenAI) -> None:
    listed = [model async for model in await client.models.list()]
    assert any(model.id == f"openai/{MODEL}" for model in listed)
    for name in (MODEL, f"openai/{MODEL}"):
        assert (await client.models.retrieve(name)).id == f"openai/{MODEL}"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("no-such-model")


async def test_embeddings_pass_through(client: openai.AsyncOpenAI) -> None:
    answer = await client.embeddings.create(model="text-embedding-scripted", input=["one", "two"])
    assert len(answer.data) == 2
    assert answer.data[0].embedding != answer.data[1].embedding


ERRORS: list[tuple[str, type[openai.APIStatusError]]] = [
    ("no-such-model", openai.NotFoundError),
    ("scripted-400", openai.BadRequestError),
    ("scripted-429", openai.InternalServerError),  # its limit is not the client's
    ("scripted-500", openai.InternalServerError),
    ("scripted-401", openai.InternalServerError),  # the provider's key is our trouble, not the client's
]


@pytest.mark.parametrize(("model", "kind"), ERRORS)
@pytest.mark.parametrize("mode", ["whole", "stream", "conversation"])
async def test_errors_are_of_the_right_class(
    client: openai.AsyncOpenAI, model: str, kind: type[openai.APIStatusError], mode: str
) -> None:
    extra = {"conversation": "new"} if mode == "conversation" else {}
    with pytest.raises(kind) as caught:
        await client.chat.completions.create(
            model=model, messages=HELLO, stream=mode == "stream", extra_body=extra
        )
    body = caught.value.body
    assert isinstance(body, dict)
    assert set(body) == {"message", "type", "param", "code"}
    assert body["message"]


async def test_a_wrong_key_is_an_authentication_error(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.AuthenticationError):
        await client.with_options(api_key="bc_wrong").chat.completions.create(model=MODEL, messages=HELLO)


async def test_a_reply_that_is_cut_raises_in_the_stream(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="scripted-cut", messages=HELLO, stream=True)
    with pytest.raises(openai.APIError, match="openai"):
        async for _ in stream:
            pass


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({}, None),
        ({"messages": [{"role": "nobody", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": " "}]}]}, "messages[0].content"),
        ({"messages": HELLO * 20_001}, "messages"),
        ({"messages": HELLO * 257, "conversation": "new"}, "messages"),
        ({"messages": HELLO, "model": 7}, "model"),
        ({"messages": HELLO, "stream": "yes"}, "stream"),
        ({"messages": HELLO, "conversation": "new", "n": 2}, "n"),
        ({"messages": [{"role": "assistant", "content": "x"}], "conversation": "new"}, "messages[0].role"),
        ({"messages": [{"role": "system", "content": "x"}], "conversation": "new"}, "messages"),
    ],
)
async def test_bad_input_is_refused_in_openais_envelope(
    alice: httpx.AsyncClient, body: dict[str, object], param: str | None
) -> None:
    answer = await alice.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    if param is not None:
        assert error["param"] == param


async def test_a_foreign_conversation_is_not_there(
    client: openai.AsyncOpenAI, bob: httpx.AsyncClient
) -> None:
    made = (await bob.post("/api/v1/conversations", json={"title": "private"})).json()
    for name in (made["id"], "not-an-id", "0190f3a2-7c1e-7d4b-9a51-3f0c2b8e6d10"):
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(
                model=MODEL, messages=HELLO, extra_body={"conversation": name}
            )


async def test_a_stateless_client_that_leaves_its_stream_stops_its_provider(
    client: openai.AsyncOpenAI, upstream: Upstream
) -> None:
    said = 'nobody reads on [[scripted {"chunks": 100, "chunk_delay": 0.05}]]'
    stream = await client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": said}], stream=True
    )
    async with stream:
        async for _ in stream:
            break
    assert await upstream.abandoned("nobody reads on")


async def test_a_stateless_client_that_leaves_before_its_answer_stops_its_provider(
    client: openai.AsyncOpenAI, upstream: Upstream
) -> None:
    with pytest.raises(openai.APITimeoutError):
        await client.with_options(timeout=0.6).chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": 'nobody waits [[scripted {"latency": 3}]]'}],
        )
    assert await upstream.abandoned("nobody waits")
