"""Routes of models, as data."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE routes (
    name text CONSTRAINT pk_routes PRIMARY KEY
        CONSTRAINT ck_routes_name CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,63}$'),
    description text NOT NULL DEFAULT '',
    strategy text NOT NULL
        CONSTRAINT ck_routes_strategy CHECK (strategy IN ('ordered', 'weighted', 'fastest', 'cheapest')),
    tasks text[] NOT NULL
        CONSTRAINT ck_routes_tasks CHECK (tasks <@ ARRAY['chat', 'vision', 'ocr', 'transcription'] AND tasks <> '{}'),
    steps jsonb NOT NULL CONSTRAINT ck_routes_steps CHECK (jsonb_typeof(steps) = 'array'),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
)
"""


def upgrade() -> None:
    op.execute(TABLES)
    # They are read into memory by the processes themselves: without a policy, a tenant sees none.
    op.execute("ALTER TABLE routes ENABLE ROW LEVEL SECURITY")


def downgrade() -> None:
    op.execute("DROP TABLE routes")
