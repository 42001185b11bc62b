"""Whether a prompt holds the evidence, and the prompt that a plain sliding window would send."""

from collections.abc import Sequence

from baatcheet.context.counting import MESSAGE_OVERHEAD
from benchmarks.evidence.model import Conversation, Question
from benchmarks.evidence.writer import tokens


def held(prompt_texts: Sequence[str], question: Question) -> bool:
    """Whether every part that carries a fact occurs in one of the prompt's message texts."""
    return all(any(part in text for text in prompt_texts) for _, part in question.evidence)


def cost(text: str) -> int:
    """What a message takes of a budget."""
    return tokens(text) + MESSAGE_OVERHEAD


def sliding_window(conversation: Conversation, question: Question, budget: int) -> list[str]:
    """The newest messages that fit the budget beside the question, the oldest first."""
    left = budget - cost(question.text)
    texts: list[str] = []
    for message in reversed(conversation.messages):
        left -= cost(message.text)
        if left < 0:
            break
        texts.append(message.text)
    return texts[::-1]
