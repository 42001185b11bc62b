"""Looking at a larger context than the deployment's, and back."""

from baatcheet.context.manager import ContextConfig
from tests.context.conftest import MAX_MESSAGES, NewManager, Talk, sentences


async def test_a_larger_look_is_the_same_whatever_was_looked_at_before(
    talk: Talk, new_manager: NewManager
) -> None:
    await talk.say(*sentences(MAX_MESSAGES * 3))
    manager = new_manager()
    large = ContextConfig(max_tokens=100_000, max_messages=1_000)
    first = await manager.get_context(talk.id, large, user_id=talk.user)
    assert len(first.messages) == MAX_MESSAGES * 3
    await manager.get_context(talk.id, user_id=talk.user)
    assert await manager.get_context(talk.id, large, user_id=talk.user) == first
