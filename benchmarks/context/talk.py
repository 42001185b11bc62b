"""Conversations of any length whose words are as frequent as words are: few very often, most hardly ever."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate

from baatcheet.context.counting import count
from benchmarks.evidence import Message

LEAST, MOST = 10, 200  # tokens of a message
QUESTIONS = ("rare", "common", "long")

_FUNCTION_WORDS = (
    "the of and to a in is that it was for on with as be at by this had not are but from or have an they which one "
    "you were her all she there would their we him been has when who will more no if out so said what up its about "
    "into than them can only other new some could time these two may then do first any my now such like our over man "
    "me even most made after also did many before must through back years where much your way well down should because"
)
_CONSONANTS = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "ch", "sh", "tr", "st")
_SYLLABLES = [first + vowel for first in _CONSONANTS for vowel in "aeiou"]
_WORDS = 40_000  # of the vocabulary
_EXPONENT = 1.05
_TOKENS_PER_WORD = 1.75
_COMMON = (150, 400)  # ranks of words that each stand in one of some fifty messages
_BEGUN = datetime(2026, 1, 5, 8, tzinfo=UTC)


class Talk:
    """What two people say to each other, made up from one seed."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._words = _vocabulary()
        self._rank = {word: rank for rank, word in enumerate(self._words)}
        self._weights = list(accumulate(1 / (rank + 3) ** _EXPONENT for rank in range(len(self._words))))
        self._at = _BEGUN

    def text(self) -> str:
        """Sentences of `LEAST` to `MOST` tokens, every size as likely."""
        while True:
            made = self._sentences(round(self._chance.uniform(LEAST, MOST) / _TOKENS_PER_WORD))
            if LEAST <= count(made) <= MOST:
                return made

    def messages(self, number: int) -> list[Message]:
        """So many messages, the user's and the assistant's in turn, in sittings of an hour or so."""
        return [self.message("assistant" if place % 2 else "user") for place in range(number)]

    def message(self, role: str) -> Message:
        """The next one."""
        pause = timedelta(hours=14) if self._chance.random() < 1 / 40 else timedelta(seconds=90)
        self._at += pause
        return Message(role, self.text(), self._at)

    def question(self, kind: str, messages: Sequence[Message]) -> str:
        """What may be asked after `messages`: for a rare word in them, for common words, or at length."""
        match kind:
            case "rare":
                return f"What did you tell me about the {self._rarest(self._chance.choice(messages).text)}?"
            case "common":
                words = self._chance.sample(self._words[slice(*_COMMON)], 5)
                return f"Which {words[0]} had the {words[1]} of {words[2]}, {words[3]} and {words[4]}?"
            case _:
                return f"{self._sentences(110)} What did we say about this?"

    def _sentences(self, words: int) -> str:
        chosen = self._chance.choices(self._words, cum_weights=self._weights, k=max(3, words))
        sentences: list[str] = []
        while chosen:
            length = self._chance.randint(5, 16)
            sentence, chosen = chosen[:length], chosen[length:]
            sentences.append(" ".join(sentence).capitalize() + ".")
        return " ".join(sentences)

    def _rarest(self, text: str) -> str:
        return max(text.lower().replace(".", "").split(), key=lambda word: self._rank[word])


def _vocabulary() -> list[str]:
    """Words of English that say little, then made-up ones of two to four syllables; the same every time."""
    chance = random.Random("vocabulary")
    words = dict.fromkeys(_FUNCTION_WORDS.split())
    while len(words) < _WORDS:
        words["".join(chance.choices(_SYLLABLES, k=chance.randint(2, 4)))] = None
    return list(words)
