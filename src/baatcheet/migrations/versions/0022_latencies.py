"""How long turns took, as counts up to bounds, and the days of everybody together.

`analytics_everybody` is the sum of `analytics_daily` over all users; whoever changes a day changes it there, by trigger.
What is counted already is counted anew by a worker; of turns that are no longer there, only the average of a day is known,
and all of that day's are put where it is.
"""

import re
from importlib import import_module

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

ROLE = "baatcheet_tenant"

BOUNDS = (250, 500, 1000, 2000, 4000, 8000, 16000, 32000, 64000, 128000, 256000)  # ms
TOOK = tuple(f"took_{one}" for one in BOUNDS)
COUNTED = ("analytics_daily", "analytics_fresh", "analytics_kept", "forgotten_analytics")
_WITHIN = tuple(zip((-1, *BOUNDS), BOUNDS, strict=False))  # above, up to

_before = import_module("baatcheet.migrations.versions.0017_analytics")
AMOUNTS = (*_before.AMOUNTS, *TOOK)

_LATENCY = """
    CASE WHEN t.status = 'completed' AND t.ended_at > t.created_at
         THEN trunc(extract(epoch FROM t.ended_at - t.created_at) * 1000)::bigint ELSE 0 END AS latency_ms
FROM turns t WHERE t.status <> 'running'"""
_LATENCIES = """
    l.ms AS latency_ms,
    {took}
FROM turns t CROSS JOIN LATERAL (  -- made once, for all that is told of it
    SELECT CASE WHEN t.status = 'completed' AND t.ended_at > t.created_at
                THEN trunc(extract(epoch FROM t.ended_at - t.created_at) * 1000)::bigint ELSE 0 END AS ms OFFSET 0
) l WHERE t.status <> 'running'""".replace(
    "{took}",
    ",\n    ".join(
        f"(t.status = 'completed' AND l.ms > {above} AND l.ms <= {upto})::integer AS took_{upto}"
        for above, upto in _WITHIN
    ),
)

EVERYBODY = """
CREATE TABLE analytics_everybody (
    date date NOT NULL,
    model text NOT NULL,
    {amounts},
    CONSTRAINT pk_analytics_everybody PRIMARY KEY (date, model)
) WITH (fillfactor = 80)
""".format(amounts=",\n    ".join(f"{one} bigint NOT NULL DEFAULT 0" for one in AMOUNTS))

_ADDED = ", ".join(
    f"{one} = greatest(e.{one}, excluded.{one})"
    if one == "slowest_ms"
    else f"{one} = e.{one} + excluded.{one}"
    for one in AMOUNTS
)
_SLOWEST = """coalesce((
            SELECT max(d.slowest_ms) FROM analytics_daily d WHERE d.date = e.date AND d.model = e.model), 0)"""


def _of_all(amount: str, highest: str = "max(m.slowest_ms)") -> str:
    """The sums of a column's `amount`, of the slowest one the highest."""
    return ", ".join(highest if one == "slowest_ms" else f"sum({amount.format(one)})" for one in AMOUNTS)


TRIGGERS = f"""
-- In the order of its key, so that no two can wait for each other.
CREATE FUNCTION add_up_days() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO analytics_everybody AS e (date, model, {", ".join(AMOUNTS)})
        SELECT m.date, m.model, {_of_all("m.{}")} FROM made m GROUP BY m.date, m.model ORDER BY m.date, m.model
        ON CONFLICT (date, model) DO UPDATE SET {_ADDED};
    ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO analytics_everybody AS e (date, model, {", ".join(AMOUNTS)})
        SELECT m.date, m.model, {_of_all("m.{0} - g.{0}")}
        FROM made m JOIN gone g ON (g.user_id, g.date, g.model) = (m.user_id, m.date, m.model)
        GROUP BY m.date, m.model ORDER BY m.date, m.model
        ON CONFLICT (date, model) DO UPDATE SET {_ADDED};
        UPDATE analytics_everybody e SET slowest_ms = {_SLOWEST} FROM (
            SELECT g.date, g.model, max(g.slowest_ms) AS slowest_ms
            FROM gone g JOIN made m ON (m.user_id, m.date, m.model) = (g.user_id, g.date, g.model)
            WHERE m.slowest_ms < g.slowest_ms GROUP BY g.date, g.model
        ) g WHERE e.date = g.date AND e.model = g.model AND e.slowest_ms <= g.slowest_ms;
    ELSE
        INSERT INTO analytics_everybody AS e (date, model, {", ".join(AMOUNTS)})
        SELECT g.date, g.model, {_of_all("-g.{}", highest="0")} FROM gone g
        GROUP BY g.date, g.model ORDER BY g.date, g.model
        ON CONFLICT (date, model) DO UPDATE SET {_ADDED};
        UPDATE analytics_everybody e SET slowest_ms = {_SLOWEST} FROM (
            SELECT g.date, g.model, max(g.slowest_ms) AS slowest_ms FROM gone g GROUP BY g.date, g.model
        ) g WHERE e.date = g.date AND e.model = g.model AND g.slowest_ms > 0 AND e.slowest_ms <= g.slowest_ms;
        DELETE FROM analytics_everybody e USING (SELECT DISTINCT date, model FROM gone) g
        WHERE e.date = g.date AND e.model = g.model AND {" AND ".join(f"e.{one} = 0" for one in AMOUNTS)};
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER add_up_made AFTER INSERT ON analytics_daily REFERENCING NEW TABLE AS made
    FOR EACH STATEMENT EXECUTE FUNCTION add_up_days();
CREATE TRIGGER add_up_changed AFTER UPDATE ON analytics_daily REFERENCING OLD TABLE AS gone NEW TABLE AS made
    FOR EACH STATEMENT EXECUTE FUNCTION add_up_days();
CREATE TRIGGER add_up_gone AFTER DELETE ON analytics_daily REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION add_up_days();
"""  # noqa: S608 - the parts are constants
_ADD_UP = f"""
INSERT INTO analytics_everybody (date, model, {", ".join(AMOUNTS)})
SELECT m.date, m.model, {_of_all("m.{}")} FROM analytics_daily m GROUP BY m.date, m.model
"""  # noqa: S608 - the parts are constants


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS idx_model_usage_others")
        op.execute(
            "CREATE INDEX CONCURRENTLY idx_model_usage_others ON model_usage (day) WHERE kind <> 'chat'"
        )
    _hold()
    for table in COUNTED:
        # A constant default rewrites no row.
        op.execute(
            f"ALTER TABLE {table} " + ", ".join(f"ADD COLUMN {one} bigint NOT NULL DEFAULT 0" for one in TOOK)
        )
        op.execute(
            f"UPDATE {table} SET "  # noqa: S608 - the parts are constants
            + ", ".join(
                f"took_{upto} = CASE WHEN latency_ms / completed > {above} AND latency_ms / completed <= {upto} "
                "THEN completed ELSE 0 END"
                for above, upto in _WITHIN
            )
            + " WHERE completed > 0"
        )
    assert _before.VIEWS.count(_LATENCY) == 1
    _see(_before.VIEWS.replace(_LATENCY, _LATENCIES))
    op.execute(_replacing(_before.keep_conversation((*_before.OF_TURN, *TOOK))))
    op.execute(EVERYBODY)
    op.execute("ALTER TABLE analytics_everybody ENABLE ROW LEVEL SECURITY")  # no tenant reads it
    op.execute(_ADD_UP)
    for statement in re.split(r";\n+(?=CREATE |-- )", TRIGGERS.strip().rstrip(";")):
        op.execute(statement)
    op.execute("INSERT INTO analytics_backlog SELECT id FROM users ON CONFLICT DO NOTHING")


def downgrade() -> None:
    op.execute("DROP INDEX idx_model_usage_others")
    _hold()
    for trigger in ("add_up_made", "add_up_changed", "add_up_gone"):
        op.execute(f"DROP TRIGGER {trigger} ON analytics_daily")
    op.execute("DROP FUNCTION add_up_days()")
    op.execute("DROP TABLE analytics_everybody")
    op.execute(_replacing(_before.keep_conversation(_before.OF_TURN)))
    _see(_before.VIEWS)
    for table in COUNTED:
        op.execute(f"ALTER TABLE {table} " + ", ".join(f"DROP COLUMN {one}" for one in TOOK))


def _hold() -> None:
    """All at once, in the order of 0017, and not for long: whoever reads conversations and turns goes on."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("LOCK TABLE users, conversations, turns IN SHARE ROW EXCLUSIVE MODE")
    op.execute(f"LOCK TABLE {', '.join(COUNTED)} IN ACCESS EXCLUSIVE MODE")


def _see(views: str) -> None:
    """Make the views of turns anew, out of all of 0017's."""
    for name in ("analytics_of_turns", "analytics_of_ended"):
        op.execute(f"DROP VIEW {name}")
    for statement in views.split(";\n"):
        if "VIEW analytics_of_ended" in statement or "VIEW analytics_of_turns" in statement:
            op.execute(statement)
    for name in ("analytics_of_turns", "analytics_of_ended"):
        op.execute(f"GRANT SELECT ON {name} TO {ROLE}")


def _replacing(function: str) -> str:
    return function.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")
