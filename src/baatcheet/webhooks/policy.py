"""What is decided about deliveries without asking anybody: who gets an event, and what follows from an answer."""

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from http import HTTPStatus

from baatcheet.events.catalogue import WEBHOOK_TYPES

TEST = "webhook.test"
LONGEST_WISH = 86_400.0  # seconds that a receiver may ask us to wait
MAX_TEXT = 32 * 1024  # bytes of a message's text that travel with it
MAX_RESPONSE = 4096  # bytes of an answer that are kept
SETTLED = 3  # attempts of one delivery that must have failed before its endpoint is given up


@lru_cache(maxsize=10_000)
def wants(names: tuple[str, ...], event: str) -> bool:
    """Whether a filter of `names` (a type, `group.*` or `*`) takes this type of event, if webhooks may get it."""
    return event in WEBHOOK_TYPES and any(
        name in {event, "*"} or (name.endswith(".*") and event.startswith(name[:-1])) for name in names
    )


def cut(text: str, limit: int = MAX_TEXT) -> tuple[str, bool]:
    """`text` within `limit` bytes of UTF-8, at a character's end, and whether it was longer."""
    encoded = text.encode()
    if len(encoded) <= limit:
        return text, False
    return encoded[:limit].decode(errors="ignore"), True


@dataclass(frozen=True)
class Answer:
    """How one attempt ended.

    `status`: the answer's, 0 when there was none. `error`: why it does not count, in plain words; None: it does.
    """

    status: int
    duration_ms: int
    response: str
    error: str | None
    retry_after: float | None = None

    @property
    def delivered(self) -> bool:
        return self.error is None

    @property
    def gone(self) -> bool:
        """Whether the receiver asks never to be called again."""
        return self.status == HTTPStatus.GONE


def objection(status: int, location: str | None) -> str | None:
    """Why an answer with this status is no success, in plain words; None for 2xx."""
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        where = f" to {location}" if location else ""
        return f"The receiver redirects{where} (status {status}). Redirects are not followed: change the address."
    if status == HTTPStatus.GONE:
        return "The receiver says that it is gone for good (status 410)."
    try:
        phrase = f" {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = ""
    return f"The receiver answered {status}{phrase}."


def wished_pause(status: int, header: str | None, now: datetime) -> float | None:
    """Seconds that a 429 or 503 asks to be left alone: Retry-After as seconds or as a date, a day at most."""
    if header is None or status not in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:12]), LONGEST_WISH)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max(0.0, (moment - now).total_seconds()), LONGEST_WISH)


def is_hopeless(failing_since: datetime, now: datetime, attempt: int, days: float) -> bool:
    """Whether an endpoint that has failed since `failing_since` is to be disabled.

    Not at a delivery's first attempts: one bad moment after days without any event is no sign.
    """
    return attempt >= SETTLED and (now - failing_since).total_seconds() >= days * 86_400
