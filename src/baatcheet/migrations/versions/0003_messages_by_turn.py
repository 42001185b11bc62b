"""Messages are found by their turn: an opening whose answer was lost looks for its own among all there are."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE INDEX idx_message_turn ON messages (turn_id)")


def downgrade() -> None:
    op.execute("DROP INDEX idx_message_turn")
