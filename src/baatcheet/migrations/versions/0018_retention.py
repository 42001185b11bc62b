"""Deleting, restoring, forgetting.

A conversation that was deleted has `deleted_at`, and can be restored until it is forgotten. Whoever reads
conversations for any other purpose leaves it out, the functions of a turn first of all.
"""

from importlib import import_module

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

ROLE = "baatcheet_tenant"

# With a constant for its default, a column takes no rewriting.
COLUMNS = """
ALTER TABLE conversations
    ADD COLUMN IF NOT EXISTS deleted_at timestamptz, ADD COLUMN IF NOT EXISTS tags text[] NOT NULL DEFAULT '{}'
"""

# Of few rows each: what is neither deleted nor tagged costs them nothing.
INDEXES = {
    "idx_conversation_deleted": "(user_id, deleted_at DESC, id DESC) WHERE deleted_at IS NOT NULL",
    "idx_conversation_forgotten": "(deleted_at) WHERE deleted_at IS NOT NULL",
    "idx_conversation_tagged": "(user_id, updated_at DESC, id DESC) WHERE tags <> '{}'",
}

# A receipt names a user who is no more, so it refers to none; no tenant reads it.
# What they all used together is nobody's, and so it stays: `forgotten_usage` as `model_usage`, `forgotten_analytics` as
# `analytics_daily`.
TABLES = """
CREATE TABLE IF NOT EXISTS user_deletions (
    id uuid CONSTRAINT pk_user_deletions PRIMARY KEY,
    subject uuid NOT NULL CONSTRAINT uq_user_deletions_subject UNIQUE,
    requested_by text NOT NULL
        CONSTRAINT ck_user_deletions_requested_by CHECK (requested_by IN ('owner', 'administrator')),
    status text NOT NULL DEFAULT 'pending'
        CONSTRAINT ck_user_deletions_status CHECK (status IN ('pending', 'completed')),
    rows jsonb NOT NULL DEFAULT '{}',
    files bigint,
    bytes bigint,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    completed_at timestamptz
);
CREATE TABLE IF NOT EXISTS forgotten_usage (
    day date NOT NULL,
    model text NOT NULL,
    kind text NOT NULL,
    requests bigint NOT NULL DEFAULT 0,
    prompt_tokens bigint NOT NULL DEFAULT 0,
    cached_tokens bigint NOT NULL DEFAULT 0,
    completion_tokens bigint NOT NULL DEFAULT 0,
    recorded_seconds bigint NOT NULL DEFAULT 0,
    microcents bigint NOT NULL DEFAULT 0,
    unpriced bigint NOT NULL DEFAULT 0,
    CONSTRAINT pk_forgotten_usage PRIMARY KEY (day, model, kind)
);
CREATE TABLE IF NOT EXISTS forgotten_analytics (
    date date NOT NULL,
    model text NOT NULL,
    {amounts},
    CONSTRAINT pk_forgotten_analytics PRIMARY KEY (date, model)
);
"""
NEW_TABLES = ("user_deletions", "forgotten_usage", "forgotten_analytics")

# Deleting tells of it once: when the conversation goes out of sight.
TELL_CONVERSATION = """
CREATE OR REPLACE FUNCTION tell_conversation() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    talk conversations%ROWTYPE := CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
    what text := CASE TG_OP WHEN 'INSERT' THEN 'conversation.created' WHEN 'UPDATE' THEN 'conversation.updated'
                            ELSE 'conversation.deleted' END;
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF OLD.deleted_at IS NOT NULL OR coalesce(current_setting('baatcheet.quiet', true), '') = 'on' THEN
            RETURN NULL;
        END IF;
    ELSIF TG_OP = 'UPDATE' THEN
        IF OLD.deleted_at IS NULL AND NEW.deleted_at IS NOT NULL THEN
            what := 'conversation.deleted';
        ELSIF OLD.deleted_at IS NOT NULL AND NEW.deleted_at IS NULL THEN
            what := 'conversation.restored';
        END IF;
    END IF;
    INSERT INTO outbox (user_id, type, conversation_id, data) VALUES (
        talk.user_id, what, talk.id,
        jsonb_build_object('conversation_id', talk.id, 'title', talk.title, 'project_id', talk.project_id,
                           'model', talk.model, 'archived', talk.archived, 'pinned', talk.pinned,
                           'tags', talk.tags));
    RETURN NULL;
END $$
"""
TOLD = ("title", "project_id", "model", "archived", "pinned", "system_prompt", "tags", "deleted_at")


def trigger(columns: tuple[str, ...]) -> str:
    """The trigger that tells of changes of these columns."""

    def of(row: str) -> str:
        return ", ".join(f"{row}.{column}" for column in columns)

    return (
        f"CREATE TRIGGER tell_changed AFTER UPDATE OF {', '.join(columns)} ON conversations FOR EACH ROW "
        f"WHEN (({of('OLD')}) IS DISTINCT FROM ({of('NEW')})) EXECUTE FUNCTION tell_conversation()"
    )


# Where the functions of a turn look for a conversation. A conversation that was opened for nothing is taken back elsewhere.
_ITS = "c.id = item.conversation AND c.user_id = item.tenant"
LOOKED_FOR = {
    "OPEN_TURNS": (f"WHERE {_ITS} FOR NO KEY UPDATE", f"WHERE {_ITS}\n                ) THEN 'locked'"),
    "CONTEXT_OF": ("WHERE c.id = conversation AND c.user_id = tenant",),
}


def of_a_turn() -> dict[str, str]:
    """The functions of a turn as they were before this."""
    before = import_module("baatcheet.migrations.versions.0004_context")
    return {
        name: getattr(before, name).replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1)
        for name in LOOKED_FOR
    }


def without_deleted(name: str, function: str) -> str:
    for place in LOOKED_FOR[name]:
        if function.count(place) != 1:
            raise RuntimeError(f"{name} looks for a conversation in another way: {place!r} is not in it")
        whose = "tenant"
        function = function.replace(place, place.replace(whose, f"{whose} AND c.deleted_at IS NULL", 1))
    return function


def upgrade() -> None:
    """Every step may be made twice: the indexes are made outside the transaction, and may be interrupted."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute(COLUMNS)
    amounts = import_module("baatcheet.migrations.versions.0017_analytics").AMOUNTS
    columns = ", ".join(f"{one} bigint NOT NULL DEFAULT 0" for one in amounts)
    for statement in TABLES.replace("{amounts}", columns).split(";\n"):
        if statement.strip():
            op.execute(statement)
    for table in NEW_TABLES:  # without a policy, a tenant sees none of it
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"GRANT SELECT ON user_identities TO {ROLE}")  # it is in the archive of one's own data
    for name, function in of_a_turn().items():
        op.execute(without_deleted(name, function))
    op.execute(TELL_CONVERSATION)
    op.execute("DROP TRIGGER IF EXISTS tell_changed ON conversations")
    op.execute(trigger(TOLD))
    with op.get_context().autocommit_block():
        for name, definition in INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON conversations {definition}")


def downgrade() -> None:
    events = import_module("baatcheet.migrations.versions.0005_jobs_and_events")
    op.execute("SET LOCAL lock_timeout = '5s'")
    # What was deleted must not come back: a version that knows no deleted conversations would show them.
    op.execute("DELETE FROM conversations WHERE deleted_at IS NOT NULL")
    op.execute("DROP TRIGGER tell_changed ON conversations")
    for function in of_a_turn().values():
        op.execute(function)
    before = events.TRIGGERS.partition("CREATE TRIGGER")[0].strip().rstrip(";")
    op.execute(before.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1))
    op.execute(trigger(TOLD[:-2]))
    for table in NEW_TABLES:
        op.execute(f"DROP TABLE {table}")
    op.execute(f"REVOKE SELECT ON user_identities FROM {ROLE}")  # noqa: S608
    op.execute("ALTER TABLE conversations DROP COLUMN deleted_at, DROP COLUMN tags")
