"""What the index found for a question."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

CAP = 1_000  # a frequency of this means: that many or more


class Hit(NamedTuple):
    """A passage that the index found, with the counts of the question's terms in it."""

    place: int  # of the message
    part: int  # of the message's passages
    role: str
    at: datetime
    length: int  # in terms
    counts: Mapping[str, int]
    signals: int


@dataclass(slots=True)
class Statistics:
    """Of the conversation that was searched."""

    messages: int
    passages: int
    average_length: float
    frequency: dict[str, int] = field(
        default_factory=dict
    )  # passages that have a term; CAP: that many or more
