"""Providers' keys: the ledger of how each fares, what it was used for, rotations, and the audit of who did what.

No key is ever in here: each is known by an HMAC of it.
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE provider_keys (
    id text CONSTRAINT pk_provider_keys PRIMARY KEY,
    provider text NOT NULL,
    hint text NOT NULL,
    store text NOT NULL,
    state text NOT NULL DEFAULT 'active'
        CONSTRAINT ck_provider_keys_state CHECK (state IN ('active', 'quarantined', 'retired')),
    reason text,
    refused boolean NOT NULL DEFAULT false,
    resting_until timestamptz,
    last_error text,
    last_error_at timestamptz,
    last_used_at timestamptz,
    added_at timestamptz NOT NULL DEFAULT now(),
    retired_at timestamptz,
    changed_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_provider_keys_provider ON provider_keys (provider, state);
CREATE TABLE key_usage (
    key_id text NOT NULL CONSTRAINT fk_key_usage_key_id REFERENCES provider_keys ON DELETE CASCADE,
    day date NOT NULL,
    granted integer NOT NULL DEFAULT 0,
    requests integer NOT NULL DEFAULT 0,
    tokens bigint NOT NULL DEFAULT 0,
    errors integer NOT NULL DEFAULT 0,
    CONSTRAINT pk_key_usage PRIMARY KEY (key_id, day)
);
CREATE INDEX idx_key_usage_day ON key_usage (day);
CREATE TABLE key_changes (
    single boolean CONSTRAINT pk_key_changes PRIMARY KEY DEFAULT true CONSTRAINT ck_key_changes_single CHECK (single),
    sets bigint NOT NULL DEFAULT 0,
    states bigint NOT NULL DEFAULT 0,
    routes bigint NOT NULL DEFAULT 0
);
INSERT INTO key_changes DEFAULT VALUES;
CREATE TABLE key_watchers (
    process uuid CONSTRAINT pk_key_watchers PRIMARY KEY,
    sets bigint NOT NULL,
    holds jsonb NOT NULL DEFAULT '[]',
    in_flight jsonb NOT NULL DEFAULT '{}',
    seen_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE key_rotations (
    id uuid CONSTRAINT pk_key_rotations PRIMARY KEY,
    provider text NOT NULL,
    key_id text,
    store text,
    step text NOT NULL,
    outcome text CONSTRAINT ck_key_rotations_outcome CHECK (outcome IN ('rotated', 'rolled_back', 'failed')),
    detail jsonb NOT NULL DEFAULT '{}',
    error text,
    started_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz
);
CREATE UNIQUE INDEX uq_key_rotations_running ON key_rotations (provider) WHERE outcome IS NULL;
CREATE INDEX idx_key_rotations_started ON key_rotations (started_at DESC);
CREATE TABLE audit_entries (
    id uuid CONSTRAINT pk_audit_entries PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    actor_id uuid,
    actor text NOT NULL,
    via text NOT NULL CONSTRAINT ck_audit_entries_via CHECK (via IN ('api', 'console', 'cli', 'system')),
    address text,
    action text NOT NULL,
    subject text NOT NULL,
    detail jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX idx_audit_entries_subject ON audit_entries (subject, id DESC);
"""

NAMES = ("provider_keys", "key_usage", "key_changes", "key_watchers", "key_rotations", "audit_entries")


def upgrade() -> None:
    for statement in TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)
    # No tenant reads any of these: without a policy they see none.
    for name in NAMES:
        op.execute(f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY")


def downgrade() -> None:
    for name in reversed(NAMES):
        op.execute(f"DROP TABLE {name} CASCADE")
