"""Users, tokens, projects, conversations, messages, turns; row-level security from the start."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ROLE = "baatcheet_tenant"

TABLES = """
CREATE TABLE users (
    id uuid CONSTRAINT pk_users PRIMARY KEY,
    name text NOT NULL,
    email text,
    role text NOT NULL DEFAULT 'user' CONSTRAINT ck_users_role CHECK (role IN ('admin', 'user')),
    active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX uq_users_email ON users (lower(email));

CREATE TABLE api_tokens (
    id uuid CONSTRAINT pk_api_tokens PRIMARY KEY,
    user_id uuid NOT NULL CONSTRAINT fk_api_tokens_user_id REFERENCES users ON DELETE CASCADE,
    name text NOT NULL,
    prefix text NOT NULL,
    hash bytea NOT NULL CONSTRAINT uq_api_tokens_hash UNIQUE,
    scopes text[] NOT NULL,
    expires_at timestamptz,
    last_used_at timestamptz,
    revoked_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_api_tokens_user ON api_tokens (user_id, id DESC);

CREATE TABLE idempotency_keys (
    user_id uuid NOT NULL CONSTRAINT fk_idempotency_keys_user_id REFERENCES users ON DELETE CASCADE,
    key text NOT NULL,
    fingerprint bytea NOT NULL,
    status integer NOT NULL,
    location text,
    body jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_idempotency_keys PRIMARY KEY (user_id, key)
);
CREATE INDEX idx_idempotency_keys_created ON idempotency_keys (created_at);

CREATE TABLE projects (
    id uuid CONSTRAINT pk_projects PRIMARY KEY,
    user_id uuid NOT NULL CONSTRAINT fk_projects_user_id REFERENCES users ON DELETE CASCADE,
    name text NOT NULL,
    description text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_projects_user ON projects (user_id, id DESC);

CREATE TABLE conversations (
    id uuid CONSTRAINT pk_conversations PRIMARY KEY,
    user_id uuid NOT NULL CONSTRAINT fk_conversations_user_id REFERENCES users ON DELETE CASCADE,
    project_id uuid CONSTRAINT fk_conversations_project_id REFERENCES projects ON DELETE SET NULL,
    title text NOT NULL DEFAULT '',
    system_prompt text,
    model text,
    archived boolean NOT NULL DEFAULT false,
    pinned boolean NOT NULL DEFAULT false,
    head_id uuid,
    token_total bigint NOT NULL DEFAULT 0,
    message_count integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 80);
CREATE INDEX idx_conversation_user_updated ON conversations (user_id, updated_at DESC, id DESC);
CREATE INDEX idx_conversation_project ON conversations (project_id, updated_at DESC, id DESC);
CREATE INDEX idx_conversation_archived ON conversations (user_id, archived, updated_at DESC, id DESC);

CREATE TABLE messages (
    id uuid CONSTRAINT pk_messages PRIMARY KEY,
    conversation_id uuid NOT NULL
        CONSTRAINT fk_messages_conversation_id REFERENCES conversations ON DELETE CASCADE,
    user_id uuid NOT NULL,
    parent_id uuid,
    turn_id uuid,
    role text NOT NULL
        CONSTRAINT ck_messages_role CHECK (role IN ('system', 'developer', 'user', 'assistant', 'tool')),
    content text NOT NULL,
    parts jsonb,
    model text,
    token_count integer NOT NULL DEFAULT 0,
    finish_reason text,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_message_conversation ON messages (conversation_id, created_at DESC, id DESC);
CREATE INDEX idx_message_role ON messages (conversation_id, role, id DESC);
CREATE INDEX idx_message_parent ON messages (parent_id);

CREATE TABLE processes (
    id uuid CONSTRAINT pk_processes PRIMARY KEY,
    kind text NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    pool_size integer NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE turns (
    id uuid CONSTRAINT pk_turns PRIMARY KEY,
    user_id uuid NOT NULL CONSTRAINT fk_turns_user_id REFERENCES users ON DELETE CASCADE,
    conversation_id uuid CONSTRAINT fk_turns_conversation_id REFERENCES conversations ON DELETE CASCADE,
    input_id uuid,
    reply_id uuid,
    status text NOT NULL DEFAULT 'running' CONSTRAINT ck_turns_status
        CHECK (status IN ('running', 'completed', 'failed', 'cancelled', 'interrupted')),
    model text,
    answered_by text,
    process_id uuid,
    cancel_requested boolean NOT NULL DEFAULT false,
    idempotency_key text,
    fingerprint bytea,
    error jsonb,
    finish_reason text,
    prompt_tokens integer,
    completion_tokens integer,
    usage jsonb,
    receipt jsonb,
    reply jsonb,
    event_lengths integer[],
    events text,
    created_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz
);
CREATE UNIQUE INDEX uq_turn_running ON turns (conversation_id) WHERE status = 'running';
CREATE UNIQUE INDEX uq_turn_idempotency ON turns (user_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX idx_turn_conversation ON turns (conversation_id, id DESC);
CREATE INDEX idx_turn_user ON turns (user_id, id DESC);

CREATE TABLE turn_deltas (
    turn_id uuid NOT NULL CONSTRAINT fk_turn_deltas_turn_id REFERENCES turns ON DELETE CASCADE,
    first_seq integer NOT NULL,
    user_id uuid NOT NULL,
    last_seq integer NOT NULL,
    events text NOT NULL,
    CONSTRAINT pk_turn_deltas PRIMARY KEY (turn_id, first_seq)
);
"""

# A role belongs to the whole server: another BaatCheet database beside this one may have made it already.
# Since PostgreSQL 16 whoever makes a role is a member that may not yet become it, so that is asked there.
MAKE_ROLE = f"""
DO $$
DECLARE
    version int := current_setting('server_version_num');
    becoming text := CASE WHEN version >= 160000 THEN 'SET' ELSE 'MEMBER' END;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}') THEN
        CREATE ROLE {ROLE} NOLOGIN;
    END IF;
    IF NOT pg_has_role(current_user, '{ROLE}', becoming) THEN
        EXECUTE format('GRANT {ROLE} TO %I', current_user);
    END IF;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE EXCEPTION 'the database user % may not make or grant the role {ROLE}. Ask an administrator to run, '
        'the first unless the role is there: CREATE ROLE {ROLE} NOLOGIN; GRANT {ROLE} TO %;',
        current_user, quote_ident(current_user);
END $$;
"""

TENANT_TABLES = {
    "users": ("SELECT", "id"),
    "api_tokens": ("SELECT, INSERT, UPDATE, DELETE", "user_id"),
    "idempotency_keys": ("SELECT, INSERT, UPDATE, DELETE", "user_id"),
    "projects": ("SELECT, INSERT, UPDATE, DELETE", "user_id"),
    "conversations": ("SELECT, INSERT, UPDATE, DELETE", "user_id"),
    "messages": ("SELECT, INSERT, UPDATE, DELETE", "user_id"),
    "turns": ("SELECT, INSERT, UPDATE, DELETE", "user_id"),
    "turn_deltas": ("SELECT, INSERT, UPDATE, DELETE", "user_id"),
}


def upgrade() -> None:
    for statement in TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)
    op.execute(MAKE_ROLE)
    op.execute(f"GRANT USAGE ON SCHEMA public TO {ROLE}")
    for table, (privileges, owner) in TENANT_TABLES.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"GRANT {privileges} ON {table} TO {ROLE}")
        mine = f"{owner} = nullif(current_setting('baatcheet.user_id', true), '')::uuid"
        op.execute(f"CREATE POLICY tenant ON {table} TO {ROLE} USING ({mine}) WITH CHECK ({mine})")


def downgrade() -> None:
    # The role may serve another database of this server: it stays.
    for table in reversed(
        [*TENANT_TABLES.keys() - {"turns", "turn_deltas"}, "turns", "turn_deltas", "processes"]
    ):
        op.execute(f"DROP TABLE IF EXISTS {table} CASCADE")
    op.execute(f"REVOKE USAGE ON SCHEMA public FROM {ROLE}")
