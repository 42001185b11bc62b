"""No query reads a large table from end to end, and each index is there for a query.

The plans are those of PostgreSQL itself, for what parts of the suite bring about. `plans.py` can be run on the whole
of it.
"""

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from baatcheet.platform.database import connect
from tests.platform.plans import Fault, Plans, plans_of, programs, seeded, watched_server

TESTS: Final = (
    "tests/api/test_matrix.py::test_with_a_strangers_token_nothing_of_hers_is_seen_or_changed",
    "tests/api/test_matrix.py::test_she_herself_sees_each_of_her_things",
    "tests/api/test_matrix.py::test_with_a_token_that_may_only_read_nothing_is_written",
    "tests/conversations/test_conversations.py::test_the_list_is_filtered",
    "tests/conversations/test_deletion.py::test_the_deleted_are_listed_in_the_order_of_their_deletion",
    "tests/conversations/test_deletion.py::test_tags_are_kept_changed_and_found",
    "tests/conversations/test_messages.py::test_the_active_branch_is_read_in_pages_either_way",
    "tests/chat/test_turns.py::test_the_next_message_brings_what_was_said_before",
    "tests/chat/test_turns.py::test_a_repeated_idempotency_key_joins_the_turn",
    "tests/chat/test_turns.py::test_another_reply_is_a_branch_beside_the_first",
    "tests/chat/test_turns.py::test_turns_are_listed_newest_first_and_paged",
)
# Tables of few rows, whatever a deployment does.
SMALL: Final[Mapping[str, str]] = {
    "alembic_version": "one row",
    "event_horizon": "one row",
    "key_changes": "one row",
    "spending_changes": "one row",
    "deployment_secrets": "a row of each secret",
    "processes": "a row of each process",
    "job_workers": "a row of each worker",
    "key_watchers": "a row of each process",
    "job_queues": "a row of each queue",
    "job_schedules": "a row of each schedule",
    "provider_keys": "a row of each key",
    "key_rotations": "a few a day",
    "routes": "a row of each route",
    "model_prices": "a row of each price that an operator has set",
    "token_calibrations": "a row of each model",
    "outbox": "what the relay has not taken yet",
    "webhook_secrets": "one or two of each webhook",
    "analytics_backlog": "users whose past is still to be counted",
}
# A few of each user; the index has no deleted ones, which are gone after a while.
FEW: Final = {("webhooks", "user_id")}
# Read from end to end on purpose: a piece of the query, and why.
ON_PURPOSE: Final[Mapping[str, str]] = {}

ME: Final = "'0190a000-0000-7000-8000-000000000000'::uuid"
INDEXES: Final[Mapping[str, str]] = {
    "idx_analytics_date": "SELECT FROM analytics_daily WHERE date >= '2026-01-01'",
    "idx_model_usage_others": "SELECT FROM model_usage WHERE kind <> 'chat' AND day >= '2026-01-01'",
    "idx_analytics_fresh_user": f"SELECT FROM analytics_fresh WHERE user_id = {ME}",
    "idx_analytics_kept_user": f"SELECT FROM analytics_kept WHERE user_id = {ME}",
    "idx_analytics_user_date": f"SELECT FROM analytics_daily WHERE user_id = {ME} ORDER BY date DESC LIMIT 9",
    "idx_api_tokens_user": f"SELECT FROM api_tokens WHERE user_id = {ME} ORDER BY id DESC LIMIT 9",
    "idx_attachment_user": f"SELECT FROM attachments WHERE user_id = {ME} ORDER BY id DESC LIMIT 9",
    "idx_audio_user": f"SELECT FROM audio WHERE user_id = {ME} ORDER BY id DESC LIMIT 9",
    "idx_audit_entries_subject": "SELECT FROM audit_entries WHERE subject = 'x' ORDER BY id DESC LIMIT 9",
    "idx_console_session_token": f"SELECT FROM console_sessions WHERE token_id = {ME}",
    "idx_console_session_used": "SELECT FROM console_sessions WHERE used_at < now() - interval '1 day'",
    "idx_context_summaries_branch": (
        f"SELECT FROM context_summaries WHERE branch_id = {ME} AND depth < 9 ORDER BY depth DESC LIMIT 1"
    ),
    "idx_context_summaries_conversation": f"SELECT FROM context_summaries WHERE conversation_id = {ME}",
    "idx_conversation_archived": (
        f"SELECT FROM conversations WHERE user_id = {ME} AND archived ORDER BY updated_at DESC, id DESC LIMIT 9"
    ),
    "idx_conversation_deleted": (
        f"SELECT FROM conversations WHERE user_id = {ME} AND deleted_at IS NOT NULL "
        "ORDER BY deleted_at DESC, id DESC LIMIT 9"
    ),
    "idx_conversation_forgotten": "SELECT FROM conversations WHERE deleted_at < now() - interval '30 days'",
    "idx_conversation_project": (
        f"SELECT FROM conversations WHERE project_id = {ME} ORDER BY updated_at DESC, id DESC LIMIT 9"
    ),
    "idx_conversation_tagged": (
        f"SELECT FROM conversations WHERE user_id = {ME} AND tags @> '{{x}}' AND tags <> '{{}}' "
        "ORDER BY updated_at DESC, id DESC LIMIT 9"
    ),
    "idx_conversation_user_updated": (
        f"SELECT FROM conversations WHERE user_id = {ME} ORDER BY updated_at DESC, id DESC LIMIT 9"
    ),
    "idx_event_poisoned": "SELECT FROM events WHERE poisoned IS NOT NULL",
    "idx_event_user": f"SELECT FROM events WHERE user_id = {ME} AND seq > 9 ORDER BY seq LIMIT 9",
    "idx_export_conversation": f"SELECT FROM exports WHERE conversation_id = {ME} ORDER BY id DESC LIMIT 9",
    "idx_export_expires": "SELECT FROM exports WHERE status = 'completed' AND expires_at < now()",
    "idx_export_user": f"SELECT FROM exports WHERE user_id = {ME} ORDER BY id DESC LIMIT 9",
    "idx_idempotency_keys_created": "SELECT FROM idempotency_keys WHERE created_at < now() - interval '1 day'",
    "idx_import_user": f"SELECT FROM imports WHERE user_id = {ME} ORDER BY id DESC LIMIT 9",
    "idx_imported_conversation_digest": (
        f"SELECT FROM imported_conversations WHERE user_id = {ME} AND status = 'imported' AND digest = 'x'"
    ),
    "idx_job_dead": "SELECT FROM jobs WHERE status = 'dead' AND kind = 'x' ORDER BY id DESC LIMIT 9",
    "idx_job_ended": "SELECT FROM jobs WHERE ended_at < now() - interval '7 days'",
    "idx_job_queued": (
        f"SELECT FROM jobs WHERE status = 'queued' AND queue = 'q' AND lane = {ME} ORDER BY priority DESC, id LIMIT 1"
    ),
    "idx_job_running": f"SELECT FROM jobs WHERE status = 'running' AND queue = 'q' AND lane = {ME}",
    "idx_job_subject": f"SELECT FROM jobs WHERE subject_id = {ME} ORDER BY id DESC LIMIT 1",
    "idx_job_user": f"SELECT FROM jobs WHERE user_id = {ME} AND visible ORDER BY id DESC LIMIT 9",
    "idx_job_waiting": "SELECT FROM jobs WHERE status = 'waiting' AND due_at <= now()",
    "idx_key_rotations_started": "SELECT FROM key_rotations ORDER BY started_at DESC LIMIT 9",
    "idx_key_usage_day": "SELECT FROM key_usage WHERE day < '2026-01-01'",
    "idx_message_branch": f"SELECT FROM messages WHERE branch_id = {ME} AND depth < 9 ORDER BY depth DESC LIMIT 9",
    "idx_message_conversation": (
        f"SELECT FROM messages WHERE conversation_id = {ME} ORDER BY created_at DESC, id DESC LIMIT 9"
    ),
    "idx_message_parent": f"SELECT FROM messages WHERE parent_id = {ME}",
    "idx_message_role": (
        f"SELECT FROM messages WHERE conversation_id = {ME} AND role = 'user' ORDER BY created_at DESC, id DESC LIMIT 9"
    ),
    "idx_message_turn": f"SELECT FROM messages WHERE turn_id = {ME} ORDER BY id LIMIT 1",
    "idx_model_usage_day": "SELECT FROM model_usage WHERE day < '2026-01-01'",
    "idx_notification_emailed": (
        f"SELECT FROM notifications WHERE user_id = {ME} AND email_status IS NOT NULL AND created_at > now()"
    ),
    "idx_notification_unread": (
        f"SELECT FROM notifications WHERE user_id = {ME} AND listed AND read_at IS NULL ORDER BY id DESC LIMIT 9"
    ),
    "idx_notification_updated": "SELECT FROM notifications WHERE updated_at < now() - interval '90 days'",
    "idx_notification_user": f"SELECT FROM notifications WHERE user_id = {ME} AND listed ORDER BY id DESC LIMIT 9",
    "idx_projects_user": f"SELECT FROM projects WHERE user_id = {ME} ORDER BY id DESC LIMIT 9",
    "idx_provider_keys_provider": "SELECT FROM provider_keys WHERE provider = 'x' AND state = 'active'",
    "idx_recall_passages_conversation": f"SELECT FROM recall_passages WHERE conversation_id = {ME}",
    "idx_recall_passages_keys": "SELECT FROM recall_passages WHERE keys @> ARRAY[7::bigint]",
    "idx_spending_day": "SELECT FROM spending WHERE day < '2026-01-01'",
    "idx_spending_limits_user": f"SELECT FROM spending_limits WHERE user_id = {ME}",
    "idx_spending_limits_version": "SELECT FROM spending_limits WHERE version > 9",
    "idx_spending_reservations_expires": "SELECT FROM spending_reservations WHERE expires_at < now() AND NOT expired",
    "idx_spending_reservations_token": f"SELECT FROM spending_reservations WHERE token_id = {ME}",
    "idx_spending_reservations_user": f"SELECT FROM spending_reservations WHERE user_id = {ME}",
    "idx_spending_user": f"SELECT FROM spending WHERE user_id = {ME}",
    "idx_turn_conversation": f"SELECT FROM turns WHERE conversation_id = {ME} ORDER BY id DESC LIMIT 9",
    "idx_turn_user": f"SELECT FROM turns WHERE user_id = {ME} ORDER BY id DESC LIMIT 9",
    "idx_user_admin": "SELECT FROM users WHERE role = 'admin' AND active ORDER BY id",
    "idx_user_identities_user": f"SELECT FROM user_identities WHERE user_id = {ME}",
    "idx_webhook_deleted": "SELECT FROM webhooks WHERE deleted_at < now() - interval '1 day'",
    "idx_webhook_delivery_created": (
        f"SELECT FROM webhook_deliveries WHERE webhook_id = {ME} ORDER BY created_at DESC, id DESC LIMIT 9"
    ),
    "idx_webhook_delivery_undelivered": (
        f"SELECT FROM webhook_deliveries WHERE webhook_id = {ME} AND status = 'failed' "
        "ORDER BY created_at DESC, id DESC LIMIT 9"
    ),
    "idx_webhook_secret_webhook": f"SELECT FROM webhook_secrets WHERE webhook_id = {ME} ORDER BY id DESC",
    "idx_webhook_user_active": (
        f"SELECT FROM webhooks WHERE user_id = {ME} AND active AND deleted_at IS NULL ORDER BY id DESC LIMIT 9"
    ),
}
# What a constraint needs, and what keeps values unique, is there for that.
_OTHERS: Final = """
SELECT i.indexrelid::regclass::text FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid
WHERE t.relnamespace = 'public'::regnamespace AND NOT i.indisunique ORDER BY 1
"""
# Deleting a row of the one table looks for it in the other: what a user or a conversation leaves behind is much.
_REFERRING: Final = """
SELECT c.conrelid::regclass::text AS "table", a.attname AS "column", a.atttypid::regtype::text AS type
FROM pg_constraint c JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
WHERE c.contype = 'f' AND c.connamespace = 'public'::regnamespace ORDER BY 1, 2
"""

pytestmark = pytest.mark.skipif(
    programs() is None, reason="no PostgreSQL with auto_explain here; Debian's package postgresql has it"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    with watched_server(tmp_path_factory.mktemp("plans")) as watched:
        yield watched


@pytest.fixture(scope="module")
def plans(server: tuple[str, Path]) -> Plans:
    url, log = server
    found, said = plans_of(TESTS, url, log)
    assert found.statements > 500, said
    return found


def allowed(fault: Fault) -> bool:
    return fault.table in SMALL or any(piece in fault.query for piece in ON_PURPOSE)


@pytest.mark.timeout(300)
def test_no_query_reads_a_large_table_from_end_to_end(plans: Plans) -> None:
    assert [str(fault) for fault in plans.faults.values() if not allowed(fault)] == []


@pytest.mark.timeout(300)
def test_the_statements_inside_functions_are_seen_too(plans: Plans) -> None:
    seen = "\n".join(plans.queries)
    assert "open_turns($1::text::jsonb)" in seen
    assert "INSERT INTO messages (id, conversation_id, user_id, parent_id, turn_id" in seen
    assert {
        "idx_conversation_user_updated",
        "idx_conversation_project",
        "uq_turn_idempotency",
    } <= plans.used.keys()


def test_a_plan_that_reads_from_end_to_end_is_a_fault() -> None:
    plans = Plans()
    scan: dict[str, Any] = {"Relation Name": "messages", "Actual Loops": 1, "Actual Rows": 3}
    index = scan | {"Node Type": "Index Scan", "Index Name": "idx_message_turn"}
    plans.add(
        {"Query Text": "a", "Plan": {"Node Type": "Limit", "Plans": [scan | {"Node Type": "Seq Scan"}]}}
    )
    plans.add({"Query Text": "b", "Plan": index | {"Index Cond": "x", "Rows Removed by Filter": 5_000}})
    plans.add({"Query Text": "c", "Plan": index | {"Actual Rows": 5_000}})
    assert [fault.query for fault in plans.faults.values()] == ["a", "b", "c"]
    plans.add({"Query Text": "d", "Plan": index | {"Index Cond": "x", "Rows Removed by Filter": 5}})
    plans.add({"Query Text": "e", "Plan": scan | {"Node Type": "Seq Scan", "Actual Loops": 0}})
    assert len(plans.faults) == 3
    whole = index | {"Filter": "day < now()"}
    plans.add({"Query Text": "f", "Plan": {"Node Type": "Limit", "Plans": [whole]}})
    assert len(plans.faults) == 3, "the first few of an order"
    plans.add({"Query Text": "g", "Plan": whole})
    assert len(plans.faults) == 4, "its condition is none of the index's: all of it is gone through"


def value_of(kind: str) -> str:
    return ME if kind == "uuid" else "'9'"


async def answers(url: str, *statements: str) -> list[list[Any]]:
    connection = await connect(url)
    try:
        return [list(await connection.fetch(statement)) for statement in statements]
    finally:
        await connection.close()


def test_each_index_is_there_for_a_query(server: tuple[str, Path]) -> None:
    url = seeded(server[0])
    (there,) = asyncio.run(answers(url, _OTHERS))
    names = {row[0] for row in there}
    assert names - INDEXES.keys() == set(), "say which query needs it, in INDEXES"
    assert INDEXES.keys() - names == set(), "there is no such index any more"
    found = asyncio.run(answers(url, *[f"EXPLAIN {query}" for query in INDEXES.values()]))
    planned = {name: "\n".join(row[0] for row in plan) for name, plan in zip(INDEXES, found, strict=True)}
    assert [(name, plan) for name, plan in planned.items() if f" {name} " not in f"{plan} "] == []


def test_what_a_deleted_row_leaves_behind_is_found_by_an_index(server: tuple[str, Path]) -> None:
    url = seeded(server[0])
    (referring,) = asyncio.run(answers(url, _REFERRING))
    asked = {
        (row["table"], row["column"]): (
            f"EXPLAIN SELECT FROM {row['table']} WHERE {row['column']} = {value_of(row['type'])}"
        )
        for row in referring
        if row["table"] not in SMALL and (row["table"], row["column"]) not in FEW
    }
    found = asyncio.run(answers(url, *asked.values()))
    scanned = [
        place
        for place, plan in zip(asked, found, strict=True)
        if "Seq Scan" in "".join(row[0] for row in plan)
    ]
    assert scanned == []
