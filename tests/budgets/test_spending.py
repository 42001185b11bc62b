"""Limits as clients meet them: a real server, a real database, a scripted provider."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import httpx
import openai
import pytest
from sqlalchemy import text

from baatcheet.platform.database import Database
from tests.conftest import Caller, NewCaller, RunningServer
from tests.scripted_provider import ScriptedProvider

MODEL = "scripted-echo"
VECTORS = "text-embedding-scripted"

Limit = Callable[..., Awaitable[None]]


def asked(words: str = "hello", **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": words}], **more}


@pytest.fixture
def limit(admin: Caller) -> Limit:
    """Limits a user, or with `token=True` the caller's token. The process that is told obeys at once."""

    async def set_limits(caller: Caller, *, token: bool = False, **limits: Any) -> None:
        holder = str(caller.user_id)
        if token:
            holder = (await caller.get("/api/v1/me")).json()["token"]["id"]
        answer = await admin.put(f"/api/v1/{'tokens' if token else 'users'}/{holder}/limits", json=limits)
        assert answer.status_code == 200, answer.text

    return set_limits


async def usage(caller: Caller) -> dict[str, Any]:
    answer = await caller.get("/api/v1/usage")
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def settled(caller: Caller, requests: int, *, holder: str = "user") -> dict[str, Any]:
    """What a holder has used today, once it is so many requests and none is under way."""
    day: dict[str, Any] = {}
    for _ in range(200):
        day = (await usage(caller))[holder]["day"]
        if day["used"]["requests"] == requests and not day["under_way"]["requests"]:
            return day
        await asyncio.sleep(0.05)
    raise AssertionError(f"not {requests} requests: {day}")


async def by_model(caller: Caller, count: int) -> dict[str, Any]:
    """What was used today of each model, once there are so many of them: they are written once a second."""
    models: dict[str, Any] = {}
    for _ in range(200):
        models = {one["model"]: one for one in (await usage(caller))["models"]}
        if len(models) == count:
            return models
        await asyncio.sleep(0.05)
    raise AssertionError(f"not {count} models: {models}")


async def test_a_budget_of_requests_is_refused_when_it_is_used_up_and_says_until_when(
    alice: Caller, limit: Limit
) -> None:
    await limit(alice, day={"requests": 2})
    answers = await asyncio.gather(*(alice.post("/v1/chat/completions", json=asked()) for _ in range(8)))
    assert sorted(one.status_code for one in answers) == [200] * 2 + [429] * 6
    day = await settled(alice, 2)
    refused = await alice.post("/v1/chat/completions", json=asked())
    assert refused.status_code == 429
    error = refused.json()["error"]
    assert (error["code"], error["type"]) == ("insufficient_quota", "insufficient_quota")
    assert error["message"].startswith("Your user's budget of 2 requests a day is used up until ")
    assert 0 < int(refused.headers["retry-after"]) <= 86_400
    native = await alice.post("/api/v1/chat/completions", json={"message": "hello", "model": MODEL})
    assert native.status_code == 429
    problem = native.json()
    assert problem["type"] == "budget-exhausted"
    assert problem["budget"] == {
        "holder": "user",
        "unit": "requests",
        "period": "day",
        "limit": 2,
        "used": 2,
        "resets_at": day["resets_at"],
    }


async def test_openais_client_is_told_and_does_not_ask_again(
    alice: Caller, limit: Limit, server: RunningServer, scripted_provider: ScriptedProvider
) -> None:
    await limit(alice, day={"requests": 0})
    words = secrets.token_hex(8)
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=alice.token, max_retries=2) as client:
        with pytest.raises(openai.RateLimitError) as refused:
            await client.chat.completions.create(**asked(words))
    assert refused.value.code == "insufficient_quota"
    assert refused.value.request.headers["x-stainless-retry-count"] == "0"
    assert not any(words in str(one.body) for one in scripted_provider.chats)


@pytest.mark.parametrize("stream", [False, True])
async def test_every_way_of_asking_is_charged_what_the_model_said_it_used(
    alice: Caller, limit: Limit, stream: bool
) -> None:
    await limit(alice, day={"tokens": 1_000_000})
    said = await alice.post("/v1/chat/completions", json=asked(stream=stream))
    assert said.status_code == 200, said.text
    first = await settled(alice, 1)
    assert first["used"]["tokens"] > 0
    if not stream:
        assert first["used"]["tokens"] == said.json()["usage"]["total_tokens"]
    turn = {"message": "hello", "model": MODEL, "stream": stream}
    native = await alice.post("/api/v1/chat/completions", json=turn)
    assert native.status_code == 200, native.text
    second = await settled(alice, 2)
    vectors = {"model": VECTORS, "input": ["one", "two"]}
    embedded = await alice.post("/v1/embeddings", json=vectors)
    assert embedded.status_code == 200, embedded.text
    third = await settled(alice, 3)
    told = embedded.json()["usage"]["total_tokens"]
    assert third["used"]["tokens"] == second["used"]["tokens"] + told
    models = await by_model(alice, 2)
    assert models["openai/scripted-echo"]["requests"] == 2
    assert models[f"openai/{VECTORS}"]["prompt_tokens"] == told


async def test_usage_is_there_for_whom_nothing_is_limited_too(alice: Caller) -> None:
    said = await alice.post("/v1/chat/completions", json=asked())
    day = await settled(alice, 1)
    assert day["used"]["tokens"] == said.json()["usage"]["total_tokens"]
    assert await settled(alice, 1, holder="token") == day
    (row,) = (await by_model(alice, 1)).values()
    assert (row["model"], row["requests"], row["unpriced"]) == ("openai/scripted-echo", 1, 1)
    assert row["usd"] == "0"


async def test_a_turn_that_nobody_answered_is_not_counted(
    alice: Caller, limit: Limit, scripted_provider: ScriptedProvider
) -> None:
    await limit(alice, day={"requests": 1})
    for surface in ("/v1/chat/completions", "/api/v1/chat/completions"):
        body = asked() if surface.startswith("/v1") else {"message": "hello"}
        failed = await alice.post(surface, json=body | {"model": "scripted-500", "stream": False})
        assert failed.status_code >= 400, failed.text
    await settled(alice, 0)
    assert (await alice.post("/v1/chat/completions", json=asked())).status_code == 200


async def test_a_turn_that_is_cancelled_or_cut_is_charged_what_it_had_used(
    alice: Caller, limit: Limit
) -> None:
    await limit(alice, day={"tokens": 1_000_000})
    cut = {"message": '[[scripted {"cut_after": 3, "chunks": 9}]]', "model": "scripted-cut"}
    await alice.post("/api/v1/chat/completions", json=cut | {"stream": False})
    first = await settled(alice, 1)
    assert first["used"]["tokens"] > 0
    slow = '[[scripted {"chunks": 2000, "chunk_delay": 0.05}]]'
    body = {"message": slow, "model": MODEL, "stream": True}
    async with alice.stream("POST", "/api/v1/chat/completions", json=body) as answer:
        turn = answer.headers["x-baatcheet-turn"]
        async for line in answer.aiter_lines():
            if "delta" in line:
                break
        assert (await alice.post(f"/api/v1/turns/{turn}/cancel")).status_code == 202
    second = await settled(alice, 2)
    assert second["used"]["tokens"] > first["used"]["tokens"]


async def test_a_client_that_leaves_before_the_answer_is_charged_its_prompt(
    alice: Caller, limit: Limit
) -> None:
    await limit(alice, day={"tokens": 1_000_000})
    for stream in (False, True):
        with pytest.raises(httpx.ReadTimeout):
            await alice.post(
                "/v1/chat/completions",
                json=asked("word " * 1_000, stream=stream) | {"model": "scripted-hang"},
                timeout=0.7,
            )
    day = await settled(alice, 2)
    assert day["used"]["tokens"] >= 2 * 1_000


async def test_only_models_on_the_list_are_asked_whatever_they_are_called_by(
    alice: Caller, limit: Limit, scripted_provider: ScriptedProvider
) -> None:
    await limit(alice, models=["openai/scripted-e*"])
    words = secrets.token_hex(8)
    for name in (MODEL, f"openai/{MODEL}"):
        assert (
            await alice.post("/v1/chat/completions", json=asked(words) | {"model": name})
        ).status_code == 200
    asked_before = len(scripted_provider.chats)
    for name in ("scripted", "openai/scripted", "auto"):
        refused = await alice.post("/v1/chat/completions", json=asked(words) | {"model": name})
        assert refused.status_code == 403, refused.text
        error = refused.json()["error"]
        assert error["code"] == "model_not_allowed"
        assert "Your user may use openai/scripted-e*" in error["message"]
    assert len(scripted_provider.chats) == asked_before
    vectors = await alice.post("/v1/embeddings", json={"model": VECTORS, "input": "one"})
    assert vectors.status_code == 403
    listed = [one["id"] for one in (await alice.get("/v1/models")).json()["data"]]
    assert "openai/scripted" not in listed


async def test_a_conversations_own_model_is_held_to_the_list_too(
    alice: Caller, limit: Limit, scripted_provider: ScriptedProvider
) -> None:
    made = await alice.post("/api/v1/conversations", json={"title": "t", "model": "scripted"})
    await limit(alice, models=[f"openai/{MODEL}"])
    body = {"message": secrets.token_hex(8), "conversation_id": made.json()["id"], "stream": False}
    refused = await alice.post("/api/v1/chat/completions", json=body)
    assert refused.status_code == 403, refused.text
    assert refused.json()["type"] == "model-not-allowed"
    assert not any(body["message"] in str(one.body) for one in scripted_provider.chats)
    await settled(alice, 0)


async def test_a_repeated_idempotency_key_finds_its_turn_and_costs_nothing_more(
    alice: Caller, limit: Limit
) -> None:
    await limit(alice, day={"requests": 1})
    key = {"idempotency-key": secrets.token_hex(8)}
    first = await alice.post("/v1/chat/completions", json=asked(), headers=key)
    assert first.status_code == 200, first.text
    await settled(alice, 1)
    again = await alice.post("/v1/chat/completions", json=asked(), headers=key)
    assert again.status_code == 200, again.text
    assert again.headers["idempotent-replayed"] == "true"
    await settled(alice, 1)


async def test_money_is_charged_by_the_price_and_a_model_without_one_is_refused(
    alice: Caller, limit: Limit, database: Database
) -> None:
    await limit(alice, month={"usd": "0.00000001"})
    refused = await alice.post("/v1/chat/completions", json=asked())
    assert refused.status_code == 403, refused.text
    assert refused.json()["error"]["code"] == "model_not_priced"
    async with database.system() as session:
        await session.execute(
            text(
                "INSERT INTO model_prices (pattern, prompt, completion) VALUES ('openai/scripted-echo', 1, 2) "
                "ON CONFLICT DO NOTHING"
            )
        )
        await session.execute(text("UPDATE spending_changes SET prices = prices + 1"))
    try:
        await limit(alice, month={"usd": "0.00000001"})
        said = await alice.post("/v1/chat/completions", json=asked())
        assert said.status_code == 200, said.text
        tokens = said.json()["usage"]
        day = await settled(alice, 1)
        worth = tokens["prompt_tokens"] * 100 + tokens["completion_tokens"] * 200
        assert day["used"]["usd"] == f"{worth / 10**8:.8f}".rstrip("0")
        refused = await alice.post("/v1/chat/completions", json=asked())
        assert "budget of 0.00000001 USD a month is used up" in refused.json()["error"]["message"]
    finally:
        async with database.system() as session:
            await session.execute(text("DELETE FROM model_prices WHERE pattern = 'openai/scripted-echo'"))
            await session.execute(text("UPDATE spending_changes SET prices = prices + 1"))


async def test_limits_are_an_administrators_to_set_and_their_holders_to_see(
    admin: Caller, alice: Caller, bob: Caller, new_caller: NewCaller, limit: Limit, database: Database
) -> None:
    where = f"/api/v1/users/{alice.user_id}/limits"
    assert (await alice.put(where, json={})).status_code == 403
    limits = {"models": ["groq/*", "groq/*"], "day": {"requests": 5}, "month": {"tokens": 7, "usd": "1.50"}}
    made = await admin.put(where, json=limits)
    assert made.status_code == 200, made.text
    shown = {
        "models": ["groq/*"],
        "day": {"requests": 5, "tokens": None, "usd": None},
        "month": {"requests": None, "tokens": 7, "usd": "1.5"},
    }
    assert made.json() == shown
    assert (await admin.get(where)).json() == shown
    assert (await usage(alice))["user"]["limits"] == shown
    assert (await usage(bob))["user"]["limits"]["models"] is None
    told = (await admin.get(f"/api/v1/users/{alice.user_id}/usage")).json()
    assert told["user"]["limits"] == shown
    async with database.system() as session:
        entry = (
            await session.execute(
                text("SELECT actor_id, via, action FROM audit_entries WHERE subject = :subject"),
                {"subject": f"user/{alice.user_id}"},
            )
        ).one()
    assert (entry.actor_id, entry.via, entry.action) == (admin.user_id, "api", "limits.set")
    assert (await admin.put(where, json={})).json()["models"] is None


@pytest.mark.parametrize(
    "body",
    [
        {"day": {"requests": -1}},
        {"day": {"requests": 10**30}},
        {"day": {"requests": True}},
        {"day": {"tokens": 1.5}},
        {"month": {"usd": 1.5}},
        {"month": {"usd": "1e5"}},
        {"month": {"usd": "-1"}},
        {"month": {"usd": "0.000000001"}},
        {"models": []},
        {"models": ["a b"]},
        {"models": ["\u0000"]},
        {"models": ["x" * 201]},
        {"week": {}},
    ],
)
async def test_limits_that_are_none_are_refused(admin: Caller, alice: Caller, body: dict[str, Any]) -> None:
    answer = await admin.put(f"/api/v1/users/{alice.user_id}/limits", json=body)
    assert answer.status_code == 422, answer.text
    missing = await admin.put(f"/api/v1/users/{UUID(int=7)}/limits", json={})
    assert missing.status_code == 404
    assert (await admin.put(f"/api/v1/tokens/{UUID(int=7)}/limits", json={})).status_code == 404


async def test_a_tokens_limits_hold_for_that_token_alone(
    alice: Caller, new_caller: NewCaller, limit: Limit
) -> None:
    other = await new_caller("other", user_id=alice.user_id)
    await limit(other, token=True, day={"requests": 0})
    refused = await other.post("/v1/chat/completions", json=asked())
    assert refused.json()["error"]["message"].startswith("This token's budget of 0 requests a day")
    assert (await alice.post("/v1/chat/completions", json=asked())).status_code == 200


async def test_a_recording_is_held_to_the_list_and_charged(
    alice: Caller, limit: Limit, admin: Caller
) -> None:
    await limit(alice, models=["groq/*"])
    audio = {"file": ("a.wav", b"RIFF\x24\x00\x00\x00WAVEfmt ", "audio/wav")}
    refused = await alice.post("/v1/audio/transcriptions", files=audio, data={"model": "whisper-1"})
    assert refused.status_code == 403, refused.text
    assert "openai/whisper-1" in refused.json()["error"]["message"]
