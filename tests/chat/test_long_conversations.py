"""A conversation that no longer fits the window: what is pruned is summarised, and recalled when it is asked about."""

# ruff: noqa: RUF001 - letters and punctuation of several scripts, each meant

import asyncio
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from redis.asyncio import Redis

from baatcheet.auth.bootstrap import ensure_admin
from baatcheet.context import counting
from baatcheet.platform.database import Database
from baatcheet.platform.settings import Settings
from tests.chat.conftest import Upstream
from tests.conftest import ADMIN_TOKEN, Caller
from tests.context.conftest import Talk, talk_of
from tests.running import api_process, new_user
from tests.scripted_provider import ScriptedProvider, Step
from tests.valkey_server import ValkeyServer

# What a server without this provider must not be told.
_OF_OPENAI = ("OPENAI_", "BAATCHEET_AUDIO_ENGINES")

# Summaries are made by a worker.
pytestmark = pytest.mark.usefixtures("worker")

CHATTER = (
    "The weather in the hills was lovely and we walked along the river until the evening came.",
    "I finished the report about the quarterly numbers, and the team was happy with the charts.",
    "We cooked lentils with rice, and the neighbours brought a bowl of yoghurt with mint.",
    "The train was late again, so I read a few chapters of the novel about the lighthouse.",
    "My phone's battery is weak, and the shop around the corner had no cable that fits.",
    "The garden needs water in the morning, else the tomatoes hang their heads by noon.",
    "There was a football match on the radio, and nobody could tell who had scored.",
)


async def conversation_of(caller: httpx.AsyncClient, texts: list[str], **more: Any) -> str:
    """A conversation with `texts`, the user's and the assistant's in turn."""
    made = await caller.post("/api/v1/conversations", json={"title": "A long one", **more})
    assert made.status_code == 201, made.text
    conversation: str = made.json()["id"]
    for at, text in enumerate(texts):
        body = {"role": "assistant" if at % 2 else "user", "content": text}
        added = await caller.post(f"/api/v1/conversations/{conversation}/messages", json=body)
        assert added.status_code == 201, added.text
    return conversation


def chatter(count: int, words: int = 80) -> list[str]:
    return [
        f"{at}: " + " ".join([CHATTER[(at * 3 + n) % len(CHATTER)] for n in range(max(1, words // 16))])
        for at in range(count)
    ]


def texts(messages: list[dict[str, Any]]) -> str:
    return "\n".join([str(message["content"]) for message in messages])


async def ask(caller: httpx.AsyncClient, conversation: str, message: str) -> dict[str, Any]:
    answer = await caller.post(
        "/api/v1/chat/completions", json={"conversation_id": conversation, "message": message}
    )
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def check_size(turn: dict[str, Any], most: int) -> None:
    """By the FAKE provider's own count, of four characters a token, a prompt is of the size that was planned."""
    assert 0 < turn["usage"]["prompt_tokens"] <= most * 2


async def test_a_fact_of_the_third_message_reaches_the_model_when_it_is_asked_about(
    alice: httpx.AsyncClient, upstream: Upstream
) -> None:
    said = chatter(100)
    said[2] = "By the way, my sister Mahnoor is allergic to peanuts, and she arrives on the 14th of March."
    conversation = await conversation_of(alice, said, system_prompt="You are a friend of the family.")
    question = "What is Mahnoor allergic to?"
    turn = await ask(alice, conversation, question)
    sent = upstream.last_messages(question)
    assert sent[0] == {"role": "system", "content": "You are a friend of the family."}
    assert sent[-1]["content"] == question
    assert [message["content"] for message in sent if message["content"] in said][-20:] == said[-20:]
    assert "Mahnoor is allergic to peanuts" in texts(sent)
    check_size(turn, 8000)
    receipt = (await alice.get(f"/api/v1/turns/{turn['turn_id']}/context")).json()["receipt"]
    assert receipt["tokens"] <= receipt["budget"] <= 8000
    assert sum(receipt["parts"].values()) < receipt["tokens"]
    assert receipt["recalled"]


async def settled(caller: httpx.AsyncClient, conversation: str) -> dict[str, Any]:
    """What the next turn would carry, once the messages that left the window are summarised."""
    async with asyncio.timeout(20):
        while True:
            answer = await caller.get(f"/api/v1/conversations/{conversation}/context")
            assert answer.status_code == 200, answer.text
            context: dict[str, Any] = answer.json()
            if context["receipt"]["summarised"] and not context["receipt"]["left_out"]:
                return context
            await asyncio.sleep(0.05)


async def test_messages_that_left_the_window_are_summarised_in_the_background(
    alice: httpx.AsyncClient, upstream: Upstream
) -> None:
    conversation = await conversation_of(alice, chatter(100), system_prompt="Be kind.")
    await ask(alice, conversation, "And how are you today?")
    context = await settled(alice, conversation)
    assert context["receipt"]["parts"]["summary"] > 0
    assert context["receipt"]["summarised"] + len(context["receipt"]["whole"]) == 102
    await ask(alice, conversation, "So far so good?")
    sent = upstream.last_messages("So far so good?")
    assert sent[: len(context["messages"])] == context["messages"], "the prompt is what was shown before"


# Whatever language, whichever process -----------------------------------------------------------------------

FACTS = {
    "English": (
        "By the way, my sister Mahnoor is allergic to peanuts, so no cake for her.",
        "What is Mahnoor allergic to?",
        "allergic to peanuts",
    ),
    "Urdu": (
        "ویسے میری بہن ماہ نور کو مونگ پھلی سے الرجی ہے، اس لیے کیک نہیں کھاتی۔",
        "ماہ نور کو کس چیز سے الرجی ہے؟",
        "مونگ پھلی سے الرجی",
    ),
    "Roman Urdu": (
        "Waise meri behan Mahnoor ko moong phali se allergy hai, is liye woh cake nahi khati.",
        "Mahnoor ko kis cheez se allergy hai?",
        "moong phali se allergy",
    ),
    "Hindi": (
        "वैसे मेरी बहन महनूर को मूँगफली से एलर्जी है, इसलिए वह केक नहीं खाती।",
        "महनूर को किस चीज़ से एलर्जी है?",
        "मूँगफली से एलर्जी",
    ),
}


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def own_environment(
    environment_of_server: Mapping[str, str], settings: Settings, valkey: ValkeyServer
) -> dict[str, str]:
    """A server with a Valkey of its own, and a small window."""
    ensure_admin(environment_of_server["DATABASE_URL"], settings.auth)
    return {
        **environment_of_server,
        "REDIS_URL": valkey.url,
        "BAATCHEET_CACHE_TIMEOUT": "2",
        "BAATCHEET_CONTEXT_MAX_TOKENS": "2000",
    }


async def user_of(caller: httpx.AsyncClient) -> UUID:
    me = await caller.get("/api/v1/me")
    assert me.status_code == 200, me.text
    return UUID(me.json()["user"]["id"])


async def test_a_fact_in_any_language_outlives_the_window_the_process_and_the_cache(
    own_environment: dict[str, str],
    valkey: ValkeyServer,
    database: Database,
    upstream: Upstream,
    tmp_path: Path,
) -> None:
    talks: dict[str, Talk] = {}

    async def ask_all(caller: Caller, when: str) -> None:
        for language, (fact, question, answer) in FACTS.items():
            asked = f"{question} ({when})"
            turn = await ask(caller, str(talks[language].id), asked)
            sent = upstream.last_messages(asked)
            assert answer in texts(sent[:-1]), (language, when)
            assert fact not in [message["content"] for message in sent], "it is no recent message any more"
            check_size(turn, 2000)
            receipt = (await caller.get(f"/api/v1/turns/{turn['turn_id']}/context")).json()["receipt"]
            assert receipt["recalled"], (language, when, receipt)

    with api_process(own_environment, tmp_path / "first.log") as first:
        token = new_user(first.url, ADMIN_TOKEN)
        async with Caller(first.url, token) as caller:
            user = await user_of(caller)
            for language, (fact, _, _) in FACTS.items():
                talks[language] = await talk_of(database, user)
                said = chatter(70, words=48)
                said[2] = fact
                await talks[language].say(*said)
            await ask_all(caller, "at once")
            for talk in talks.values():
                await settled(caller, str(talk.id))
            await ask_all(caller, "after it was summarised")
    async with Redis.from_url(valkey.url) as redis:
        assert await redis.exists(*[f"context:{talk.id}" for talk in talks.values()])
        await redis.flushall()
    with api_process(own_environment, tmp_path / "second.log") as second:
        async with Caller(second.url, token) as caller:
            await ask_all(caller, "in another process")


async def test_a_model_with_a_smaller_window_that_stands_in_is_sent_what_fits_it(
    own_environment: dict[str, str], database: Database, tmp_path: Path
) -> None:
    with (
        ScriptedProvider(models=["wide"], default=Step(status=503)) as wide,
        ScriptedProvider(models=["narrow"]) as narrow,
    ):
        providers = [
            {"name": name, "base_url": at.base_url, "models": [name], "context_window": window}
            for name, at, window in (("wide", wide, 32_768), ("narrow", narrow, 2_048))
        ]
        own = {name: value for name, value in own_environment.items() if not name.startswith(_OF_OPENAI)}
        own |= {"BAATCHEET_PROVIDERS": json.dumps(providers), "BAATCHEET_CONTEXT_MAX_TOKENS": "8000"}
        with api_process(own, tmp_path / "api.log") as running:
            async with Caller(running.url, new_user(running.url, ADMIN_TOKEN)) as caller:
                talk = await talk_of(database, await user_of(caller), "Be a friend of the family.")
                said = chatter(120)
                said[2], question, answer = FACTS["English"]
                said[95] = "The spare key hangs behind the picture of the lighthouse."
                question += " And where does the spare key hang?"
                await talk.say(*said)
                turn = await ask(caller, str(talk.id), question)
                receipt = (await caller.get(f"/api/v1/turns/{turn['turn_id']}/context")).json()["receipt"]
        sent = {}
        for name, at in (("wide", wide), ("narrow", narrow)):
            sent[name] = at.chats[-1].body["messages"]
            assert sent[name][0] == {"role": "system", "content": "Be a friend of the family."}
            assert sent[name][-1]["content"] == question
            assert answer in texts(sent[name][:-1]), name
            assert "behind the picture of the lighthouse" in texts(sent[name][:-1]), name
        recent = [message["content"] for message in sent["narrow"]]
        assert said[95] in [message["content"] for message in sent["wide"]]
        assert said[95] not in recent, "what was recent for the one is recalled for the other"
        sizes = {
            name: sum([counting.count(str(m["content"])) + counting.MESSAGE_OVERHEAD for m in messages])
            for name, messages in sent.items()
        }
        assert 2_048 < sizes["wide"] <= 8_000
        assert sizes["narrow"] + counting.REPLY_PRIMING <= 2_048 - 1_024, "its window less the reply's room"
        assert turn["model"] == "narrow/narrow"
        assert receipt["budget"] <= 1_024
        assert receipt["tokens"] <= receipt["budget"]


async def test_a_fact_in_the_middle_of_a_huge_message_is_recalled_by_its_passage(
    alice: httpx.AsyncClient, upstream: Upstream, database: Database
) -> None:
    talk = await talk_of(database, await user_of(alice))
    pages = [f"Page {at} of the minutes says that the members of table {at} agreed." for at in range(4_000)]
    pages[2_000] = "The code word of the vault is Zanzibar, and nobody may write it down."
    said = chatter(70)
    said[4] = "Here are the minutes. " + " ".join(pages)
    assert counting.count(said[4]) > 50_000
    await talk.say(*said)
    question = "What is the code word of the vault?"
    turn = await ask(alice, str(talk.id), question)
    sent = upstream.last_messages(question)
    assert "The code word of the vault is Zanzibar" in texts(sent[:-1])
    check_size(turn, 8_000)
    receipt = (await alice.get(f"/api/v1/turns/{turn['turn_id']}/context")).json()["receipt"]
    assert receipt["recalled"]
    assert [message["content"] for message in sent if message["content"] in said][-20:] == said[-20:]


async def test_a_new_tool_result_travels_with_its_call_and_the_question_behind_it(
    alice: httpx.AsyncClient, upstream: Upstream, database: Database
) -> None:
    talk = await talk_of(database, await user_of(alice), "You are a cook.")
    said = chatter(100)
    said[2], question, answer = FACTS["English"]
    await talk.say(*said)
    weather = {"type": "function", "function": {"name": "recipes", "parameters": {"type": "object"}}}
    step = json.dumps({"tool_calls": [{"name": "recipes", "arguments": "{}"}]})
    common = {"model": "auto", "conversation": str(talk.id), "tools": [weather]}
    asked = {"role": "user", "content": f"{question} Then find a cake. [[scripted {step}]]"}
    first = await alice.post("/v1/chat/completions", json={**common, "messages": [asked]})
    assert first.status_code == 200, first.text
    (call,) = first.json()["choices"][0]["message"]["tool_calls"]
    result = f"A lemon cake {uuid4()}, " + "with much sugar and more lemons, " * 40
    answered = {"role": "tool", "tool_call_id": call["id"], "content": result}
    # What the scripted provider refuses as OpenAI would: a result without its call, a call without its result.
    second = await alice.post("/v1/chat/completions", json={**common, "messages": [answered]})
    assert second.status_code == 200, second.text
    sent = upstream.last_messages(result[:40])
    assert sent[0] == {"role": "system", "content": "You are a cook."}
    assert [message["role"] for message in sent[-2:]] == ["assistant", "tool"]
    assert sent[-2]["tool_calls"][0]["id"] == call["id"]
    assert sent[-1]["content"] == result
    assert answer in texts(sent[:-2]), "the search is for what the user asked"
    assert asked["content"] in [message["content"] for message in sent], "the question itself is there"
    check_size(second.json(), 8_000)


# What the next turn would carry -------------------------------------------------------------------------------


async def standing(database: Database, conversation: UUID) -> list[Any]:
    """Everything of a conversation that a turn would change."""
    statements = (
        "SELECT to_jsonb(c)::text FROM conversations c WHERE id = $1",
        "SELECT to_jsonb(m)::text FROM messages m WHERE conversation_id = $1 ORDER BY id",
        "SELECT to_jsonb(t)::text FROM turns t WHERE conversation_id = $1 ORDER BY id",
        "SELECT to_jsonb(s)::text FROM context_summaries s WHERE conversation_id = $1 ORDER BY id",
    )
    async with database.hot() as connection:
        return [[row[0] for row in await connection.fetch(one, conversation)] for one in statements]


async def test_what_the_next_turn_would_carry_is_shown_and_nothing_is_written(
    alice: Caller, upstream: Upstream, database: Database
) -> None:
    talk = await talk_of(database, alice.user_id, "Be kind.")
    said = chatter(100)
    said[2], question, answer = FACTS["English"]
    await talk.say(*said)
    where = f"/api/v1/conversations/{talk.id}/context"
    before, requests = await standing(database, talk.id), len(upstream.provider.chats)
    bare = (await alice.get(where)).json()
    assert bare["conversation_id"] == str(talk.id)
    assert bare["head_id"] == str(talk.head)
    assert bare["model"] is None
    assert bare["receipt"]["parts"]["new"] == 0
    assert bare["receipt"]["budget"] == 8_000
    assert [message["content"] for message in bare["messages"]][-20:] == said[-20:]
    dry = (await alice.get(where, params={"message": question})).json()
    assert dry["messages"][-1] == {"role": "user", "content": question}
    assert answer in texts(dry["messages"][:-1])
    assert dry["receipt"]["recalled"]
    for most, messages in ((200, None), (1_500, None), (100_000, 52)):
        fit = (await alice.get(where, params={"message": question, "max_tokens": most})).json()
        total = sum([counting.count(str(m["content"])) + counting.MESSAGE_OVERHEAD for m in fit["messages"]])
        assert fit["tokens"] == fit["receipt"]["tokens"] == total + counting.REPLY_PRIMING <= most
        assert fit["receipt"]["budget"] == most
        assert fit["messages"][0]["content"] == "Be kind."
        # 50 messages of which the new one is one; the system prompt and the excerpts do not count
        assert messages is None or len(fit["messages"]) == messages
    few = (await alice.get(where, params={"max_messages": 4})).json()
    assert [message["content"] for message in few["messages"]][-4:] == said[-4:]
    assert len(few["messages"]) == 5
    fitted = (await alice.get(where, params={"message": question, "model": "openai/scripted"})).json()
    assert fitted["model"] == "openai/scripted"
    assert fitted["receipt"]["tokens"] <= fitted["receipt"]["budget"] <= 8_000
    assert await standing(database, talk.id) == before
    assert len(upstream.provider.chats) == requests
    shown = (await alice.get(where, params={"message": question, "model": "openai/scripted"})).json()
    await ask(alice, str(talk.id), question)
    assert upstream.last_messages(question) == shown["messages"], "and so it was sent"


async def test_a_stranger_is_shown_no_context(alice: Caller, bob: Caller, client: httpx.AsyncClient) -> None:
    conversation = await conversation_of(alice, chatter(2))
    where = f"/api/v1/conversations/{conversation}/context"
    assert (await alice.get(where)).status_code == 200
    theirs = await bob.get(where, params={"message": "What did they say?"})
    none = await bob.get(f"/api/v1/conversations/{uuid4()}/context")
    assert (theirs.status_code, none.status_code) == (404, 404)
    assert theirs.json()["type"] == none.json()["type"]
    assert (await client.get(where)).status_code == 401


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({"max_tokens": "63"}, 422),
        ({"max_tokens": "0"}, 422),
        ({"max_tokens": "many"}, 422),
        ({"max_tokens": "10000001"}, 422),
        ({"max_messages": "1"}, 422),
        ({"max_messages": "1001"}, 422),
        ({"message": "x" * 32_001}, 422),
        ({"model": "m" * 501}, 422),
        ({"model": "no-such/model"}, 404),
    ],
)
async def test_a_context_that_cannot_be_is_refused(
    alice: Caller, params: dict[str, str], status: int
) -> None:
    conversation = await conversation_of(alice, chatter(2))
    refused = await alice.get(f"/api/v1/conversations/{conversation}/context", params=params)
    assert refused.status_code == status, refused.text
    assert refused.json()["status"] == status


async def test_a_context_too_small_for_the_system_prompt_says_so(alice: Caller) -> None:
    conversation = await conversation_of(alice, chatter(2), system_prompt="You are a cook. " * 100)
    where = f"/api/v1/conversations/{conversation}/context"
    refused = await alice.get(where, params={"max_tokens": 100})
    assert refused.status_code in {400, 413, 422}, refused.text
    assert "100" in refused.json()["detail"]
