"""What the generator's difficulty is measured by: the last 20 messages, the rest by a plain BM25.

No stemming, no neighbours, no dates: a reference, not a proposal.
"""

import math
import re
from collections import Counter

from benchmarks.evidence.model import Conversation, Question
from benchmarks.evidence.scoring import cost

RECENT = 20
_K1, _B = 1.2, 0.75
_WORD = re.compile(r"[\w\u0900-\u097f]+")  # a Devanagari vowel sign is no letter to `\w`


class Lexical:
    """An index of one conversation's messages."""

    def __init__(self, conversation: Conversation) -> None:
        self._texts = [message.text for message in conversation.messages]
        self._counts = [Counter(words(text)) for text in self._texts]
        self._lengths = [counts.total() for counts in self._counts]
        self._mean = sum(self._lengths) / len(self._lengths)
        self._frequency = Counter(word for counts in self._counts for word in counts)

    def prompt(self, question: Question, budget: int) -> list[str]:
        """The last 20 messages while they fit, then the best of the older ones that still fit."""
        left = budget - cost(question.text)
        scores = self._scores(words(question.text))
        last = len(self._texts) - RECENT
        recent = range(len(self._texts) - 1, max(last, 0) - 1, -1)
        older = sorted(range(max(last, 0)), key=lambda index: (-scores[index], -index))
        chosen: list[int] = []
        for index in (*recent, *older):
            price = cost(self._texts[index])
            if price <= left:
                left -= price
                chosen.append(index)
        return [self._texts[index] for index in sorted(chosen)]

    def _scores(self, asked: list[str]) -> list[float]:
        weights = {word: self._weight(word) for word in asked if word in self._frequency}
        return [
            sum(
                weight * counts[word] * (_K1 + 1) / (counts[word] + _K1 * (1 - _B + _B * length / self._mean))
                for word, weight in weights.items()
                if word in counts
            )
            for counts, length in zip(self._counts, self._lengths, strict=True)
        ]

    def _weight(self, word: str) -> float:
        found = self._frequency[word]
        return math.log(1 + (len(self._texts) - found + 0.5) / (found + 0.5))


def words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
