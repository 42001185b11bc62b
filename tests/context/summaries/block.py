"""A block of messages, and the strings in it that a summary must keep."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from baatcheet.context.summaries.sections import Line

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


class Block(NamedTuple):
    name: str
    said: Sequence[tuple[str, str]]
    facts: Sequence[str]
    chatter: Sequence[str]

    @property
    def lines(self) -> list[Line]:
        """The messages, with what assistants say at length behind every longer answer."""
        return [
            Line(
                role,
                text if len(text) < 160 or role == "user" else f"{text}\n\n{self._more(number)}",
                _at(number),
            )
            for number, (role, text) in enumerate(self.said)
        ]

    def _more(self, number: int) -> str:
        return self.chatter[number % len(self.chatter)]


def _at(number: int) -> datetime:
    return START + timedelta(hours=2 * number)
