"""Users' identities at OpenID providers."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


TABLES = """
CREATE TABLE user_identities (
    id uuid CONSTRAINT pk_user_identities PRIMARY KEY,
    user_id uuid NOT NULL CONSTRAINT fk_user_identities_user_id REFERENCES users ON DELETE CASCADE,
    issuer text NOT NULL,
    subject text NOT NULL,
    claims_at timestamptz,
    last_used_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT uq_user_identities_subject UNIQUE (issuer, subject)
);
CREATE INDEX idx_user_identities_user ON user_identities (user_id);
"""


def upgrade() -> None:
    for statement in TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)
    # No tenant is granted anything here; the wall stands all the same.
    mine = "user_id = nullif(current_setting('baatcheet.user_id', true), '')::uuid"
    op.execute("ALTER TABLE user_identities ENABLE ROW LEVEL SECURITY")
    op.execute(
        f"CREATE POLICY tenant ON user_identities TO baatcheet_tenant USING ({mine}) WITH CHECK ({mine})"
    )


def downgrade() -> None:
    op.execute("DROP TABLE user_identities")
