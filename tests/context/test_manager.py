"""From what is stored to a plan, beside other work."""

import asyncio

import pytest

from baatcheet.context.counting import count
from baatcheet.context.history import History
from baatcheet.context.manager import Asked
from baatcheet.context.planning import Item
from baatcheet.providers.model import ModelCard
from tests.context.conftest import NewManager

LONG = "a word and " * 20_000


@pytest.mark.parametrize(
    "content", [LONG, [{"type": "text", "text": LONG}], " " * 400_000], ids=["text", "parts", "few tokens"]
)
async def test_others_go_on_while_a_long_message_is_cut(new_manager: NewManager, content: object) -> None:
    turns = 0

    async def go_on() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    model = ModelCard(provider="lab", name="model", context_window=8_192)
    text = content if isinstance(content, str) else LONG
    new = Item({"role": "user", "content": content}, count(text) + 4)
    manager = new_manager(max_tokens=1_500)
    others = asyncio.create_task(go_on())
    plan = await manager.plan(model, Asked(History(None, 0), [new]), manager.config)
    others.cancel()
    assert plan.chosen[0].cut
    assert plan.tokens <= plan.budget
    assert turns


async def test_others_go_on_while_a_long_message_of_the_history_is_cut(new_manager: NewManager) -> None:
    turns = 0

    async def go_on() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    manager = new_manager(max_tokens=1_500)
    said = (Item({"role": "user", "content": LONG}, count(LONG) + 4),)
    new = Item({"role": "user", "content": "What was that?"}, 8, depth=1)
    others = asyncio.create_task(go_on())
    plan = await manager.plan(None, Asked(History(None, 0, said), [new]), manager.config)
    others.cancel()
    assert [one.cut for one in plan.chosen] == [True, False]
    assert 1_000 < plan.tokens <= plan.budget
    assert turns
