"""What was used, by user, day (UTC) and model.

Each row of a base table comes to something: a turn that has ended to its tokens, a job that has ended to one job. The
views say what, once for all. Whoever changes such a row writes what has changed to `analytics_fresh`, by trigger and in
the same transaction; it is moved into `analytics_daily` later. Of a turn only its id is written, to `analytics_pending`:
that is all that the end of a turn pays. What goes away with a row that is deleted is written to `analytics_kept`, in the
same transaction again: what was used stays used. So at any moment

    analytics_daily + analytics_fresh + what pending turns come to  =  what the base rows come to + analytics_kept

and the right side is what `analytics_daily` is made of anew. Turns and messages go with their conversation only.
"""

import re
from collections.abc import Sequence

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

ROLE = "baatcheet_tenant"

AMOUNTS = (
    "turns",
    "completed",
    "failed",
    "cancelled",
    "interrupted",
    "messages",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "microcents",
    "unpriced",
    "latency_ms",
    "slowest_ms",
    "jobs_succeeded",
    "jobs_failed",
    "jobs_cancelled",
    "bytes_added",
    "bytes_removed",
)
_AMOUNTS = ",\n    ".join(f"{one} bigint NOT NULL DEFAULT 0" for one in AMOUNTS)

TABLES = f"""
CREATE TABLE analytics_daily (
    user_id uuid NOT NULL CONSTRAINT fk_analytics_daily_user_id REFERENCES users ON DELETE CASCADE,
    date date NOT NULL,
    model text NOT NULL,
    {_AMOUNTS},
    CONSTRAINT pk_analytics_daily PRIMARY KEY (user_id, model, date)
) WITH (fillfactor = 80);
CREATE INDEX idx_analytics_user_date ON analytics_daily (user_id, date DESC);
CREATE INDEX idx_analytics_date ON analytics_daily (date);
CREATE TABLE analytics_fresh (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_analytics_fresh PRIMARY KEY,
    user_id uuid NOT NULL,
    date date NOT NULL,
    model text NOT NULL,
    {_AMOUNTS}
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
CREATE INDEX idx_analytics_fresh_user ON analytics_fresh (user_id);
CREATE TABLE analytics_pending (
    user_id uuid NOT NULL,
    turn_id uuid NOT NULL,
    CONSTRAINT pk_analytics_pending PRIMARY KEY (user_id, turn_id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
CREATE TABLE analytics_kept (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_analytics_kept PRIMARY KEY,
    user_id uuid NOT NULL CONSTRAINT fk_analytics_kept_user_id REFERENCES users ON DELETE CASCADE,
    date date NOT NULL,
    model text NOT NULL,
    {_AMOUNTS}
);
CREATE INDEX idx_analytics_kept_user ON analytics_kept (user_id);
CREATE TABLE analytics_backlog (
    user_id uuid CONSTRAINT pk_analytics_backlog PRIMARY KEY
        CONSTRAINT fk_analytics_backlog_user_id REFERENCES users ON DELETE CASCADE
);
INSERT INTO analytics_backlog SELECT id FROM users;
"""  # noqa: S608 - the parts are constants

# A number that a provider or a client has sent is in no bounds.
VIEWS = """
CREATE VIEW analytics_of_ended WITH (security_invoker = true) AS
SELECT t.id, t.user_id, t.conversation_id,
    (coalesce(t.ended_at, t.created_at) AT TIME ZONE 'UTC')::date AS date,
    left(coalesce(t.answered_by, t.receipt #>> '{route,tried,-1,model}', ''), 300) AS model,
    1 AS turns,
    (t.status = 'completed')::integer AS completed,
    (t.status = 'failed')::integer AS failed,
    (t.status = 'cancelled')::integer AS cancelled,
    (t.status = 'interrupted')::integer AS interrupted,
    coalesce(t.prompt_tokens, 0) AS prompt_tokens,
    CASE WHEN jsonb_typeof(t.usage #> '{prompt_tokens_details,cached_tokens}') = 'number'
         THEN least(greatest(0, trunc((t.usage #> '{prompt_tokens_details,cached_tokens}')::numeric)),
                    coalesce(t.prompt_tokens, 0))::bigint ELSE 0 END AS cached_tokens,
    coalesce(t.completion_tokens, 0) AS completion_tokens,
    CASE WHEN jsonb_typeof(t.usage -> 'microcents') = 'number'
         THEN least(greatest(0, trunc((t.usage -> 'microcents')::numeric)), 1000000000000000)::bigint
         ELSE 0 END AS microcents,
    (t.usage IS NOT NULL AND jsonb_typeof(t.usage -> 'microcents') IS DISTINCT FROM 'number')::integer AS unpriced,
    CASE WHEN t.status = 'completed' AND t.ended_at > t.created_at
         THEN trunc(extract(epoch FROM t.ended_at - t.created_at) * 1000)::bigint ELSE 0 END AS latency_ms
FROM turns t WHERE t.status <> 'running';

CREATE VIEW analytics_of_turns WITH (security_invoker = true) AS
SELECT e.*, (SELECT count(*) FROM messages m WHERE m.turn_id = e.id) AS messages FROM analytics_of_ended e;

CREATE VIEW analytics_of_messages WITH (security_invoker = true) AS
SELECT m.id, m.user_id, m.conversation_id, (m.created_at AT TIME ZONE 'UTC')::date AS date,
    left(coalesce(m.model, ''), 300) AS model, 1 AS messages
FROM messages m WHERE m.turn_id IS NULL;

CREATE VIEW analytics_of_jobs WITH (security_invoker = true) AS
SELECT j.id, j.user_id, (coalesce(j.ended_at, j.created_at) AT TIME ZONE 'UTC')::date AS date,
    (j.status = 'succeeded')::integer AS jobs_succeeded, (j.status = 'dead')::integer AS jobs_failed,
    (j.status = 'cancelled')::integer AS jobs_cancelled
FROM jobs j WHERE j.visible AND j.user_id IS NOT NULL AND j.status IN ('succeeded', 'dead', 'cancelled');

CREATE VIEW analytics_of_files WITH (security_invoker = true) AS
SELECT a.id, a.user_id, (a.created_at AT TIME ZONE 'UTC')::date AS date, a.size AS bytes_added, 0::bigint AS bytes_removed
FROM attachments a
UNION ALL
SELECT a.id, a.user_id, (a.created_at AT TIME ZONE 'UTC')::date, a.size, 0 FROM audio a
UNION ALL
SELECT e.id, e.user_id, (coalesce(e.completed_at, e.created_at) AT TIME ZONE 'UTC')::date, e.size, 0
FROM exports e WHERE e.size IS NOT NULL AND e.status IN ('completed', 'expired')
UNION ALL
SELECT e.id, e.user_id, (coalesce(e.expires_at, e.created_at) AT TIME ZONE 'UTC')::date, 0, e.size
FROM exports e WHERE e.size IS NOT NULL AND e.status = 'expired'
"""

OF_TURN = (
    "turns", "completed", "failed", "cancelled", "interrupted", "messages", "prompt_tokens", "cached_tokens",
    "completion_tokens", "microcents", "unpriced", "latency_ms",
)  # fmt: skip


def keep_conversation(of_turn: Sequence[str]) -> str:
    """Keeps what a conversation that is deleted has used: of its turns, these amounts and the slowest."""
    turns = ", ".join(of_turn)
    sums = ", ".join([*(f"sum(u.{one}) AS {one}" for one in of_turn), "max(u.latency_ms) AS slowest_ms"])
    sums_of_sums = ", ".join([*(f"sum(u.{one})" for one in of_turn), "max(u.slowest_ms)"])
    return f"""
CREATE FUNCTION keep_conversation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM users u WHERE u.id = OLD.user_id) THEN
        -- Its turns and its messages are read once each, however many: a conversation's turns have its messages only.
        WITH due AS (
            DELETE FROM analytics_pending p USING turns t
            WHERE t.conversation_id = OLD.id AND p.user_id = OLD.user_id AND p.turn_id = t.id
            RETURNING p.turn_id
        ), said AS MATERIALIZED (
            SELECT m.turn_id, count(*) AS messages FROM messages m
            WHERE m.conversation_id = OLD.id AND m.turn_id IS NOT NULL GROUP BY m.turn_id
        ), ended AS MATERIALIZED (
            SELECT u.date, u.model, d.turn_id IS NOT NULL AS due, {sums}
            FROM (
                SELECT e.*, coalesce(s.messages, 0) AS messages
                FROM analytics_of_ended e LEFT JOIN said s ON s.turn_id = e.id
                WHERE e.conversation_id = OLD.id AND e.user_id = OLD.user_id
            ) u LEFT JOIN due d ON d.turn_id = u.id
            GROUP BY 1, 2, 3
        ), fresh AS (
            INSERT INTO analytics_fresh (user_id, date, model, {turns}, slowest_ms)
            SELECT OLD.user_id, date, model, {turns}, slowest_ms FROM ended WHERE due
        ), turns_kept AS (
            INSERT INTO analytics_kept (user_id, date, model, {turns}, slowest_ms)
            SELECT OLD.user_id, u.date, u.model, {sums_of_sums} FROM ended u GROUP BY u.date, u.model
        )
        INSERT INTO analytics_kept (user_id, date, model, messages)
        SELECT OLD.user_id, u.date, u.model, sum(u.messages) FROM analytics_of_messages u
        WHERE u.conversation_id = OLD.id AND u.user_id = OLD.user_id GROUP BY u.date, u.model;
    END IF;
    RETURN OLD;
END $$;
"""  # noqa: S608 - the parts are constants


# They run as whoever changes the row, a tenant included. A user who is being deleted leaves nothing behind.
TRIGGERS = f"""
CREATE FUNCTION count_turn() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO analytics_pending (user_id, turn_id) VALUES (NEW.user_id, NEW.id);
    RETURN NULL;
END $$;
CREATE TRIGGER count_ended AFTER UPDATE OF status ON turns FOR EACH ROW
    WHEN (OLD.status = 'running' AND NEW.status <> 'running') EXECUTE FUNCTION count_turn();
CREATE TRIGGER count_recorded AFTER INSERT ON turns FOR EACH ROW
    WHEN (NEW.status <> 'running') EXECUTE FUNCTION count_turn();

CREATE FUNCTION count_message() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO analytics_fresh (user_id, date, model, messages)
    SELECT u.user_id, u.date, u.model, u.messages FROM analytics_of_messages u WHERE u.id = NEW.id;
    RETURN NULL;
END $$;
CREATE TRIGGER count_made AFTER INSERT ON messages FOR EACH ROW
    WHEN (NEW.turn_id IS NULL) EXECUTE FUNCTION count_message();

{keep_conversation(OF_TURN)}
CREATE TRIGGER keep_used BEFORE DELETE ON conversations FOR EACH ROW EXECUTE FUNCTION keep_conversation();

CREATE FUNCTION count_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Tried again by hand: it has not ended, and will be counted when it has.
    IF OLD.status IN ('succeeded', 'dead', 'cancelled') THEN
        INSERT INTO analytics_fresh (user_id, date, model, jobs_succeeded, jobs_failed, jobs_cancelled)
        VALUES (OLD.user_id, (coalesce(OLD.ended_at, OLD.created_at) AT TIME ZONE 'UTC')::date, '',
                -(OLD.status = 'succeeded')::integer, -(OLD.status = 'dead')::integer,
                -(OLD.status = 'cancelled')::integer);
    END IF;
    INSERT INTO analytics_fresh (user_id, date, model, jobs_succeeded, jobs_failed, jobs_cancelled)
    SELECT u.user_id, u.date, '', u.jobs_succeeded, u.jobs_failed, u.jobs_cancelled
    FROM analytics_of_jobs u WHERE u.id = NEW.id;
    RETURN NULL;
END $$;
CREATE TRIGGER count_ended AFTER UPDATE ON jobs FOR EACH ROW
    WHEN (NEW.visible AND NEW.user_id IS NOT NULL AND OLD.status <> NEW.status
          AND (OLD.status IN ('succeeded', 'dead', 'cancelled') OR NEW.status IN ('succeeded', 'dead', 'cancelled')))
    EXECUTE FUNCTION count_job();
CREATE FUNCTION count_made_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO analytics_fresh (user_id, date, model, jobs_succeeded, jobs_failed, jobs_cancelled)
    SELECT u.user_id, u.date, '', u.jobs_succeeded, u.jobs_failed, u.jobs_cancelled
    FROM analytics_of_jobs u WHERE u.id = NEW.id;
    RETURN NULL;
END $$;
CREATE TRIGGER count_made AFTER INSERT ON jobs FOR EACH ROW
    WHEN (NEW.visible AND NEW.status IN ('succeeded', 'dead', 'cancelled')) EXECUTE FUNCTION count_made_job();
CREATE FUNCTION keep_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO analytics_kept (user_id, date, model, jobs_succeeded, jobs_failed, jobs_cancelled)
    SELECT g.user_id, (coalesce(g.ended_at, g.created_at) AT TIME ZONE 'UTC')::date AS day, '',
           count(*) FILTER (WHERE g.status = 'succeeded'), count(*) FILTER (WHERE g.status = 'dead'),
           count(*) FILTER (WHERE g.status = 'cancelled')
    FROM gone g JOIN users u ON u.id = g.user_id
    WHERE g.visible AND g.status IN ('succeeded', 'dead', 'cancelled')
    GROUP BY g.user_id, day;
    RETURN NULL;
END $$;
CREATE TRIGGER keep_used AFTER DELETE ON jobs REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION keep_jobs();

CREATE FUNCTION count_upload() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    today date := (clock_timestamp() AT TIME ZONE 'UTC')::date;
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO analytics_fresh (user_id, date, model, bytes_added)
        VALUES (NEW.user_id, (NEW.created_at AT TIME ZONE 'UTC')::date, '', NEW.size);
    ELSIF EXISTS (SELECT FROM users u WHERE u.id = OLD.user_id) THEN
        INSERT INTO analytics_fresh (user_id, date, model, bytes_removed) VALUES (OLD.user_id, today, '', OLD.size);
        INSERT INTO analytics_kept (user_id, date, model, bytes_added, bytes_removed)
        VALUES (OLD.user_id, (OLD.created_at AT TIME ZONE 'UTC')::date, '', OLD.size, 0),
               (OLD.user_id, today, '', 0, OLD.size);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER count_file AFTER INSERT OR DELETE ON attachments FOR EACH ROW EXECUTE FUNCTION count_upload();
CREATE TRIGGER count_file AFTER INSERT OR DELETE ON audio FOR EACH ROW EXECUTE FUNCTION count_upload();

CREATE FUNCTION count_export() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    today date := (clock_timestamp() AT TIME ZONE 'UTC')::date;
    was_made boolean := false;
    was_gone boolean := false;
    is_made boolean := false;
    is_gone boolean := false;
BEGIN
    IF TG_OP <> 'INSERT' THEN
        was_made := OLD.size IS NOT NULL AND OLD.status IN ('completed', 'expired');
        was_gone := OLD.size IS NOT NULL AND OLD.status = 'expired';
    END IF;
    IF TG_OP = 'DELETE' THEN
        IF was_made AND EXISTS (SELECT FROM users u WHERE u.id = OLD.user_id) THEN
            INSERT INTO analytics_kept (user_id, date, model, bytes_added, bytes_removed)
            VALUES (OLD.user_id, (coalesce(OLD.completed_at, OLD.created_at) AT TIME ZONE 'UTC')::date, '', OLD.size, 0),
                   (OLD.user_id, CASE WHEN was_gone
                        THEN (coalesce(OLD.expires_at, OLD.created_at) AT TIME ZONE 'UTC')::date ELSE today END,
                    '', 0, OLD.size);
            IF NOT was_gone THEN
                INSERT INTO analytics_fresh (user_id, date, model, bytes_removed)
                VALUES (OLD.user_id, today, '', OLD.size);
            END IF;
        END IF;
        RETURN NULL;
    END IF;
    is_made := NEW.size IS NOT NULL AND NEW.status IN ('completed', 'expired');
    is_gone := NEW.size IS NOT NULL AND NEW.status = 'expired';
    INSERT INTO analytics_fresh (user_id, date, model, bytes_added, bytes_removed)
    SELECT change.who, (change.at AT TIME ZONE 'UTC')::date, '', change.added, change.removed FROM (VALUES
        (was_made, OLD.user_id, coalesce(OLD.completed_at, OLD.created_at), -OLD.size, 0),
        (was_gone, OLD.user_id, coalesce(OLD.expires_at, OLD.created_at), 0, -OLD.size),
        (is_made, NEW.user_id, coalesce(NEW.completed_at, NEW.created_at), NEW.size, 0),
        (is_gone, NEW.user_id, coalesce(NEW.expires_at, NEW.created_at), 0, NEW.size)
    ) change(counts, who, at, added, removed) WHERE change.counts;
    RETURN NULL;
END $$;
CREATE TRIGGER count_file AFTER INSERT OR DELETE OR UPDATE OF status, size, completed_at, expires_at ON exports
    FOR EACH ROW EXECUTE FUNCTION count_export();

CREATE FUNCTION forget_fresh() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM analytics_fresh f WHERE f.user_id = OLD.id;
    DELETE FROM analytics_pending p WHERE p.user_id = OLD.id;
    RETURN NULL;
END $$;
CREATE TRIGGER forget_fresh AFTER DELETE ON users FOR EACH ROW EXECUTE FUNCTION forget_fresh();
"""  # noqa: S608 - the parts are constants

_COUNTS = (
    "requests", "prompt_tokens", "cached_tokens", "completion_tokens", "recorded_seconds", "microcents", "unpriced",
)  # fmt: skip

# What was charged, as it was before there were kinds.
ONE_KIND = f"""
WITH others AS (
    DELETE FROM model_usage WHERE kind <> 'chat' RETURNING *
), sums AS (
    SELECT user_id, day, token_id, model, {", ".join(f"sum({one}) AS {one}" for one in _COUNTS)}
    FROM others GROUP BY user_id, day, token_id, model
), met AS (
    UPDATE model_usage m SET {", ".join(f"{one} = m.{one} + s.{one}" for one in _COUNTS)} FROM sums s
    WHERE (m.user_id, m.day, m.token_id, m.model) = (s.user_id, s.day, s.token_id, s.model) AND m.kind = 'chat'
    RETURNING m.user_id, m.day, m.token_id, m.model
)
INSERT INTO model_usage (user_id, day, token_id, model, {", ".join(_COUNTS)})
SELECT s.user_id, s.day, s.token_id, s.model, {", ".join(f"s.{one}" for one in _COUNTS)} FROM sums s
WHERE NOT EXISTS (
    SELECT FROM met t WHERE (t.user_id, t.day, t.token_id, t.model) = (s.user_id, s.day, s.token_id, s.model)
)
"""  # noqa: S608 - the parts are constants

ON = {
    "turns": ("count_ended", "count_recorded"),
    "messages": ("count_made",),
    "conversations": ("keep_used",),
    "jobs": ("count_ended", "count_made", "keep_used"),
    "attachments": ("count_file",),
    "audio": ("count_file",),
    "exports": ("count_file",),
    "users": ("forget_fresh",),
}
FUNCTIONS = (
    "count_turn", "count_message", "keep_conversation", "count_job", "count_made_job", "keep_jobs", "count_upload",
    "count_export", "forget_fresh",
)  # fmt: skip
NAMES_OF_VIEWS = (  # what a view is made of comes after it
    "analytics_of_turns", "analytics_of_ended", "analytics_of_messages", "analytics_of_jobs", "analytics_of_files",
)  # fmt: skip
TENANT_TABLES = {
    "analytics_daily": "SELECT",
    "analytics_fresh": "SELECT, INSERT",
    "analytics_pending": "SELECT, INSERT, DELETE",
    "analytics_kept": "INSERT",
    "analytics_backlog": "SELECT",
}


def kinds_of_usage() -> None:
    """What else than chats is charged is told apart. Before anything is locked; it may be begun again."""
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE model_usage ADD COLUMN IF NOT EXISTS kind text NOT NULL DEFAULT 'chat'")
        op.execute("ALTER TABLE model_usage DROP CONSTRAINT IF EXISTS ck_model_usage_kind")
        op.execute(
            "ALTER TABLE model_usage ADD CONSTRAINT ck_model_usage_kind "
            "CHECK (kind IN ('chat', 'embedding', 'recording')) NOT VALID"
        )
        op.execute("ALTER TABLE model_usage VALIDATE CONSTRAINT ck_model_usage_kind")
        # Of what was charged before, a chat without a reply's token is an embedding.
        op.execute(
            "UPDATE model_usage SET kind = CASE WHEN recorded_seconds > 0 THEN 'recording' ELSE 'embedding' END "
            "WHERE kind = 'chat' AND (recorded_seconds > 0 OR prompt_tokens > 0 AND completion_tokens = 0)"
        )
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS uq_model_usage_kind")
        op.execute(
            "CREATE UNIQUE INDEX CONCURRENTLY uq_model_usage_kind "
            "ON model_usage (user_id, day, token_id, model, kind)"
        )
        op.execute(
            "ALTER TABLE model_usage DROP CONSTRAINT pk_model_usage, "
            "ADD CONSTRAINT pk_model_usage PRIMARY KEY USING INDEX uq_model_usage_kind"
        )


def upgrade() -> None:
    kinds_of_usage()
    # As in 0005: all at once, in one order, and not for long. What is there already is counted later, by a worker.
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute(
        f"LOCK TABLE {', '.join(('users', *(one for one in ON if one != 'users')))} IN SHARE ROW EXCLUSIVE MODE"
    )
    for statement in TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)
    for statement in VIEWS.split(";\n"):
        op.execute(statement)
    for view in NAMES_OF_VIEWS:
        op.execute(f"GRANT SELECT ON {view} TO {ROLE}")
    for statement in re.split(r";\n+(?=CREATE |-- )", TRIGGERS.strip().rstrip(";")):
        op.execute(statement)
    for table, privileges in TENANT_TABLES.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"GRANT {privileges} ON {table} TO {ROLE}")
        mine = "user_id = nullif(current_setting('baatcheet.user_id', true), '')::uuid"
        op.execute(f"CREATE POLICY tenant ON {table} TO {ROLE} USING ({mine}) WITH CHECK ({mine})")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute(
        f"LOCK TABLE {', '.join(('users', *(one for one in ON if one != 'users')))} IN SHARE ROW EXCLUSIVE MODE"
    )
    for table, triggers in ON.items():
        for trigger in triggers:
            op.execute(f"DROP TRIGGER {trigger} ON {table}")
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION {function}()")
    for view in NAMES_OF_VIEWS:
        op.execute(f"DROP VIEW {view}")
    for table in TENANT_TABLES:
        op.execute(f"DROP TABLE {table}")
    op.execute("ALTER TABLE model_usage DROP CONSTRAINT pk_model_usage")
    op.execute(ONE_KIND)
    op.execute("ALTER TABLE model_usage DROP COLUMN kind")
    op.execute(
        "ALTER TABLE model_usage ADD CONSTRAINT pk_model_usage PRIMARY KEY (user_id, day, token_id, model)"
    )
