"""Every type of event: what it tells, with which fields, and who may be told.

An event whose type is not here can't be recorded: what an operator subscribes to is what there is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class EventType:
    """One type of event.

    `fields` says of each member of its data what it is. `webhook`: whether webhooks may get it. `admin`: it is
    nobody's own, and told to administrators only.
    """

    name: str
    tells: str
    fields: Mapping[str, str]
    webhook: bool = True
    admin: bool = False


_CONVERSATION = {
    "conversation_id": "the conversation",
    "title": "its title",
    "project_id": "the project that it is in, or null",
    "model": "the model that it asks for, or null",
    "archived": "whether it is archived",
    "pinned": "whether it is pinned",
    "tags": "its tags",
}
_TURN = {
    "turn_id": "the turn",
    "conversation_id": "its conversation; null for a turn without one",
    "message_id": "the reply",
    "input_id": "the message that was answered",
    "model": "who answered, as provider/model",
    "finish_reason": "as the provider said: stop, length, tool_calls …",
    "prompt_tokens": "tokens sent",
    "completion_tokens": "tokens received",
    "error": "what went wrong, in words; null when nothing did",
}
_JOB = {
    "job_id": "the job",
    "kind": "what it does, as ocr.extract",
    "queue": "the queue that it is in",
    "status": "queued, waiting, running, succeeded, dead or cancelled",
    "progress": "0 to 100",
    "phrase": "what it is at, in words, or null",
    "attempts": "how often it was begun",
    "subject_id": "the attachment, export … that it is about, or null",
    "error": "what went wrong, in words, or null",
}
_ATTACHMENT = {
    "attachment_id": "the attachment",
    "status": "completed, or failed",
    "filename": "its name",
    "media_type": "what it is, as image/png",
    "pages": "how many pages were read",
    "characters": "how many characters of text were found",
    "confidence": "how sure the engine is, 0 to 1, or null",
    "language": "the language of the text, as ur, or null",
    "engine": "what read it; text where its text was in it as such",
    "error": "why it could not be read, in words; null when it was",
}
_AUDIO = {
    "audio_id": "the recording",
    "filename": "its name",
    "seconds": "how long it is",
    "detected_language": "the language that was spoken, as en, or null",
    "confidence": "how sure the engine is, 0 to 1, or null",
    "characters": "how many characters the transcription has",
    "engine": "what transcribed it",
}
_EXPORT = {
    "export_id": "the export",
    "conversation_id": "the conversation; null when it is all of one's data",
    "format": "pdf, md, json, txt or zip",
    "size": "bytes of the file",
}
_NOTIFICATION = {
    "notification_id": "the notification; null when it is about all of them",
    "kind": "what it is about",
    "title": "what it says",
    "unread": "how many are unread now",
}
_KEY = {
    "provider": "whose key it is",
    "fingerprint": "which key, never the key itself; null for all of the provider's",
    "reason": "why",
}

CATALOGUE: tuple[EventType, ...] = (
    EventType("conversation.created", "A conversation was opened.", _CONVERSATION),
    EventType(
        "conversation.updated",
        "A conversation's title, project, model, system prompt, tags or place in the list was changed.",
        _CONVERSATION,
    ),
    EventType("conversation.deleted", "A conversation was deleted, with its messages.", _CONVERSATION),
    EventType("conversation.restored", "A deleted conversation is there again.", _CONVERSATION),
    EventType(
        "message.created",
        "A message was written, by whomever. Its text is not in the event: ask for it.",
        {
            "message_id": "the message",
            "conversation_id": "its conversation",
            "parent_id": "the message that it follows, or null",
            "turn_id": "the turn that wrote it, or null",
            "role": "user, assistant, system, developer or tool",
            "model": "who wrote it, as provider/model, or null",
            "tokens": "how many tokens it has",
        },
    ),
    EventType("turn.completed", "A turn has ended with its whole reply.", _TURN),
    EventType("turn.failed", "A turn has ended because something went wrong.", _TURN),
    EventType("turn.interrupted", "A turn has ended because its process stopped or died.", _TURN),
    EventType("turn.cancelled", "A turn was stopped by its user.", _TURN),
    EventType("image.ocr_completed", "An attachment was read, or could not be.", _ATTACHMENT),
    EventType("audio.transcribed", "A recording was transcribed.", _AUDIO),
    EventType("export.completed", "An export is ready to be fetched.", _EXPORT),
    EventType(
        "export.failed",
        "An export could not be made.",
        {
            "export_id": "the export",
            "conversation_id": "the conversation; null when it is all of one's data",
            "format": "pdf, md, json, txt or zip",
            "error": "why, in words",
        },
    ),
    EventType("job.updated", "A job's status or progress has changed.", _JOB, webhook=False),
    EventType("job.dead", "A job has failed for the last time.", _JOB),
    EventType("notification.created", "You have a new notification.", _NOTIFICATION, webhook=False),
    EventType("notification.read", "Notifications were marked read.", _NOTIFICATION, webhook=False),
    EventType(
        "webhook.disabled",
        "A webhook is no longer sent anything: it has failed for days, or says that it is gone.",
        {
            "webhook_id": "the webhook",
            "host": "the host that it is at",
            "reason": "failing or gone",
            "failing_since": "since when nothing but failure has come back",
            "error": "what went wrong last, in words",
        },
    ),
    EventType("key.quarantined", "A provider's key is no longer used.", _KEY, admin=True),
    EventType("key.rotated", "A provider's keys were replaced.", _KEY, admin=True),
    EventType(
        "key.rotation_failed",
        "A provider's keys were not replaced: the old ones are in use, or somebody must look.",
        _KEY,
        admin=True,
    ),
    EventType("key.aged", "A provider's key is older than it may be.", _KEY, admin=True),
)

TYPES: Mapping[str, EventType] = MappingProxyType({one.name: one for one in CATALOGUE})
WEBHOOK_TYPES = frozenset(one.name for one in CATALOGUE if one.webhook)


class UnknownEventType(ValueError):
    """There is no such type of event."""


def expand(names: Iterable[str], among: Iterable[str] = TYPES) -> frozenset[str]:
    """The types of `among` that `names` name: each is a type, `group.*` for all of a group, or `*` for all.

    Raises UnknownEventType with what there is, for people.
    """
    known = sorted(among)
    found: set[str] = set()
    for name in names:
        group = name.removesuffix("*") if name == "*" or name.endswith(".*") else None
        meant = [one for one in known if (one == name if group is None else one.startswith(group))]
        if not meant:
            raise UnknownEventType(
                f"{name[:80]!r} is no type of event. There are: {', '.join(known)}; "
                "or a group of them, like turn.*"
            )
        found.update(meant)
    return frozenset(found)
