"""What is looked up in a table of many rows is found by an index."""

from uuid import UUID

from sqlalchemy import text

from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database
from tests.conftest import Caller

FILL = """
INSERT INTO messages (id, conversation_id, user_id, turn_id, role, content)
SELECT gen_random_uuid(), :conversation, :user, turn, 'user', 'x'
FROM unnest(CAST(:turns AS uuid[])) turn, generate_series(1, 2)
"""
# As `open_turns` asks.
OF_A_TURN = "SELECT m.parent_id FROM messages m WHERE m.turn_id = :turn ORDER BY m.id LIMIT 1"


async def test_an_opening_whose_answer_was_lost_finds_its_messages_by_their_turn(
    alice: Caller, database: Database
) -> None:
    conversation = (await alice.post("/api/v1/conversations", json={"title": "t"})).json()["id"]
    turns = [new_id() for _ in range(10_000)]
    async with database.system() as session:
        values = {"conversation": UUID(conversation), "user": alice.user_id, "turns": turns}
        await session.execute(text(FILL), values)
        await session.execute(text("ANALYZE messages"))
        plan = "\n".join(await session.scalars(text(f"EXPLAIN {OF_A_TURN}"), {"turn": turns[-1]}))
        await session.rollback()
    assert "using idx_message_turn" in plan or "on idx_message_turn" in plan, plan
