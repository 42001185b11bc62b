"""What OpenAI's client does beyond a plain request: retries, raw responses, helpers, addresses that are not there."""

import time
from collections.abc import Callable, Coroutine
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel

from tests.chat.conftest import Upstream
from tests.conftest import Caller
from tests.scripted_provider import Step

MODEL = "scripted-echo"
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
Call = Callable[[openai.AsyncOpenAI], Coroutine[Any, Any, Any]]


def user(content: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": content}]


class Person(BaseModel):
    name: str
    age: int


NOT_HERE: dict[str, Call] = {
    "responses": lambda client: client.responses.create(model=MODEL, input="hello"),
    "completions": lambda client: client.completions.create(model=MODEL, prompt="hello"),
    "files": lambda client: client.files.retrieve("file-1"),
    "images": lambda client: client.images.generate(prompt="a heron"),
    "moderations": lambda client: client.moderations.create(input="hello"),
    "batches": lambda client: client.batches.retrieve("batch-1"),
    "threads": lambda client: client.beta.threads.create(),
    "stored completions": lambda client: client.chat.completions.retrieve("chatcmpl-1"),
}


@pytest.mark.filterwarnings("ignore:The Assistants API is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", NOT_HERE)
async def test_an_endpoint_that_is_not_there_says_so(client: openai.AsyncOpenAI, name: str) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await NOT_HERE[name](client)
    body = caught.value.body
    assert isinstance(body, dict)
    assert set(body) == {"message", "type", "param", "code"}
    assert " /v1/" in body["message"], "the message names the address"
    assert caught.value.request_id


@pytest.mark.parametrize(
    "path", ["/v1", "/v1/", "/v1/nothing", "/v1/chat", "/v1/chat/completions/", "/v1/models/"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_unknown_address_is_answered_in_openais_envelope(
    alice: Caller, method: str, path: str
) -> None:
    answer = await alice.request(method, path)
    assert answer.status_code in {404, 405}
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("path", "method", "allowed"),
    [
        ("/v1/chat/completions", "GET", "POST"),
        ("/v1/chat/completions", "DELETE", "POST"),
        ("/v1/embeddings", "GET", "POST"),
        ("/v1/models", "POST", "GET"),
        ("/v1/models/scripted-echo", "DELETE", "GET"),
    ],
)
async def test_another_method_is_refused_with_the_right_one(
    alice: Caller, path: str, method: str, allowed: str
) -> None:
    answer = await alice.request(method, path)
    assert answer.status_code == 405
    assert allowed in answer.headers["allow"].split(", ")
    assert answer.json()["error"]["code"] == "method_not_allowed"


async def test_json_under_another_content_type_is_read_all_the_same(alice: Caller) -> None:
    """As `curl -d` sends it."""
    content = b'{"model": "scripted-echo", "messages": [{"role": "user", "content": "hello"}]}'
    for kind in ("application/x-www-form-urlencoded", "text/plain", "application/json; charset=utf-8"):
        answer = await alice.post("/v1/chat/completions", content=content, headers={"content-type": kind})
        assert answer.json()["choices"][0]["message"]["content"] == "You said: hello"
    answer = await alice.post("/v1/chat/completions", data={"model": MODEL})
    assert answer.status_code == 400
    assert "JSON" in answer.json()["error"]["message"]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("failure", [Step(status=429, retry_after="1"), Step(status=503, retry_after="1")])
async def test_the_client_retries_when_it_is_told_to_and_succeeds(
    client: openai.AsyncOpenAI, upstream: Upstream, failure: Step, streamed: bool
) -> None:
    said = f"again, please: {failure.status} {streamed}"
    upstream.provider.script(failure)
    began = time.monotonic()
    patient = client.with_options(max_retries=2).chat.completions
    if streamed:
        chunks = [
            chunk async for chunk in await patient.create(model=MODEL, messages=user(said), stream=True)
        ]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    else:
        text = (await patient.create(model=MODEL, messages=user(said))).choices[0].message.content or ""
    assert text == f"You said: {said}"
    assert upstream.times_asked(said) == 2
    assert time.monotonic() - began >= 1


async def test_a_retry_in_a_conversation_leaves_no_second_question(
    client: openai.AsyncOpenAI, alice: Caller, upstream: Upstream
) -> None:
    made = (await alice.post("/api/v1/conversations", json={"title": "Retried", "model": MODEL})).json()
    upstream.provider.script(Step(status=429, retry_after="1"))
    answer = await client.with_options(max_retries=2).chat.completions.create(
        model=MODEL, messages=user("only once"), extra_body={"conversation": made["id"]}
    )
    assert answer.choices[0].message.content == "You said: only once"
    page = (await alice.get(f"/api/v1/conversations/{made['id']}/messages")).json()
    assert [message["content"] for message in page["data"]] == ["only once", "You said: only once"]


@pytest.mark.parametrize("conversation", [None, "new"])
async def test_a_key_whose_turn_failed_without_a_word_may_be_tried_again(
    client: openai.AsyncOpenAI, upstream: Upstream, conversation: str | None
) -> None:
    more = {} if conversation is None else {"conversation": conversation}
    upstream.provider.script(Step(status=503))
    answer = await client.with_options(max_retries=2).chat.completions.create(
        model=MODEL,
        messages=user(f"try again {conversation}"),
        extra_body=more,
        extra_headers={"Idempotency-Key": f"tried-{conversation}"},
    )
    assert answer.choices[0].message.content == f"You said: try again {conversation}"


async def test_the_same_words_after_a_reply_are_a_new_question(alice: Caller) -> None:
    first = (await alice.post("/api/v1/chat/completions", json={"message": "again"})).json()
    body = {"message": "again", "conversation_id": first["conversation_id"]}
    second = (await alice.post("/api/v1/chat/completions", json=body)).json()
    assert second["user_message_id"] != first["user_message_id"]


@pytest.mark.parametrize("model", ["scripted-hang", "scripted-hang-first"])
async def test_a_client_that_times_out_stops_its_provider(
    client: openai.AsyncOpenAI, upstream: Upstream, model: str
) -> None:
    said = f"too slow: {model}"
    with pytest.raises(openai.APITimeoutError):
        await client.with_options(timeout=0.5).chat.completions.create(model=model, messages=user(said))
    assert await upstream.abandoned(said)


@pytest.mark.parametrize("conversation", [None, "new"])
async def test_raw_responses_carry_the_headers_that_clients_know(
    client: openai.AsyncOpenAI, conversation: str | None
) -> None:
    more = {} if conversation is None else {"conversation": conversation}
    for streamed in (False, True):
        raw = await client.chat.completions.with_raw_response.create(
            model=MODEL, messages=HELLO, stream=streamed, extra_body=more
        )
        assert raw.request_id
        assert int(raw.headers["x-ratelimit-limit-requests"]) > 0
        assert int(raw.headers["x-ratelimit-remaining-requests"]) >= 0
        assert raw.headers["x-ratelimit-reset-requests"]
        assert raw.headers["content-type"].startswith("text/event-stream" if streamed else "application/json")
        await raw.http_response.aclose()
    answer = await client.chat.completions.create(model=MODEL, messages=HELLO, extra_body=more)
    assert answer._request_id


async def test_the_streaming_helper_tells_what_happens(client: openai.AsyncOpenAI) -> None:
    async with client.chat.completions.stream(model=MODEL, messages=HELLO) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= set(kinds)
    assert final.choices[0].message.content == "You said: hello"


async def test_a_reply_is_parsed_into_the_class_that_was_asked_for(client: openai.AsyncOpenAI) -> None:
    whole = await client.chat.completions.parse(
        model=MODEL, messages=user("'Noor' is 30"), response_format=Person
    )
    async with client.chat.completions.stream(
        model=MODEL, messages=user("'Noor' is 30"), response_format=Person
    ) as stream:
        streamed = await stream.get_final_completion()
    assert (
        whole.choices[0].message.parsed == streamed.choices[0].message.parsed == Person(name="Noor", age=30)
    )


@pytest.mark.parametrize("streamed", [False, True])
async def test_several_answers_pass_through(client: openai.AsyncOpenAI, streamed: bool) -> None:
    said = "twice, please, and in more than a few words"
    texts = {0: "", 1: ""}
    if streamed:
        stream = await client.chat.completions.create(model=MODEL, messages=user(said), n=2, stream=True)
        finished = []
        async for chunk in stream:
            (choice,) = chunk.choices
            texts[choice.index] += choice.delta.content or ""
            finished += [choice.index] if choice.finish_reason else []
        assert sorted(finished) == [0, 1]
    else:
        answer = await client.chat.completions.create(model=MODEL, messages=user(said), n=2)
        texts = {choice.index: choice.message.content or "" for choice in answer.choices}
    assert texts == {0: f"You said: {said}", 1: f"You said: {said}"}


@pytest.mark.parametrize("extra", [{}, {"conversation": "new"}], ids=["stateless", "kept"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_the_likelihood_of_tokens_passes_through(
    client: openai.AsyncOpenAI, streamed: bool, extra: dict[str, str]
) -> None:
    tokens: list[str] = []
    if streamed:
        stream = await client.chat.completions.create(
            model=MODEL, messages=HELLO, logprobs=True, stream=True, extra_body=extra
        )
        async for chunk in stream:
            logprobs = chunk.choices[0].logprobs
            tokens += [one.token for one in (logprobs.content if logprobs else None) or ()]
    else:
        answer = await client.chat.completions.create(
            model=MODEL, messages=HELLO, logprobs=True, extra_body=extra
        )
        found = answer.choices[0].logprobs
        tokens = [one.token for one in (found.content if found else None) or ()]
    assert "".join(tokens) == "You said: hello"


@pytest.mark.parametrize("suffix", ["/v1", "/v1/"])
def test_the_blocking_client_works_too(alice: Caller, suffix: str) -> None:
    with openai.OpenAI(
        api_key=alice.token, base_url=f"{str(alice.base_url).rstrip('/')}{suffix}", max_retries=0
    ) as client:
        answer = client.chat.completions.create(model=MODEL, messages=HELLO)
        assert answer.choices[0].message.content == "You said: hello"
        chunks = list(client.chat.completions.create(model=MODEL, messages=HELLO, stream=True))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "You said: hello"


async def test_a_base_url_without_v1_shows_in_the_error(alice: Caller) -> None:
    answer = await alice.post("/chat/completions", json={"model": MODEL, "messages": HELLO})
    assert answer.status_code == 404
    assert "There is no POST /chat/completions here" in answer.json()["detail"]
