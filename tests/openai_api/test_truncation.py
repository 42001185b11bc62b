"""Requests without a conversation that are longer than their model's window."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest

from baatcheet.auth.bootstrap import ensure_admin
from baatcheet.context import counting
from baatcheet.platform.settings import Settings
from tests.conftest import ADMIN_TOKEN
from tests.running import api_process
from tests.scripted_provider import ScriptedProvider

SMALL, LARGE = 2_000, 8_000  # tokens
FILLER = "The river was high and the boats stayed in the harbour all day long. "


@pytest.fixture(scope="module")
def client(
    environment_of_server: Mapping[str, str],
    settings: Settings,
    scripted_provider: ScriptedProvider,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[httpx.Client]:
    """A server with two providers: `small`, with a small window, and `large`; both serve `scripted-both`."""
    ensure_admin(environment_of_server["DATABASE_URL"], settings.auth)

    def provider(name: str, window: int) -> dict[str, Any]:
        models = [f"scripted-{name}", "scripted-both"]
        return {
            "name": name,
            "base_url": scripted_provider.base_url,
            "models": models,
            "context_window": window,
        }

    providers = [provider("small", SMALL), provider("large", LARGE)]
    environment = {**environment_of_server, "BAATCHEET_PROVIDERS": json.dumps(providers)}
    with (
        api_process(environment, tmp_path_factory.mktemp("truncation") / "api.log") as api,
        httpx.Client(
            base_url=api.url, headers={"authorization": f"Bearer {ADMIN_TOKEN}"}, timeout=30, trust_env=False
        ) as client,
    ):
        yield client


def conversation(messages: int = 40) -> list[dict[str, Any]]:
    talk = [
        {"role": "assistant" if at % 2 else "user", "content": f"{at}: {FILLER * 8}"}
        for at in range(messages)
    ]
    return [{"role": "system", "content": "Be brief."}, *talk, {"role": "user", "content": "And the newest?"}]


def ask(client: httpx.Client, model: str, messages: list[dict[str, Any]], **more: Any) -> httpx.Response:
    return client.post("/v1/chat/completions", json={"model": model, "messages": messages, **more})


def tokens(messages: list[dict[str, Any]]) -> int:
    return sum([counting.count(str(m["content"])) + counting.MESSAGE_OVERHEAD for m in messages])


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_too_long_is_refused_before_any_provider_is_asked(
    client: httpx.Client, scripted_provider: ScriptedProvider, stream: bool
) -> None:
    asked = len(scripted_provider.chats)
    answer = ask(client, "small/scripted-small", conversation(), stream=stream)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")
    assert "2,000" in error["message"]
    assert len(scripted_provider.chats) == asked


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("key", [None, "idempotent"])
def test_truncation_auto_leaves_out_the_oldest_messages(
    client: httpx.Client, scripted_provider: ScriptedProvider, stream: bool, key: str | None
) -> None:
    messages = conversation()
    headers = {"idempotency-key": f"{key}-{stream}"} if key else {}
    answer = client.post(
        "/v1/chat/completions",
        json={"model": "small/scripted-small", "messages": messages, "truncation": "auto", "stream": stream},
        headers=headers,
    )
    assert answer.status_code == 200, answer.text
    body = scripted_provider.chats[-1].body
    assert "truncation" not in body
    sent = body["messages"]
    assert sent[0] == messages[0]
    assert sent[-1] == messages[-1]
    assert len(sent) > 4
    assert sent[-4:] == messages[-4:]
    assert tokens(sent) <= SMALL


def test_a_request_that_fits_is_sent_as_it_came(
    client: httpx.Client, scripted_provider: ScriptedProvider
) -> None:
    messages = conversation(4)
    assert ask(client, "small/scripted-small", messages, truncation="auto").status_code == 200
    assert scripted_provider.chats[-1].body["messages"] == messages


def test_who_has_a_larger_window_is_asked_instead(
    client: httpx.Client, scripted_provider: ScriptedProvider
) -> None:
    messages = conversation()
    asked = len(scripted_provider.chats)
    assert ask(client, "scripted-both", messages).status_code == 200
    assert scripted_provider.chats[-1].body["messages"] == messages
    assert len(scripted_provider.chats) == asked + 1


def test_the_reply_that_is_asked_for_needs_its_room(client: httpx.Client) -> None:
    messages = conversation(4)
    assert ask(client, "small/scripted-small", messages, max_tokens=64).status_code == 200
    assert ask(client, "small/scripted-small", messages, max_tokens=1_900).status_code == 400


def test_a_truncation_of_another_name_is_refused(client: httpx.Client) -> None:
    answer = ask(client, "small/scripted-small", conversation(2), truncation="middle")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "truncation"


def test_a_tool_call_stays_with_its_results(
    client: httpx.Client, scripted_provider: ScriptedProvider
) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        *conversation()[:-1],
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "It is 42. " + FILLER * 400},
    ]
    answer = ask(client, "small/scripted-small", messages, truncation="auto")
    assert answer.status_code == 200, answer.text
    sent = scripted_provider.chats[-1].body["messages"]
    assert [message["role"] for message in sent[-2:]] == ["assistant", "tool"]
    assert tokens(sent) <= SMALL
