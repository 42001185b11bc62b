"""Recordings, their transcriptions, and what has been transcribed of those that are under way."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

ROLE = "baatcheet_tenant"

TABLES = """
CREATE TABLE audio (
    id uuid CONSTRAINT pk_audio PRIMARY KEY,
    user_id uuid NOT NULL CONSTRAINT fk_audio_user_id REFERENCES users ON DELETE CASCADE,
    job_id uuid NOT NULL,
    filename text NOT NULL,
    media_type text NOT NULL,
    size bigint NOT NULL,
    sha256 text NOT NULL,
    status text NOT NULL DEFAULT 'processing' CONSTRAINT ck_audio_status
        CHECK (status IN ('processing', 'completed', 'failed', 'cancelled')),
    model text,
    language text,
    prompt text,
    temperature double precision,
    seconds double precision,
    transcription_text text,
    detected_language text,
    confidence double precision,
    segments jsonb,
    words jsonb,
    engine text,
    warning text,
    error text,
    created_at timestamptz NOT NULL DEFAULT now(),
    completed_at timestamptz
);
CREATE INDEX idx_audio_user ON audio (user_id, id DESC);

CREATE TABLE audio_pieces (
    audio_id uuid NOT NULL CONSTRAINT fk_audio_pieces_audio_id REFERENCES audio ON DELETE CASCADE,
    first_sample bigint NOT NULL,
    user_id uuid NOT NULL,
    last_sample bigint NOT NULL,
    engine text NOT NULL,
    heard jsonb NOT NULL,
    CONSTRAINT pk_audio_pieces PRIMARY KEY (audio_id, first_sample)
);
"""

# Pieces are written by jobs, and go with their recording.
TENANT_TABLES = {"audio": "SELECT, INSERT, UPDATE, DELETE", "audio_pieces": "SELECT"}


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
