"""Who may spend what, and what was spent.

A holder of limits is a user or one of their tokens, known by its id. A token may be none of `api_tokens`: who signs in
elsewhere has none there. Money is in microcents, millionths of a US cent.
"""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

ROLE = "baatcheet_tenant"

TABLES = """
CREATE TABLE spending_limits (
    holder uuid CONSTRAINT pk_spending_limits PRIMARY KEY,
    user_id uuid NOT NULL CONSTRAINT fk_spending_limits_user_id REFERENCES users ON DELETE CASCADE,
    kind text NOT NULL CONSTRAINT ck_spending_limits_kind CHECK (kind IN ('user', 'token')),
    models text[],
    requests_per_day bigint,
    requests_per_month bigint,
    tokens_per_day bigint,
    tokens_per_month bigint,
    microcents_per_day bigint,
    microcents_per_month bigint,
    version bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_spending_limits_user ON spending_limits (user_id);
CREATE INDEX idx_spending_limits_version ON spending_limits (version);
CREATE TABLE spending_changes (
    single boolean CONSTRAINT pk_spending_changes PRIMARY KEY DEFAULT true
        CONSTRAINT ck_spending_changes_single CHECK (single),
    limits bigint NOT NULL DEFAULT 0,
    prices bigint NOT NULL DEFAULT 0
);
INSERT INTO spending_changes DEFAULT VALUES;
CREATE TABLE spending (
    holder uuid NOT NULL,
    day date NOT NULL,
    user_id uuid NOT NULL CONSTRAINT fk_spending_user_id REFERENCES users ON DELETE CASCADE,
    requests bigint NOT NULL DEFAULT 0,
    tokens bigint NOT NULL DEFAULT 0,
    microcents bigint NOT NULL DEFAULT 0,
    CONSTRAINT pk_spending PRIMARY KEY (holder, day)
);
CREATE INDEX idx_spending_user ON spending (user_id);
CREATE INDEX idx_spending_day ON spending (day);
CREATE TABLE spending_reservations (
    id uuid CONSTRAINT pk_spending_reservations PRIMARY KEY,
    user_id uuid NOT NULL CONSTRAINT fk_spending_reservations_user_id REFERENCES users ON DELETE CASCADE,
    token_id uuid NOT NULL,
    day date NOT NULL,
    tokens bigint NOT NULL,
    microcents bigint NOT NULL,
    expires_at timestamptz NOT NULL,
    expired boolean NOT NULL DEFAULT false
);
CREATE INDEX idx_spending_reservations_user ON spending_reservations (user_id);
CREATE INDEX idx_spending_reservations_token ON spending_reservations (token_id);
CREATE INDEX idx_spending_reservations_expires ON spending_reservations (expires_at);
CREATE TABLE model_usage (
    user_id uuid NOT NULL CONSTRAINT fk_model_usage_user_id REFERENCES users ON DELETE CASCADE,
    day date NOT NULL,
    token_id uuid NOT NULL,
    model text NOT NULL,
    requests bigint NOT NULL DEFAULT 0,
    prompt_tokens bigint NOT NULL DEFAULT 0,
    cached_tokens bigint NOT NULL DEFAULT 0,
    completion_tokens bigint NOT NULL DEFAULT 0,
    recorded_seconds bigint NOT NULL DEFAULT 0,
    microcents bigint NOT NULL DEFAULT 0,
    unpriced bigint NOT NULL DEFAULT 0,
    CONSTRAINT pk_model_usage PRIMARY KEY (user_id, day, token_id, model)
);
CREATE INDEX idx_model_usage_day ON model_usage (day);
CREATE TABLE model_prices (
    pattern text CONSTRAINT pk_model_prices PRIMARY KEY,
    prompt numeric(13, 6) NOT NULL,
    completion numeric(13, 6) NOT NULL,
    cached numeric(13, 6),
    written numeric(13, 6),
    hour numeric(13, 6),
    updated_at timestamptz NOT NULL DEFAULT now()
);
"""

TENANT_TABLES = ("spending_limits", "spending", "spending_reservations", "model_usage")
OTHER_TABLES = ("spending_changes", "model_prices")

# Admits a request, or says which budgets of its user and its token are used up. Whoever asks for a holder waits until
# who asked before has committed: the second statement sees all that was admitted. What is under way counts as it was
# reserved. In PL/pgSQL, so that the second statement has a newer snapshot than the first.
ADMIT = """
CREATE FUNCTION admit_request(request uuid, who uuid, token uuid, estimate bigint, cost bigint, patience interval,
                              at timestamptz)
RETURNS TABLE (kind text, unit text, period text, most bigint, used bigint, held bigint)
LANGUAGE plpgsql AS $$
DECLARE
    today date;
BEGIN
    PERFORM FROM spending_limits l WHERE l.holder IN (who, token) ORDER BY l.holder FOR NO KEY UPDATE;
    today := (coalesce(at, clock_timestamp()) AT TIME ZONE 'UTC')::date;
    RETURN QUERY
        SELECT l.kind, b.unit, p.period, b.most, b.spent + b.held, b.held
        FROM spending_limits l
        CROSS JOIN (VALUES ('day', today), ('month', date_trunc('month', today)::date)) p(period, since)
        CROSS JOIN LATERAL (
            SELECT coalesce(sum(s.requests), 0)::bigint AS requests, coalesce(sum(s.tokens), 0)::bigint AS tokens,
                   coalesce(sum(s.microcents), 0)::bigint AS microcents
            FROM spending s WHERE s.holder = l.holder AND s.day >= p.since
        ) s
        CROSS JOIN LATERAL (
            SELECT count(*) AS requests, coalesce(sum(r.tokens), 0)::bigint AS tokens,
                   coalesce(sum(r.microcents), 0)::bigint AS microcents
            FROM spending_reservations r
            WHERE (r.user_id = l.holder OR r.token_id = l.holder) AND r.day >= p.since AND NOT r.expired
        ) r
        CROSS JOIN LATERAL (VALUES
            ('requests', CASE p.period WHEN 'day' THEN l.requests_per_day ELSE l.requests_per_month END,
             s.requests, r.requests),
            ('tokens', CASE p.period WHEN 'day' THEN l.tokens_per_day ELSE l.tokens_per_month END,
             s.tokens, r.tokens),
            ('usd', CASE p.period WHEN 'day' THEN l.microcents_per_day ELSE l.microcents_per_month END,
             s.microcents, r.microcents)
        ) b(unit, most, spent, held)
        WHERE l.holder IN (who, token) AND b.spent + b.held >= b.most;
    IF NOT FOUND THEN
        INSERT INTO spending_reservations (id, user_id, token_id, day, tokens, microcents, expires_at)
        VALUES (request, who, token, today, estimate, cost, clock_timestamp() + patience);
    END IF;
END $$
"""
SIGNATURE = "admit_request(uuid, uuid, uuid, bigint, bigint, interval, timestamptz)"


def upgrade() -> None:
    for statement in TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)
    op.execute(ADMIT)
    op.execute(f"REVOKE ALL ON FUNCTION {SIGNATURE} FROM PUBLIC")
    for table in TENANT_TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"GRANT SELECT ON {table} TO {ROLE}")
        mine = "user_id = nullif(current_setting('baatcheet.user_id', true), '')::uuid"
        op.execute(f"CREATE POLICY tenant ON {table} TO {ROLE} USING ({mine}) WITH CHECK ({mine})")
    for table in OTHER_TABLES:  # no tenant reads these: without a policy they see none
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")


def downgrade() -> None:
    op.execute(f"DROP FUNCTION {SIGNATURE}")
    for table in reversed((*TENANT_TABLES, *OTHER_TABLES)):
        op.execute(f"DROP TABLE {table}")
