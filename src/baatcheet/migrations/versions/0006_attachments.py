"""Attachments, and the text of their pages."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

ROLE = "baatcheet_tenant"

TABLES = """
CREATE TABLE attachments (
    id uuid CONSTRAINT pk_attachments PRIMARY KEY,
    user_id uuid NOT NULL CONSTRAINT fk_attachments_user_id REFERENCES users ON DELETE CASCADE,
    job_id uuid NOT NULL,
    reading uuid,
    filename text NOT NULL,
    kind text NOT NULL,
    media_type text NOT NULL,
    size bigint NOT NULL,
    sha256 text NOT NULL,
    status text NOT NULL DEFAULT 'processing' CONSTRAINT ck_attachments_status
        CHECK (status IN ('processing', 'completed', 'failed', 'cancelled')),
    width integer,
    height integer,
    has_view boolean NOT NULL DEFAULT false,
    pages integer,
    characters integer,
    truncated boolean NOT NULL DEFAULT false,
    confidence double precision,
    language text,
    engine text,
    notes jsonb NOT NULL DEFAULT '[]',
    error text,
    created_at timestamptz NOT NULL DEFAULT now(),
    completed_at timestamptz
);
CREATE INDEX idx_attachment_user ON attachments (user_id, id DESC);
CREATE UNIQUE INDEX uq_attachment_user_sha256 ON attachments (user_id, sha256);

CREATE TABLE attachment_pages (
    attachment_id uuid NOT NULL CONSTRAINT fk_attachment_pages_attachment_id
        REFERENCES attachments ON DELETE CASCADE,
    reading uuid NOT NULL,
    number integer NOT NULL,
    user_id uuid NOT NULL,
    text text NOT NULL,
    engine text NOT NULL,
    width integer,
    height integer,
    turned double precision NOT NULL DEFAULT 0,
    confidence double precision,
    language text,
    lines jsonb NOT NULL DEFAULT '[]',
    note text,
    CONSTRAINT pk_attachment_pages PRIMARY KEY (attachment_id, reading, number)
);
"""

# Pages are written by jobs, and go with their attachment.
TENANT_TABLES = {"attachments": "SELECT, INSERT, UPDATE, DELETE", "attachment_pages": "SELECT"}


def upgrade() -> None:
    for statement in TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)
    for table, privileges in TENANT_TABLES.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"GRANT {privileges} ON {table} TO {ROLE}")
        mine = "user_id = nullif(current_setting('baatcheet.user_id', true), '')::uuid"
        op.execute(f"CREATE POLICY tenant ON {table} TO {ROLE} USING ({mine}) WITH CHECK ({mine})")


def downgrade() -> None:
    for table in reversed(TENANT_TABLES):
        op.execute(f"DROP TABLE {table}")
