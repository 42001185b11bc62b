"""A conversation that no longer fits the window: what is pruned is summarised, and recalled when it is asked about."""

import asyncio
from typing import Any

import httpx

from baatcheet.context import counting
from tests.chat.conftest import Upstream

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
    total = sum([counting.count(str(m["content"])) + counting.MESSAGE_OVERHEAD for m in sent])
    assert total + counting.REPLY_PRIMING <= 8000
    receipt = (await alice.get(f"/api/v1/turns/{turn['turn_id']}/context")).json()["receipt"]
    assert receipt["tokens"] == total + counting.REPLY_PRIMING
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
