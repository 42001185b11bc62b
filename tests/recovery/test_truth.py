"""What is told of a turn is what is stored of it, after lost answers, freezes, pauses and odd replies."""

import asyncio
import contextlib
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from baatcheet.auth.bootstrap import ensure_admin
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database
from baatcheet.platform.settings import Settings
from tests.conftest import ADMIN_TOKEN, Caller
from tests.running import ApiProcess, Event, api_process, events, new_user
from tests.scripted_provider import Recorded, ScriptedProvider, Step

CHAT = "/api/v1/chat/completions"
FUNCTION = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
ARGUMENTS = {"city": "Lahore", "unit": "celsius"}


def directive(words: str, **step: Any) -> str:
    return f"{words} [[scripted {json.dumps(step)}]]"


def slow(words: str, seconds: float) -> str:
    chunks = int(seconds * 10)
    return directive(words, chunks=chunks, chunk_delay=0.1, reply="w " * chunks)


def tool_call(**step: Any) -> dict[str, Any]:
    """A streamed request that is answered with a call of a tool, in several pieces."""
    call = {"name": "weather", "arguments": json.dumps(ARGUMENTS)}
    message = directive("call the tool", tool_calls=[call], **step)
    return {"message": message, "parameters": {"tools": [FUNCTION]}, "stream": True}


def arguments(seen: list[Event]) -> Any:
    """The arguments of the tool call that `seen` adds up to."""
    deltas = [event.data for event in seen if event.name == "message.delta"]
    pieces = [call["function"].get("arguments") for delta in deltas for call in delta.get("tool_calls") or ()]
    return json.loads("".join(piece or "" for piece in pieces))


async def rest(response: httpx.Response) -> list[Event]:
    """The events of a stream up to its end. An end without one of its own is no error here."""
    return list(events(iter([line async for line in response.aiter_lines()])))


async def follow(caller: Caller, turn: str, after: int = 0) -> list[Event]:
    headers = {"last-event-id": str(after)} if after else {}
    async with caller.stream("GET", f"/api/v1/turns/{turn}/events", headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        return await rest(response)


async def standing(caller: Caller, turn: str) -> dict[str, Any]:
    told: dict[str, Any] = (await caller.get(f"/api/v1/turns/{turn}")).json()
    return told


async def begun(caller: Caller, message: str) -> str:
    """Begin a streamed turn and leave. Its id."""
    async with caller.stream("POST", CHAT, json={"message": message, "stream": True}) as response:
        assert response.status_code == 200, await response.aread()
        return response.headers["x-baatcheet-turn"]


def has_answered(provider: ScriptedProvider, words: str) -> bool:
    """Whether the provider was asked and has said all it had to say."""
    return any(
        one.finished and words in str(one.body["messages"][-1].get("content")) for one in provider.chats
    )


def asked_with(provider: ScriptedProvider, words: str) -> Recorded:
    (asked,) = [one for one in provider.chats if words in str(one.body["messages"][-1].get("content"))]
    return asked


# Odd replies ---------------------------------------------------------------------------------------------


async def test_a_reply_whose_finish_reason_cannot_be_stored_is_kept_and_ends_its_turn(
    alice: Caller, scripted_provider: ScriptedProvider
) -> None:
    scripted_provider.script(Step(reply="precious words", finish_reason="st\0op"))
    answer = await alice.post(CHAT, json={"message": "odd provider"})
    assert answer.status_code == 200, answer.text
    turn = await standing(alice, answer.headers["x-baatcheet-turn"])
    assert turn["status"] == "completed"
    reply = await alice.get(f"/api/v1/messages/{turn['reply_id']}")
    assert reply.json()["content"] == "precious words"
    conversation = answer.headers["x-baatcheet-conversation"]
    again = await alice.post(CHAT, json={"message": "next", "conversation_id": conversation})
    assert again.status_code == 200, again.text


async def test_an_error_that_cannot_be_stored_fails_its_turn_at_once(
    alice: Caller, scripted_provider: ScriptedProvider
) -> None:
    error = {"message": "bad \0 thing", "type": "invalid_request_error", "param": None, "code": "x\0"}
    scripted_provider.script(Step(status=400, error=error))
    answer = await alice.post(CHAT, json={"message": "odd provider"})
    assert answer.status_code == 400, answer.text
    turn = await standing(alice, answer.headers["x-baatcheet-turn"])
    assert turn["status"] == "failed"
    assert "bad \N{REPLACEMENT CHARACTER} thing" in turn["error"]["message"]
    conversation = answer.headers["x-baatcheet-conversation"]
    again = await alice.post(CHAT, json={"message": "next", "conversation_id": conversation})
    assert again.status_code == 200, again.text


@pytest.mark.parametrize("way", ["whole", "streamed", "in a conversation"])
@pytest.mark.parametrize("tokens", [10**40, 2**40, -5], ids=["40 digits", "2**40", "negative"])
async def test_usage_that_cannot_be_stored_is_kept_as_the_nearest_that_can(
    alice: Caller, scripted_provider: ScriptedProvider, way: str, tokens: int
) -> None:
    details = {"cached\0tokens": 1, "cached_tokens": "\0", "audio_tokens": 2}
    usage = {"prompt_tokens": tokens, "completion_tokens": 7, "prompt_tokens_details": details}
    scripted_provider.script(Step(reply="precious words", usage="never", extra={"usage": usage}))
    body: dict[str, Any] = {"model": "openai/scripted", "messages": [{"role": "user", "content": "odd"}]}
    if way != "whole":
        body |= {"stream": True} if way == "streamed" else {"conversation": "new"}
    answer = await alice.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert "precious" in answer.text
    async with asyncio.timeout(5):
        # The usage of a stateless request is written once it has been answered.
        while not (turns := (await alice.get("/api/v1/turns")).json()["data"]):
            await asyncio.sleep(0.02)
    nearest = min(max(tokens, 0), 2**31 - 1)
    (turn,) = turns
    assert (turn["prompt_tokens"], turn["completion_tokens"]) == (nearest, 7)
    kept = await standing(alice, turn["id"])
    assert kept["usage"]["prompt_tokens_details"] == {"audio_tokens": 2}


async def test_a_tool_call_adds_up_wherever_a_client_comes_back(alice: Caller) -> None:
    async with alice.stream("POST", CHAT, json=tool_call()) as response:
        whole = await rest(response)
    assert whole[-1].name == "turn.completed"
    assert arguments(whole) == ARGUMENTS
    turn = whole[0].data["turn_id"]
    for after in range(1, len(whole) - 1):
        assert await follow(alice, turn, after) == whole[after:]
    assert arguments(await follow(alice, turn)) == ARGUMENTS


async def test_a_held_conversation_holds_up_only_its_own(
    alice: Caller, bob: Caller, database: Database
) -> None:
    first = (await alice.post(CHAT, json={"message": "hello"})).json()["conversation_id"]
    async with asyncio.timeout(20):
        async with database.system(limit=15) as session:
            await session.execute(
                text("SELECT FROM conversations WHERE id = :id FOR UPDATE"), {"id": UUID(first)}
            )
            waiting = asyncio.create_task(
                alice.post(CHAT, json={"message": "again", "conversation_id": first})
            )
            await asyncio.sleep(0.3)
            async with asyncio.timeout(3):
                for caller in (alice, bob):
                    assert (await caller.post(CHAT, json={"message": "hello"})).status_code == 200
            assert not waiting.done()
        assert (await waiting).status_code == 200


async def test_the_end_of_a_reply_is_told_only_once_it_is_committed(
    alice: Caller, database: Database, scripted_provider: ScriptedProvider
) -> None:
    conversation = (await alice.post(CHAT, json={"message": "hello"})).json()["conversation_id"]
    words = f"hold the end {new_id()}"
    messages = [{"role": "user", "content": slow(words, 1)}]
    body = {"messages": messages, "conversation": conversation, "stream": True}
    reasons: list[str | None] = []

    async def read(response: httpx.Response) -> None:
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                reasons.extend(choice["finish_reason"] for choice in json.loads(line[6:])["choices"])

    async with asyncio.timeout(20), alice.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200, await response.aread()
        reading = asyncio.create_task(read(response))
        async with database.system(limit=15) as session:
            await session.execute(
                text("SELECT FROM conversations WHERE id = :id FOR UPDATE"), {"id": UUID(conversation)}
            )
            while not has_answered(scripted_provider, words):
                await asyncio.sleep(0.02)
            # The provider is done: whatever is not held back comes within this second.
            await asyncio.wait([reading], timeout=1)
            assert reasons
            assert set(reasons) == {None}
        await reading
    assert reasons[-1] == "stop"


# Several processes ---------------------------------------------------------------------------------------


@pytest.fixture
def environment(environment_of_server: Mapping[str, str], settings: Settings) -> dict[str, str]:
    ensure_admin(environment_of_server["DATABASE_URL"], settings.auth)
    return {**environment_of_server, "BAATCHEET_GRACE_SECONDS": "10"}


@pytest.fixture
def two(environment: dict[str, str], tmp_path: Path) -> Iterator[tuple[ApiProcess, ApiProcess]]:
    """Two processes that share a database, and no Redis."""
    without = {name: value for name, value in environment.items() if name != "REDIS_URL"}
    with api_process(without, tmp_path / "a.log") as a, api_process(without, tmp_path / "b.log") as b:
        yield a, b


async def test_a_tool_call_is_followed_whole_from_another_process_without_redis(
    two: tuple[ApiProcess, ApiProcess],
) -> None:
    token = new_user(two[0].url, ADMIN_TOKEN)
    async with asyncio.timeout(30), Caller(two[0].url, token) as here, Caller(two[1].url, token) as there:
        async with here.stream("POST", CHAT, json=tool_call(chunk_delay=0.5)) as response:
            turn = response.headers["x-baatcheet-turn"]
            whole, *followed = await asyncio.gather(rest(response), follow(here, turn), follow(there, turn))
        assert whole[-1].name == "turn.completed"
        assert arguments(whole) == ARGUMENTS
        for seen in (*followed, await follow(there, turn)):
            assert [(event.id, event.name) for event in seen] == [(event.id, event.name) for event in whole]
            assert arguments(seen) == ARGUMENTS


async def test_a_process_that_follows_anothers_turn_stops_at_once_and_lets_its_followers_go(
    two: tuple[ApiProcess, ApiProcess],
) -> None:
    token = new_user(two[0].url, ADMIN_TOKEN)
    async with asyncio.timeout(30), Caller(two[0].url, token) as here, Caller(two[1].url, token) as there:
        turn = await begun(here, slow("outlive the follower", 60))
        async with there.stream("GET", f"/api/v1/turns/{turn}/events") as response:
            following = asyncio.create_task(rest(response))
            await asyncio.sleep(1.5)
            began = time.monotonic()
            two[1].signal(signal.SIGTERM)
            assert await asyncio.to_thread(two[1].wait, 20) == 0
            assert time.monotonic() - began < 4
            seen = await following
        assert seen[-1].name == "message.delta"
        assert (await standing(here, turn))["status"] == "running"
        assert (await here.post(f"/api/v1/turns/{turn}/cancel")).status_code == 202


# Answers of the database that are lost on their way ------------------------------------------------------


class Proxy:
    """Stands before PostgreSQL. Once `trap` has passed, the next answer is swallowed and its connection cut."""

    def __init__(self, database_url: str) -> None:
        parts = urlsplit(database_url)
        host = parse_qs(parts.query).get("host", [parts.hostname or "127.0.0.1"])[0]
        port = parts.port or 5432
        self._target: Any = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        where = f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{self._listener.getsockname()[1]}"
        pooler = "&pgbouncer=true" if "pgbouncer=true" in parts.query else ""
        self.url = urlunsplit(parts._replace(netloc=where, query=f"sslmode=disable{pooler}"))
        self.trap: bytes | None = None
        self.sprung = 0
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX if isinstance(self._target, str) else socket.AF_INET)
            self._sockets += [client, server]
            server.connect(self._target)
            trapped = threading.Event()
            for passing in (self._ask, self._answer):
                thread = threading.Thread(target=passing, args=(client, server, trapped))
                self._threads.append(thread)
                thread.start()

    def _ask(self, client: socket.socket, server: socket.socket, trapped: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if self.trap is not None and self.trap in data:
                    self.trap = None
                    self.sprung += 1
                    trapped.set()
                server.sendall(data)
        _cut(client, server)

    def _answer(self, client: socket.socket, server: socket.socket, trapped: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while (data := server.recv(65536)) and not trapped.is_set():
                client.sendall(data)
        _cut(client, server)

    def close(self) -> None:
        _cut(self._listener, *self._sockets)
        for thread in self._threads:
            thread.join(5)
        for one in (self._listener, *self._sockets):
            one.close()


def _cut(*sockets: socket.socket) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy(environment_of_server: Mapping[str, str]) -> Iterator[Proxy]:
    between = Proxy(environment_of_server["DATABASE_URL"])
    yield between
    between.close()


@pytest.fixture
def behind_proxy(environment: dict[str, str], proxy: Proxy, tmp_path: Path) -> Iterator[ApiProcess]:
    with api_process({**environment, "DATABASE_URL": proxy.url}, tmp_path / "api.log") as running:
        yield running


async def test_a_commit_whose_answer_is_lost_is_told_as_it_stands(
    behind_proxy: ApiProcess, proxy: Proxy
) -> None:
    token = new_user(behind_proxy.url, ADMIN_TOKEN)
    async with asyncio.timeout(40), Caller(behind_proxy.url, token) as caller:
        assert (await caller.post(CHAT, json={"message": "warm up"})).status_code == 200
        proxy.trap = b'"status":"completed"'
        answer = await caller.post(CHAT, json={"message": "close"})
        assert proxy.sprung == 1
        assert answer.status_code == 200, answer.text
        assert answer.json()["status"] == "completed"
        assert answer.json()["message"]["content"] == "You said: close"
        assert (await standing(caller, answer.json()["turn_id"]))["status"] == "completed"


@pytest.mark.parametrize("keyed", [True, False], ids=["with a key", "without a key"])
async def test_an_opening_whose_answer_is_lost_is_one_turn_and_one_question(
    behind_proxy: ApiProcess, proxy: Proxy, scripted_provider: ScriptedProvider, keyed: bool
) -> None:
    token = new_user(behind_proxy.url, ADMIN_TOKEN)
    async with asyncio.timeout(40), Caller(behind_proxy.url, token) as caller:
        first = await caller.post(CHAT, json={"message": "warm up"})
        conversation = first.json()["conversation_id"]
        words = f"this one opens {new_id()}"
        proxy.trap = words.encode()
        body = {"message": words, "conversation_id": conversation}
        answer = await caller.post(CHAT, json=body, headers={"idempotency-key": "once"} if keyed else {})
        assert proxy.sprung == 1
        assert answer.status_code == 200, answer.text
        assert answer.json()["status"] == "completed"
        page = (await caller.get(f"/api/v1/conversations/{conversation}/messages")).json()
        said = [message["content"] for message in page["data"]]
        assert said.count(words) == 1
        assert len(said) == 4
        assert len([one for one in scripted_provider.chats if words in str(one.body)]) == 1
