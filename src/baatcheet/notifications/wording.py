"""Which events a user is told of, and in which words. No I/O."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal
from urllib.parse import quote

from baatcheet.events.model import Event
from baatcheet.kit.text import SPELLING, headline

Kind = Literal[
    "export.completed",
    "export.failed",
    "audio.transcribed",
    "job.dead",
    "webhook.disabled",
    "key.quarantined",
    "key.rotated",
    "key.rotation_failed",
    "key.aged",
]


@dataclass(frozen=True)
class KindOfNotice:
    """A kind that a user may have told in the app, by email, both or not at all."""

    name: Kind
    tells: str
    email: bool  # whether it is sent by email unless its user says otherwise
    admin: bool = False  # whether only administrators are told


KINDS: Final[Mapping[str, KindOfNotice]] = MappingProxyType(
    {
        one.name: one
        for one in (
            KindOfNotice("export.completed", "An export can be fetched.", email=True),
            KindOfNotice("export.failed", "An export could not be made.", email=True),
            KindOfNotice("audio.transcribed", "A recording was transcribed.", email=False),
            KindOfNotice(
                "job.dead",
                "Something that was done in the background has failed for good: a file could not be read, a recording "
                "not transcribed. Administrators are told of the system's own jobs too.",
                email=False,
            ),
            KindOfNotice(
                "webhook.disabled", "A webhook failed for so long that it was disabled.", email=True
            ),
            KindOfNotice("key.quarantined", "A provider's key is no longer used.", email=True, admin=True),
            KindOfNotice("key.rotated", "A provider's keys were replaced.", email=False, admin=True),
            KindOfNotice(
                "key.rotation_failed", "A provider's keys could not be replaced.", email=True, admin=True
            ),
            KindOfNotice("key.aged", "A provider's key is too old.", email=True, admin=True),
        )
    }
)

LONGEST_TITLE: Final = 120  # characters
LONGEST_PART: Final = 300  # characters of what others said: an error, a name
_FORMATS: Final = {"pdf": "PDF", "md": "Markdown", "json": "JSON", "txt": "text"}


@dataclass(frozen=True)
class Notice:
    """What to tell. `link`: the API's address of what it is about.

    `alike`: while one with the same is unread, no other is shown. `quiet`: never sent by email.
    """

    kind: Kind
    title: str
    text: str
    link: str | None = None
    alike: str | None = None
    quiet: bool = False


def page_of(link: str) -> str | None:
    """Where a person sees what `link`, an API's address, is about: a page of the console. None: nowhere."""
    kind, _, id_ = link.removeprefix("/api/v1/").partition("/")
    match kind:
        case "jobs":
            return f"/console/jobs/{id_}"
        case "exports" | "audio":
            return f"/console/jobs/about/{id_}"
    return None


def notice_of(event: Event) -> Notice | None:
    """What to tell of `event`: its user, or administrators where it is nobody's. None: nothing."""
    say = _SAYINGS.get(event.type)
    return None if say is None else say(event)


def _said(data: Mapping[str, Any], name: str, otherwise: str = "") -> str:
    """A member of an event's data, on one line, not too long, and with nothing in it that can't be seen."""
    value = data.get(name)
    if not isinstance(value, str):
        return otherwise
    legible = (one for one in value if one.isprintable() or one.isspace() or one in SPELLING)
    return headline("".join(legible), LONGEST_PART) or otherwise


def _sentence(text: str) -> str:
    return text if not text or text[-1] in ".!?…\u06d4\u0964" else f"{text}."


def size_in_words(size: int) -> str:
    """Bytes, as people say them."""
    for limit, unit in ((1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")):
        if size >= limit:
            return f"{size / limit:.1f} {unit}"
    return f"{size} bytes"


def _address(collection: str, data: Mapping[str, Any], name: str) -> str | None:
    found = _said(data, name)
    return f"/api/v1/{collection}/{quote(found)}" if found else None


def _what_is_exported(data: Mapping[str, Any]) -> str:
    what = "your conversation" if data.get("conversation_id") else "all your data"
    return f"The export of {what} as {_FORMATS.get(data.get('format', ''), 'a file')}"


def _export_completed(event: Event) -> Notice:
    size = event.data.get("size")
    told = f" ({size_in_words(size)})" if isinstance(size, int) else ""
    return Notice(
        "export.completed",
        "Your export is ready",
        f"{_what_is_exported(event.data)}{told} can be fetched now.",
        _address("exports", event.data, "export_id"),
    )


def _export_failed(event: Event) -> Notice:
    why = _sentence(_said(event.data, "error", "Something went wrong on our side"))
    return Notice(
        "export.failed",
        "Your export could not be made",
        f"{_what_is_exported(event.data)} could not be made. {why}",
        _address("exports", event.data, "export_id"),
    )


def _transcribed(event: Event) -> Notice:
    name = _said(event.data, "filename")
    return Notice(
        "audio.transcribed",
        "Your recording was transcribed",
        f"The text of {name} is there." if name else "Its text is there.",
        _address("audio", event.data, "audio_id"),
    )


def _job_dead(event: Event) -> Notice | None:
    data = event.data
    kind, queue = _said(data, "kind", "a job"), _said(data, "queue")
    why = _sentence(_said(data, "error", "Something went wrong on our side"))
    link = _address("jobs", data, "job_id")
    if event.user is None:
        # An email about emails that can't be sent would be the next one.
        title = "A job of the system has failed"
        return Notice(
            "job.dead",
            title,
            f"{kind} has failed for the last time: {why}",
            link,
            alike=f"job.dead:{kind}",
            quiet=queue == "email",
        )
    match queue:
        case "export":
            return None  # export.failed tells of it
        case "ocr":
            title = "A file could not be read"
        case "audio":
            title = "A recording could not be transcribed"
        case "import":
            title = "Your conversations could not be imported"
        case _:
            return Notice("job.dead", "A job has failed", f"{kind}: {why}", link, alike=f"job.dead:{kind}")
    return Notice("job.dead", title, why, link, alike=f"job.dead:{kind}")


def _webhook_disabled(event: Event) -> Notice:
    host, why = _said(event.data, "host", "its server"), _said(event.data, "error")
    cause = (
        f"{host} says that it is gone."
        if event.data.get("reason") == "gone"
        else f"Nothing could be delivered to {host} for days." + (f" Last: {_sentence(why)}" if why else "")
    )
    return Notice(
        "webhook.disabled",
        "A webhook was disabled",
        f"{cause} Enable it again once that is mended.",
        _address("webhooks", event.data, "webhook_id"),
    )


def _key_quarantined(event: Event) -> Notice:
    provider = _said(event.data, "provider", "a provider")
    why = _sentence(_said(event.data, "reason", "The provider refused it"))
    return Notice(
        "key.quarantined",
        headline(f"A key of {provider} is no longer used", LONGEST_TITLE),
        f"The key {_said(event.data, 'fingerprint', '(unknown)')} of {provider} is no longer used. {why}",
    )


def _key_rotated(event: Event) -> Notice:
    provider = _said(event.data, "provider", "a provider")
    return Notice(
        "key.rotated",
        headline(f"The keys of {provider} were replaced", LONGEST_TITLE),
        _sentence(_said(event.data, "reason", "New keys are in use")),
    )


def _key_rotation_failed(event: Event) -> Notice:
    provider = _said(event.data, "provider", "a provider")
    return Notice(
        "key.rotation_failed",
        headline(f"The keys of {provider} were not replaced", LONGEST_TITLE),
        _sentence(_said(event.data, "reason", "Something went wrong on our side")),
    )


def _key_aged(event: Event) -> Notice:
    provider = _said(event.data, "provider", "a provider")
    why = _sentence(_said(event.data, "reason", "It is older than it may be"))
    return Notice(
        "key.aged",
        headline(f"A key of {provider} is too old", LONGEST_TITLE),
        f"{why} Replace it: baatcheet keys rotate {provider}.",
        alike=f"key.aged:{provider}",
    )


_SAYINGS: Final[Mapping[str, Callable[[Event], Notice | None]]] = MappingProxyType(
    {
        "export.completed": _export_completed,
        "export.failed": _export_failed,
        "audio.transcribed": _transcribed,
        "job.dead": _job_dead,
        "webhook.disabled": _webhook_disabled,
        "key.quarantined": _key_quarantined,
        "key.rotated": _key_rotated,
        "key.rotation_failed": _key_rotation_failed,
        "key.aged": _key_aged,
    }
)
