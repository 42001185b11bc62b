"""Secrets that the deployment makes for itself; notifications."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

ROLE = "baatcheet_tenant"

TABLES = """
CREATE TABLE deployment_secrets (
    name text CONSTRAINT pk_deployment_secrets PRIMARY KEY,
    value bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE notifications (
    id uuid CONSTRAINT pk_notifications PRIMARY KEY,
    user_id uuid NOT NULL CONSTRAINT fk_notifications_user_id REFERENCES users ON DELETE CASCADE,
    event_id uuid NOT NULL,
    kind text NOT NULL,
    title text NOT NULL,
    text text NOT NULL,
    link text,
    listed boolean NOT NULL,
    alike text,
    times integer NOT NULL DEFAULT 1,
    email_status text CONSTRAINT ck_notifications_email_status CHECK (email_status IN ('queued', 'sent', 'failed')),
    read_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_notification_user ON notifications (user_id, id DESC) WHERE listed;
CREATE INDEX idx_notification_unread ON notifications (user_id, id DESC) WHERE listed AND read_at IS NULL;
CREATE UNIQUE INDEX uq_notification_alike ON notifications (user_id, alike) WHERE alike IS NOT NULL AND read_at IS NULL;
CREATE INDEX idx_notification_emailed ON notifications (user_id, created_at) WHERE email_status IS NOT NULL;
CREATE INDEX idx_notification_updated ON notifications (updated_at);

CREATE TABLE notification_preferences (
    user_id uuid NOT NULL CONSTRAINT fk_notification_preferences_user_id REFERENCES users ON DELETE CASCADE,
    kind text NOT NULL,
    in_app boolean NOT NULL,
    email boolean NOT NULL,
    CONSTRAINT pk_notification_preferences PRIMARY KEY (user_id, kind)
);
"""

TENANT_TABLES = {
    "notifications": "SELECT, UPDATE, DELETE",
    "notification_preferences": "SELECT, INSERT, UPDATE",
}


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
    for table in ("notification_preferences", "notifications", "deployment_secrets"):
        op.execute(f"DROP TABLE {table}")
