"""From an event to its receiver, however that behaves."""

import asyncio
import hashlib
import hmac
import json
import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import standardwebhooks
import svix.webhooks
from sqlalchemy import text

from baatcheet.auth.principal import DEFAULT_SCOPES, Principal
from baatcheet.events.model import Event
from baatcheet.events.relay import TooMuch
from baatcheet.jobs.service import Jobs
from baatcheet.kit.ids import new_id
from baatcheet.webhooks.delivering import LANE_LIMIT, clear_away
from baatcheet.webhooks.payload import LANES
from tests.webhooks.conftest import SETTINGS, Hooks, Person, opened
from tests.webhooks.receiver import Received, Receiver

TURN = {"turn_id": "t", "conversation_id": "c"}
LONG_AGO = "2020-01-01T00:00:00Z"


def verify(secret: str, request: Received) -> None:
    """By both libraries, and by hand."""
    standardwebhooks.Webhook(secret).verify(request.body, request.headers)
    svix.webhooks.Webhook(secret).verify(request.body, request.headers)
    by_hand = hmac.new(secret.encode(), request.body, hashlib.sha256).hexdigest()
    assert request.headers["x-baatcheet-signature"] == f"sha256={by_hand}"


async def test_an_event_is_delivered_signed(hooks: Hooks, alice: Person, receiver: Receiver) -> None:
    webhook = await alice.make(receiver.url(), events=["turn.*"], headers={"X-Mine": "7"})
    await hooks.happens("turn.completed", TURN, alice.user_id)
    await hooks.worked_off()
    (request,) = receiver.requests
    verify(webhook["secret"], request)
    (delivery,) = await alice.deliveries(webhook)
    body = json.loads(request.body)
    assert body["type"] == "turn.completed"
    assert body["data"] == TURN
    assert list(body) == ["type", "timestamp", "data"]
    assert datetime.fromisoformat(body["timestamp"]) < datetime.now(UTC)
    assert request.headers["x-mine"] == "7"
    assert request.headers["x-baatcheet-event"] == "turn.completed"
    assert request.headers["x-baatcheet-delivery-id"] == delivery["id"]
    assert request.id == delivery["message_id"]
    assert request.id.startswith("msg_")
    expected: dict[str, Any] = {
        "status": "delivered",
        "attempt_count": 1,
        "response_status": 200,
        "error": None,
    }
    assert expected.items() <= delivery.items()
    assert delivery["next_attempt_at"] is None
    details = await alice.details(delivery)
    assert details["body"].encode() == request.body
    (attempt,) = details["attempts"]
    assert (attempt["number"], attempt["status"], attempt["response"]) == (1, 200, "thank you")
    assert attempt["error"] is None
    assert attempt["duration_ms"] >= 0


async def test_a_conversation_and_its_messages_are_told_of(
    hooks: Hooks, alice: Person, receiver: Receiver
) -> None:
    await alice.make(receiver.url(), events=["conversation.*", "message.created"])
    conversation, short, long = new_id(), new_id(), new_id()
    text_ = "گ" * 20_000  # 40,000 bytes
    await hooks.run(
        "INSERT INTO conversations (id, user_id, title) VALUES (:id, :user, 'Urdu')",
        id=conversation,
        user=alice.user_id,
    )
    for id_, content in ((short, "Hello"), (long, text_)):
        await hooks.run(
            "INSERT INTO messages (id, conversation_id, user_id, role, content) "
            "VALUES (:id, :conversation, :user, 'user', :content)",
            id=id_,
            conversation=conversation,
            user=alice.user_id,
            content=content,
        )
    await hooks.relayed()
    await hooks.run("DELETE FROM conversations WHERE id = :id", id=conversation)
    await hooks.relayed()
    await hooks.worked_off()
    sent = [json.loads(one.body) for one in receiver.requests]
    by_type = {(one["type"], one["data"].get("message_id")): one["data"] for one in sent}
    assert by_type["conversation.created", None]["title"] == "Urdu"
    assert by_type["conversation.deleted", None]["conversation_id"] == str(conversation)
    told = by_type["message.created", str(short)]
    assert (told["content"], told["truncated"], told["role"]) == ("Hello", False, "user")
    told = by_type["message.created", str(long)]
    assert told["truncated"] is True
    assert text_.startswith(told["content"])
    assert len(told["content"].encode()) == 32 * 1024


async def test_a_message_that_is_gone_before_it_was_told_of_is_told_of_without_its_text(
    hooks: Hooks, alice: Person, receiver: Receiver
) -> None:
    await alice.make(receiver.url(), events=["message.created"])
    conversation = new_id()
    await hooks.run(
        "INSERT INTO conversations (id, user_id) VALUES (:id, :user)", id=conversation, user=alice.user_id
    )
    await hooks.run(
        "INSERT INTO messages (id, conversation_id, user_id, role, content) "
        "VALUES (:id, :conversation, :user, 'user', 'x')",
        id=new_id(),
        conversation=conversation,
        user=alice.user_id,
    )
    await hooks.run("DELETE FROM conversations WHERE id = :id", id=conversation)
    await hooks.relayed()
    await hooks.worked_off()
    (request,) = receiver.requests
    assert json.loads(request.body)["data"]["content"] is None


async def test_every_attempt_has_the_same_id_and_the_same_body(
    hooks: Hooks, alice: Person, receiver: Receiver
) -> None:
    webhook = await alice.make(receiver.url("/fail/2/same"))
    await hooks.happens("turn.failed", TURN, alice.user_id)
    await hooks.worked_off()
    sent = receiver.requests
    assert len(sent) == 3
    assert len({one.id for one in sent}) == 1
    assert len({one.body for one in sent}) == 1
    assert len({one.headers["x-baatcheet-delivery-id"] for one in sent}) == 1
    for one in sent:
        verify(webhook["secret"], one)
    (delivery,) = await alice.deliveries(webhook)
    assert (delivery["status"], delivery["attempt_count"]) == ("delivered", 3)
    attempts = (await alice.details(delivery))["attempts"]
    assert [one["status"] for one in attempts] == [500, 500, 200]
    assert [one["number"] for one in attempts] == [1, 2, 3]
    assert [one["response"] for one in attempts] == ["not yet"] * 3
    assert [one["error"] is None for one in attempts] == [False, False, True]
    assert (await alice.look(webhook))["failing_since"] is None


async def test_a_delivery_that_fails_to_the_end_is_failed_and_kept(
    hooks: Hooks, alice: Person, receiver: Receiver
) -> None:
    webhook = await alice.make(receiver.url("/status/503"))
    await hooks.happens("turn.failed", TURN, alice.user_id)
    await hooks.worked_off()
    assert len(receiver.requests) == 1 + len(SETTINGS.retries.split(","))
    (delivery,) = await alice.deliveries(webhook)
    assert delivery["status"] == "failed"
    assert delivery["response_status"] == 503
    assert delivery["error"] == "The receiver answered 503 Service Unavailable."
    assert delivery["ended_at"] is not None
    assert (await alice.look(webhook))["failing_since"] is not None
    assert (await alice.look(webhook))["active"] is True
    assert await hooks.count("jobs", "status = 'dead'") == 1
    assert await hooks.count("outbox") == 0, "a webhook's death is told by webhooks"


async def test_a_receiver_that_gives_no_answer_has_status_0(
    hooks: Hooks, alice: Person, receiver: Receiver
) -> None:
    webhook = await alice.make(receiver.url("/hang"))
    await hooks.happens("turn.failed", TURN, alice.user_id)
    async with hooks.working():
        async with asyncio.timeout(20):
            while not (await alice.deliveries(webhook))[0]["error"]:
                await asyncio.sleep(0.05)
    (delivery,) = await alice.deliveries(webhook)
    assert delivery["status"] == "pending"
    assert delivery["response_status"] == 0
    assert delivery["error"] == "The receiver did not answer within 1 seconds."
    assert delivery["next_attempt_at"] is not None or delivery["attempt_count"] > 1
    attempt = (await alice.details(delivery))["attempts"][0]
    assert attempt["status"] == 0
    assert 950 <= attempt["duration_ms"] < 3000


async def test_a_redirect_is_not_followed(hooks: Hooks, alice: Person, receiver: Receiver) -> None:
    webhook = await alice.make(receiver.url("/redirect"))
    await hooks.happens("turn.failed", TURN, alice.user_id)
    await hooks.worked_off()
    assert receiver.at("/ok") == []
    (delivery,) = await alice.deliveries(webhook)
    assert delivery["status"] == "failed"
    assert "Redirects are not followed" in delivery["error"]


async def test_a_receiver_that_is_gone_is_called_no_more(
    hooks: Hooks, alice: Person, receiver: Receiver
) -> None:
    webhook = await alice.make(receiver.url("/status/410"), events=["turn.*"])
    other = await alice.make(receiver.url("/ok"), events=["webhook.disabled"])
    await hooks.happens("turn.failed", TURN, alice.user_id)
    await hooks.worked_off()
    await hooks.relayed()
    await hooks.happens("turn.failed", TURN, alice.user_id)
    await hooks.worked_off()
    assert len(receiver.at("/status/410")) == 1
    seen = await alice.look(webhook)
    assert (seen["active"], seen["disabled_reason"]) == (False, "gone")
    (told,) = receiver.at("/ok")
    verify(other["secret"], told)
    data = json.loads(told.body)["data"]
    assert (data["webhook_id"], data["reason"], data["host"]) == (webhook["id"], "gone", "127.0.0.1")


async def test_a_busy_receiver_is_left_alone_for_as_long_as_it_asks(
    hooks: Hooks, alice: Person, receiver: Receiver
) -> None:
    webhook = await alice.make(receiver.url("/busy/600"))
    await hooks.happens("turn.failed", TURN, alice.user_id)
    async with hooks.working():
        await receiver.wait_for(1, "/busy/600")
        async with asyncio.timeout(20):
            while (await alice.deliveries(webhook))[0]["next_attempt_at"] is None:
                await asyncio.sleep(0.05)
    (delivery,) = await alice.deliveries(webhook)
    assert delivery["status"] == "pending"
    pause = datetime.fromisoformat(delivery["next_attempt_at"]) - datetime.now(UTC)
    assert timedelta(seconds=580) < pause < timedelta(seconds=610)


async def test_an_endpoint_that_fails_for_days_is_disabled_and_its_owner_told(
    hooks: Hooks, alice: Person, receiver: Receiver
) -> None:
    webhook = await alice.make(receiver.url("/status/500"), events=["turn.*"])
    await alice.make(receiver.url("/ok"), events=["webhook.*"])
    await hooks.run(
        "UPDATE webhooks SET failing_since = now() - interval '6 days' WHERE id = :id", id=webhook["id"]
    )
    await hooks.happens("turn.failed", TURN, alice.user_id, times=2)
    await hooks.worked_off()
    seen = await alice.look(webhook)
    assert (seen["active"], seen["disabled_reason"]) == (False, "failing")
    assert seen["disabled_at"] is not None
    statuses = {one["status"] for one in await alice.deliveries(webhook)}
    assert statuses <= {"failed", "cancelled"}
    await hooks.relayed()
    await hooks.worked_off()
    (told,) = receiver.at("/ok")
    assert json.loads(told.body)["data"]["reason"] == "failing"
    # Enabled again, it begins afresh.
    again = (await alice.patch(f"/{webhook['id']}", json={"active": True})).json()
    assert (again["active"], again["failing_since"], again["disabled_reason"]) == (True, None, None)
    assert again["disabled_at"] is None
    await hooks.happens("turn.failed", TURN, alice.user_id)
    await hooks.worked_off()
    assert (await alice.look(webhook))["active"] is True


async def test_one_bad_event_after_days_of_nothing_disables_nobody(
    hooks: Hooks, alice: Person, receiver: Receiver
) -> None:
    webhook = await alice.make(receiver.url("/fail/2/blip"))
    await hooks.run(
        "UPDATE webhooks SET failing_since = now() - interval '6 days' WHERE id = :id", id=webhook["id"]
    )
    await hooks.happens("turn.failed", TURN, alice.user_id)
    await hooks.worked_off()
    seen = await alice.look(webhook)
    assert (seen["active"], seen["failing_since"]) == (True, None)


async def test_a_disabled_endpoint_gets_nothing(hooks: Hooks, alice: Person, receiver: Receiver) -> None:
    webhook = await alice.make(receiver.url())
    await hooks.happens("turn.failed", TURN, alice.user_id)
    off = (await alice.patch(f"/{webhook['id']}", json={"active": False})).json()
    assert (off["active"], off["disabled_reason"]) == (False, "owner")
    await hooks.happens("turn.failed", TURN, alice.user_id)
    await hooks.worked_off()
    assert receiver.requests == []
    (delivery,) = await alice.deliveries(webhook)
    assert delivery["status"] == "cancelled"
    assert delivery["error"] == "The webhook is disabled."
    for path in ("/test", "/replay", f"/deliveries/{delivery['id']}/replay"):
        refused = await alice.post(f"/{webhook['id']}{path}", json={"since": LONG_AGO})
        assert refused.status_code == 409, refused.text
        assert refused.json()["type"] == "webhook-disabled"


async def test_a_cancelled_delivery_whose_job_is_tried_again_is_sent(
    hooks: Hooks, alice: Person, receiver: Receiver
) -> None:
    webhook = await alice.make(receiver.url())
    await hooks.happens("turn.failed", TURN, alice.user_id)
    jobs = Jobs(hooks.db, [hooks.webhooks.deliver.bind(hooks.parts)])
    who = Principal(new_id(), new_id(), "admin", DEFAULT_SCOPES["admin"], "an administrator")
    async with hooks.db.system() as session:
        job = await session.scalar(text("SELECT id FROM jobs"))
    await jobs.cancel(who, job)
    (delivery,) = await alice.deliveries(webhook)
    assert delivery["status"] == "cancelled"
    # Not while the webhook is disabled.
    await alice.patch(f"/{webhook['id']}", json={"active": False})
    await jobs.retry(who, job)
    await hooks.worked_off()
    assert receiver.requests == []
    (same,) = await alice.deliveries(webhook)
    assert same == delivery
    await alice.patch(f"/{webhook['id']}", json={"active": True})
    await hooks.run("UPDATE jobs SET status = 'cancelled'")
    await jobs.retry(who, job)
    await hooks.worked_off()
    (request,) = receiver.requests
    assert request.headers["x-baatcheet-delivery-id"] == delivery["id"]
    (sent,) = await alice.deliveries(webhook)
    assert (sent["status"], sent["error"], sent["attempt_count"]) == ("delivered", None, 1)


async def test_an_endpoint_that_was_deleted_gets_nothing_and_leaves_nothing(
    hooks: Hooks, alice: Person, receiver: Receiver
) -> None:
    webhook = await alice.make(receiver.url())
    await hooks.happens("turn.failed", TURN, alice.user_id, times=3)
    assert (await alice.delete(f"/{webhook['id']}")).status_code == 204
    await hooks.worked_off()
    assert receiver.requests == []
    for table, column in (
        ("webhooks", "id"),
        ("webhook_deliveries", "webhook_id"),
        ("webhook_secrets", "webhook_id"),
    ):
        assert await hooks.count(table, f"{column} = '{webhook['id']}'") == 0, table
    assert await hooks.count("jobs", "status <> 'succeeded'") == 0


async def test_what_an_attempt_brought_does_not_matter_to_a_deleted_endpoint(
    hooks: Hooks, alice: Person, receiver: Receiver
) -> None:
    webhook = await alice.make(receiver.url("/slow/0.4"))
    await hooks.happens("turn.failed", TURN, alice.user_id)
    async with hooks.working():
        await receiver.wait_for(1, "/slow/0.4")
        await alice.delete(f"/{webhook['id']}")
        await hooks.run("DELETE FROM webhooks WHERE id = :id", id=webhook["id"])
        async with asyncio.timeout(20):
            while await hooks.count("jobs", "status <> 'succeeded'"):
                await asyncio.sleep(0.05)


async def test_everybody_gets_their_own_events_and_no_others(
    hooks: Hooks, alice: Person, bob: Person, receiver: Receiver
) -> None:
    await alice.make(receiver.url("/alice"))
    await alice.make(receiver.url("/turns"), events=["turn.completed"])
    await bob.make(receiver.url("/bob"))
    await hooks.happens("turn.completed", TURN, alice.user_id)
    await hooks.happens("turn.failed", TURN, alice.user_id)
    await hooks.happens("job.updated", {"job_id": "j"}, alice.user_id)
    await hooks.worked_off()
    assert sorted((one.path, one.event) for one in receiver.requests) == [
        ("/alice", "turn.completed"),
        ("/alice", "turn.failed"),
        ("/turns", "turn.completed"),
    ]
    same = {one.id for one in receiver.requests if one.event == "turn.completed"}
    assert len(same) == 1, "one event has one id, wherever it is told"


async def test_administrators_get_what_is_nobodys_and_every_job_that_has_died(
    hooks: Hooks, alice: Person, admin: Person, receiver: Receiver
) -> None:
    await alice.make(receiver.url("/alice"))
    await admin.make(receiver.url("/admin"))
    await hooks.happens("key.rotated", {"provider": "groq"}, None)
    await hooks.happens("job.dead", {"job_id": "1"}, alice.user_id)
    await hooks.happens("job.dead", {"job_id": "2"}, None)
    await hooks.happens("turn.completed", TURN, alice.user_id)
    await hooks.worked_off()
    got = sorted((one.path, one.event) for one in receiver.requests)
    assert got == [
        ("/admin", "job.dead"),
        ("/admin", "job.dead"),
        ("/admin", "key.rotated"),
        ("/alice", "job.dead"),
        ("/alice", "turn.completed"),
    ]


async def test_an_administrator_who_is_one_no_more_gets_no_more(
    hooks: Hooks, admin: Person, receiver: Receiver
) -> None:
    await admin.make(receiver.url(), events=["key.*"])
    await hooks.run("UPDATE users SET role = 'user' WHERE id = :id", id=admin.user_id)
    await hooks.happens("key.rotated", {}, None)
    await hooks.worked_off()
    assert receiver.requests == []


async def test_a_test_is_sent_at_once_whatever_the_filter_says(
    hooks: Hooks, alice: Person, receiver: Receiver
) -> None:
    webhook = await alice.make(receiver.url(), events=["export.failed"])
    asked = await alice.post(f"/{webhook['id']}/test")
    assert asked.status_code == 201
    assert asked.headers["location"] == f"/api/v1/webhooks/{webhook['id']}/deliveries/{asked.json()['id']}"
    assert asked.json()["status"] == "pending"
    await hooks.worked_off()
    (request,) = receiver.requests
    verify(webhook["secret"], request)
    assert request.event == "webhook.test"
    assert json.loads(request.body)["data"]["webhook_id"] == webhook["id"]
    assert (await alice.deliveries(webhook))[0]["status"] == "delivered"


async def test_while_a_secret_is_rotated_both_sign(hooks: Hooks, alice: Person, receiver: Receiver) -> None:
    webhook = await alice.make(receiver.url())
    rotated = await alice.post(f"/{webhook['id']}/rotate")
    assert rotated.status_code == 201
    new, old = rotated.json()["secret"], webhook["secret"]
    assert new != old
    ends = datetime.fromisoformat(rotated.json()["previous_expires_at"])
    assert timedelta(hours=23) < ends - datetime.now(UTC) < timedelta(hours=25)
    await alice.post(f"/{webhook['id']}/test")
    await hooks.worked_off()
    (request,) = receiver.requests
    verify(new, request)
    standardwebhooks.Webhook(old).verify(request.body, request.headers)
    by_hand = hmac.new(old.encode(), request.body, hashlib.sha256).hexdigest()
    assert request.headers["x-baatcheet-signature-previous"] == f"sha256={by_hand}"
    await hooks.run(
        "UPDATE webhook_secrets SET expires_at = now() - interval '1 s' WHERE webhook_id = :id AND expires_at "
        "IS NOT NULL",
        id=webhook["id"],
    )
    await alice.post(f"/{webhook['id']}/test")
    await hooks.worked_off()
    request = receiver.requests[-1]
    verify(new, request)
    assert "x-baatcheet-signature-previous" not in request.headers
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(old).verify(request.body, request.headers)


async def test_a_rotation_that_is_asked_for_twice_happens_once(alice: Person) -> None:
    webhook = await alice.make("https://example.com/")
    again = {"idempotency-key": "rotate-once"}
    first = await alice.post(f"/{webhook['id']}/rotate", headers=again)
    second = await alice.post(f"/{webhook['id']}/rotate", headers=again)
    assert second.json() == first.json() | {"secret": None}


async def test_a_delivery_is_replayed_under_its_own_id(
    hooks: Hooks, alice: Person, receiver: Receiver
) -> None:
    webhook = await alice.make(receiver.url())
    await hooks.happens("turn.completed", TURN, alice.user_id)
    await hooks.worked_off()
    (delivery,) = await alice.deliveries(webhook)
    where = f"/{webhook['id']}/deliveries/{delivery['id']}/replay"
    replayed = await alice.post(where)
    assert replayed.status_code == 202
    assert replayed.json()["status"] == "pending"
    for status in ("queued", "running"):
        await hooks.run(
            "UPDATE jobs SET status = :status WHERE status IN ('queued', 'running')", status=status
        )
        assert (await alice.post(where)).status_code == 202  # it is under way already
    assert await hooks.count("jobs", "status IN ('queued', 'running', 'waiting')") == 1
    await hooks.run("UPDATE jobs SET status = 'queued' WHERE status = 'running'")
    await hooks.worked_off()
    first, second = receiver.requests
    assert (first.id, first.body) == (second.id, second.body)
    assert first.headers["x-baatcheet-delivery-id"] == second.headers["x-baatcheet-delivery-id"]
    (delivery,) = await alice.deliveries(webhook)
    assert (delivery["status"], delivery["attempt_count"]) == ("delivered", 2)
    missing = await alice.post(f"/{webhook['id']}/deliveries/{new_id()}/replay")
    assert missing.json()["type"] == "delivery-not-found"


async def test_a_delivery_that_waits_is_sent_now_when_it_is_replayed(
    hooks: Hooks, alice: Person, receiver: Receiver
) -> None:
    webhook = await alice.make(receiver.url("/busy/600"))
    await hooks.happens("turn.failed", TURN, alice.user_id)
    async with hooks.working():
        async with asyncio.timeout(20):
            while not (waiting := await alice.deliveries(webhook)) or waiting[0]["next_attempt_at"] is None:
                await asyncio.sleep(0.05)
            await alice.patch(f"/{webhook['id']}", json={"url": receiver.url("/ok")})
            await alice.post(f"/{webhook['id']}/deliveries/{waiting[0]['id']}/replay")
            await receiver.wait_for(1)


async def test_a_range_of_deliveries_is_replayed(hooks: Hooks, alice: Person, receiver: Receiver) -> None:
    webhook = await alice.make(receiver.url("/status/500"))
    await hooks.happens("turn.failed", TURN, alice.user_id, times=5)
    await hooks.worked_off()
    oldest_first = [one["id"] for one in reversed(await alice.deliveries(webhook, status="failed"))]
    assert len(oldest_first) == 5
    third = (await alice.deliveries(webhook))[2]
    await alice.patch(f"/{webhook['id']}", json={"url": receiver.url("/ok")})
    where = f"/{webhook['id']}/replay"
    nothing = await alice.post(where, json={"since": LONG_AGO, "status": "cancelled"})
    assert nothing.json() == {"replayed": 0, "next_cursor": None, "has_more": False}
    some = await alice.post(where, json={"since": LONG_AGO, "until": third["created_at"]})
    assert some.status_code == 202
    assert some.json()["replayed"] == 2
    await hooks.worked_off()
    assert [one.headers["x-baatcheet-delivery-id"] for one in receiver.at("/ok")] == oldest_first[:2]
    rest = await alice.post(where, json={"since": third["created_at"]})
    assert rest.json()["replayed"] == 3
    await hooks.worked_off()
    assert {one["status"] for one in await alice.deliveries(webhook)} == {"delivered"}
    for body in ({}, {"since": "yesterday"}, {"since": LONG_AGO, "status": "pending"}):
        assert (await alice.post(where, json=body)).status_code == 422
    bad = await alice.post(where, json={"since": LONG_AGO, "cursor": "x"})
    assert (bad.status_code, bad.json()["param"]) == (400, "cursor")


async def test_a_long_range_is_replayed_in_parts(hooks: Hooks, alice: Person, receiver: Receiver) -> None:
    webhook = await alice.make(receiver.url())
    await hooks.happens("turn.completed", TURN, alice.user_id, times=1205)
    await hooks.run(
        "UPDATE webhook_deliveries SET status = 'delivered' WHERE webhook_id = :id", id=webhook["id"]
    )
    await hooks.run("TRUNCATE jobs")
    where, body = f"/{webhook['id']}/replay", {"since": LONG_AGO, "status": "delivered"}
    first = (await alice.post(where, json=body)).json()
    assert (first["replayed"], first["has_more"]) == (1000, True)
    second = (await alice.post(where, json=body | {"cursor": first["next_cursor"]})).json()
    assert (second["replayed"], second["has_more"], second["next_cursor"]) == (205, False, None)
    assert await hooks.count("jobs") == 1205


async def test_deliveries_are_paged_newest_first_and_filtered(
    hooks: Hooks, alice: Person, receiver: Receiver
) -> None:
    webhook = await alice.make(receiver.url())
    for kind in ("turn.completed", "turn.failed", "export.completed", "turn.completed", "export.failed"):
        await hooks.happens(kind, TURN, alice.user_id)
    seen: list[str] = []
    params = {"limit": "2"}
    while True:
        page = (await alice.get(f"/{webhook['id']}/deliveries", params=params)).json()
        seen += [one["event"] for one in page["data"]]
        if not page["has_more"]:
            break
        params["cursor"] = page["next_cursor"]
    assert seen == ["export.failed", "turn.completed", "export.completed", "turn.failed", "turn.completed"]
    assert len(await alice.deliveries(webhook, event="turn.*")) == 3
    assert len(await alice.deliveries(webhook, event="export.failed")) == 1
    assert len(await alice.deliveries(webhook, event="*", status="pending")) == 5
    assert await alice.deliveries(webhook, status="failed") == []
    for wrong in ({"status": "lost"}, {"event": "turn"}, {"event": "turn.%"}):
        answer = await alice.get(f"/{webhook['id']}/deliveries", params=wrong)
        assert answer.status_code == 422, answer.text


async def test_an_event_that_is_relayed_twice_is_delivered_once(
    hooks: Hooks, alice: Person, receiver: Receiver
) -> None:
    await alice.make(receiver.url())
    await hooks.happens("turn.completed", TURN, alice.user_id)
    async with hooks.db.system() as session:
        row = (await session.execute(text("SELECT * FROM events"))).one()
        event = Event(row.seq, row.id, row.user_id, row.type, None, row.data, row.created_at)
        await hooks.webhooks.relayed(session, [event, event])
    await hooks.worked_off()
    assert len(receiver.requests) == 1


async def test_no_events_are_no_work(hooks: Hooks) -> None:
    async with hooks.db.system() as session:
        await hooks.webhooks.relayed(session, [])


async def test_an_attempt_that_its_worker_did_not_survive_is_seen_and_made_again(
    hooks: Hooks, alice: Person, receiver: Receiver
) -> None:
    webhook = await alice.make(receiver.url("/slow/0.7"))
    await hooks.happens("turn.completed", TURN, alice.user_id)
    async with hooks.working():
        await receiver.wait_for(1, "/slow/0.7")
    await hooks.worked_off()
    (delivery,) = await alice.deliveries(webhook)
    assert delivery["status"] == "delivered"
    attempts = (await alice.details(delivery))["attempts"]
    assert len(attempts) == 2
    assert attempts[0]["error"] == "The server stopped before an answer came."
    assert attempts[0]["duration_ms"] is None
    first, second = receiver.requests
    assert (first.id, first.body) == (second.id, second.body)


async def test_a_name_that_leads_into_ones_own_network_is_not_called(hooks_database: str) -> None:
    async def inward(host: str, port: int) -> list[tuple[int, str]]:
        return [(2, "127.0.0.1")]

    settings = SETTINGS.model_copy(update={"allowed_networks": ("10.99.0.0/16",), "retries": "0.1s"})
    async with opened(hooks_database, settings, lookup=inward) as strict, Receiver() as receiver:
        alice = await strict.person()
        webhook = await alice.make(f"http://rebinding.example:{receiver.port}/ok")
        await strict.happens("turn.completed", TURN, alice.user_id)
        await strict.worked_off()
        (delivery,) = await alice.deliveries(webhook)
        assert delivery["status"] == "failed"
        assert (
            delivery["error"] == "Not sent: the address leads to a loopback address, which may not be called."
        )
        assert receiver.connections == 0
        await strict.run("TRUNCATE jobs, outbox, events")


async def test_a_dead_receiver_delays_no_other(hooks: Hooks, alice: Person, receiver: Receiver) -> None:
    await alice.make(receiver.url("/hang"))
    await alice.make(receiver.url("/ok"))
    await hooks.happens("turn.completed", TURN, alice.user_id, times=20)
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with hooks.working(room=8):
        await receiver.wait_for(20, seconds=20)
    assert loop.time() - began < SETTINGS.timeout * 3


async def test_a_pending_delivery_that_has_lost_its_job_is_sent_when_it_is_replayed(
    hooks: Hooks, alice: Person, receiver: Receiver
) -> None:
    webhook = await alice.make(receiver.url())
    await hooks.happens("turn.completed", TURN, alice.user_id)
    await hooks.run("DELETE FROM jobs")
    (delivery,) = await alice.deliveries(webhook)
    assert (await alice.post(f"/{webhook['id']}/deliveries/{delivery['id']}/replay")).status_code == 202
    await hooks.worked_off()
    assert len(receiver.requests) == 1


async def test_however_many_receivers_of_one_user_hang_another_has_theirs(
    hooks_database: str, receiver: Receiver
) -> None:
    settings = SETTINGS.model_copy(update={"max_endpoints": 50, "timeout": 30.0})
    async with opened(hooks_database, settings) as hooks:
        alice, bob = await hooks.person(), await hooks.person()
        for _ in range(40):
            await alice.make(receiver.url("/hang"))
        await bob.make(receiver.url("/ok"))
        await hooks.happens("turn.completed", TURN, alice.user_id, times=5)
        async with hooks.working(room=100):
            await receiver.wait_for(LANES * LANE_LIMIT, "/hang")
            await hooks.happens("turn.completed", TURN, bob.user_id, times=20)
            await receiver.wait_for(20, seconds=10)
            assert len(receiver.at("/hang")) == LANES * LANE_LIMIT
        await hooks.run("TRUNCATE jobs, outbox, events")


async def test_of_several_jobs_for_one_delivery_each_that_sends_it_is_logged(
    hooks: Hooks, alice: Person, receiver: Receiver
) -> None:
    webhook = await alice.make(receiver.url())
    await hooks.happens("turn.completed", TURN, alice.user_id)
    (delivery,) = await alice.deliveries(webhook)
    begun = await asyncio.gather(*(hooks.parts.ledger.begin(UUID(delivery["id"])) for _ in range(5)))
    numbers = [one.number for one in begun if one is not None]
    assert numbers in ([1], [1, 2]), "what is begun at once is begun in one statement, or in two"
    assert len((await alice.details(delivery))["attempts"]) == len(numbers)


async def test_old_deliveries_are_cleared_away(hooks: Hooks, alice: Person, receiver: Receiver) -> None:
    webhook = await alice.make(receiver.url())
    await hooks.happens("turn.completed", TURN, alice.user_id)
    await hooks.worked_off()
    await clear_away(hooks.db, keep_days=1)
    assert len(await alice.deliveries(webhook)) == 1
    await clear_away(hooks.db, keep_days=-1)
    assert await alice.deliveries(webhook) == []
    assert await alice.look(webhook)


async def test_long_messages_for_many_endpoints_are_written_in_bounded_parts(
    hooks: Hooks, alice: Person, receiver: Receiver
) -> None:
    for _ in range(10):
        await alice.make(receiver.url(), events=["message.created"])
    conversation, words = new_id(), "word " * 7_000  # 35,000 bytes, of which 32 KiB are sent
    await hooks.run(
        "INSERT INTO conversations (id, user_id) VALUES (:id, :user)", id=conversation, user=alice.user_id
    )
    await hooks.run(
        "INSERT INTO messages (id, conversation_id, user_id, role, content) SELECT gen_random_uuid(), :conversation, "
        ":user, 'user', n || :words FROM generate_series(1, 300) n",
        conversation=conversation,
        user=alice.user_id,
        words=words,
    )
    async with hooks.db.system() as session:
        rows = (await session.execute(text("SELECT * FROM outbox WHERE type = 'message.created'"))).all()
        events = [
            Event(row.place, row.id, row.user_id, row.type, None, row.data, row.created_at) for row in rows
        ]
        with pytest.raises(TooMuch) as refused:
            await hooks.webhooks.relayed(session, events)
        most = refused.value.events
        assert 30 < most < 100
        tracemalloc.start()
        try:
            await hooks.webhooks.relayed(session, events[:most])
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 40_000_000
    assert await hooks.count("webhook_deliveries", f"user_id = '{alice.user_id}'") == most * 10
    assert await hooks.count("jobs") == most * 10
    async with hooks.db.system() as session:
        bodies = await session.execute(
            text("SELECT message_id, body FROM webhook_deliveries WHERE user_id = :user"),
            {"user": alice.user_id},
        )
        for message_id, body in bodies:
            (event,) = [one for one in events if one.id == message_id]
            data = json.loads(body)["data"]
            assert data["message_id"] == event.data["message_id"]
            assert (len(data["content"]), data["truncated"]) == (32 * 1024, True)


async def test_a_thousand_events_are_written_in_a_moment(
    hooks: Hooks, alice: Person, receiver: Receiver
) -> None:
    for _ in range(3):
        await alice.make(receiver.url())
    now = datetime.now(UTC)
    events = [Event(n, new_id(), alice.user_id, "turn.completed", None, TURN, now) for n in range(1000)]
    loop = asyncio.get_running_loop()
    async with hooks.db.system() as session:
        began = loop.time()
        await hooks.webhooks.relayed(session, events)
        took = loop.time() - began
    assert await hooks.count("jobs") == 3000
    assert took < 5
