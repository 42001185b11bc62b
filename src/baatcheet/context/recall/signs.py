"""What kinds of facts a text holds, seen from its words: dates, numbers, names, choices."""

from collections.abc import Mapping

from baatcheet.context.recall import scripts
from baatcheet.context.recall.vocabulary import patterns

DATE = 1
NUMBER = 2
MONEY = 4
NAME = 8
PLACE = 16
QUESTION = 32  # it ends with one
CHOICE = 64
CHANGE = 128
REASON = 256
CODE = 512
LINK = 1024
CHATTER = 2048  # nothing but pleasantries

BY_NAME = {
    "date": DATE, "number": NUMBER, "money": MONEY, "name": NAME, "place": PLACE, "choice": CHOICE,
    "change": CHANGE, "reason": REASON, "code": CODE, "link": LINK,
}  # fmt: skip
_FEW = 2


def of(text: str, terms: Mapping[str, int]) -> int:
    """The signs of `text`, whose index terms are `terms`."""
    found = QUESTION if text.rstrip().endswith(tuple(scripts.QUESTION_MARKS)) else 0
    for name, pattern in patterns("signs").items():
        if pattern.search(text):
            found |= BY_NAME[name]
    if len(text) < 200 and not found & ~(QUESTION | CHANGE):
        words = [term for term in terms if term[0] not in "~^@"]
        if len(words) < _FEW:
            found |= CHATTER
    return found
