"""Kill anything: what was acknowledged is there, what was under way says so, and nothing hangs."""

import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from baatcheet.auth.bootstrap import ensure_admin
from baatcheet.platform.settings import Settings
from tests.conftest import ADMIN_TOKEN as ADMIN
from tests.running import ApiProcess, api_process, events, new_user


@pytest.fixture
def environment(environment_of_server: Mapping[str, str], settings: Settings) -> dict[str, str]:
    ensure_admin(environment_of_server["DATABASE_URL"], settings.auth)
    return {**environment_of_server, "BAATCHEET_POOL_MAX": "4", "BAATCHEET_GRACE_SECONDS": "25"}


@pytest.fixture
def api(environment: dict[str, str], tmp_path: Path) -> Iterator[ApiProcess]:
    with api_process(environment, tmp_path / "api.log") as running:
        yield running


def client_of(api: ApiProcess, token: str) -> httpx.Client:
    return httpx.Client(base_url=api.url, headers={"authorization": f"Bearer {token}"}, timeout=30)


def slow(words: str, chunks: int = 200, delay: float = 0.05) -> str:
    reply = " ".join(f"word{n}" for n in range(chunks))
    return f'{words} [[scripted {{"chunks": {chunks}, "chunk_delay": {delay}, "reply": "{reply}"}}]]'


def begin(client: httpx.Client, message: str, seconds: float) -> tuple[dict[str, Any], str]:
    """Stream a turn for a while. Returns its start and the text that was seen."""
    text, began = "", time.monotonic()
    told: dict[str, Any] = {}
    body = {"message": message, "stream": True}
    with client.stream("POST", "/api/v1/chat/completions", json=body) as response:
        assert response.status_code == 200
        for event in events(response.iter_lines()):
            if event.name == "turn.started":
                told = event.data
            elif event.name == "message.delta":
                text += event.data["text"]
            if time.monotonic() - began > seconds:
                break
    return told, text


def ended(client: httpx.Client, turn_id: str, limit: float = 30) -> dict[str, Any]:
    until = time.monotonic() + limit
    while time.monotonic() < until:
        turn: dict[str, Any] = client.get(f"/api/v1/turns/{turn_id}").json()
        if turn["status"] != "running":
            return turn
        time.sleep(0.2)
    raise AssertionError(f"turn {turn_id} still runs after {limit} s")


def test_a_server_killed_mid_stream_leaves_the_turn_interrupted_with_its_text(
    environment: dict[str, str], tmp_path: Path
) -> None:
    with api_process(environment, tmp_path / "first.log") as api:
        token = new_user(api.url, ADMIN)
        with client_of(api, token) as client:
            told, seen = begin(client, slow("kill me"), seconds=2.5)
        api.kill()
    with api_process(environment, tmp_path / "second.log") as api, client_of(api, token) as client:
        turn = ended(client, told["turn_id"])
        assert turn["status"] == "interrupted"
        question = client.get(f"/api/v1/messages/{told['user_message_id']}").json()
        assert question["content"].startswith("kill me")
        answer = client.get(f"/api/v1/messages/{turn['reply_id']}").json()
        # The text is durable at most a second behind: at 20 words a second, some 25 words may be missing.
        assert seen.startswith(answer["content"])
        assert len(seen.split()) - len(answer["content"].split()) <= 30
        assert len(answer["content"].split()) >= 15
        with client.stream("GET", f"/api/v1/turns/{told['turn_id']}/events") as response:
            replay = list(events(response.iter_lines()))
        assert replay[-1].name == "turn.interrupted"
        assert "".join(e.data["text"] for e in replay[1:-1]) == answer["content"]
        again = client.post(
            "/api/v1/chat/completions",
            json={"message": "go on", "conversation_id": told["conversation_id"]},
        )
        assert again.status_code == 200, again.text


def test_another_process_marks_the_turn_of_a_dead_one(environment: dict[str, str], tmp_path: Path) -> None:
    with (
        api_process(environment, tmp_path / "a.log") as first,
        api_process(environment, tmp_path / "b.log") as second,
    ):
        token = new_user(first.url, ADMIN)
        with client_of(first, token) as client:
            told, _ = begin(client, slow("die quietly"), seconds=1.5)
        with client_of(second, token) as client, ThreadPoolExecutor(1) as pool:

            def follow() -> list[Any]:
                with client.stream("GET", f"/api/v1/turns/{told['turn_id']}/events") as response:
                    return list(events(response.iter_lines()))

            following = pool.submit(follow)
            time.sleep(0.5)
            first.kill()
            seen = following.result(timeout=30)
        assert seen[-1].name == "turn.interrupted"


def test_a_turn_is_followed_from_another_process(environment: dict[str, str], tmp_path: Path) -> None:
    with (
        api_process(environment, tmp_path / "a.log") as first,
        api_process(environment, tmp_path / "b.log") as second,
    ):
        token = new_user(first.url, ADMIN)
        with client_of(first, token) as client:
            told, seen = begin(client, slow("follow me", chunks=60), seconds=1)
        with client_of(second, token) as client:
            headers = {"last-event-id": "3"}
            path = f"/api/v1/turns/{told['turn_id']}/events"
            with client.stream("GET", path, headers=headers) as response:
                rest = list(events(response.iter_lines()))
        assert [event.id for event in rest] == list(range(4, 4 + len(rest)))
        assert rest[-1].name == "turn.completed"
        whole = rest[-1].data["message"]["content"]
        assert whole.endswith("".join(event.data["text"] for event in rest[:-1]))
        assert whole.startswith(seen)


def test_a_turn_is_cancelled_from_another_process(environment: dict[str, str], tmp_path: Path) -> None:
    with (
        api_process(environment, tmp_path / "a.log") as first,
        api_process(environment, tmp_path / "b.log") as second,
    ):
        token = new_user(first.url, ADMIN)
        with client_of(first, token) as client:
            told, _ = begin(client, slow("stop me"), seconds=0.5)
        with client_of(second, token) as client:
            assert client.post(f"/api/v1/turns/{told['turn_id']}/cancel").status_code == 202
            assert ended(client, told["turn_id"], limit=5)["status"] == "cancelled"


def test_a_server_that_is_told_to_stop_lets_turns_end_and_marks_the_rest(
    environment: dict[str, str], tmp_path: Path
) -> None:
    settings = {**environment, "BAATCHEET_GRACE_SECONDS": "2"}
    with api_process(settings, tmp_path / "first.log") as api:
        token = new_user(api.url, ADMIN)
        results: dict[str, list[Any]] = {}

        def run(name: str, message: str) -> None:
            with client_of(api, token) as client:
                body = {"message": message, "stream": True}
                with client.stream("POST", "/api/v1/chat/completions", json=body) as response:
                    results[name] = list(events(response.iter_lines()))

        threads = [
            threading.Thread(target=run, args=("short", slow("short", chunks=20))),
            threading.Thread(target=run, args=("long", slow("long", chunks=400))),
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.7)
        began = time.monotonic()
        api.signal(signal.SIGTERM)
        for thread in threads:
            thread.join(20)
        assert api.wait(20) == 0
        assert time.monotonic() - began < 10
        assert results["short"][-1].name == "turn.completed"
        assert results["long"][-1].name == "turn.interrupted"
    with api_process(environment, tmp_path / "second.log") as api, client_of(api, token) as client:
        turn = client.get(f"/api/v1/turns/{results['long'][-1].data['turn_id']}").json()
        assert turn["status"] == "interrupted"
        text = client.get(f"/api/v1/messages/{turn['reply_id']}").json()["content"]
        assert text == "".join(event.data["text"] for event in results["long"][1:-1])


def test_a_server_that_is_told_to_stop_waits_for_no_body(environment: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    with api_process(environment, log) as api:
        token = new_user(api.url, ADMIN)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n"
        head += "expect: 100-continue\r\ncontent-length: 20\r\n\r\n"
        with socket.create_connection(("127.0.0.1", api.port), timeout=20) as client:
            client.sendall(head.encode())
            assert client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.sendall(b"abc")
            began = time.monotonic()
            api.signal(signal.SIGTERM)
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        assert api.wait(20) == 0
        assert time.monotonic() - began < 6
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b'"shutting_down"' in answer
    assert "Traceback" not in log.read_text()
    assert '"level":"error"' not in log.read_text()


def test_two_hundred_streams_finish_on_a_pool_of_four(api: ApiProcess) -> None:
    token = new_user(api.url, ADMIN)
    limits = httpx.Limits(max_connections=250)
    with httpx.Client(
        base_url=api.url, headers={"authorization": f"Bearer {token}"}, timeout=60, limits=limits
    ) as client:

        def run(number: int) -> str:
            body = {"message": slow(f"stream {number}", chunks=20), "stream": True}
            with client.stream("POST", "/api/v1/chat/completions", json=body) as response:
                assert response.status_code == 200, response.read()
                return list(events(response.iter_lines()))[-1].name or ""

        with ThreadPoolExecutor(200) as pool:
            ends = list(pool.map(run, range(200)))
    assert ends == ["turn.completed"] * 200
