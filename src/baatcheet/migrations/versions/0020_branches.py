"""A branch is walked message by message, however the planner guesses how long a conversation is.

It knows how many messages a conversation has on average, and where that is few it reads the whole conversation for each
step of the walk rather than the one message that is asked for: fifty milliseconds for a turn in a conversation of 2,000
messages. `OFFSET 0` keeps it from looking for another way. Nor does it expect a thousand branches to lead to a message.
"""

from importlib import import_module

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

BRANCH_PATH = """
CREATE OR REPLACE FUNCTION branch_path(tenant uuid, conversation uuid, head uuid)
RETURNS TABLE (branch uuid, last integer) LANGUAGE plpgsql STABLE ROWS 8 AS $$
BEGIN
    RETURN QUERY
    WITH RECURSIVE chain AS (
        SELECT m.branch_id AS branch, m.depth AS last FROM messages m
        WHERE m.id = head AND m.conversation_id = conversation AND m.user_id = tenant
        UNION ALL
        SELECT p.branch_id, p.depth FROM chain c
        CROSS JOIN LATERAL (SELECT f.parent_id FROM messages f WHERE f.id = c.branch OFFSET 0) f
        CROSS JOIN LATERAL (
            SELECT p.branch_id, p.depth, p.conversation_id FROM messages p WHERE p.id = f.parent_id OFFSET 0
        ) p
        WHERE p.conversation_id = conversation
    )
    SELECT c.branch, c.last FROM chain c;
END $$
"""

_JOIN = """        JOIN messages m ON m.id = p.parent_id AND m.conversation_id = conversation
        LEFT JOIN context_summaries s ON s.upto_id = m.id AND s.user_id = tenant
        WHERE (p.summary"""
_STEP = """        CROSS JOIN LATERAL (SELECT m.* FROM messages m WHERE m.id = p.parent_id OFFSET 0) m
        LEFT JOIN context_summaries s ON s.upto_id = m.id AND s.user_id = tenant
        WHERE m.conversation_id = conversation AND (p.summary"""


def upgrade() -> None:
    before = import_module("baatcheet.migrations.versions.0004_context")
    assert before.BRANCH_HISTORY.count(_JOIN) == 1
    op.execute(BRANCH_PATH)
    op.execute(_replacing(before.BRANCH_HISTORY.replace(_JOIN, _STEP)))


def downgrade() -> None:
    before = import_module("baatcheet.migrations.versions.0004_context")
    op.execute(_replacing(before.BRANCH_PATH))
    op.execute(_replacing(before.BRANCH_HISTORY))


def _replacing(function: str) -> str:
    """Keeps who may call it."""
    return function.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")
