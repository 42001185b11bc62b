"""Exports, and imports with what became of each conversation."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

ROLE = "baatcheet_tenant"

TABLES = """
CREATE TABLE exports (
    id uuid CONSTRAINT pk_exports PRIMARY KEY,
    user_id uuid NOT NULL CONSTRAINT fk_exports_user_id REFERENCES users ON DELETE CASCADE,
    scope text NOT NULL CONSTRAINT ck_exports_scope CHECK (scope IN ('conversation', 'account')),
    conversation_id uuid,
    format text NOT NULL CONSTRAINT ck_exports_format CHECK (format IN ('pdf', 'md', 'json', 'txt', 'zip')),
    branch text NOT NULL CONSTRAINT ck_exports_branch CHECK (branch IN ('active', 'all')),
    head_id uuid,
    options jsonb NOT NULL DEFAULT '{}',
    status text NOT NULL DEFAULT 'pending' CONSTRAINT ck_exports_status
        CHECK (status IN ('pending', 'completed', 'failed', 'cancelled', 'expired')),
    filename text NOT NULL,
    size bigint,
    notes jsonb NOT NULL DEFAULT '[]',
    error text,
    job_id uuid,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    completed_at timestamptz,
    expires_at timestamptz
);
CREATE INDEX idx_export_user ON exports (user_id, id DESC);
CREATE INDEX idx_export_conversation ON exports (conversation_id, id DESC) WHERE conversation_id IS NOT NULL;
CREATE INDEX idx_export_expires ON exports (expires_at) WHERE status = 'completed';

CREATE TABLE imports (
    id uuid CONSTRAINT pk_imports PRIMARY KEY,
    user_id uuid NOT NULL CONSTRAINT fk_imports_user_id REFERENCES users ON DELETE CASCADE,
    filename text NOT NULL,
    size bigint NOT NULL,
    sha256 text NOT NULL,
    duplicates text NOT NULL CONSTRAINT ck_imports_duplicates CHECK (duplicates IN ('skip', 'copy')),
    project_id uuid,
    source text CONSTRAINT ck_imports_source CHECK (source IN ('baatcheet', 'chatgpt')),
    status text NOT NULL DEFAULT 'pending' CONSTRAINT ck_imports_status
        CHECK (status IN ('pending', 'completed', 'failed', 'cancelled')),
    error text,
    job_id uuid,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz
);
CREATE INDEX idx_import_user ON imports (user_id, id DESC);

CREATE TABLE imported_conversations (
    import_id uuid NOT NULL CONSTRAINT fk_imported_conversations_import_id REFERENCES imports ON DELETE CASCADE,
    place integer NOT NULL,
    user_id uuid NOT NULL,
    status text NOT NULL CONSTRAINT ck_imported_conversations_status
        CHECK (status IN ('imported', 'skipped', 'failed')),
    conversation_id uuid,
    source_id text NOT NULL,
    title text NOT NULL,
    messages integer NOT NULL DEFAULT 0,
    digest text,
    problem text,
    notes jsonb NOT NULL DEFAULT '[]',
    CONSTRAINT pk_imported_conversations PRIMARY KEY (import_id, place)
);
CREATE INDEX idx_imported_conversation_digest ON imported_conversations (user_id, digest) WHERE status = 'imported';
"""

TENANT_TABLES = ("exports", "imports", "imported_conversations")


def upgrade() -> None:
    for statement in TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)
    for table in TENANT_TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {ROLE}")
        mine = "user_id = nullif(current_setting('baatcheet.user_id', true), '')::uuid"
        op.execute(f"CREATE POLICY tenant ON {table} TO {ROLE} USING ({mine}) WITH CHECK ({mine})")


def downgrade() -> None:
    for table in reversed(TENANT_TABLES):
        op.execute(f"DROP TABLE {table}")
