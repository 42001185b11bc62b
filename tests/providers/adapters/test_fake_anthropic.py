"""The FAKE Messages API, driven by the vendor's own client: what the fake says must be what that client reads."""

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
import pytest_asyncio
from anthropic.types import ToolParam

from baatcheet.providers.model import ModelCard
from tests.providers.adapters.bench import Bench
from tests.scripted_provider import Call, Step

KEY = "sk-ant-of-the-tests-0001"
CARD = ModelCard(provider="lab", name="scripted", context_window=1000)
HELLO: Any = [{"role": "user", "content": "hello there"}]
WEATHER: ToolParam = {"name": "weather", "input_schema": {"type": "object", "properties": {}}}


@pytest_asyncio.fixture
async def client(claude: Bench) -> AsyncIterator[anthropic.AsyncAnthropic]:
    base_url = claude.upstream.base_url.removesuffix("/v1")
    async with anthropic.AsyncAnthropic(api_key=KEY, base_url=base_url, max_retries=0) as made:
        yield made


async def test_the_client_speaks_the_version_that_the_adapter_speaks(
    client: anthropic.AsyncAnthropic, claude: Bench
) -> None:
    await client.messages.create(model="scripted", max_tokens=100, messages=HELLO)
    async with claude.adapter().stream(CARD, {"messages": HELLO}, None) as blocks:
        assert [chunk async for block in blocks for chunk in block]
    theirs, ours = claude.upstream.requests
    assert theirs.headers["anthropic-version"] == ours.headers["anthropic-version"]
    assert theirs.path == ours.path


async def test_the_client_reads_a_whole_message(client: anthropic.AsyncAnthropic) -> None:
    message = await client.messages.create(model="scripted", max_tokens=100, messages=HELLO)
    assert message.type == "message"
    assert message.role == "assistant"
    assert [block.text for block in message.content if block.type == "text"] == ["You said: hello there"]
    assert message.stop_reason == "end_turn"
    assert message.usage.cache_read_input_tokens == 7
    assert message.usage.output_tokens > 0


async def test_the_client_puts_a_streamed_message_together(
    client: anthropic.AsyncAnthropic, claude: Bench
) -> None:
    claude.upstream.script(Step(reply="a long answer", reasoning="let me think", comments=True))
    async with client.messages.stream(model="scripted", max_tokens=100, messages=HELLO) as stream:
        seen = [event.type async for event in stream]
        message = await stream.get_final_message()
    assert seen[0] == "message_start"
    assert seen[-1] == "message_stop"
    thinking, text = message.content
    assert thinking.type == "thinking"
    assert (thinking.thinking, thinking.signature) == ("let me think", "c2lnbmVk")
    assert text.type == "text"
    assert text.text == "a long answer"
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens > 1


async def test_the_client_puts_streamed_tool_calls_together(
    client: anthropic.AsyncAnthropic, claude: Bench
) -> None:
    claude.upstream.script(Step(tool_calls=(Call("weather", '{"at":"Lahore"}'), Call("weather"))))
    async with client.messages.stream(
        model="scripted", max_tokens=100, messages=HELLO, tools=[WEATHER]
    ) as stream:
        message = await stream.get_final_message()
    called = [(one.name, one.input) for one in message.content if one.type == "tool_use"]
    assert called == [("weather", {"at": "Lahore"}), ("weather", {})]
    assert message.stop_reason == "tool_use"


@pytest.mark.parametrize(
    ("status", "error", "type_"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (401, anthropic.AuthenticationError, "authentication_error"),
        (403, anthropic.PermissionDeniedError, "permission_error"),
        (404, anthropic.NotFoundError, "not_found_error"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (500, anthropic.InternalServerError, "api_error"),
        (529, anthropic.OverloadedError, "overloaded_error"),
    ],
)
async def test_the_client_knows_each_error(
    client: anthropic.AsyncAnthropic,
    claude: Bench,
    status: int,
    error: type[anthropic.APIStatusError],
    type_: str,
) -> None:
    claude.upstream.script(Step(status=status, retry_after="1"))
    with pytest.raises(error) as caught:
        await client.messages.create(model="scripted", max_tokens=100, messages=HELLO)
    assert caught.value.type == type_
    assert caught.value.api_message == f"Scripted {status}."


async def test_the_client_knows_an_error_inside_a_stream(
    client: anthropic.AsyncAnthropic, claude: Bench
) -> None:
    claude.upstream.script(Step(error_after=2))
    text = ""
    with pytest.raises(anthropic.APIStatusError) as caught:  # noqa: PT012 - the text that came before counts
        async with client.messages.stream(model="scripted", max_tokens=100, messages=HELLO) as stream:
            async for piece in stream.text_stream:
                text += piece
    assert text == "You said:"
    assert caught.value.type == "overloaded_error"


async def test_the_client_lists_models(client: anthropic.AsyncAnthropic) -> None:
    listed = [model async for model in client.models.list(limit=1000)]
    assert [(one.id, one.max_input_tokens, one.max_tokens) for one in listed] == [
        ("scripted", 400_000, 50_000),
        ("scripted-blind", 400_000, 50_000),
    ]
    assert listed[0].capabilities is not None
    assert listed[0].capabilities.image_input.supported


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 1.0},
        {"max_tokens": 0},
        {"messages": []},
        {"messages": [{"role": "assistant", "content": "hi"}, *HELLO]},
        {"messages": [*HELLO, {"role": "assistant", "content": "and"}]},
        {"messages": [{"role": "user", "content": " "}]},
        {"messages": [{"role": "user", "content": []}]},
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a"}]}]},
        {"tool_choice": {"type": "any"}},
        {"stop_sequences": [" "]},
        {"seed": 1},
        {"system": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}] * 5},
    ],
    ids=str,
)
async def test_what_the_api_refuses_is_refused(
    client: anthropic.AsyncAnthropic, wrong: dict[str, Any]
) -> None:
    body = {"model": "scripted", "max_tokens": 100, "messages": HELLO} | wrong
    with pytest.raises(anthropic.BadRequestError):
        await client.post("/v1/messages", body=body, cast_to=object)
