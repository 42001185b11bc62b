"""What a document's table of contents lists: as much as a person reads, however long the document is."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from baatcheet.exports.pdf.tree import Cell

MOST_LINES: Final = 400
MOST_WITH_HEADINGS: Final = 80  # lines up to which the headings inside answers are listed, too


class Entry(NamedTuple):
    """A heading that is set: of a conversation (`level` 1), of a message (2), or inside a message (3 and more)."""

    level: int
    title: str
    cell: Cell
    role: str
    at: datetime


class Line(msgspec.Struct, frozen=True, array_like=True):
    """A line of the table: `mark` is the heading that it leads to."""

    level: int
    cell: Cell
    page: str
    mark: int


class Chosen(NamedTuple):
    level: int
    cell: Cell
    mark: int


def choose(
    entries: Sequence[Entry], day: Callable[[datetime], str], month: Callable[[datetime], str]
) -> list[Chosen]:
    """The lines for a document of `entries`: conversations and what was asked in them.

    Of a document that is too long for that: the days on which it was written, or the months; at last only the
    conversations.
    """
    several = sum(entry.level == 1 for entry in entries) > 1
    lines = _choose(entries, several, day, month)
    return lines if several else [one._replace(level=one.level - 1) for one in lines]


def _choose(
    entries: Sequence[Entry], several: bool, day: Callable[[datetime], str], month: Callable[[datetime], str]
) -> list[Chosen]:
    talks = (
        [Chosen(1, entry.cell, mark) for mark, entry in enumerate(entries) if entry.level == 1]
        if several
        else []
    )
    asked = _asked(entries)
    questions = [Chosen(2, entries[mark].cell, mark) for mark in asked]
    if len(talks) + len(questions) <= MOST_LINES:
        headings = [
            Chosen(3, entry.cell, mark) for mark, entry in enumerate(entries) if entry.level in {3, 4}
        ]
        if len(talks) + len(questions) + len(headings) <= MOST_WITH_HEADINGS:
            return _ordered(talks, questions, headings)
        return _ordered(talks, questions)
    for period in (day, month):
        periods = list(_periods(entries, period))
        if len(talks) + len(periods) <= MOST_LINES:
            return _ordered(talks, periods)
    return talks or questions[:MOST_LINES]


def _asked(entries: Sequence[Entry]) -> list[int]:
    """The messages of users; every message of a conversation that has none of theirs."""
    found: list[int] = []
    of_talk: list[int] = []
    for mark, entry in enumerate(entries):
        if entry.level == 1:
            found += _of_users(of_talk, entries)
            of_talk = []
        elif entry.level == 2:
            of_talk.append(mark)
    return found + _of_users(of_talk, entries)


def _of_users(marks: list[int], entries: Sequence[Entry]) -> list[int]:
    return [mark for mark in marks if entries[mark].role == "user"] or marks


def _periods(entries: Sequence[Entry], name: Callable[[datetime], str]) -> Iterable[Chosen]:
    """The first message of each period in each conversation."""
    now = ""
    for mark, entry in enumerate(entries):
        if entry.level == 1:
            now = ""
        elif entry.level == 2 and (period := name(entry.at)) != now:
            now = period
            yield Chosen(2, Cell(0, "", [period]), mark)


def _ordered(*lines: Iterable[Chosen]) -> list[Chosen]:
    return sorted((one for several in lines for one in several), key=lambda one: one.mark)
