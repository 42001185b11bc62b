"""POST /api/v1/tokens/count: what a text or a prompt costs a model."""

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from baatcheet.auth.principal import Principal
from baatcheet.chat import token_counts
from baatcheet.context import counting
from baatcheet.context.tokenizers import Tokenizers
from baatcheet.kit.ids import new_id
from baatcheet.platform import failures
from baatcheet.platform.settings import load
from baatcheet.providers.catalogue import UnknownModel
from baatcheet.providers.model import ModelCard
from baatcheet.providers.profiles import OPENAI, Known

CARDS = {card.name: card for card in (known.card("openai") for known in OPENAI.models)}
CARDS["unheard-of"] = Known("unheard-of", 4_096).card("somewhere")


class Served:
    """Stands for the catalogue."""

    async def resolve(self, name: str | None) -> tuple[Any, ...]:
        found: ModelCard | None = CARDS.get(name or "gpt-4o")
        if found is None:
            raise UnknownModel(name or "", ["gpt-4o"])
        return (SimpleNamespace(model=found),)


class Unlimited:
    async def check(self, _token: object) -> Any:
        return SimpleNamespace(headers=dict)


Ask = Any


@pytest_asyncio.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(token_counts.router)
    failures.install(app)
    app.state.catalogue, app.state.tokenizers, app.state.rate_limits = Served(), Tokenizers(), Unlimited()
    app.state.settings = load({"BAATCHEET_MAX_MESSAGE_BYTES": "200000"})

    async def with_principal(scope: Scope, receive: Receive, send: Send) -> None:
        scopes = frozenset({dict(scope["headers"]).get(b"x-scope", b"chat").decode()})
        who = Principal(user_id=new_id(), token_id=new_id(), scopes=scopes, role="user", name="Alice")
        scope.setdefault("state", {})["principal"] = who
        await app(scope, receive, send)

    transport = httpx.ASGITransport(app=with_principal)
    async with httpx.AsyncClient(transport=transport, base_url="http://test/api/v1/tokens") as found:
        yield found


async def counted(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await client.post("/count", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_text_is_counted_by_itself(client: httpx.AsyncClient) -> None:
    text = "سلام، آپ کیسے ہیں؟ " * 20
    assert await counted(client, model="gpt-4o", text=text) == {
        "model": "openai/gpt-4o",
        "tokens": counting.count(text),
        "exact": True,
        "tokenizer": "o200k_base",
        "context_window": 128_000,
        "messages": None,
        "tools": 0,
    }


async def test_without_a_model_a_text_is_counted_as_it_is_when_it_is_stored(
    client: httpx.AsyncClient,
) -> None:
    answer = await counted(client, text="سلام، آپ کیسے ہیں؟")
    assert answer["tokens"] == counting.count("سلام، آپ کیسے ہیں؟")
    assert (answer["model"], answer["context_window"]) == (None, None)
    assert (answer["tokenizer"], answer["exact"]) == ("o200k_base", True)


async def test_a_prompt_is_counted_as_it_would_be_sent(client: httpx.AsyncClient) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png", "detail": "low"}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]},
    ]
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    schema = {"name": "answer", "schema": {"type": "object"}}
    found = await counted(
        client,
        model="gpt-4o",
        messages=messages,
        tools=tools,
        response_format={"type": "json_schema", "json_schema": schema},
    )
    assert found["messages"] == [4 + counting.count("Be brief."), 4 + counting.count("What is this?") + 85]
    assert found["tools"] > 15
    assert found["tokens"] == sum(found["messages"]) + found["tools"] + 3
    mini = await counted(client, model="gpt-4o-mini", messages=messages)
    assert mini["messages"][1] == found["messages"][1] - 85 + 2833


async def test_an_estimate_says_that_it_is_one(client: httpx.AsyncClient) -> None:
    found = await counted(client, model="unheard-of", messages=[{"role": "user", "content": "hello"}])
    assert (found["exact"], found["tokenizer"]) == (False, "o200k_base, as an estimate")
    assert found["context_window"] == 4_096


async def test_a_long_text_is_counted_too(client: httpx.AsyncClient) -> None:
    text = "word " * 30_000
    assert (await counted(client, text=text))["tokens"] == counting.count(text)


async def test_an_unknown_model_is_not_found(client: httpx.AsyncClient) -> None:
    answer = await client.post("/count", json={"model": "gpt-9", "text": "hello"})
    assert answer.status_code == 404
    assert answer.json()["type"] == "model-not-found"
    assert answer.json()["param"] == "model"
    assert "gpt-4o" in answer.json()["detail"]


async def test_it_takes_a_token_that_may_chat(client: httpx.AsyncClient) -> None:
    answer = await client.post("/count", json={"text": "hello"}, headers={"x-scope": "read"})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "body",
    [
        {"text": "x" * 200_001},
        {"messages": [{"role": "user", "content": "é" * 100_001}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x" * 200_001}]}]},
    ],
)
async def test_what_no_message_could_hold_is_too_large(
    client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    answer = await client.post("/count", json=body)
    assert answer.status_code == 413
    assert answer.json()["type"] == "too-large"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "text"),
        ({"text": "a", "messages": [{"role": "user", "content": "b"}]}, "text"),
        ({"text": "a", "tools": []}, "messages"),
        ({"messages": [{"content": "b"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": ["b"]}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0]"),
    ],
)
async def test_what_can_not_be_counted_is_refused_by_name(
    client: httpx.AsyncClient, body: dict[str, Any], param: str
) -> None:
    answer = await client.post("/count", json=body)
    assert answer.status_code == 422
    assert answer.json()["param"] == param


@pytest.mark.parametrize("body", [b'{"messages": []}', b'{"text": 3}', b'{"text": "a", "more": 1}', b"[]"])
async def test_a_body_of_another_shape_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    answer = await client.post("/count", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422, answer.text
