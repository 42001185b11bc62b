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

    unstated = {"name": "unstated", "base_url": scripted_provider.base_url, "models": ["scripted-unstated"]}
    providers = [provider("small", SMALL), provider("large", LARGE), unstated]
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


@pytest.mark.parametrize("truncation", ["auto", "disabled"])
def test_what_fits_beside_the_reply_that_is_asked_for_is_not_touched(
    client: httpx.Client, scripted_provider: ScriptedProvider, truncation: str
) -> None:
    messages = conversation(12)
    assert 1_400 < tokens(messages) < 1_700
    answer = ask(client, "small/scripted-small", messages, truncation=truncation, max_tokens=64)
    assert answer.status_code == 200, answer.text
    assert scripted_provider.chats[-1].body["messages"] == messages


def test_before_messages_are_left_out_who_has_a_larger_window_is_asked(
    client: httpx.Client, scripted_provider: ScriptedProvider
) -> None:
    messages = conversation()
    assert ask(client, "scripted-both", messages, truncation="auto").status_code == 200
    assert scripted_provider.chats[-1].body["messages"] == messages


@pytest.mark.parametrize("truncation", ["auto", "disabled"])
def test_a_window_that_nobody_stated_is_no_reason_to_do_anything(
    client: httpx.Client, scripted_provider: ScriptedProvider, truncation: str
) -> None:
    messages = conversation(350)
    assert tokens(messages) > 40_000
    assert ask(client, "unstated/scripted-unstated", messages, truncation=truncation).status_code == 200
    assert scripted_provider.chats[-1].body["messages"] == messages


def test_pictures_whose_cost_nobody_knows_are_no_reason_to_refuse(client: httpx.Client) -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "What are these?"}, *[picture] * 6]}]
    assert ask(client, "small/scripted-small", messages).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_system_prompt_that_fits_no_window_is_told_in_all_forms(client: httpx.Client, stream: bool) -> None:
    messages = [{"role": "system", "content": FILLER * 400}, {"role": "user", "content": "Well?"}]
    answer = ask(client, "small/scripted-small", messages, truncation="auto", stream=stream)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize("stream", [False, True])
def test_a_result_that_answers_no_call_is_told_in_all_forms(client: httpx.Client, stream: bool) -> None:
    messages = [*conversation(), {"role": "tool", "tool_call_id": "lost", "content": "42"}]
    answer = ask(client, "small/scripted-small", messages, truncation="auto", stream=stream)
    assert answer.status_code == 400
    assert "lost" in answer.json()["error"]["message"]


def test_large_results_of_one_call_are_all_cut_rather_than_left_out(
    client: httpx.Client, scripted_provider: ScriptedProvider
) -> None:
    calls: list[dict[str, Any]] = [
        {"id": f"call_{at}", "type": "function", "function": {"name": "read", "arguments": "{}"}}
        for at in range(3)
    ]
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": f"Page {call['id']}. {FILLER * 200}"}
        for call in calls
    ]
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "Compare these three pages."},
        {"role": "assistant", "content": None, "tool_calls": calls},
        *results,
        {"role": "user", "content": "Why?"},
    ]
    answer = ask(client, "small/scripted-small", messages, truncation="auto", max_tokens=100)
    assert answer.status_code == 200, answer.text
    sent = scripted_provider.chats[-1].body["messages"]
    assert [message["role"] for message in sent] == ["assistant", "tool", "tool", "tool", "user"]
    assert all("tokens left out" in message["content"] for message in sent[1:4])
    assert 1_200 < tokens(sent) < SMALL


def test_a_truncation_of_another_name_is_refused(client: httpx.Client) -> None:
    answer = ask(client, "small/scripted-small", conversation(2), truncation="middle")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "truncation"


def test_a_tool_call_stays_with_its_results(
    client: httpx.Client, scripted_provider: ScriptedProvider
) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages: list[dict[str, Any]] = [
        *conversation()[:-1],
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "It is 42. " + FILLER * 400},
    ]
    answer = ask(client, "small/scripted-small", messages, truncation="auto")
    assert answer.status_code == 200, answer.text
    sent = scripted_provider.chats[-1].body["messages"]
    assert [message["role"] for message in sent[-2:]] == ["assistant", "tool"]
    assert tokens(sent) <= SMALL
