"""The planner knows that a conversation has one owner.

It took a conversation's rows and its owner's for independent of each other, so of a conversation of a thousand turns it
expected a handful to be the owner's, and read all of them, and all of the owner's others, to sort that handful.
"""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

# A sample, in seconds, beside those who write. Not of an empty table, which would be taken for one that stays empty: plans
# that were made then read it from end to end as it grows.
ANALYZE = """
DO $$ BEGIN
    IF EXISTS (SELECT FROM {table}) THEN ANALYZE {table} (conversation_id, user_id); END IF;
END $$
"""
TABLES = {"messages": "message_owner", "turns": "turn_owner"}


def upgrade() -> None:
    for table, name in TABLES.items():
        op.execute(f"CREATE STATISTICS {name} (dependencies) ON conversation_id, user_id FROM {table}")
        op.execute(ANALYZE.format(table=table))


def downgrade() -> None:
    for name in TABLES.values():
        op.execute(f"DROP STATISTICS {name}")
