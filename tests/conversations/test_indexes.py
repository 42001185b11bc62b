"""What is looked up in a table of many rows is found by an index."""

import re
from collections.abc import AsyncIterator
from importlib import import_module
from typing import Any
from uuid import UUID

import pytest_asyncio
from sqlalchemy import text

from baatcheet.context.store import _SIZES
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


MESSAGES = 12_000
BRANCH = """
INSERT INTO messages (id, conversation_id, user_id, parent_id, role, content)
SELECT m.id, $1, $2, m.parent, 'user', 'x'
FROM unnest($3::uuid[], $4::uuid[]) WITH ORDINALITY AS m(id, parent, at) ORDER BY m.at
"""
PASSAGES = """
INSERT INTO recall_passages (conversation_id, user_id, message_id, branch_id, depth, part, parts, role, length, tokens,
                             signals, ordinal, total_length, keys, created_at)
SELECT $1, $2, m.id, m.branch_id, m.depth, 0, 1, 'user', 3, 3, 0, m.depth + 1, 3 * (m.depth + 1),
       ARRAY[m.depth, 1000000 + m.depth / 10, 5000000], now()
FROM messages m WHERE m.conversation_id = $1
"""


@pytest_asyncio.fixture
async def long_branch(alice: Caller, database: Database) -> AsyncIterator[tuple[Any, UUID, UUID]]:
    """A connection on which there is a very long, indexed conversation, its id and its head. Nothing stays of it."""
    conversation = UUID((await alice.post("/api/v1/conversations", json={"title": "t"})).json()["id"])
    ids = [new_id() for _ in range(MESSAGES)]
    async with database.hot(limit=60) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(BRANCH, conversation, alice.user_id, ids, [None, *ids[:-1]])
        await connection.execute(PASSAGES, conversation, alice.user_id)
        await connection.execute("ANALYZE messages, recall_passages")
        yield connection, conversation, ids[-1]
        await transaction.rollback()


async def plan_of(connection: Any, statement: str, *arguments: Any) -> str:
    return "\n".join([row[0] for row in await connection.fetch(f"EXPLAIN {statement}", *arguments)])


async def test_the_messages_of_a_branch_are_found_by_their_depth(
    alice: Caller, long_branch: tuple[Any, UUID, UUID]
) -> None:
    connection, conversation, head = long_branch
    assert len(await connection.fetch(_SIZES, alice.user_id, conversation, head, 500, 599)) == 100
    plan = await plan_of(connection, _SIZES, alice.user_id, conversation, head, 500, 599)
    assert "idx_message_branch" in plan, plan
    assert "Seq Scan" not in plan, plan


async def test_passages_are_found_by_their_keys(alice: Caller, long_branch: tuple[Any, UUID, UUID]) -> None:
    connection, _, _ = long_branch
    migration = import_module("baatcheet.migrations.versions.0004_context")
    inner = re.search(r"SELECT f\.\*[^;]*?OFFSET 0", migration.RECALL_HITS)
    assert inner is not None
    await connection.execute("SET LOCAL enable_seqscan = off")  # as the function is declared
    assert "SET enable_seqscan = off" in migration.RECALL_HITS
    query = inner[0].replace("k.key", "$1::bigint")
    for key in (7, 1_000_007, 5_000_000, -1):
        plan = await plan_of(connection, query, key)
        assert "idx_recall_passages_keys" in plan, plan


async def test_the_search_itself_reads_no_table_from_end_to_end(
    alice: Caller, long_branch: tuple[Any, UUID, UUID]
) -> None:
    connection, conversation, head = long_branch
    scans = "SELECT pg_stat_get_xact_numscans($1::text::regclass)"
    names = ("idx_recall_passages_keys", "recall_passages", "messages")
    before = [await connection.fetchval(scans, name) for name in names]
    row = await connection.fetchrow(
        "SELECT * FROM recall_hits($1, $2, $3, $4, $5, $6, $7, $8)",
        alice.user_id,
        conversation,
        head,
        MESSAGES - 50,
        [7, 1_000_100, -1],
        [400] * 3,
        0,
        4_000,
    )
    assert (row["indexed"], sorted(row["depths"])) == (MESSAGES - 1, [7, *range(1_000, 1_010)])
    after = [await connection.fetchval(scans, name) for name in names]
    by_key, whole, messages = [new - old for new, old in zip(after, before, strict=True)]
    assert by_key == 3, "once for each key"
    assert (whole, messages) == (0, 0)
