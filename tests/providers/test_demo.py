"""The built-in demo."""

import json

import pytest

from baatcheet.providers.adapters.demo import CARD, DemoProvider
from baatcheet.providers.model import Body, ProviderError

FIRST = {"role": "user", "content": "my cat is called Billi"}
TALK = {
    "messages": [
        FIRST,
        {"role": "assistant", "content": "…"},
        {"role": "user", "content": "what is its name?"},
    ]
}


async def stream(body: Body) -> tuple[str, list[bytes]]:
    async with DemoProvider(delay=0).stream(CARD, body) as blocks:
        chunks = [chunk async for block in blocks for chunk in block]
    assert [c.finish_reason for c in chunks if c.finish_reason] == ["stop"]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens > 0
    return "".join(chunk.text for chunk in chunks), [chunk.raw for chunk in chunks]


async def test_it_says_that_it_is_a_demo_and_how_to_add_a_key() -> None:
    text, _ = await stream({"messages": [FIRST]})
    assert "demo" in text
    assert "not a language model" in text
    assert "GROQ_API_KEY=" in text
    assert ".env" in text
    assert "1 message of" in text


async def test_it_shows_that_it_was_given_the_conversation() -> None:
    text, _ = await stream(TALK)
    assert "3 messages" in text
    assert "my cat is called Billi" in text
    assert "what is its name?" in text


async def test_its_chunks_hold_what_its_text_says() -> None:
    text, raw = await stream(TALK)
    values = [json.loads(one) for one in raw]
    assert "".join(c["delta"].get("content", "") for v in values for c in v["choices"]) == text
    assert len({v["id"] for v in values}) == 1
    assert values[-1]["usage"]["total_tokens"] > 0


async def test_its_whole_reply_is_the_streamed_one() -> None:
    text, _ = await stream(TALK)
    completion = await DemoProvider().complete(CARD, TALK)
    assert json.loads(completion.raw)["choices"][0]["message"]["content"] == text
    assert completion.usage is not None


async def test_it_survives_content_of_any_form() -> None:
    parts = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "data:,"}}, 7]
    text, _ = await stream({"messages": [{"role": "user", "content": parts}, {"role": "user"}, 5]})
    assert "look" in text


async def test_it_has_no_embeddings() -> None:
    with pytest.raises(ProviderError, match="no embeddings"):
        await DemoProvider().embed(CARD, {"input": "x"})
