"""A turn through the native surface: streaming, remembering, branching, cancelling, joining."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.chat.conftest import Upstream
from tests.running import Event


def slow(text: str = "tell me a long story", chunks: int = 40, delay: float = 0.05) -> str:
    return f"{text} [[scripted {json.dumps({'chunks': chunks, 'chunk_delay': delay})}]]"


async def read(response: httpx.Response) -> AsyncIterator[Event]:
    id_: int | None = None
    name: str | None = None
    async for line in response.aiter_lines():
        if line.startswith("id: "):
            id_ = int(line[4:])
        elif line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield Event(id_, name, json.loads(line[6:]))


async def say(client: httpx.AsyncClient, message: str, **more: Any) -> dict[str, Any]:
    answer = await client.post("/api/v1/chat/completions", json={"message": message, **more})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def started(client: httpx.AsyncClient, message: str, **more: Any) -> dict[str, Any]:
    """Begin a streamed turn and leave after the first event, as a client does whose train enters a tunnel."""
    body = {"message": message, "stream": True, **more}
    async with client.stream("POST", "/api/v1/chat/completions", json=body) as response:
        assert response.status_code == 200, await response.aread()
        async for event in read(response):
            assert event.name == "turn.started"
            told: dict[str, Any] = event.data
            return told
    raise AssertionError("the stream had no event")


async def until_ended(client: httpx.AsyncClient, turn_id: str, limit: float = 20) -> dict[str, Any]:
    async with asyncio.timeout(limit):
        while True:
            turn: dict[str, Any] = (await client.get(f"/api/v1/turns/{turn_id}")).json()
            if turn["status"] != "running":
                return turn
            await asyncio.sleep(0.05)


async def test_a_message_without_a_conversation_opens_one_and_titles_it(alice: httpx.AsyncClient) -> None:
    turn = await say(alice, "Where is Lahore?\nAnd why?")
    assert turn["status"] == "completed"
    assert turn["message"]["content"].startswith("You said: Where is Lahore?")
    conversation = (await alice.get(f"/api/v1/conversations/{turn['conversation_id']}")).json()
    assert conversation["title"] == "Where is Lahore? And why?"
    assert conversation["head_id"] == turn["message_id"]
    assert conversation["message_count"] == 2
    assert conversation["token_total"] > 0


async def test_the_next_message_brings_what_was_said_before(
    alice: httpx.AsyncClient, upstream: Upstream
) -> None:
    first = await say(alice, "My name is Zafar.", system_prompt="Be brief.")
    await say(alice, "What is my name?", conversation_id=first["conversation_id"])
    sent = upstream.last_messages("What is my name?")
    assert [m["role"] for m in sent] == ["system", "user", "assistant", "user"]
    assert sent[0]["content"] == "Be brief."
    assert sent[1]["content"] == "My name is Zafar."


async def test_events_are_numbered_and_a_client_that_left_gets_the_rest(alice: httpx.AsyncClient) -> None:
    turn = await started(alice, slow())
    texts: dict[int, str] = {}
    last = 1
    for _ in range(2):  # leave once more in the middle
        path, headers = f"/api/v1/turns/{turn['turn_id']}/events", {"last-event-id": str(last)}
        async with alice.stream("GET", path, headers=headers) as response:
            async for event in read(response):
                assert event.id == last + 1, "no event is missing and none comes twice"
                last = event.id
                if event.name != "message.delta":
                    assert event.name == "turn.completed"
                    assert "".join(texts.values()) == event.data["message"]["content"]
                    assert len(texts) > 20
                    return
                texts[event.id] = event.data["text"]
                if len(texts) == 10:
                    break
    raise AssertionError("the turn did not end")


async def test_an_ended_turn_is_replayed_from_any_event_on(alice: httpx.AsyncClient) -> None:
    turn = await say(alice, "one two three four five six seven")
    path = f"/api/v1/turns/{turn['turn_id']}/events"
    async with alice.stream("GET", path) as response:
        everything = [event async for event in read(response)]
    assert [event.id for event in everything] == list(range(1, len(everything) + 1))
    for after in range(len(everything)):
        async with alice.stream("GET", path, headers={"last-event-id": str(after)}) as response:
            rest = [event async for event in read(response)]
        assert rest == everything[after:]
    text = "".join(event.data["text"] for event in everything[1:-1])
    assert text == turn["message"]["content"] == everything[-1].data["message"]["content"]


async def test_a_replay_is_the_stream_that_was_seen_live(alice: httpx.AsyncClient) -> None:
    body = {"message": "word for word", "stream": True}
    async with alice.stream("POST", "/api/v1/chat/completions", json=body) as response:
        live = [event async for event in read(response)]
    async with alice.stream("GET", f"/api/v1/turns/{live[0].data['turn_id']}/events") as response:
        replay = [event async for event in read(response)]
    assert replay == live


async def test_a_second_turn_is_refused_while_one_is_running(alice: httpx.AsyncClient) -> None:
    turn = await started(alice, slow())
    conversation = turn["conversation_id"]
    refused = await alice.post(
        "/api/v1/chat/completions", json={"message": "and?", "conversation_id": conversation}
    )
    assert refused.status_code == 409
    assert refused.json()["type"] == "turn-in-progress"
    assert refused.json()["turn_id"] == turn["turn_id"]
    await alice.post(f"/api/v1/turns/{turn['turn_id']}/cancel")
    await until_ended(alice, turn["turn_id"])
    await say(alice, "and now?", conversation_id=conversation)


async def test_a_cancelled_turn_stops_upstream_and_keeps_its_text(
    alice: httpx.AsyncClient, upstream: Upstream
) -> None:
    turn = await started(alice, slow("stop me early", chunks=200))
    await asyncio.sleep(0.5)
    answer = await alice.post(f"/api/v1/turns/{turn['turn_id']}/cancel")
    assert answer.status_code == 202
    ended = await until_ended(alice, turn["turn_id"])
    assert ended["status"] == "cancelled"
    message = (await alice.get(f"/api/v1/messages/{ended['reply_id']}")).json()
    assert message["content"]
    assert message["content"] in "You said: " + slow("stop me early", chunks=200)
    assert message["finish_reason"] == "cancelled"
    assert await upstream.abandoned("stop me early")


async def test_a_repeated_idempotency_key_joins_the_turn(
    alice: httpx.AsyncClient, upstream: Upstream
) -> None:
    body = {"message": slow("pay for me once", chunks=20)}
    headers = {"idempotency-key": "once-only"}
    answers = await asyncio.gather(
        *(alice.post("/api/v1/chat/completions", json=body, headers=headers) for _ in range(5))
    )
    later = await alice.post("/api/v1/chat/completions", json=body, headers=headers)
    told = [answer.json() for answer in (*answers, later)]
    assert len({one["turn_id"] for one in told}) == 1
    assert len({one["message"]["content"] for one in told}) == 1
    assert sum(answer.headers.get("idempotent-replayed") == "true" for answer in (*answers, later)) == 5
    assert upstream.times_asked("pay for me once") == 1


async def test_an_idempotency_key_with_another_body_is_refused(alice: httpx.AsyncClient) -> None:
    headers = {"idempotency-key": "mine"}
    await alice.post("/api/v1/chat/completions", json={"message": "one"}, headers=headers)
    answer = await alice.post("/api/v1/chat/completions", json={"message": "two"}, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["type"] == "idempotency-key-reused"


async def test_the_same_key_of_another_user_is_another_key(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient
) -> None:
    headers = {"idempotency-key": "shared-by-chance"}
    turns = [
        (await who.post("/api/v1/chat/completions", json={"message": "hello"}, headers=headers)).json()[
            "turn_id"
        ]
        for who in (alice, bob)
    ]
    assert turns[0] != turns[1]


async def test_another_reply_is_a_branch_beside_the_first(
    alice: httpx.AsyncClient, upstream: Upstream
) -> None:
    first = await say(alice, "say it once")
    again = await alice.post("/api/v1/chat/regenerate", json={"message_id": first["message_id"]})
    assert again.status_code == 200, again.text
    second = again.json()
    assert second["message_id"] != first["message_id"]
    assert second["user_message_id"] == first["user_message_id"]
    assert [m["content"] for m in upstream.last_messages("say it once")] == ["say it once"]
    kept = (await alice.get(f"/api/v1/messages/{first['message_id']}")).json()
    assert second["message_id"] in kept["siblings"]
    conversation = (await alice.get(f"/api/v1/conversations/{first['conversation_id']}")).json()
    assert conversation["head_id"] == second["message_id"]
    by_conversation = await alice.post(
        "/api/v1/chat/regenerate", json={"conversation_id": first["conversation_id"]}
    )
    assert by_conversation.json()["user_message_id"] == first["user_message_id"]


async def test_an_edited_message_is_a_new_branch_without_what_came_after(
    alice: httpx.AsyncClient, upstream: Upstream
) -> None:
    first = await say(alice, "first question")
    second = await say(alice, "second question", conversation_id=first["conversation_id"])
    edited = await alice.post(
        "/api/v1/chat/edit", json={"message_id": second["user_message_id"], "message": "second, but better"}
    )
    assert edited.status_code == 200, edited.text
    sent = [m["content"] for m in upstream.last_messages("second, but better")]
    assert sent == ["first question", "You said: first question", "second, but better"]
    opened = await alice.post(
        "/api/v1/chat/edit", json={"message_id": first["user_message_id"], "message": "begin anew"}
    )
    assert [m["content"] for m in upstream.last_messages("begin anew")] == ["begin anew"]
    assert opened.json()["conversation_id"] == first["conversation_id"]
    page = (await alice.get(f"/api/v1/conversations/{first['conversation_id']}/messages?branch=all")).json()
    assert len(page["data"]) == 8, "nothing was overwritten"


async def test_only_a_users_message_can_be_edited(alice: httpx.AsyncClient) -> None:
    turn = await say(alice, "hello")
    answer = await alice.post("/api/v1/chat/edit", json={"message_id": turn["message_id"], "message": "no"})
    assert answer.status_code == 409


async def test_a_provider_that_fails_before_its_first_word_is_told_with_when_to_try_again(
    alice: httpx.AsyncClient,
) -> None:
    answer = await alice.post("/api/v1/chat/completions", json={"message": "hi", "model": "scripted-429"})
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert "Tried: openai" in answer.json()["detail"]
    turn = answer.json()["turn"]
    assert turn["status"] == "failed"
    kept = await alice.get(f"/api/v1/messages/{turn['user_message_id']}")
    assert kept.json()["content"] == "hi", "the user's message is kept"


async def test_a_reply_that_is_cut_keeps_its_text_and_ends_as_failed(alice: httpx.AsyncClient) -> None:
    body = {"message": "hi there you", "model": "scripted-cut", "stream": True}
    async with alice.stream("POST", "/api/v1/chat/completions", json=body) as response:
        seen = [event async for event in read(response)]
    assert seen[-1].name == "turn.failed"
    text = "".join(event.data["text"] for event in seen[1:-1])
    assert text
    turn = (await alice.get(f"/api/v1/turns/{seen[-1].data['turn_id']}")).json()
    message = (await alice.get(f"/api/v1/messages/{turn['reply_id']}")).json()
    assert message["content"] == text
    assert turn["error"]["status"] == 502


async def test_the_receipt_tells_what_was_carried(alice: httpx.AsyncClient) -> None:
    first = await say(alice, "remember the word tandoor")
    turn = await say(alice, "what word?", conversation_id=first["conversation_id"])
    receipt = (await alice.get(f"/api/v1/turns/{turn['turn_id']}/context")).json()["receipt"]
    assert receipt["whole"] == [first["user_message_id"], first["message_id"], turn["user_message_id"]]
    assert receipt["tokens"] == sum(receipt["parts"].values()) + 3
    assert receipt["tokens"] <= receipt["budget"]


async def test_turns_are_listed_newest_first_and_paged(alice: httpx.AsyncClient) -> None:
    made = [(await say(alice, f"number {n}"))["turn_id"] for n in range(5)]
    seen: list[str] = []
    cursor = ""
    while True:
        page = (await alice.get(f"/api/v1/turns?limit=2{cursor}")).json()
        seen += [turn["id"] for turn in page["data"]]
        if not page["has_more"]:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == made[::-1]


async def test_a_strangers_turn_is_not_there(alice: httpx.AsyncClient, bob: httpx.AsyncClient) -> None:
    turn = await say(alice, "private")
    id_ = turn["turn_id"]
    for method, path in [
        ("GET", f"/api/v1/turns/{id_}"),
        ("GET", f"/api/v1/turns/{id_}/events"),
        ("GET", f"/api/v1/turns/{id_}/context"),
        ("POST", f"/api/v1/turns/{id_}/cancel"),
    ]:
        answer = await bob.request(method, path)
        assert answer.status_code == 404, path
    for route, body in [
        ("completions", {"message": "hi", "conversation_id": turn["conversation_id"]}),
        ("regenerate", {"message_id": turn["message_id"]}),
        ("regenerate", {"conversation_id": turn["conversation_id"]}),
        ("edit", {"message_id": turn["user_message_id"], "message": "mine now"}),
    ]:
        answer = await bob.post(f"/api/v1/chat/{route}", json=body)
        assert answer.status_code == 404, route


async def test_a_stranger_neither_follows_nor_stops_a_running_turn(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient
) -> None:
    path = f"/api/v1/turns/{(await started(alice, slow('private while it runs', chunks=200)))['turn_id']}"
    for method, what in [("GET", ""), ("GET", "/events"), ("GET", "/context"), ("POST", "/cancel")]:
        assert (await bob.request(method, path + what)).status_code == 404, what
    assert (await alice.get(path)).json()["status"] == "running"
    assert (await alice.post(f"{path}/cancel")).status_code == 202


async def test_a_stranger_is_not_told_whose_words_a_message_holds(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient
) -> None:
    turn = await say(alice, "private")
    answer = await bob.post("/api/v1/chat/edit", json={"message_id": turn["message_id"], "message": "no"})
    assert answer.status_code == 404
    assert answer.json()["type"] == "message-not-found"


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"{", 400, None),
        (b"[]", 400, None),
        (b"\xff\xfe", 400, None),
        (b'{"message": "\\ud800"}', 400, None),
        (b'{"message": "a\\u0000b"}', 422, "message"),
        (b'{"message": ""}', 422, "message"),
        (b'{"message": "  \\n"}', 422, "message"),
        (b'{"message": []}', 422, "message"),
        (b'{"message": 5}', 422, "message"),
        (b'{"message": [{"type": "text", "text": 5}]}', 422, "message"),
        (b'{"message": [{"text": "x"}]}', 422, "message"),
        (b'{"message": [{"type": "text", "text": " "}]}', 422, "message"),
        (b'{"message": null}', 422, "message"),
        (b"{}", 422, None),
        (b'{"message": "hi", "nonsense": 1}', 422, None),
        (b'{"message": "hi", "conversation_id": "7"}', 422, "conversation_id"),
        (
            b'{"message": "hi", "conversation_id": "0190f3a2-7c1e-7d4b-9a51-3f0c2b8e6d10"}',
            404,
            "conversation_id",
        ),
        (b'{"message": "hi", "project_id": "0190f3a2-7c1e-7d4b-9a51-3f0c2b8e6d10"}', 404, "project_id"),
        (
            b'{"message": "hi", "attachment_ids": ["0190f3a2-7c1e-7d4b-9a51-3f0c2b8e6d10"]}',
            404,
            "attachment_ids",
        ),
        (b'{"message": "hi", "model": "no-such-model"}', 404, "model"),
        (b'{"message": "hi", "parameters": {"stream": true}}', 422, "parameters.stream"),
        (b"[" * 100_000, 400, None),
    ],
)
async def test_bad_input_is_refused_in_words(
    alice: httpx.AsyncClient, body: bytes, status: int, param: str | None
) -> None:
    answer = await alice.post(
        "/api/v1/chat/completions", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["detail"]
    if param is not None:
        assert problem["param"] == param


@pytest.mark.parametrize(("size", "limit"), [(3_000_000, "2,000,000"), (20_000_000, "8000000")])
async def test_a_message_beyond_the_limit_is_refused(alice: httpx.AsyncClient, size: int, limit: str) -> None:
    for path, body in [
        ("/api/v1/chat/completions", {"message": "x" * size}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x" * size}]}),
    ]:
        answer = await alice.post(path, json=body, timeout=60)
        assert answer.status_code == 413
        told = answer.json()
        assert limit in (told["error"]["message"] if path.startswith("/v1") else told["detail"])
        if size < 8_000_000:
            field = told["error"]["param"] if path.startswith("/v1") else told["param"]
            assert field == ("messages[0].content" if path.startswith("/v1") else "message")


async def test_a_message_of_1_mb_is_kept_whole_and_sent_cut(
    alice: httpx.AsyncClient, upstream: Upstream
) -> None:
    text = "The key is under the mat. " + "lorem ipsum dolor " * 60_000 + " That was all."
    turn = await say(alice, text)
    kept = (await alice.get(f"/api/v1/messages/{turn['user_message_id']}")).json()
    assert kept["content"] == text
    sent = upstream.last_messages("The key is under")[-1]["content"]
    assert sent.startswith("The key is under the mat.")
    assert sent.endswith("That was all.")
    assert len(sent) < 60_000


async def test_a_system_prompt_larger_than_the_window_is_a_clear_error(alice: httpx.AsyncClient) -> None:
    answer = await alice.post(
        "/api/v1/chat/completions", json={"message": "hi", "system_prompt": "rule " * 20_000}
    )
    assert answer.status_code == 400
    assert answer.json()["type"] == "context-length-exceeded"
