"""From stored messages to a plan, beside other work."""

import asyncio

import pytest

from baatcheet.context.counting import count
from baatcheet.context.planning import Item
from baatcheet.context.window import Window
from baatcheet.platform.settings import ContextSettings
from baatcheet.providers.model import ModelCard

LONG = "a word and " * 20_000


@pytest.mark.parametrize(
    "content", [LONG, [{"type": "text", "text": LONG}], " " * 400_000], ids=["text", "parts", "few tokens"]
)
async def test_others_go_on_while_a_long_message_is_cut(content: object) -> None:
    turns = 0

    async def go_on() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    model = ModelCard(provider="lab", name="model", context_window=8_192)
    text = content if isinstance(content, str) else LONG
    new = Item({"role": "user", "content": content}, count(text) + 4)
    others = asyncio.create_task(go_on())
    plan = await Window(ContextSettings(max_tokens=1_500)).plan(
        model, system_prompt=None, history=(), new=[new]
    )
    others.cancel()
    assert plan.chosen[0].cut
    assert plan.tokens <= plan.budget
    assert turns
