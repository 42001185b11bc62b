"""Long conversations and questions whose evidence is known: `conversations(seed)`."""

from benchmarks.evidence.generating import conversations
from benchmarks.evidence.model import CATEGORIES, LANGUAGES, Conversation, Message, Question
from benchmarks.evidence.scoring import held, sliding_window

__all__ = [
    "CATEGORIES",
    "LANGUAGES",
    "Conversation",
    "Message",
    "Question",
    "conversations",
    "held",
    "sliding_window",
]
