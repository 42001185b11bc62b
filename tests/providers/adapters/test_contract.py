"""What every adapter promises, whatever its provider speaks: one suite over all protocols, on real sockets."""

import asyncio
import json
import socket
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from baatcheet.keys.secret import SecretKey
from baatcheet.providers.adapters.http import TimeLimits
from baatcheet.providers.model import Access, Adapter, Body, Chunk, ModelCard, ProviderError
from tests.providers.adapters.bench import KEY, Bench, Loan
from tests.scripted_provider import Call, Step

MODEL = ModelCard(provider="lab", name="scripted", context_window=32_768)
IMPATIENT = TimeLimits(connect=0.5, first_token=0.3, idle=0.3)


def ask(text: str = "one two three", **more: Any) -> Body:
    return {"messages": [{"role": "user", "content": text}], **more}


async def collect(adapter: Adapter, body: Body | None = None, access: Access | None = None) -> list[Chunk]:
    async with adapter.stream(MODEL, body or ask(), access) as blocks:
        return [chunk async for block in blocks for chunk in block]


async def collect_until_failure(
    adapter: Adapter, body: Body | None = None, access: Access | None = None
) -> tuple[str, ProviderError]:
    text = ""
    with pytest.raises(ProviderError) as caught:  # noqa: PT012 - the text that came before counts
        async with adapter.stream(MODEL, body or ask(), access) as blocks:
            async for block in blocks:
                text += text_of(block)
    return text, caught.value


def text_of(chunks: Sequence[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def assert_well_formed(chunks: Sequence[Chunk]) -> None:
    """Each is one line of JSON as OpenAI's clients expect it, and tells what its fields tell."""
    for chunk in chunks:
        assert b"\n" not in chunk.raw
        value = json.loads(chunk.raw)
        assert isinstance(value["id"], str)
        assert value["object"] == "chat.completion.chunk"
        assert isinstance(value["created"], int)
        assert value["model"] == "scripted"
        assert all(choice["index"] == 0 for choice in value["choices"])
        delta = value["choices"][0]["delta"] if value["choices"] else {}
        assert (delta.get("content") or "") == chunk.text
        assert (chunk.choice or {"delta": delta})["delta"] == delta
        finish = value["choices"][0]["finish_reason"] if value["choices"] else None
        assert finish == chunk.finish_reason
        if chunk.usage is not None:
            assert value["usage"]["total_tokens"] == chunk.usage.total_tokens
    assert len({json.loads(chunk.raw)["id"] for chunk in chunks}) == 1


async def test_a_reply_is_streamed_with_its_end_and_its_usage(bench: Bench) -> None:
    chunks = await collect(bench.adapter())
    assert text_of(chunks) == "You said: one two three"
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["stop"]
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens > 0
    assert json.loads(chunks[-1].raw)["choices"] == []
    assert all(chunk.choice is None for chunk in chunks)
    assert_well_formed(chunks)
    sent = bench.upstream.requests[-1]
    assert (sent.path, sent.body["model"], sent.body["stream"]) == (bench.protocol.path, "scripted", True)


async def test_a_key_is_sent_in_its_header_alone_and_told_of_each_answer(bench: Bench) -> None:
    loan = Loan()
    adapter = bench.adapter()
    await collect(adapter, access=loan)
    await adapter.complete(MODEL, ask(), loan)
    await adapter.check(loan)
    bench.upstream.script(Step(status=429))
    await collect_until_failure(adapter, access=loan)
    for sent in bench.upstream.requests:
        assert bench.protocol.sent_key(sent) == KEY
        others = {name: value for name, value in sent.headers.items() if name != bench.protocol.key_header}
        assert KEY not in f"{sent.path} {others} {sent.raw!r}"
    assert [told["x-request-id"] for told in loan.told] == ["req_scripted"] * 4


async def test_without_a_key_none_is_sent_and_each_call_has_its_own(bench: Bench) -> None:
    adapter = bench.adapter()
    keys = [None, "sk-first-key-0001", "sk-second-key-0002"]
    for key in keys:
        await collect(adapter, access=None if key is None else Loan(SecretKey(key)))
    assert [bench.protocol.sent_key(sent) for sent in bench.upstream.requests] == keys


async def test_headers_of_the_profile_are_sent(bench: Bench) -> None:
    await collect(bench.adapter(headers={"x-team": "blue"}))
    assert bench.upstream.requests[-1].headers["x-team"] == "blue"


@pytest.mark.parametrize("split", [None, 1, 7, 64])
@pytest.mark.parametrize(
    "step",
    [
        Step(),
        Step(crlf=True),
        Step(pretty=True),
        Step(comments=True),
        Step(done=False),
        Step(chunks=1),
        Step(chunk_size=1),
        Step(extra={"x_vendor": {"id": "1"}}),
        Step(crlf=True, comments=True, pretty=True, done=False),
    ],
    ids=str,
)
async def test_every_dialect_gives_the_same_text_in_well_formed_chunks(
    bench: Bench, step: Step, split: int | None
) -> None:
    described = {name: getattr(step, name) for name in step.__struct_fields__} | {"split": split}
    bench.upstream.script(Step(**described))
    chunks = await collect(bench.adapter(), ask("naïve 你好 🙂 \u2028 end"))
    assert text_of(chunks) == "You said: naïve 你好 🙂 \u2028 end"
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["stop"]
    usages = [chunk.usage for chunk in chunks if chunk.usage is not None]
    assert len(usages) == 1
    assert usages[0].completion_tokens > 0
    assert_well_formed(chunks)


async def test_tool_calls_come_as_choices_in_their_fragments(bench: Bench) -> None:
    bench.upstream.script(Step(tool_calls=(Call("a", '{"x":"a long argument"}'), Call("b", "{}"))))
    chunks = await collect(bench.adapter())
    arguments = {0: "", 1: ""}
    names = {}
    for chunk in chunks:
        for call in (chunk.choice or {}).get("delta", {}).get("tool_calls") or ():
            arguments[call["index"]] += call["function"]["arguments"]
            if "id" in call:
                assert call["id"]
                assert call["type"] == "function"
                names[call["index"]] = call["function"]["name"]
    assert arguments == {0: '{"x":"a long argument"}', 1: "{}"}
    assert names == {0: "a", 1: "b"}
    assert text_of(chunks) == ""
    assert "tool_calls" in [chunk.finish_reason for chunk in chunks]
    assert_well_formed(chunks)


async def test_a_whole_reply_may_be_tool_calls(bench: Bench) -> None:
    bench.upstream.script(Step(tool_calls=(Call("a", '{"x":1}'), Call("b", "{}"))))
    value = json.loads((await bench.adapter().complete(MODEL, ask(), None)).raw)
    message = value["choices"][0]["message"]
    called = [
        (call["type"], call["function"]["name"], call["function"]["arguments"])
        for call in message["tool_calls"]
    ]
    assert called == [("function", "a", '{"x":1}'), ("function", "b", "{}")]
    assert message["content"] is None
    assert value["choices"][0]["finish_reason"] == "tool_calls"


async def test_a_tools_result_is_answered(bench: Bench) -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"at":"Lahore"}'},
    }
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    body = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is it like outside?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "31 degrees"},
        ],
        "tools": [tool],
    }
    assert text_of(await collect(bench.adapter(), body)) == "The tool answered: 31 degrees"


async def test_reasoning_is_a_choice_and_not_text(bench: Bench) -> None:
    bench.upstream.script(Step(reply="answer", reasoning="let me think"), Step(reply="b", reasoning="a"))
    adapter = bench.adapter()
    chunks = await collect(adapter)
    thought = "".join(
        c.choice["delta"].get("reasoning_content") or "" for c in chunks if c.choice is not None
    )
    assert thought == "let me think"
    assert text_of(chunks) == "answer"
    assert_well_formed(chunks)
    message = json.loads((await adapter.complete(MODEL, ask(), None)).raw)["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("b", "a")


async def test_a_whole_reply_is_a_completion_with_its_usage(bench: Bench) -> None:
    completion = await bench.adapter().complete(
        MODEL, ask(stream=True, stream_options={"include_usage": True}), None
    )
    value = json.loads(completion.raw)
    assert value["object"] == "chat.completion"
    assert value["model"] == "scripted"
    choice = value["choices"][0]
    assert (choice["index"], choice["finish_reason"]) == (0, "stop")
    assert (choice["message"]["role"], choice["message"]["content"]) == (
        "assistant",
        "You said: one two three",
    )
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == value["usage"]["prompt_tokens"] > 0
    assert not {"stream", "stream_options"} & bench.upstream.requests[-1].body.keys()


async def test_a_reply_is_cut_where_its_limit_and_its_stops_say(bench: Bench) -> None:
    adapter = bench.adapter()
    limited = await collect(adapter, ask("word " * 50, max_completion_tokens=2))
    assert [chunk.finish_reason for chunk in limited if chunk.finish_reason] == ["length"]
    assert text_of(limited) == "You said"
    stopped = await collect(adapter, ask("one STOP two", stop="STOP"))
    assert text_of(stopped) == "You said: one "
    assert [chunk.finish_reason for chunk in stopped if chunk.finish_reason] == ["stop"]


async def test_a_reply_can_be_made_to_fit_a_schema(bench: Bench) -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}
    chunks = await collect(bench.adapter(), ask("I am 41", response_format=wanted))
    assert json.loads(text_of(chunks)) == {"age": 41}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "rejected"),
        (401, "unauthorized"),
        (402, "unauthorized"),
        (403, "unauthorized"),
        (404, "rejected"),
        (408, "timeout"),
        (413, "rejected"),
        (422, "rejected"),
        (429, "rate_limited"),
        (500, "overloaded"),
        (503, "overloaded"),
        (529, "overloaded"),
    ],
)
async def test_each_status_has_its_kind_streamed_or_not(bench: Bench, status: int, kind: str) -> None:
    adapter = bench.adapter()
    bench.upstream.script(Step(status=status), Step(status=status))
    _, streamed = await collect_until_failure(adapter)
    with pytest.raises(ProviderError) as whole:
        await adapter.complete(MODEL, ask(), None)
    for error in (streamed, whole.value):
        assert (error.kind, error.status, error.provider) == (kind, status, "lab")
        assert error.message
        assert error.type


async def test_retry_after_is_kept(bench: Bench) -> None:
    bench.upstream.script(Step(status=429, retry_after="7"))
    _, error = await collect_until_failure(bench.adapter())
    assert error.retry_after == 7
    assert error.another_may_answer


async def test_a_prompt_that_is_too_long_is_known_as_such(bench: Bench) -> None:
    said = {"type": "invalid_request_error", "message": "prompt is too long: 250000 tokens > 200000 maximum"}
    bench.upstream.script(Step(status=400, error=said))
    _, error = await collect_until_failure(bench.adapter())
    assert error.too_long
    assert not error.another_may_answer


@pytest.mark.parametrize(
    "step",
    [
        Step(status=401, leak_key=True),
        Step(status=500, leak_key=True),
        Step(status=400, raw_body=f"no json, but {KEY} and {quote(KEY, safe='')}", content_type="text/plain"),
        Step(
            status=429,
            error={"message": f"{KEY}" * 40, "type": KEY, "param": KEY, "code": quote(KEY, safe="")},
        ),
        Step(status=422, raw_body=json.dumps({"detail": [{"input": KEY}]})),
        Step(raw_body=json.dumps({"type": "error", "error": {"message": f"bad key {KEY}", "code": 401}})),
    ],
    ids=str,
)
async def test_no_error_holds_the_key(bench: Bench, step: Step) -> None:
    adapter = bench.adapter()
    bench.upstream.script(step, step)
    loan = Loan()
    _, streamed = await collect_until_failure(adapter, access=loan)
    with pytest.raises(ProviderError) as whole:
        await adapter.complete(MODEL, ask(), loan)
    for error in (streamed, whole.value):
        shown = f"{error!r} {error} {error.args} {vars(error)}"
        for form in (KEY, quote(KEY), quote(KEY, safe="")):
            assert form not in shown
        assert len(error.message) <= 500


async def test_the_key_is_not_shown_by_the_adapter_itself(bench: Bench) -> None:
    adapter = bench.adapter(access=Loan)
    await collect(adapter, access=Loan())
    assert KEY not in f"{adapter!r} {vars(adapter)!r}"


async def test_a_huge_error_body_is_read_within_bounds(bench: Bench) -> None:
    bench.upstream.script(Step(status=400, raw_body="x" * 5_000_000, content_type="text/plain"))
    _, error = await collect_until_failure(bench.adapter())
    assert len(error.message) == 500


@pytest.mark.parametrize("after", [0, 3])
async def test_a_socket_that_closes_mid_stream_is_a_cut(bench: Bench, after: int) -> None:
    bench.upstream.script(Step(cut_after=after))
    text, error = await collect_until_failure(bench.adapter())
    assert error.kind == "cut"
    assert text == "You said: one two three"[: len(text)]
    assert bool(text) == bool(after)


async def test_a_response_that_ends_before_its_reply_is_a_cut(bench: Bench) -> None:
    bench.upstream.script(Step(end_after=2))
    text, error = await collect_until_failure(bench.adapter())
    assert (text, error.kind) == ("You said:", "cut")


async def test_a_whole_reply_that_is_cut_is_a_cut(bench: Bench) -> None:
    bench.upstream.script(Step(cut_after=20))
    with pytest.raises(ProviderError) as caught:
        await bench.adapter().complete(MODEL, ask(), None)
    assert caught.value.kind == "cut"


async def test_an_event_that_is_not_json_is_malformed_and_what_came_before_it_is_kept(bench: Bench) -> None:
    bench.upstream.script(Step(malformed_after=2))
    text, error = await collect_until_failure(bench.adapter())
    assert (text, error.kind) == ("You said:", "malformed")


async def test_an_error_inside_the_stream_is_raised_after_what_came_before_it(bench: Bench) -> None:
    bench.upstream.script(Step(error_after=2))
    text, error = await collect_until_failure(bench.adapter())
    assert (text, error.kind) == ("You said:", "overloaded")
    assert error.message == "The scripted provider broke."
    assert error.type


@pytest.mark.parametrize(
    "raw",
    [
        "<html><body>nginx</body></html>",
        "",
        "[]",
        "null",
        '{"choices": []}',
        '{"choices": [{}], "content": [1]}',
        "[" * 100_000,
    ],
)
async def test_an_answer_that_is_not_a_reply_is_malformed(bench: Bench, raw: str) -> None:
    kind = "text/html" if raw.startswith("<") else "application/json"
    step = Step(raw_body=raw, content_type=kind)
    bench.upstream.script(step, step)
    adapter = bench.adapter()
    _, error = await collect_until_failure(adapter)
    assert error.kind == "malformed"
    with pytest.raises(ProviderError) as caught:
        await adapter.complete(MODEL, ask(), None)
    assert caught.value.kind == "malformed"


async def test_a_redirect_is_not_followed(bench: Bench) -> None:
    bench.upstream.script(Step(status=307, location=f"{bench.upstream.base_url}/elsewhere"))
    _, error = await collect_until_failure(bench.adapter())
    assert (error.kind, error.status) == ("malformed", 307)
    assert len(bench.upstream.requests) == 1


@pytest.mark.parametrize("hang", ["headers", "first"])
async def test_a_provider_without_a_first_token_is_given_up_and_hung_up_on(bench: Bench, hang: Any) -> None:
    bench.upstream.script(Step(hang=hang))
    began = time.monotonic()
    _, error = await collect_until_failure(bench.adapter(IMPATIENT))
    assert error.kind == "timeout"
    assert "no token within 0.3 s" in error.message
    assert time.monotonic() - began < 1.5
    assert await bench.upstream.requests[-1].left()


async def test_silence_between_two_tokens_is_given_up(bench: Bench) -> None:
    bench.upstream.script(Step(hang="mid"))
    text, error = await collect_until_failure(bench.adapter(IMPATIENT))
    assert (text, error.kind) == ("You", "timeout")
    assert "nothing for 0.3 s" in error.message
    assert await bench.upstream.requests[-1].left()


async def test_a_patient_first_token_does_not_lengthen_the_silence_after_it(bench: Bench) -> None:
    adapter = bench.adapter(TimeLimits(connect=2, first_token=60, idle=0.3))
    bench.upstream.script(Step(hang="mid"), Step(reply="whole", hang="end"))
    async with asyncio.timeout(5):
        _, error = await collect_until_failure(adapter)
        assert "nothing for 0.3 s" in error.message
        assert text_of(await collect(adapter)) == "whole"


async def test_a_reply_that_takes_longer_than_both_limits_but_keeps_coming_is_whole(bench: Bench) -> None:
    bench.upstream.script(Step(reply="abcdefgh", chunks=8, chunk_delay=0.1))
    assert text_of(await collect(bench.adapter(IMPATIENT))) == "abcdefgh"


async def test_a_consumer_that_is_slower_than_the_limits_is_not_mistaken_for_silence(bench: Bench) -> None:
    bench.upstream.script(Step(reply="abcdefgh", chunks=8, chunk_delay=0.05))
    text = ""
    async with bench.adapter(IMPATIENT).stream(MODEL, ask(), None) as blocks:
        async for block in blocks:
            text += text_of(block)
            if len(text) < 4:
                await asyncio.sleep(0.7)
    assert text == "abcdefgh"


async def test_a_whole_reply_that_does_not_come_is_given_up(bench: Bench) -> None:
    bench.upstream.script(Step(hang="headers"), Step(hang="first"))
    adapter = bench.adapter(IMPATIENT)
    for _ in range(2):
        with pytest.raises(ProviderError) as caught:
            await adapter.complete(MODEL, ask(), None)
        assert caught.value.kind == "timeout"
        assert await bench.upstream.requests[-1].left()


async def test_leaving_early_closes_the_connection(bench: Bench) -> None:
    bench.upstream.script(Step(reply="tick " * 1000, chunk_delay=0.02))
    async with bench.adapter().stream(MODEL, ask(), None) as blocks:
        await anext(blocks)
    assert await bench.upstream.requests[-1].left()


@pytest.mark.parametrize("hang", ["headers", "first", "mid"])
async def test_cancelling_closes_the_connection(bench: Bench, hang: Any) -> None:
    bench.upstream.script(Step(hang=hang))
    task = asyncio.create_task(collect(bench.adapter(TimeLimits(5, 30, 30))))
    async with asyncio.timeout(5):
        while not bench.upstream.requests:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await bench.upstream.requests[-1].left()


async def test_finished_streams_leave_their_connection_to_the_next(bench: Bench) -> None:
    adapter = bench.adapter()
    opened: list[None] = []
    trace = aiohttp.TraceConfig()

    async def count(*_: object) -> None:
        opened.append(None)

    trace.on_connection_create_end.append(count)
    trace.freeze()
    bench.session.trace_configs.append(trace)
    for _ in range(5):
        await collect(adapter)
    assert len(opened) == 1


async def test_a_stream_that_never_sends_its_end_is_whole_once_it_has_finished(bench: Bench) -> None:
    bench.upstream.script(Step(reply="whole", hang="end"))
    assert text_of(await collect(bench.adapter(IMPATIENT))) == "whole"


async def test_a_request_that_is_not_json_is_rejected_before_it_is_sent(bench: Bench) -> None:
    adapter = bench.adapter()
    tool = {"type": "function", "function": {"name": "a", "parameters": {"x": object()}}}
    for body in (ask("\ud800"), ask(tools=[tool])):
        _, error = await collect_until_failure(adapter, body)
        assert error.kind == "rejected"
        with pytest.raises(ProviderError, match="JSON"):
            await adapter.complete(MODEL, body, None)
    assert not bench.upstream.requests


async def test_a_port_where_nobody_listens_is_unreachable(bench: Bench) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        adapter = bench.adapter(base_url=f"http://127.0.0.1:{taken.getsockname()[1]}/v1")
        _, error = await collect_until_failure(adapter)
        assert error.kind == "unreachable"
        with pytest.raises(ProviderError) as caught:
            await adapter.check(None)
        assert caught.value.kind == "unreachable"


async def test_tls_towards_a_server_that_has_none_is_unreachable(bench: Bench) -> None:
    secure = bench.upstream.base_url.replace("http", "https")
    _, error = await collect_until_failure(bench.adapter(base_url=secure))
    assert error.kind == "unreachable"


async def test_a_server_that_hangs_up_without_a_word_is_unreachable(bench: Bench) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        _, error = await collect_until_failure(bench.adapter(base_url=f"http://127.0.0.1:{port}/v1"))
    assert error.kind == "unreachable"


async def test_a_server_that_does_not_speak_http_is_malformed(bench: Bench) -> None:
    async def gibber(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"220 mail.example.com ESMTP\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(gibber, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        _, error = await collect_until_failure(bench.adapter(base_url=f"http://127.0.0.1:{port}/v1"))
    assert error.kind == "malformed"


async def test_a_check_counts_what_is_listed(bench: Bench) -> None:
    bench.upstream.app.model_entries = [{"id": "a"}, {"id": "b"}]
    assert await bench.adapter().check(Loan()) == 2


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (Step(status=401), "unauthorized"),
        (Step(status=429, retry_after="3"), "rate_limited"),
        (Step(raw_body="<html>"), "malformed"),
    ],
    ids=str,
)
async def test_a_check_says_what_is_wrong(bench: Bench, step: Step, kind: str) -> None:
    bench.upstream.app.models_step = step
    loan = Loan()
    with pytest.raises(ProviderError) as caught:
        await bench.adapter().check(loan)
    assert caught.value.kind == kind
    assert len(loan.told) == 1


async def test_models_are_listed_with_the_key_that_is_lent(bench: Bench) -> None:
    bench.upstream.app.model_entries = [{"id": "a", "max_input_tokens": 1234}]
    adapter = bench.adapter(access=Loan)
    async with asyncio.timeout(5):
        while adapter.listing.find("a") is None:
            await adapter.listing.cards(wait=0.5)
    card = adapter.listing.find("a")
    assert card is not None
    assert (card.id, card.context_window, card.window_stated) == ("lab/a", 1234, True)
    assert bench.protocol.sent_key(bench.upstream.requests[-1]) == KEY


async def test_a_list_that_does_not_come_leaves_what_there_was(bench: Bench) -> None:
    bench.upstream.app.models_step = Step(status=500)
    adapter = bench.adapter()
    assert await adapter.listing.cards(wait=0.5) == ()
    assert not adapter.listing.reached
