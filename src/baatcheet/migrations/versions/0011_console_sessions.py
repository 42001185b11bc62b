"""Sessions of the web console."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE console_sessions (
    hash bytea CONSTRAINT pk_console_sessions PRIMARY KEY,
    token_id uuid NOT NULL CONSTRAINT fk_console_sessions_token_id REFERENCES api_tokens ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    used_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_console_session_token ON console_sessions (token_id);
CREATE INDEX idx_console_session_used ON console_sessions (used_at);
"""


def upgrade() -> None:
    for statement in TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)
    # No tenant reads a session, their own neither: without a policy they see none.
    op.execute("ALTER TABLE console_sessions ENABLE ROW LEVEL SECURITY")


def downgrade() -> None:
    op.execute("DROP TABLE console_sessions")
