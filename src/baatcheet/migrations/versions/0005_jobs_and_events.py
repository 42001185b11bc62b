"""The job queue, and the outbox of events.

A job and an event are written in the transaction of the row that they concern. Conversations, messages, turns and
jobs write their events by trigger: whoever changes them, the event exists if and only if the change does.
"""

import re

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ROLE = "baatcheet_tenant"

JOBS = """
CREATE TABLE jobs (
    id uuid CONSTRAINT pk_jobs PRIMARY KEY,
    user_id uuid CONSTRAINT fk_jobs_user_id REFERENCES users ON DELETE CASCADE,
    kind text NOT NULL,
    queue text NOT NULL,
    lane uuid NOT NULL,
    priority smallint NOT NULL DEFAULT 0,
    status text NOT NULL DEFAULT 'queued' CONSTRAINT ck_jobs_status
        CHECK (status IN ('queued', 'waiting', 'running', 'succeeded', 'dead', 'cancelled')),
    visible boolean NOT NULL DEFAULT true,
    payload jsonb NOT NULL,
    unique_key text,
    subject_id uuid,
    attempts integer NOT NULL DEFAULT 0,
    max_attempts integer NOT NULL,
    due_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    worker_id uuid,
    cancel_requested boolean NOT NULL DEFAULT false,
    progress smallint NOT NULL DEFAULT 0,
    phrase text,
    error text,
    failures jsonb NOT NULL DEFAULT '[]',
    result jsonb,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at timestamptz,
    ended_at timestamptz
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500,
        autovacuum_analyze_scale_factor = 0.05);
-- What a worker may take: one user's jobs after another's, each in the order of their making.
CREATE INDEX idx_job_queued ON jobs (queue, lane, priority DESC, id) WHERE status = 'queued';
CREATE INDEX idx_job_waiting ON jobs (due_at) WHERE status = 'waiting';
CREATE INDEX idx_job_running ON jobs (queue, lane, worker_id) WHERE status = 'running';
CREATE UNIQUE INDEX uq_job_unfinished ON jobs (kind, user_id, unique_key) NULLS NOT DISTINCT
    WHERE unique_key IS NOT NULL AND status IN ('queued', 'waiting', 'running');
CREATE INDEX idx_job_user ON jobs (user_id, id DESC) WHERE visible;
CREATE INDEX idx_job_subject ON jobs (subject_id, id DESC) WHERE subject_id IS NOT NULL;
CREATE INDEX idx_job_dead ON jobs (kind, id DESC) WHERE status = 'dead';
CREATE INDEX idx_job_ended ON jobs (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE job_queues (
    name text CONSTRAINT pk_job_queues PRIMARY KEY,
    paused boolean NOT NULL DEFAULT false,
    max_running integer CONSTRAINT ck_job_queues_max_running CHECK (max_running > 0),
    per_minute integer CONSTRAINT ck_job_queues_per_minute CHECK (per_minute > 0),
    allowance double precision NOT NULL DEFAULT 0,
    filled_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_lane uuid
);

CREATE TABLE job_workers (
    id uuid CONSTRAINT pk_job_workers PRIMARY KEY,
    host text NOT NULL,
    pid integer NOT NULL,
    queues jsonb NOT NULL,
    running integer NOT NULL DEFAULT 0,
    stopping boolean NOT NULL DEFAULT false,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE job_schedules (
    name text CONSTRAINT pk_job_schedules PRIMARY KEY,
    kind text NOT NULL,
    cron text NOT NULL,
    paused boolean NOT NULL DEFAULT false,
    next_at timestamptz NOT NULL,
    last_at timestamptz,
    last_job_id uuid
);

CREATE TABLE outbox (
    place bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_outbox PRIMARY KEY,
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid,
    type text NOT NULL,
    conversation_id uuid,
    data jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

CREATE TABLE events (
    seq bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_events PRIMARY KEY,
    id uuid NOT NULL CONSTRAINT uq_events_id UNIQUE,
    user_id uuid CONSTRAINT fk_events_user_id REFERENCES users ON DELETE CASCADE,
    type text NOT NULL,
    conversation_id uuid,
    data jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    poisoned jsonb
);
CREATE INDEX idx_event_user ON events (user_id, seq);
CREATE INDEX idx_event_created ON events (created_at);
-- What a subscriber could not take, and why: kept until it has.
CREATE INDEX idx_event_poisoned ON events (seq) WHERE poisoned IS NOT NULL;

-- How far the events have been forgotten: whoever was last told of an earlier one has missed some.
CREATE TABLE event_horizon (
    seq bigint CONSTRAINT pk_event_horizon PRIMARY KEY
);
INSERT INTO event_horizon VALUES (0);
"""

# Round robin over lanes: each lane in turn, from the one after the lane that was served last; those with the fewest
# running come first. The queue's row is locked meanwhile, so what is counted here is exact over the whole fleet; a
# claim is short. The table's statistics may be of an empty queue: no plan may read all of it.
CLAIM_JOBS = """
CREATE FUNCTION claim_jobs(worker uuid, wanted text, most integer, lane_most integer)
RETURNS SETOF jobs LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    line job_queues%ROWTYPE;
    allowed integer := most;
    width integer;
    taken uuid[];  -- lanes that have all they may
    moment timestamptz := clock_timestamp();
BEGIN
    PERFORM FROM jobs j WHERE j.queue = wanted AND j.status = 'queued' LIMIT 1;
    IF NOT FOUND THEN RETURN; END IF;
    SELECT * INTO line FROM job_queues q WHERE q.name = wanted FOR UPDATE;
    IF NOT FOUND THEN
        INSERT INTO job_queues (name) VALUES (wanted) ON CONFLICT DO NOTHING;
        SELECT * INTO line FROM job_queues q WHERE q.name = wanted FOR UPDATE;
    END IF;
    IF line.paused THEN RETURN; END IF;
    IF line.max_running IS NOT NULL THEN
        allowed := least(allowed, line.max_running
            - (SELECT count(*)::integer FROM jobs j WHERE j.queue = wanted AND j.status = 'running'));
    END IF;
    IF line.per_minute IS NOT NULL THEN
        -- A bucket that holds ten seconds' worth, one at least.
        line.allowance := least(greatest(1.0, line.per_minute / 6.0), line.allowance
            + line.per_minute / 60.0 * extract(epoch FROM moment - line.filled_at));
        allowed := least(allowed, floor(line.allowance)::integer);
    END IF;
    IF allowed <= 0 THEN RETURN; END IF;
    width := greatest(64, allowed * 2);
    taken := ARRAY(SELECT j.lane FROM jobs j WHERE j.queue = wanted AND j.status = 'running'
                   GROUP BY j.lane HAVING count(*) >= lane_most);
    RETURN QUERY
    WITH RECURSIVE ahead AS (
        (SELECT j.lane, 1 AS place FROM jobs j
         WHERE j.queue = wanted AND j.status = 'queued'
           AND j.lane > coalesce(line.last_lane, '00000000-0000-0000-0000-000000000000')
         ORDER BY j.lane LIMIT 1)
        UNION ALL
        SELECT (SELECT j.lane FROM jobs j WHERE j.queue = wanted AND j.status = 'queued' AND j.lane > a.lane
                ORDER BY j.lane LIMIT 1), a.place + (a.lane <> ALL (taken))::integer
        FROM ahead a WHERE a.lane IS NOT NULL AND a.place < width
    ), around AS (
        (SELECT j.lane, 1 AS place FROM jobs j
         WHERE j.queue = wanted AND j.status = 'queued'
           AND j.lane <= coalesce(line.last_lane, '00000000-0000-0000-0000-000000000000')
           AND (SELECT count(*) FROM ahead) < width
         ORDER BY j.lane LIMIT 1)
        UNION ALL
        SELECT (SELECT j.lane FROM jobs j WHERE j.queue = wanted AND j.status = 'queued' AND j.lane > a.lane
                  AND j.lane <= line.last_lane ORDER BY j.lane LIMIT 1),
               a.place + (a.lane <> ALL (taken))::integer
        FROM around a WHERE a.lane IS NOT NULL AND a.place < width
    ), lanes AS MATERIALIZED (
        SELECT found.lane, row_number() OVER (ORDER BY found.part, found.lane) AS place, count(*) OVER () AS n
        FROM (SELECT 0 AS part, a.lane FROM ahead a UNION ALL SELECT 1, a.lane FROM around a) found
        WHERE found.lane <> ALL (taken)
    ), busy AS MATERIALIZED (
        SELECT j.lane, count(*) AS n FROM jobs j WHERE j.queue = wanted AND j.status = 'running' GROUP BY j.lane
    ), candidates AS (
        SELECT one.id, one.priority, l.place, l.lane,
               coalesce(b.n, 0) + row_number() OVER (PARTITION BY l.lane ORDER BY one.priority DESC, one.id) AS turn
        FROM lanes l LEFT JOIN busy b ON b.lane = l.lane
        CROSS JOIN LATERAL (
            SELECT j.id, j.priority FROM jobs j
            WHERE j.queue = wanted AND j.status = 'queued' AND j.lane = l.lane
            ORDER BY j.priority DESC, j.id
            LIMIT greatest(0, least(ceil(allowed::numeric / l.n)::bigint, lane_most - coalesce(b.n, 0)))
        ) one
    ), chosen AS MATERIALIZED (
        SELECT c.id, c.lane, c.place, c.turn FROM candidates c
        ORDER BY c.priority DESC, c.turn, c.place, c.id LIMIT allowed
    ), locked AS MATERIALIZED (
        SELECT j.id FROM jobs j JOIN chosen c ON c.id = j.id WHERE j.status = 'queued' FOR UPDATE OF j SKIP LOCKED
    ), moved AS (
        UPDATE job_queues q
        SET last_lane = coalesce((SELECT c.lane FROM chosen c ORDER BY c.turn DESC, c.place DESC LIMIT 1), q.last_lane),
            allowance = CASE WHEN line.per_minute IS NULL THEN 0
                             ELSE line.allowance - (SELECT count(*) FROM locked) END,
            filled_at = moment
        WHERE q.name = wanted
    )
    UPDATE jobs j
    SET status = 'running', attempts = j.attempts + 1, worker_id = worker, cancel_requested = false,
        started_at = clock_timestamp(), progress = 0, phrase = NULL
    FROM locked WHERE j.id = locked.id
    RETURNING j.*;
END $$
"""

# What is told about each table's changes. They run as whoever changes the row, a tenant included.
TRIGGERS = """
CREATE FUNCTION tell_conversation() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    talk conversations%ROWTYPE := CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    INSERT INTO outbox (user_id, type, conversation_id, data) VALUES (
        talk.user_id, CASE TG_OP WHEN 'INSERT' THEN 'conversation.created' WHEN 'UPDATE' THEN 'conversation.updated'
                                 ELSE 'conversation.deleted' END,
        talk.id, jsonb_build_object('conversation_id', talk.id, 'title', talk.title, 'project_id', talk.project_id,
                                    'model', talk.model, 'archived', talk.archived, 'pinned', talk.pinned));
    RETURN NULL;
END $$;
CREATE TRIGGER tell_made AFTER INSERT OR DELETE ON conversations FOR EACH ROW EXECUTE FUNCTION tell_conversation();
CREATE TRIGGER tell_changed AFTER UPDATE OF title, project_id, model, archived, pinned, system_prompt ON conversations
    FOR EACH ROW WHEN ((OLD.title, OLD.project_id, OLD.model, OLD.archived, OLD.pinned, OLD.system_prompt)
        IS DISTINCT FROM (NEW.title, NEW.project_id, NEW.model, NEW.archived, NEW.pinned, NEW.system_prompt))
    EXECUTE FUNCTION tell_conversation();

CREATE FUNCTION tell_message() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO outbox (user_id, type, conversation_id, data) VALUES (
        NEW.user_id, 'message.created', NEW.conversation_id,
        jsonb_build_object('message_id', NEW.id, 'conversation_id', NEW.conversation_id, 'parent_id', NEW.parent_id,
                           'turn_id', NEW.turn_id, 'role', NEW.role, 'model', NEW.model, 'tokens', NEW.token_count));
    RETURN NULL;
END $$;
CREATE TRIGGER tell_made AFTER INSERT ON messages FOR EACH ROW
    WHEN (coalesce(current_setting('baatcheet.quiet', true), '') <> 'on') EXECUTE FUNCTION tell_message();

CREATE FUNCTION tell_turn() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO outbox (user_id, type, conversation_id, data) VALUES (
        NEW.user_id, 'turn.' || NEW.status, NEW.conversation_id,
        jsonb_build_object('turn_id', NEW.id, 'conversation_id', NEW.conversation_id, 'message_id', NEW.reply_id,
                           'input_id', NEW.input_id, 'model', coalesce(NEW.answered_by, NEW.model),
                           'finish_reason', NEW.finish_reason, 'prompt_tokens', NEW.prompt_tokens,
                           'completion_tokens', NEW.completion_tokens, 'error', NEW.error -> 'message'));
    RETURN NULL;
END $$;
CREATE TRIGGER tell_ended AFTER UPDATE OF status ON turns FOR EACH ROW
    WHEN (OLD.status = 'running' AND NEW.status <> 'running') EXECUTE FUNCTION tell_turn();
CREATE TRIGGER tell_recorded AFTER INSERT ON turns FOR EACH ROW
    WHEN (NEW.status <> 'running') EXECUTE FUNCTION tell_turn();

CREATE FUNCTION tell_job() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    told jsonb := jsonb_build_object(
        'job_id', NEW.id, 'kind', NEW.kind, 'queue', NEW.queue, 'status', NEW.status, 'progress', NEW.progress,
        'phrase', NEW.phrase, 'attempts', NEW.attempts, 'subject_id', NEW.subject_id, 'error', NEW.error);
BEGIN
    IF NEW.visible THEN
        INSERT INTO outbox (user_id, type, data) VALUES (NEW.user_id, 'job.updated', told);
    END IF;
    -- A webhook that tells of its own death would never rest: its endpoint has deliveries to look at.
    IF NEW.status = 'dead' AND NEW.queue <> 'webhook' THEN
        INSERT INTO outbox (user_id, type, data)
        VALUES (CASE WHEN NEW.visible THEN NEW.user_id END, 'job.dead', told);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER tell_made AFTER INSERT ON jobs FOR EACH ROW WHEN (NEW.visible) EXECUTE FUNCTION tell_job();
CREATE TRIGGER tell_changed AFTER UPDATE OF status, progress, phrase ON jobs FOR EACH ROW
    WHEN ((NEW.visible OR NEW.status = 'dead') AND (OLD.status, OLD.progress, OLD.phrase)
        IS DISTINCT FROM (NEW.status, NEW.progress, NEW.phrase))
    EXECUTE FUNCTION tell_job();
"""

TENANT_TABLES = {"jobs": "SELECT, INSERT, UPDATE", "outbox": "INSERT", "events": "SELECT"}
TABLES = ("event_horizon", "events", "outbox", "job_schedules", "job_workers", "job_queues", "jobs")
FUNCTIONS = (
    "tell_job()",
    "tell_turn()",
    "tell_message()",
    "tell_conversation()",
    "claim_jobs(uuid, text, integer, integer)",
)


def upgrade() -> None:
    # All at once and in one order, so that no turn and this wait for each other; not for long, since whoever writes
    # waits behind this. A server that is too busy for it says so, and the migration is begun again.
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("LOCK TABLE users, conversations, messages, turns IN SHARE ROW EXCLUSIVE MODE")
    for statement in JOBS.split(";\n"):
        if statement.strip():
            op.execute(statement)
    op.execute(CLAIM_JOBS)
    op.execute("REVOKE ALL ON FUNCTION claim_jobs(uuid, text, integer, integer) FROM PUBLIC")
    for statement in re.split(r";\n+(?=CREATE )", TRIGGERS.strip().rstrip(";")):
        op.execute(statement)
    for table, privileges in TENANT_TABLES.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"GRANT {privileges} ON {table} TO {ROLE}")
        mine = "user_id = nullif(current_setting('baatcheet.user_id', true), '')::uuid"
        op.execute(f"CREATE POLICY tenant ON {table} TO {ROLE} USING ({mine}) WITH CHECK ({mine})")


def downgrade() -> None:
    for table, triggers in {
        "turns": ("tell_ended", "tell_recorded"),
        "messages": ("tell_made",),
        "conversations": ("tell_made", "tell_changed"),
    }.items():
        for trigger in triggers:
            op.execute(f"DROP TRIGGER {trigger} ON {table}")
    for table in TABLES:
        op.execute(f"DROP TABLE {table} CASCADE")
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION IF EXISTS {function}")
