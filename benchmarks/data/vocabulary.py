"""Words to seed texts with: several languages, each with a few hundred real words and a long tail of made-up ones."""

# ruff: noqa: RUF001 - several scripts, each meant

import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.texts import SENTENCES, SOURCE

SIZE: Final = 30_000  # words of a language
_SKEW: Final = 1.05  # of Zipf's law: how often a word comes, by its rank
LANGUAGES: Final[Mapping[str, float]] = {  # the share of conversations
    "english": 0.45,
    "urdu": 0.20,
    "roman_urdu": 0.15,
    "hindi": 0.10,
    "code": 0.10,
}
_ROMAN_URDU = """
    aur hai ka ki ke mein se ko ne bhi nahi yeh woh kya kaise kyun jab tab agar lekin phir abhi kal aaj mujhe tumhe
    humein unko isko raha rahi rahe tha thi the hoga hogi karna karo kiya liye saath baat kaam waqt din raat ghar shehr
    log dost bhai behan ammi abbu pani chai roti acha bura bara chota naya purana pehla dusra sab kuch thora bohot zyada
    kam jaldi dair upar neeche andar bahar samajh sawal jawab madad zaroorat matlab masla hal likhna parhna dekhna
"""
_SYLLABLES: Mapping[str, str] = {
    "english": """
        ba be bi co cra de dro el en fi fla ga gri ha in jo ka li lo ma mer ne no pa pli qua re ri sa sel ta ter tri un
        va ver wa ro sho thi ple con dis sto mun tal
    """,
    "roman_urdu": """
        aa ba bha chi da dil fa gha ha ish ja kha ki la ma na pa qa ra sha ta un wa ya za roo mee naa gul tar dar mar
    """,
    "urdu": """
        ا با بے پا تا تر جا جی چا حا خو دا دل را رو زا سا شا صا طا عا غا فا قا کا کر گا لا ما نا وا ہا یا ند ست
    """,
    "hindi": "अ का कि को गा ची जा टा डा ता दि ना पा फि बा भा मा या रा ला वा शा सा हा नि री मु त्र स्थ न्द",
}


@dataclass(frozen=True)
class Planted:
    """Texts that are found in about so many seeded messages as is said here, and in no title."""

    common: str = "harbour"  # one message in five
    common_too: str = "ledger"  # one in seven
    middling: str = "lantern"  # one in two hundred
    rare: str = "axolotl"  # three messages of a user
    long_ago: str = "typewriter"  # one in three of the oldest fifth of a user's messages, none of the rest
    absent: str = "zeppelin"  # none
    prefix: str = "harb"  # that of `common`
    phrase: str = "amber kingfisher season"  # one in a thousand, as a phrase; its words come nowhere else
    urdu: str = "کتاب"  # one in ten
    roman_urdu: str = "kitaab"  # one in twelve
    hindi: str = "पुस्तक"  # one in fifteen
    identifier: str = "parse_request_body"  # one in five hundred

    def shares(self) -> Iterator[tuple[str, float]]:
        """Those that come evenly: the text and its share of the messages."""
        yield from (
            (self.common, 1 / 5),
            (self.common_too, 1 / 7),
            (self.middling, 1 / 200),
            (self.phrase, 1 / 1000),
            (self.urdu, 1 / 10),
            (self.roman_urdu, 1 / 12),
            (self.hindi, 1 / 15),
            (self.identifier, 1 / 500),
        )

    def words(self) -> set[str]:
        named = (self.common, self.common_too, self.middling, self.rare, self.long_ago, self.absent)
        return {*named, *self.phrase.split(), self.urdu, self.roman_urdu, self.hindi, self.identifier}


class Vocabulary:
    """One language's words, the frequent ones first, to be drawn by Zipf's law."""

    def __init__(self, language: str, planted: Planted) -> None:
        chance = random.Random(f"vocabulary of {language}")
        never = planted.words()
        stems = tuple(word[:6] for word in never if word.isascii())  # no other form of them either
        found = dict.fromkeys(
            word for word in _known(language, chance) if word not in never and not word.startswith(stems)
        )
        syllables = _SYLLABLES.get(language, "").split()
        while syllables and len(found) < SIZE:
            word = "".join(chance.choices(syllables, k=chance.randint(2, 5)))
            if word not in never and not word.startswith(stems):
                found[word] = None
        self._words = np.array(list(found)[:SIZE], dtype=object)
        weights = np.arange(1, len(self._words) + 1, dtype=np.float64) ** -_SKEW
        self._sums = np.cumsum(weights / weights.sum())

    def draw(self, count: int, chance: np.random.Generator) -> list[str]:
        """`count` words."""
        places: NDArray[np.int64] = np.searchsorted(self._sums, chance.random(count))
        drawn: list[str] = self._words[np.minimum(places, len(self._words) - 1)].tolist()
        return drawn


def _known(language: str, chance: random.Random) -> list[str]:
    """Real words, the frequent ones first."""
    if language == "code":
        counts: Counter[str] = Counter()
        for file in sorted(SOURCE.rglob("*.py")):
            counts.update(re.findall(r"[A-Za-z_]{2,40}", file.read_text(encoding="utf-8")))
        return [word for word, _ in counts.most_common()]
    if language == "roman_urdu":
        return _ROMAN_URDU.split()
    words = re.findall(r"[^\s.,;:?!।۔،؟'\"]+", " ".join(SENTENCES[language]))
    chance.shuffle(words)
    return words
