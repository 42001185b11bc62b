"""Webhooks: endpoints and their secrets, deliveries with their attempts."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

ROLE = "baatcheet_tenant"

TABLES = """
CREATE TABLE webhooks (
    id uuid CONSTRAINT pk_webhooks PRIMARY KEY,
    user_id uuid NOT NULL CONSTRAINT fk_webhooks_user_id REFERENCES users ON DELETE CASCADE,
    url text NOT NULL,
    description text NOT NULL DEFAULT '',
    events text[] NOT NULL,
    headers jsonb NOT NULL DEFAULT '{}',
    active boolean NOT NULL DEFAULT true,
    failing_since timestamptz,
    disabled_at timestamptz,
    disabled_reason text CONSTRAINT ck_webhooks_disabled_reason
        CHECK (disabled_reason IN ('owner', 'failing', 'gone')),
    deleted_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_webhook_user_active ON webhooks (user_id, active, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX idx_webhook_deleted ON webhooks (deleted_at) WHERE deleted_at IS NOT NULL;

CREATE TABLE webhook_secrets (
    id uuid CONSTRAINT pk_webhook_secrets PRIMARY KEY,
    webhook_id uuid NOT NULL
        CONSTRAINT fk_webhook_secrets_webhook_id REFERENCES webhooks ON DELETE CASCADE,
    user_id uuid NOT NULL,
    secret text NOT NULL,
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX idx_webhook_secret_webhook ON webhook_secrets (webhook_id, id DESC);

CREATE TABLE webhook_deliveries (
    id uuid CONSTRAINT pk_webhook_deliveries PRIMARY KEY,
    webhook_id uuid NOT NULL
        CONSTRAINT fk_webhook_deliveries_webhook_id REFERENCES webhooks ON DELETE CASCADE,
    user_id uuid NOT NULL,
    message_id uuid NOT NULL,
    event text NOT NULL,
    body text NOT NULL,
    status text NOT NULL DEFAULT 'pending' CONSTRAINT ck_webhook_deliveries_status
        CHECK (status IN ('pending', 'delivered', 'failed', 'cancelled')),
    attempt_count integer NOT NULL DEFAULT 0,
    response_status integer,
    error text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    CONSTRAINT uq_webhook_deliveries_message_id UNIQUE (webhook_id, message_id)
) WITH (fillfactor = 90);
CREATE INDEX idx_webhook_delivery_created ON webhook_deliveries (webhook_id, created_at DESC, id DESC);
-- What is looked for among many that went well.
CREATE INDEX idx_webhook_delivery_undelivered ON webhook_deliveries (webhook_id, status, created_at DESC, id DESC)
    WHERE status IN ('failed', 'cancelled');

CREATE TABLE webhook_attempts (
    delivery_id uuid NOT NULL
        CONSTRAINT fk_webhook_attempts_delivery_id REFERENCES webhook_deliveries ON DELETE CASCADE,
    number integer NOT NULL,
    user_id uuid NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    duration_ms integer,
    status integer NOT NULL DEFAULT 0,
    response text NOT NULL DEFAULT '',
    error text,
    CONSTRAINT pk_webhook_attempts PRIMARY KEY (delivery_id, number)
) WITH (fillfactor = 80);
"""

TENANT_TABLES = {
    "webhooks": "SELECT, INSERT, UPDATE, DELETE",
    # A secret is written and made to expire in its owner's name; only a worker reads it, to sign.
    "webhook_secrets": "SELECT (id, webhook_id, user_id, expires_at, created_at), INSERT, UPDATE (expires_at), DELETE",
    "webhook_deliveries": "SELECT, INSERT, UPDATE, DELETE",
    "webhook_attempts": "SELECT",
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
    for table in reversed(TENANT_TABLES):
        op.execute(f"DROP TABLE {table}")
