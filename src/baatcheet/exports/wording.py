"""How an export says who wrote what and when, the same in every format."""

from datetime import UTC, datetime, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from baatcheet.exports.document import Attached, Document, Said, Talk

ROLES: Final = {
    "user": "You",
    "assistant": "Assistant",
    "system": "System",
    "developer": "Developer",
    "tool": "Tool",
}
_ENDINGS: Final = {
    "length": "The reply was cut off at the model's limit.",
    "interrupted": "The reply was interrupted.",
    "cancelled": "The reply was stopped.",
    "error": "The reply failed before its end.",
    "content_filter": "The provider withheld the rest.",
}
UNTITLED: Final = "Untitled conversation"


class Clock:
    """Shows times in the zone of a document; in UTC where the machine doesn't know that zone."""

    def __init__(self, document: Document) -> None:
        self._zone: tzinfo = UTC
        try:
            self._zone = ZoneInfo(document.time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            self.name = "UTC"
        else:
            self.name = document.time_zone

    def at(self, moment: datetime) -> str:
        return f"{self.day(moment)}, {self._local(moment):%H:%M}"

    def day(self, moment: datetime) -> str:
        local = self._local(moment)
        return f"{local.day} {local:%B} {local.year}"

    def month(self, moment: datetime) -> str:
        local = self._local(moment)
        return f"{local:%B} {local.year}"

    def exact(self, moment: datetime) -> str:
        """In ISO 8601, to the second."""
        local = self._local(moment)
        return local.replace(microsecond=0).isoformat().replace("+00:00", "Z")

    def _local(self, moment: datetime) -> datetime:
        try:
            return moment.astimezone(self._zone)
        except OverflowError:
            return moment  # the first or the last day that there is


def author(said: Said) -> str:
    return said.author or ROLES[said.role]


def title(talk: Talk) -> str:
    return talk.title.strip() or UNTITLED


def ending(said: Said) -> str:
    """What to say of how a message ended, "" where it ended as it should."""
    return _ENDINGS.get(said.finish_reason, "")


def file_line(attached: Attached) -> str:
    """A file as one line: its name, and how large it is."""
    return f"{attached.name} ({size(attached.size)})" if attached.size is not None else attached.name


def size(count: int) -> str:
    """A number of bytes, for people."""
    if count < 1_000:
        return f"{count} bytes"
    power = 3 if count >= 1_000_000_000 else 2 if count >= 1_000_000 else 1
    amount = count / 1_000**power
    unit = ("KB", "MB", "GB")[power - 1]
    return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:,.0f} {unit}"


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
