"""One of each thing that a user can have, with a mark in each text that no stranger may see."""

import json
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import text

from baatcheet.attachments.keys import file_key
from baatcheet.attachments.models import Attachment, AttachmentPage
from baatcheet.audio.keys import audio_key
from baatcheet.audio.models import Recording
from baatcheet.budgets.models import ModelUsage
from baatcheet.chat.models import Turn
from baatcheet.conversations import models as _referred_to  # noqa: F401 - a turn's row names a conversation's
from baatcheet.events.models import EventRow
from baatcheet.exports.keys import export_key
from baatcheet.exports.models import Export, Import, ImportedConversation
from baatcheet.jobs.models import JobRow
from baatcheet.kit.ids import new_id
from baatcheet.notifications.models import Notification, Preference
from baatcheet.platform.blobs import Blobs
from baatcheet.platform.database import Base, Database
from baatcheet.webhooks.models import WebhookAttempt, WebhookDelivery
from tests.conftest import Caller, RunningServer
from tests.conversations.test_conversations import make, say

MARK = f"alice-{secrets.token_hex(8)}"


def files_of(server: RunningServer) -> Path:
    """Where the server keeps files: it was told no folder."""
    return server.log.parent / "data" / "files"


async def one_of_each(alice: Caller, database: Database, files: Blobs) -> dict[str, str]:
    """Alice's things, by the name of the path parameter that finds each.

    Nothing of them changes by itself, whether a worker runs or not.
    """
    project = (await alice.post("/api/v1/projects", json={"name": MARK, "description": MARK})).json()
    conversation = await make(alice, title=MARK, system_prompt=MARK, project_id=project["id"])
    message = await say(alice, conversation, MARK)
    token = (await alice.post("/api/v1/tokens", json={"name": MARK})).json()
    # Of all events the one that none of these tests brings about.
    asked = {"url": f"https://{MARK}.invalid/", "description": MARK, "events": ["webhook.disabled"]}
    webhook = await alice.post("/api/v1/webhooks", json=asked | {"headers": {"x-alice": MARK}})
    assert webhook.status_code == 201, webhook.text
    ids = {
        "project_id": project["id"],
        "conversation_id": conversation["id"],
        "message_id": message["id"],
        "token_id": token["id"],
        "webhook_id": webhook.json()["id"],
        "user_id": str(alice.user_id),
        **{name: str(new_id()) for name in ("turn_id", "job_id", "audio_id", "export_id", "import_id")},
        **{name: str(new_id()) for name in ("delivery_id", "notification_id", "attachment_id")},
    }
    async with database.system() as session:
        for row in _rows(alice.user_id, {name: UUID(one) for name, one in ids.items()}):
            session.add(row)
            await session.flush()
    for key in _keys(alice.user_id, ids):
        async with files.scratch() as folder:
            path = folder / "file"
            path.write_text(json.dumps({"said": MARK}))
            await files.put(key, path)
    return ids


def _keys(owner: UUID, ids: dict[str, str]) -> list[str]:
    return [
        file_key(owner, UUID(ids["attachment_id"])),
        audio_key(owner, UUID(ids["audio_id"])),
        export_key(owner, UUID(ids["export_id"])),
    ]


def _rows(owner: UUID, ids: dict[str, UUID]) -> list[Base]:
    """What takes a worker, a provider or time to come about by itself."""
    now = datetime.now(UTC)
    tomorrow = now + timedelta(days=1)
    said: dict[str, Any] = {"start": 0.0, "end": 1.0, "text": MARK, "confidence": 0.9}
    conversation = ids["conversation_id"]
    return [
        Turn(
            id=ids["turn_id"],
            user_id=owner,
            conversation_id=conversation,
            input_id=ids["message_id"],
            reply_id=ids["message_id"],
            status="completed",
            model=MARK,
            answered_by=MARK,
            ended_at=now,
        ),
        JobRow(
            id=ids["job_id"],
            user_id=owner,
            kind="matrix.wait",
            queue="matrix",
            lane=owner,
            priority=0,
            status="waiting",  # what waits may be cancelled, and may be tried again
            visible=True,
            payload={"told": MARK},
            attempts=1,
            max_attempts=3,
            phrase=MARK,
            error=MARK,
            failures=[{"attempt": 1, "at": now.isoformat(), "error": MARK, "detail": MARK}],
            created_at=now,
            due_at=tomorrow,
        ),
        EventRow(
            id=new_id(),
            user_id=owner,
            type="conversation.created",
            conversation_id=conversation,
            data={"conversation_id": str(conversation), "title": MARK},
            created_at=now,
        ),
        Attachment(
            id=ids["attachment_id"],
            user_id=owner,
            job_id=ids["job_id"],
            reading=ids["job_id"],
            filename=f"{MARK}.png",
            kind="png",
            media_type="image/png",
            size=len(MARK),
            sha256="0" * 64,
            status="completed",
            pages=1,
            characters=len(MARK),
            confidence=0.9,
            engine="tesseract",
            completed_at=now,
        ),
        AttachmentPage(
            attachment_id=ids["attachment_id"],
            reading=ids["job_id"],
            number=1,
            user_id=owner,
            text=MARK,
            engine="tesseract",
            lines=[{"text": MARK, "box": [0, 0, 9, 9], "confidence": 0.9, "words": []}],
        ),
        Recording(
            id=ids["audio_id"],
            user_id=owner,
            job_id=ids["job_id"],
            filename=f"{MARK}.mp3",
            media_type="audio/mpeg",
            size=len(MARK),
            sha256="0" * 64,
            status="completed",
            seconds=1.0,
            transcription_text=MARK,
            segments=[said],
            engine=MARK,
            completed_at=now,
        ),
        Export(
            id=ids["export_id"],
            user_id=owner,
            scope="conversation",
            conversation_id=conversation,
            format="json",
            branch="active",
            status="completed",
            filename=f"{MARK}.json",
            size=len(MARK),
            job_id=ids["job_id"],
            completed_at=now,
            expires_at=tomorrow,
        ),
        Import(
            id=ids["import_id"],
            user_id=owner,
            filename=f"{MARK}.json",
            size=len(MARK),
            sha256="0" * 64,
            duplicates="skip",
            source="baatcheet",
            status="completed",
            job_id=ids["job_id"],
            ended_at=now,
        ),
        ImportedConversation(
            import_id=ids["import_id"],
            place=0,
            user_id=owner,
            status="imported",
            conversation_id=conversation,
            source_id=MARK,
            title=MARK,
        ),
        WebhookDelivery(
            id=ids["delivery_id"],
            webhook_id=ids["webhook_id"],
            user_id=owner,
            message_id=new_id(),
            event="webhook.test",
            body=MARK,
            status="failed",
            attempt_count=1,
            response_status=500,
            error=MARK,
            ended_at=now,
        ),
        WebhookAttempt(
            delivery_id=ids["delivery_id"],
            number=1,
            user_id=owner,
            duration_ms=1,
            status=500,
            response=MARK,
            error=MARK,
        ),
        Notification(
            id=ids["notification_id"],
            user_id=owner,
            event_id=new_id(),
            kind="export.completed",
            title=MARK,
            text=MARK,
            listed=True,
        ),
        ModelUsage(user_id=owner, day=now.date(), token_id=ids["token_id"], model=MARK, requests=1),
        Preference(user_id=owner, kind="export.completed", in_app=True, email=False),
    ]


_TABLES = (
    "SELECT to_jsonb(t)::text FROM users t WHERE id = :user",
    "SELECT (to_jsonb(t) - 'last_used_at')::text FROM api_tokens t WHERE user_id = :user ORDER BY 1",
    "SELECT to_jsonb(t)::text FROM projects t WHERE user_id = :user ORDER BY 1",
    "SELECT to_jsonb(t)::text FROM conversations t WHERE user_id = :user ORDER BY 1",
    "SELECT to_jsonb(t)::text FROM messages t WHERE user_id = :user ORDER BY 1",
    "SELECT to_jsonb(t)::text FROM turns t WHERE user_id = :user ORDER BY 1",
    "SELECT to_jsonb(t)::text FROM jobs t WHERE user_id = :user ORDER BY 1",
    "SELECT to_jsonb(t)::text FROM attachments t WHERE user_id = :user ORDER BY 1",
    "SELECT to_jsonb(t)::text FROM attachment_pages t WHERE user_id = :user ORDER BY 1",
    "SELECT to_jsonb(t)::text FROM audio t WHERE user_id = :user ORDER BY 1",
    "SELECT to_jsonb(t)::text FROM exports t WHERE user_id = :user ORDER BY 1",
    "SELECT to_jsonb(t)::text FROM imports t WHERE user_id = :user ORDER BY 1",
    "SELECT to_jsonb(t)::text FROM imported_conversations t WHERE user_id = :user ORDER BY 1",
    "SELECT to_jsonb(t)::text FROM webhooks t WHERE user_id = :user ORDER BY 1",
    "SELECT to_jsonb(t)::text FROM webhook_secrets t WHERE user_id = :user ORDER BY 1",
    "SELECT to_jsonb(t)::text FROM webhook_deliveries t WHERE user_id = :user ORDER BY 1",
    "SELECT to_jsonb(t)::text FROM webhook_attempts t WHERE user_id = :user ORDER BY 1",
    "SELECT to_jsonb(t)::text FROM notifications t WHERE user_id = :user ORDER BY 1",
    "SELECT to_jsonb(t)::text FROM notification_preferences t WHERE user_id = :user ORDER BY 1",
    "SELECT to_jsonb(t)::text FROM spending_limits t WHERE user_id = :user ORDER BY 1",
    "SELECT to_jsonb(t)::text FROM spending t WHERE user_id = :user ORDER BY 1",
    "SELECT to_jsonb(t)::text FROM model_usage t WHERE user_id = :user ORDER BY 1",
    "SELECT to_jsonb(t)::text FROM idempotency_keys t WHERE user_id = :user ORDER BY 1",
)


async def snapshot(database: Database, files: Path, owner: UUID) -> list[Any]:
    """All that a user has, files too, but for what reading changes."""
    async with database.system() as session:
        rows = [list((await session.scalars(text(one), {"user": owner})).all()) for one in _TABLES]
    kept = (path for path in files.rglob("*") if path.is_file() and str(owner) in path.parts)
    return [*rows, sorted((str(path.relative_to(files)), path.read_bytes()) for path in kept)]
