"""What the generator makes: conversations, and questions whose evidence in them is known."""

from datetime import datetime
from typing import NamedTuple

CATEGORIES = ("single", "paraphrase", "spread", "dates", "changed", "open")
LANGUAGES = ("english", "urdu", "roman", "hindi", "code", "mixed")


class Message(NamedTuple):
    """One message."""

    role: str
    text: str
    at: datetime


class Question(NamedTuple):
    """What is asked after the end of a conversation."""

    text: str
    category: str
    language: str
    evidence: tuple[tuple[int, str], ...]  # the index of a message, and the part of it that carries the fact


class Conversation(NamedTuple):
    """A history and the questions about it."""

    language: str
    messages: list[Message]
    questions: list[Question]
    tokens: int
