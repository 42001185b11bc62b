"""Processes, and the indexes that queries need."""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

# What a process tells of its pool each time it renews its lease. A constant default rewrites no row.
PROCESSES = """
ALTER TABLE processes
    ADD COLUMN IF NOT EXISTS in_use integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS waiting integer NOT NULL DEFAULT 0
"""

# By name: the table, what it is now, what it was. A user who is deleted takes all their rows along, and those that are not
# shown were found by no index; administrators are looked for among all users. Messages of one role are listed by time.
INDEXES = {
    "idx_job_user": ("jobs", "(user_id, visible, id DESC)", "(user_id, id DESC) WHERE visible"),
    "idx_notification_user": (
        "notifications",
        "(user_id, listed, id DESC)",
        "(user_id, id DESC) WHERE listed",
    ),
    "idx_message_role": (
        "messages",
        "(conversation_id, role, created_at DESC, id DESC)",
        "(conversation_id, role, id DESC)",
    ),
    "idx_user_admin": ("users", "(id) WHERE role = 'admin'", None),
    "idx_event_created": ("events", None, "(created_at)"),  # nothing has ever asked by it
}


def make(name: str, table: str, definition: str | None) -> None:
    """Make the index this instead of what it is, beside those who read and write; it may be begun again."""
    if definition is not None:
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}_new")
        op.execute(f"CREATE INDEX CONCURRENTLY {name}_new ON {table} {definition}")
    op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
    if definition is not None:
        op.execute(f"ALTER INDEX {name}_new RENAME TO {name}")


def upgrade() -> None:
    op.execute(PROCESSES)
    with op.get_context().autocommit_block():
        for name, (table, definition, _) in INDEXES.items():
            make(name, table, definition)


def downgrade() -> None:
    op.execute("ALTER TABLE processes DROP COLUMN IF EXISTS in_use, DROP COLUMN IF EXISTS waiting")
    with op.get_context().autocommit_block():
        for name, (table, _, definition) in INDEXES.items():
            make(name, table, definition)
