"""What else a user of many messages has: webhooks and their deliveries, notifications, events, jobs, usage."""

from collections.abc import Sequence

import asyncpg

from benchmarks.data.seeding import SeededUser

# $1: the user, $2: how many messages they have.
_ROWS: Sequence[str] = (
    """INSERT INTO webhooks (id, user_id, url, description, events, headers, active)
       SELECT gen_random_uuid(), $1, 'https://example.com/' || n, '', '{*}', '{}', true FROM generate_series(1, 5) n""",
    """INSERT INTO webhook_deliveries (id, webhook_id, user_id, message_id, event, body, status, attempt_count,
                                       response_status, created_at, ended_at)
       SELECT gen_random_uuid(), w.id, $1, gen_random_uuid(), 'turn.completed', '{"data": {}}',
              CASE WHEN n % 50 = 0 THEN 'failed' ELSE 'delivered' END, 1, 200, t.at, t.at
       FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM webhooks WHERE user_id = $1) w,
            generate_series(1, $2::integer / 20) n,
            LATERAL (SELECT now() - (n::float8 / ($2 / 20 + 1)) * interval '730 days' AS at) t
       WHERE n % 5 + 1 = w.place""",
    """INSERT INTO notifications (id, user_id, event_id, kind, title, text, listed, times, read_at, created_at,
                                  updated_at)
       SELECT gen_random_uuid(), $1, gen_random_uuid(), 'export.completed', 'An export is ready', 'x', true, 1,
              CASE WHEN n % 10 = 0 THEN NULL ELSE now() END, now(), now()
       FROM generate_series(1, $2::integer / 50) n""",
    """INSERT INTO events (id, user_id, type, data, created_at)
       SELECT gen_random_uuid(), $1, 'turn.completed', '{"turn_id": "x"}', now()
       FROM generate_series(1, $2::integer / 2) n""",
    """INSERT INTO jobs (id, user_id, kind, queue, lane, priority, status, visible, payload, attempts, max_attempts,
                         failures, due_at, created_at, ended_at)
       SELECT gen_random_uuid(), $1, 'export.make', 'exports', $1, 0, 'succeeded', true, '{}', 1, 3, '[]', now(), now(),
              now()
       FROM generate_series(1, $2::integer / 50) n""",
    """INSERT INTO model_usage (user_id, day, token_id, model, requests, prompt_tokens, cached_tokens,
                                completion_tokens, recorded_seconds, microcents, unpriced)
       SELECT $1, current_date - d, $1, m, 20, 20000, 0, 4000, 0, 100, 0
       FROM generate_series(0, 364) d, unnest(ARRAY['a/x', 'b/y', 'c/z']) m""",
)
_TABLES = ("webhooks", "webhook_deliveries", "notifications", "events", "jobs", "model_usage")


async def add_others(connection: asyncpg.Connection, users: Sequence[SeededUser]) -> None:
    """Give `users` as much of everything else as suits their messages."""
    await connection.execute("SET statement_timeout = 0")
    await connection.execute("ALTER TABLE jobs DISABLE TRIGGER tell_made")
    for user in users:
        for statement in _ROWS:
            arguments = [user.id, user.messages] if "$2" in statement else [user.id]
            await connection.execute(statement, *arguments)
    await connection.execute("ALTER TABLE jobs ENABLE TRIGGER tell_made")
    for table in _TABLES:
        await connection.execute(f"VACUUM (ANALYZE) {table}")
