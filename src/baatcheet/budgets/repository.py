"""The statements of budgets. Those with `$1` are for the raw connection."""

from typing import Any, Final

from baatcheet.budgets.limits import Amounts, Limits

CHANGES: Final = "SELECT limits, prices FROM spending_changes"
LIMITS_SINCE: Final = """
SELECT holder, models, requests_per_day, requests_per_month, tokens_per_day, tokens_per_month, microcents_per_day,
       microcents_per_month, version
FROM spending_limits WHERE version > $1
"""
PRICES: Final = "SELECT pattern, prompt, completion, cached, written, hour FROM model_prices"

ADMIT: Final = "SELECT kind, unit, period, most, used, held FROM admit_request($1, $2, $3, $4, $5, $6, $7)"

_ADD_SPENDING = """
ON CONFLICT (holder, day) DO UPDATE SET requests = spending.requests + excluded.requests,
    tokens = spending.tokens + excluded.tokens, microcents = spending.microcents + excluded.microcents
"""

# $1…$4: reservations, and the requests (1, or 0 when nobody answered), tokens and microcents that each came to. One
# that is settled already is passed over; what an expired one was charged with is put right. Every statement here that
# adds to `spending` does so in the order of its key, so that no two can wait for each other.
SETTLE: Final = f"""
WITH settled AS (
    DELETE FROM spending_reservations r
    USING unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[]) told(id, requests, tokens, microcents)
    WHERE r.id = told.id
    RETURNING r.user_id, r.token_id, r.day,
              told.requests - CASE WHEN r.expired THEN 1 ELSE 0 END AS requests,
              told.tokens - CASE WHEN r.expired THEN r.tokens ELSE 0 END AS tokens,
              told.microcents - CASE WHEN r.expired THEN r.microcents ELSE 0 END AS microcents
)
INSERT INTO spending (holder, day, user_id, requests, tokens, microcents)
SELECT h.holder, s.day, s.user_id, sum(s.requests), sum(s.tokens), sum(s.microcents)
FROM settled s CROSS JOIN LATERAL (VALUES (s.user_id), (s.token_id)) h(holder)
GROUP BY h.holder, s.day, s.user_id ORDER BY h.holder, s.day
{_ADD_SPENDING}
"""  # noqa: S608 - the parts are constants

# A process that was killed tells nothing of its requests any more: they are charged as they were reserved.
EXPIRE: Final = f"""
WITH due AS (
    SELECT r.id FROM spending_reservations r WHERE r.expires_at < now() AND NOT r.expired
    ORDER BY r.id LIMIT 1000 FOR UPDATE SKIP LOCKED
), late AS (
    UPDATE spending_reservations r SET expired = true FROM due WHERE r.id = due.id
    RETURNING r.user_id, r.token_id, r.day, r.tokens, r.microcents
)
INSERT INTO spending (holder, day, user_id, requests, tokens, microcents)
SELECT h.holder, l.day, l.user_id, count(*), sum(l.tokens), sum(l.microcents)
FROM late l CROSS JOIN LATERAL (VALUES (l.user_id), (l.token_id)) h(holder)
GROUP BY h.holder, l.day, l.user_id ORDER BY h.holder, l.day
{_ADD_SPENDING}
"""  # noqa: S608 - the parts are constants

# Of holders without a budget, a second's worth at once. A user may be gone by now.
ADD_SPENDING: Final = f"""
INSERT INTO spending (holder, day, user_id, requests, tokens, microcents)
SELECT s.holder, s.day, s.user_id, s.requests, s.tokens, s.microcents
FROM unnest($1::uuid[], $2::date[], $3::uuid[], $4::bigint[], $5::bigint[], $6::bigint[])
     s(holder, day, user_id, requests, tokens, microcents)
JOIN users u ON u.id = s.user_id
ORDER BY s.holder, s.day
{_ADD_SPENDING}
"""  # noqa: S608 - the parts are constants

ADD_USAGE: Final = """
INSERT INTO model_usage (user_id, day, token_id, model, kind, requests, prompt_tokens, cached_tokens,
                         completion_tokens, recorded_seconds, microcents, unpriced)
SELECT s.user_id, s.day, s.token_id, s.model, s.kind, s.requests, s.prompt, s.cached, s.completion, s.seconds,
       s.microcents, s.unpriced
FROM unnest($1::uuid[], $2::date[], $3::uuid[], $4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::bigint[],
            $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[])
     s(user_id, day, token_id, model, kind, requests, prompt, cached, completion, seconds, microcents, unpriced)
JOIN users u ON u.id = s.user_id
ORDER BY s.user_id, s.day, s.token_id, s.model, s.kind
ON CONFLICT (user_id, day, token_id, model, kind) DO UPDATE SET
    requests = model_usage.requests + excluded.requests,
    prompt_tokens = model_usage.prompt_tokens + excluded.prompt_tokens,
    cached_tokens = model_usage.cached_tokens + excluded.cached_tokens,
    completion_tokens = model_usage.completion_tokens + excluded.completion_tokens,
    recorded_seconds = model_usage.recorded_seconds + excluded.recorded_seconds,
    microcents = model_usage.microcents + excluded.microcents,
    unpriced = model_usage.unpriced + excluded.unpriced
"""

# `now()`, because no index serves a comparison with `clock_timestamp()`, which is another one for each row.
FORGET: Final = (
    "DELETE FROM spending_reservations WHERE expired AND expires_at < now() - interval '2 days'",
    "DELETE FROM spending WHERE day < (now() AT TIME ZONE 'UTC')::date - 62",
    "DELETE FROM model_usage WHERE day < (now() AT TIME ZONE 'UTC')::date - 400 AND kind = 'chat'",
)

# What a holder has spent since the first day of the day and of the month, and what of theirs is under way.
STANDING: Final = """
SELECT p.period, s.requests, s.tokens, s.microcents,
       r.requests AS held_requests, r.tokens AS held_tokens, r.microcents AS held_microcents
FROM (VALUES ('day', CAST(:today AS date)), ('month', CAST(:first AS date))) p(period, since)
CROSS JOIN LATERAL (
    SELECT CAST(coalesce(sum(s.requests), 0) AS bigint) AS requests,
           CAST(coalesce(sum(s.tokens), 0) AS bigint) AS tokens,
           CAST(coalesce(sum(s.microcents), 0) AS bigint) AS microcents
    FROM spending s WHERE s.holder = :holder AND s.day >= p.since
) s
CROSS JOIN LATERAL (
    SELECT count(*) AS requests, CAST(coalesce(sum(r.tokens), 0) AS bigint) AS tokens,
           CAST(coalesce(sum(r.microcents), 0) AS bigint) AS microcents
    FROM spending_reservations r
    WHERE (r.user_id = :holder OR r.token_id = :holder) AND r.day >= p.since AND NOT r.expired
) r
"""


def limits_of(row: Any) -> Limits:
    """A row of `spending_limits`, whichever way it was read."""
    get = row.get if hasattr(row, "get") else lambda name: getattr(row, name)
    models = get("models")
    return Limits(
        None if models is None else tuple(models),
        Amounts(get("requests_per_day"), get("tokens_per_day"), get("microcents_per_day")),
        Amounts(get("requests_per_month"), get("tokens_per_month"), get("microcents_per_month")),
    )
