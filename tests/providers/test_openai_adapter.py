"""The adapter for OpenAI's protocol, against a provider that can be told how to behave."""

import asyncio
import json
import socket
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from baatcheet.providers.adapters.openai import TimeLimits
from baatcheet.providers.model import Body, Chunk, ModelCard, ProviderError
from tests.providers.conftest import KEY, MODEL, Direct, MakeProvider
from tests.scripted_provider import Call, ScriptedProvider, Step

IMPATIENT = TimeLimits(connect=0.5, first_token=0.3, idle=0.3)
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


def assert_well_formed(chunks: Sequence[Chunk]) -> None:
    for chunk in chunks:
        assert b"\n" not in chunk.raw
        value = json.loads(chunk.raw)
        assert isinstance(value["id"], str)
        assert value["object"] == "chat.completion.chunk"
        assert isinstance(value["created"], int)
        assert value["model"]
        assert all(choice["index"] == 0 for choice in value["choices"])


async def test_a_reply_is_streamed_with_its_end_and_its_usage(
    make_provider: MakeProvider, upstream: ScriptedProvider
) -> None:
    chunks = await collect(make_provider())
    assert text_of(chunks) == "You said: one two three"
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["stop"]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens > 0
    assert chunks[-1].choice is None
    assert all(chunk.choice is None for chunk in chunks)
    assert_well_formed(chunks)
    sent = upstream.requests[-1]
    assert sent.body["stream_options"] == {"include_usage": True}
    assert sent.body["model"] == "scripted"
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in sent.path


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


@pytest.mark.parametrize("split", [None, 1, 7, 64])
@pytest.mark.parametrize(
    "step",
    [
        Step(),
        Step(crlf=True),
        Step(bare=True),
        Step(pretty=True),
        Step(comments=True),
        Step(role_chunk=False),
        Step(done=False),
        Step(chunks=1),
        Step(chunk_size=1),
        Step(extra={"x_vendor": {"id": "1"}}),
        Step(crlf=True, bare=True, comments=True, pretty=True, done=False, usage="last_chunk"),
    ],
    ids=str,
)
async def test_every_dialect_gives_the_same_text_in_well_formed_chunks(
    make_provider: MakeProvider, upstream: ScriptedProvider, step: Step, split: int | None
) -> None:
    described = {name: getattr(step, name) for name in step.__struct_fields__} | {"split": split}
    upstream.script(Step(**described))
    chunks = await collect(make_provider(), ask("naïve 你好 🙂 \u2028 end"))
    assert text_of(chunks) == "You said: naïve 你好 🙂 \u2028 end"
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["stop"]
    usages = [chunk.usage for chunk in chunks if chunk.usage is not None]
    assert len(usages) == 1
    assert usages[0].completion_tokens > 0
    assert_well_formed(chunks)


async def test_a_well_formed_chunk_is_forwarded_byte_for_byte(
    make_provider: MakeProvider, upstream: ScriptedProvider
) -> None:
    upstream.script(Step(reply="a b", extra={"x_vendor": {"kept": True}}))
    chunks = await collect(make_provider())
    assert all(json.loads(chunk.raw)["x_vendor"] == {"kept": True} for chunk in chunks[:-1])
    assert chunks[1].raw.startswith(b'{"id":"chatcmpl-scripted-')


async def test_tool_calls_come_as_choices_in_their_fragments(
    make_provider: MakeProvider, upstream: ScriptedProvider
) -> None:
    upstream.script(Step(tool_calls=(Call("a", '{"x": "a long argument"}'), Call("b", "{}"))))
    chunks = await collect(make_provider())
    arguments = {0: "", 1: ""}
    names = {}
    for chunk in chunks:
        for call in (chunk.choice or {}).get("delta", {}).get("tool_calls") or ():
            arguments[call["index"]] += call["function"]["arguments"]
            if "id" in call:
                names[call["index"]] = call["function"]["name"]
    assert arguments == {0: '{"x": "a long argument"}', 1: "{}"}
    assert names == {0: "a", 1: "b"}
    assert text_of(chunks) == ""
    assert "tool_calls" in [chunk.finish_reason for chunk in chunks]


async def test_reasoning_is_a_choice_and_not_text(
    make_provider: MakeProvider, upstream: ScriptedProvider
) -> None:
    upstream.script(Step(reply="answer", reasoning="let me think"))
    chunks = await collect(make_provider())
    thought = "".join(
        c.choice["delta"].get("reasoning_content") or "" for c in chunks if c.choice is not None
    )
    assert thought == "let me think"
    assert text_of(chunks) == "answer"


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
async def test_each_status_has_its_kind_streamed_or_not(
    make_provider: MakeProvider, upstream: ScriptedProvider, status: int, kind: str
) -> None:
    provider = make_provider()
    upstream.script(Step(status=status), Step(status=status))
    _, streamed = await collect_until_failure(provider)
    with pytest.raises(ProviderError) as whole:
        await provider.complete(MODEL, ask())
    for error in (streamed, whole.value):
        assert (error.kind, error.status, error.provider) == (kind, status, "lab")
        assert error.message


async def test_a_refusal_keeps_the_type_param_and_code_of_openai(make_provider: MakeProvider) -> None:
    _, error = await collect_until_failure(make_provider(), ask(temperature=9))
    assert (error.kind, error.type, error.param) == ("rejected", "invalid_request_error", "temperature")
    assert error.code == "invalid_value"
    assert not error.another_may_answer


async def test_retry_after_is_kept(make_provider: MakeProvider, upstream: ScriptedProvider) -> None:
    upstream.script(Step(status=429, retry_after="7"))
    _, error = await collect_until_failure(make_provider())
    assert error.retry_after == 7
    assert error.another_may_answer


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
        Step(raw_body=json.dumps({"error": {"message": f"bad key {KEY}", "code": 401}})),
    ],
    ids=str,
)
async def test_no_error_holds_the_key(
    make_provider: MakeProvider, upstream: ScriptedProvider, step: Step
) -> None:
    provider = make_provider()
    upstream.script(step, step)
    _, streamed = await collect_until_failure(provider)
    with pytest.raises(ProviderError) as whole:
        await provider.complete(MODEL, ask())
    for error in (streamed, whole.value):
        shown = f"{error!r} {error} {error.args} {vars(error)}"
        for form in (KEY, quote(KEY), quote(KEY, safe="")):
            assert form not in shown
        assert len(error.message) <= 500


async def test_the_key_is_not_shown_by_the_provider_itself(make_provider: MakeProvider) -> None:
    provider = make_provider()
    assert KEY not in f"{provider!r} {vars(provider)!r}"


async def test_a_huge_error_body_is_read_within_bounds(
    make_provider: MakeProvider, upstream: ScriptedProvider
) -> None:
    upstream.script(Step(status=400, raw_body="x" * 5_000_000, content_type="text/plain"))
    _, error = await collect_until_failure(make_provider())
    assert len(error.message) == 500


@pytest.mark.parametrize("after", [0, 3])
async def test_a_socket_that_closes_mid_stream_is_a_cut(
    make_provider: MakeProvider, upstream: ScriptedProvider, after: int
) -> None:
    upstream.script(Step(cut_after=after))
    text, error = await collect_until_failure(make_provider())
    assert error.kind == "cut"
    assert text == "You said: one two three"[: len(text)]
    assert bool(text) == bool(after)


async def test_a_response_that_ends_before_its_reply_is_a_cut(
    make_provider: MakeProvider, upstream: ScriptedProvider
) -> None:
    upstream.script(Step(end_after=2))
    text, error = await collect_until_failure(make_provider())
    assert (text, error.kind) == ("You said:", "cut")


async def test_a_whole_reply_that_is_cut_is_a_cut(
    make_provider: MakeProvider, upstream: ScriptedProvider
) -> None:
    upstream.script(Step(cut_after=20))
    with pytest.raises(ProviderError) as caught:
        await make_provider().complete(MODEL, ask())
    assert caught.value.kind == "cut"


async def test_an_event_that_is_not_json_is_malformed_and_what_came_before_it_is_kept(
    make_provider: MakeProvider, upstream: ScriptedProvider
) -> None:
    upstream.script(Step(malformed_after=2))
    text, error = await collect_until_failure(make_provider())
    assert (text, error.kind) == ("You said:", "malformed")


async def test_an_error_inside_the_stream_is_raised_after_what_came_before_it(
    make_provider: MakeProvider, upstream: ScriptedProvider
) -> None:
    upstream.script(Step(error_after=2))
    text, error = await collect_until_failure(make_provider())
    assert (text, error.kind, error.type) == ("You said:", "overloaded", "server_error")
    assert error.message == "The scripted provider broke."


@pytest.mark.parametrize(
    "raw",
    [
        "<html><body>nginx</body></html>",
        "",
        "[]",
        "null",
        '{"choices": []}',
        '{"choices": [{}]}',
        "[" * 100_000,
    ],
)
async def test_an_answer_that_is_not_a_reply_is_malformed(
    make_provider: MakeProvider, upstream: ScriptedProvider, raw: str
) -> None:
    kind = "text/html" if raw.startswith("<") else "application/json"
    upstream.script(Step(raw_body=raw, content_type=kind), Step(raw_body=raw, content_type=kind))
    provider = make_provider()
    _, error = await collect_until_failure(provider)
    assert error.kind == "malformed"
    with pytest.raises(ProviderError) as caught:
        await provider.complete(MODEL, ask())
    assert caught.value.kind == "malformed"


async def test_a_redirect_is_not_followed(make_provider: MakeProvider, upstream: ScriptedProvider) -> None:
    upstream.script(Step(status=307, location=f"{upstream.base_url}/chat/completions"))
    _, error = await collect_until_failure(make_provider())
    assert (error.kind, error.status) == ("malformed", 307)
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("hang", ["headers", "first"])
async def test_a_provider_without_a_first_token_is_given_up_and_hung_up_on(
    make_provider: MakeProvider, upstream: ScriptedProvider, hang: Any
) -> None:
    upstream.script(Step(hang=hang))
    began = time.monotonic()
    _, error = await collect_until_failure(make_provider(limits=IMPATIENT))
    assert error.kind == "timeout"
    assert "no token within 0.3 s" in error.message
    assert time.monotonic() - began < 1.5
    assert await upstream.requests[-1].left()


async def test_silence_between_two_tokens_is_given_up(
    make_provider: MakeProvider, upstream: ScriptedProvider
) -> None:
    upstream.script(Step(hang="mid"))
    text, error = await collect_until_failure(make_provider(limits=IMPATIENT))
    assert (text, error.kind) == ("You", "timeout")
    assert "nothing for 0.3 s" in error.message
    assert await upstream.requests[-1].left()


async def test_a_patient_first_token_does_not_lengthen_the_silence_after_it(
    make_provider: MakeProvider, upstream: ScriptedProvider
) -> None:
    provider = make_provider(limits=TimeLimits(connect=2, first_token=60, idle=0.3))
    upstream.script(Step(hang="mid"), Step(reply="whole", hang="end"))
    async with asyncio.timeout(5):
        _, error = await collect_until_failure(provider)
        assert "nothing for 0.3 s" in error.message
        assert text_of(await collect(provider)) == "whole"


async def test_a_reply_that_takes_longer_than_both_limits_but_keeps_coming_is_whole(
    make_provider: MakeProvider, upstream: ScriptedProvider
) -> None:
    upstream.script(Step(reply="abcdefgh", chunks=8, chunk_delay=0.1))
    assert text_of(await collect(make_provider(limits=IMPATIENT))) == "abcdefgh"


async def test_a_consumer_that_is_slower_than_the_limits_is_not_mistaken_for_silence(
    make_provider: MakeProvider, upstream: ScriptedProvider
) -> None:
    upstream.script(Step(reply="abcdefgh", chunks=8, chunk_delay=0.05))
    text = ""
    async with make_provider(limits=IMPATIENT).stream(MODEL, ask()) as blocks:
        async for block in blocks:
            text += text_of(block)
            if len(text) < 4:
                await asyncio.sleep(0.7)
    assert text == "abcdefgh"


async def test_a_whole_reply_that_does_not_come_is_given_up(
    make_provider: MakeProvider, upstream: ScriptedProvider
) -> None:
    upstream.script(Step(hang="headers"), Step(hang="first"))
    provider = make_provider(limits=IMPATIENT)
    for _ in range(2):
        with pytest.raises(ProviderError) as caught:
            await provider.complete(MODEL, ask())
        assert caught.value.kind == "timeout"
        assert await upstream.requests[-1].left()


async def test_leaving_early_closes_the_connection(
    make_provider: MakeProvider, upstream: ScriptedProvider
) -> None:
    upstream.script(Step(reply="tick " * 1000, chunk_delay=0.02))
    async with make_provider().stream(MODEL, ask()) as blocks:
        await anext(blocks)
    assert await upstream.requests[-1].left()


@pytest.mark.parametrize("hang", ["headers", "first", "mid"])
async def test_cancelling_closes_the_connection(
    make_provider: MakeProvider, upstream: ScriptedProvider, hang: Any
) -> None:
    upstream.script(Step(hang=hang))
    task = asyncio.create_task(collect(make_provider(limits=TimeLimits(5, 30, 30))))
    async with asyncio.timeout(5):
        while not upstream.requests:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await upstream.requests[-1].left()


async def test_finished_streams_leave_their_connection_to_the_next(
    make_provider: MakeProvider, session: aiohttp.ClientSession
) -> None:
    provider = make_provider()
    opened: list[None] = []
    trace = aiohttp.TraceConfig()

    async def count(*_: object) -> None:
        opened.append(None)

    trace.on_connection_create_end.append(count)
    trace.freeze()
    session.trace_configs.append(trace)
    for _ in range(5):
        await collect(provider)
    assert len(opened) == 1


async def test_a_stream_that_never_sends_its_end_is_whole_once_it_has_finished(
    make_provider: MakeProvider, upstream: ScriptedProvider
) -> None:
    upstream.script(Step(reply="whole", hang="end"))
    assert text_of(await collect(make_provider(limits=IMPATIENT))) == "whole"


async def test_a_server_that_refuses_stream_options_is_asked_again_without_them(
    make_provider: MakeProvider, upstream: ScriptedProvider
) -> None:
    refusal = Step(status=400, error={"message": "Unrecognized request argument supplied: stream_options"})
    upstream.script(refusal)
    provider = make_provider()
    assert text_of(await collect(provider)) == "You said: one two three"
    assert text_of(await collect(provider)) == "You said: one two three"
    assert ["stream_options" in one.body for one in upstream.requests] == [True, False, False]


async def test_a_request_that_is_not_json_is_rejected_before_it_is_sent(
    make_provider: MakeProvider, upstream: ScriptedProvider
) -> None:
    provider = make_provider()
    for body in (ask("\ud800"), ask(x=object())):
        _, error = await collect_until_failure(provider, body)
        assert error.kind == "rejected"
    assert not upstream.requests


async def test_a_port_where_nobody_listens_is_unreachable(make_provider: MakeProvider) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        base = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        _, error = await collect_until_failure(make_provider(base_url=base))
    assert error.kind == "unreachable"


async def test_tls_towards_a_server_that_has_none_is_unreachable(
    make_provider: MakeProvider, upstream: ScriptedProvider
) -> None:
    _, error = await collect_until_failure(make_provider(base_url=upstream.base_url.replace("http", "https")))
    assert error.kind == "unreachable"


async def test_a_server_that_hangs_up_without_a_word_is_unreachable(make_provider: MakeProvider) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        _, error = await collect_until_failure(make_provider(base_url=f"http://127.0.0.1:{port}/v1"))
    assert error.kind == "unreachable"


async def test_a_server_that_does_not_speak_http_is_malformed(make_provider: MakeProvider) -> None:
    async def gibber(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"220 mail.example.com ESMTP\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(gibber, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        _, error = await collect_until_failure(make_provider(base_url=f"http://127.0.0.1:{port}/v1"))
    assert error.kind == "malformed"
