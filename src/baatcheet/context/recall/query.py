"""What a new message asks for."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from baatcheet.context.recall import analysis, moments, scripts, signs
from baatcheet.context.recall.tokens import TOKEN
from baatcheet.context.recall.vocabulary import english_stem, patterns, vocabulary

MOST_TERMS = 40
MOST_NAMES = 8  # that are looked for as speakers'
WORD, CONCEPT, KIND, BONES = 1.0, 0.6, 0.35, 0.35  # weights
ASKING = 0.35  # a word about the talk itself: said, mentioned
BEFORE = (0.35, 0.2, 0.1)  # of the words of the turns before, newest first
SHORT_BONES = 0.1  # of two consonants, which many words have
PHRASE = 0.7  # a word that a phrase stands for
SIGNED = 0.01  # a mark of who speaks, which is no reason by itself
NEAR = 0.12  # what is only near to what was asked for
FOLLOW_UP = 0.7  # how much a short question with a pronoun leans on what was said before
_ENOUGH = 3  # words: a question with fewer leans on what was said before
_LONG = 1_200  # characters: of a longer message only the questions and its ends count


@dataclass(slots=True)
class Query:
    """What to look for, and how to tell the better of what is found."""

    weights: dict[str, float] = field(default_factory=dict)  # by index term
    aspects: dict[str, int] = field(default_factory=dict)  # which word of the question a term stands for
    wanted: int = 0  # signs that an answer would have
    names: frozenset[str] = frozenset()  # terms that may be a speaker's name
    role: str | None = None  # whose words are asked for
    recent: float = 0.0  # how much the newest matter more: 0 to 1; below 0 the oldest
    spans: tuple[tuple[datetime, datetime], ...] = ()  # when it was said


_SENTENCE = re.compile(rf"[^.!?{scripts.STOPS}\n]+[.!?{scripts.STOPS}]*")


def understand(new: Sequence[str], before: Sequence[str], now: datetime) -> Query:
    """What the `new` messages ask for; `before` are the texts of the last turns, oldest first."""
    asked, asks = _essence("\n".join(new)), patterns("asked")
    query = Query()
    words = _take(query, asked, 1.0)
    query.names = frozenset(sorted(frozenset(_names(asked)) & query.weights.keys())[:MOST_NAMES])
    lean = _lean(words, pronoun=asks["pronoun"].search(asked) is not None)
    if lean:
        for text, weight in zip(reversed(before), BEFORE, strict=False):
            _take(query, _essence(text), weight * lean)
    _widen(query, asked)
    heaviest = sorted(query.weights.items(), key=_weight, reverse=True)
    query.weights = dict(heaviest[: MOST_TERMS - len(query.names)])
    for names, pattern in patterns("wanted").items():
        if pattern.search(asked):
            for name in names.split():
                query.wanted |= signs.BY_NAME[name]
    for name in query.names:
        query.weights["@" + name] = SIGNED
    query.role = _role(asked)
    query.recent = 1.0 if asks["newest"].search(asked) else -1.0 if asks["oldest"].search(asked) else 0.0
    query.spans = moments.spans(asked, now)
    return query


def _lean(words: int, *, pronoun: bool) -> float:
    """How much a question with so many words leans on what was said before it: all, some or not."""
    if words == 0:
        return 1.0
    if not pronoun:
        return 0.0
    return FOLLOW_UP if words < _ENOUGH else FOLLOW_UP / 3


def _weight(one: tuple[str, float]) -> float:
    return one[1]


def _take(query: Query, text: str, weight: float) -> int:
    """Enter the terms of `text`, and say how many of its words carry meaning."""
    words = vocabulary()
    roman = analysis.is_roman(text)
    taken = 0
    for token in TOKEN.findall(scripts.folded(text)):
        made = analysis.terms_of(token, roman=roman)
        if not made:
            continue
        aspect = len(set(query.aspects.values()))
        aspect = query.aspects.get(made[0], aspect)
        plain = made[0] not in words.asking
        taken += plain
        factor = weight if plain else weight * ASKING
        for term, share in _weighed(made, token, roman=roman):
            if query.weights.get(term, 0.0) < factor * share:
                query.weights[term] = factor * share
            query.aspects.setdefault(term, aspect)
    return taken


def _widen(query: Query, asked: str) -> None:
    """Enter what stands near the concepts asked for, and the kinds of things that would answer."""
    for pattern, words in vocabulary().phrases:
        if pattern.search(asked):
            for word in words:
                _enter(query, english_stem(word), PHRASE)
                for concept in vocabulary().plain.sought.get(english_stem(word), ()):
                    _enter(query, concept, CONCEPT)
    for concept in [term for term in query.weights if term[0] == "~"]:
        for other in vocabulary().near.get(concept, ()):
            _enter(query, other, NEAR, like=concept)
    for concepts, pattern in patterns("kinds").items():
        if pattern.search(asked):
            for concept in concepts.split():
                _enter(query, "~" + concept, NEAR)


def _enter(query: Query, term: str, weight: float, *, like: str | None = None) -> None:
    if query.weights.get(term, 0.0) < weight:
        query.weights[term] = weight
    query.aspects.setdefault(term, query.aspects[like] if like else len(set(query.aspects.values())))


def _weighed(made: Sequence[str], token: str, *, roman: bool) -> Iterable[tuple[str, float]]:
    """The terms that a token of a question looks for, with their weights."""
    sought = vocabulary()
    for term in made:
        if term[0] == "~":
            if term[1] == "m" and term[2:].isdigit():
                yield term, WORD
        elif term[0] == "^":
            yield term, BONES if len(term) > 3 or not token.isascii() else SHORT_BONES
        else:
            yield term, WORD
            for concept in sought.plain.sought.get(term, ()):
                yield concept, KIND if concept.endswith("_kind") else CONCEPT
    if roman:
        for concept in sought.in_roman.sought.get(scripts.roman_spelling(token.lower()), ()):
            yield concept, KIND if concept.endswith("_kind") else CONCEPT
    if token.isascii() and token.isalpha() and len(token) > 3:
        bones = scripts.skeleton(token.lower())
        if len(bones) > 2:
            yield "^" + bones, BONES


def _names(text: str) -> Iterable[str]:
    """The terms of the words in `text` that are written as names."""
    for found in re.finditer(r"\b[A-Z][a-z]{2,}", text):
        yield english_stem(found.group().lower())


def _role(text: str) -> str | None:
    if patterns("asked")["assistant"].search(text):
        return "assistant"
    return "user" if patterns("asked")["user"].search(text) else None


def _essence(text: str) -> str:
    """`text`, or of a long one its beginning, its questions and its end."""
    if len(text) <= _LONG:
        return text
    middle = text[300 : min(len(text), 20_000) - 300]
    asked = [one for one in _SENTENCE.findall(middle) if one[-1] in scripts.QUESTION_MARKS and len(one) < 300]
    return "\n".join([text[:300], *asked[:5], text[-300:]])
