"""What a person types, read as a query. Every text is one: there is nothing to get wrong."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import msgspec

from baatcheet.context.recall import scripts
from baatcheet.context.recall.vocabulary import vocabulary
from baatcheet.search import terms
from baatcheet.search.terms import Analysis, analyse, words_of

MOST_WORDS = 32
_SAMPLE = 2_000  # characters that show whether a query is in Roman Urdu

_QUOTES = '"“”„‟«»'
_ITEM = re.compile(
    rf"(?P<not>-?)[{_QUOTES}](?P<quoted>[^{_QUOTES}]*)(?P<closed>[{_QUOTES}]?)|[^\s{_QUOTES}]+"
)
_GLUE = re.compile(r"[-./:@\\+#~&=%*<>|$_]{1,3}")  # between the parts of one name
_MANY_PARTS = 8  # of a name; what has more is looked for by its words alone


class Leaf(msgspec.Struct, frozen=True):
    """A word, a name or a phrase."""

    text: str  # as it was typed
    groups: tuple[
        tuple[str, ...], ...
    ]  # terms: all groups must be there, by any term of each; the most exact first
    prefix: str | None = (
        None  # folded, of three letters or more: a word that begins so does for the last group
    )
    phrase: tuple[str, ...] = ()  # folded words that must follow each other

    @property
    def is_open(self) -> bool:
        """Whether the last word is still being typed: a longer one that begins so is as good."""
        return self.prefix is not None or self.groups[-1][-1][0] == "p"


class Clause(msgspec.Struct, frozen=True):
    leaves: tuple[Leaf, ...]  # any of them


class Query(msgspec.Struct, frozen=True):
    clauses: tuple[Clause, ...]  # all of them
    excluded: tuple[Leaf, ...] = ()  # none of them; those with a phrase are excluded by `confirms`
    dropped: int = 0  # words too many, which are not looked for

    @property
    def has_phrase(self) -> bool:
        """Whether the index cannot answer alone: `confirms` must read the texts."""
        return any(
            leaf.phrase for leaf in (*self.excluded, *(one for all_ in self.clauses for one in all_.leaves))
        )


@dataclass(slots=True)
class _Item:
    """A quoted phrase, or what stands between two blanks."""

    text: str
    quoted: bool
    excluded: bool
    typing: bool  # its last word may go on


def parse(text: str, *, typing: bool = False) -> Query:
    """The query that `text` is. Never raises.

    `"…"` a phrase; `-word` or `-"…"` what must not be there; `or` between two of them: either. An `or` without
    neighbours is a word, a quote that is not closed goes to the end. Of more than 32 words the first 32 are looked for.
    `typing`: the last word, if no blank follows it, may be the beginning of a longer one.
    """
    clauses: list[tuple[Leaf, ...]] = []
    excluded: list[Leaf] = []
    left, dropped = MOST_WORDS, 0
    roman = terms.looks_roman(terms.tokens_of(text[:_SAMPLE].split()))
    items = list(_items(text, typing=typing))
    either = open_to_or = False  # whether the item widens the clause before it; whether the next one may
    for place, item in enumerate(items):
        if open_to_or and not either and _is_or(item) and _can_follow_or(items[place + 1 : place + 2]):
            either = True
            continue
        made, used, unused = _clauses(item, left, roman=roman)
        left -= used
        dropped += unused
        if item.excluded:
            excluded += [leaf for leaves in made for leaf in leaves]
        elif made:
            if either:
                made[0] = tuple(dict.fromkeys(clauses.pop() + made[0]))
            clauses += made
        elif not used and not unused:
            continue  # marks alone
        open_to_or, either = bool(made) and not item.excluded, False
    different = {tuple(map(_sense, leaves)): leaves for leaves in reversed(clauses)}
    return Query(
        tuple(map(Clause, reversed(different.values()))),
        tuple({_sense(leaf): leaf for leaf in excluded}.values()),
        dropped,
    )


def confirms(query: Query, text: str) -> bool:
    """Whether `text`, which the index has found, truly has the phrases of `query`, and none that it excludes."""
    doubtful = [clause for clause in query.clauses if any(leaf.phrase for leaf in clause.leaves)]
    excluded = [leaf for leaf in query.excluded if leaf.phrase]
    if not doubtful and not excluded:
        return True
    line = f" {' '.join(words_of(text))} "
    if any(_follow(leaf, line) for leaf in excluded):
        return False
    unsettled = [
        [leaf for leaf in clause.leaves if not leaf.phrase]
        for clause in doubtful
        if not any(leaf.phrase and _follow(leaf, line) for leaf in clause.leaves)
    ]
    if not all(unsettled):
        return False
    return not unsettled or _have(unsettled, text.split())


def matches(query: Query, text: str) -> bool:
    """Whether `text` is what `query` looks for: all that an index can say, worked out without one."""
    analysis = analyse(text)
    return (
        bool(query.clauses)
        and all(any(_has(leaf, analysis) for leaf in clause.leaves) for clause in query.clauses)
        and not any(_has(leaf, analysis) for leaf in query.excluded if not leaf.phrase)
        and confirms(query, text)
    )


def _has(leaf: Leaf, analysis: Analysis) -> bool:
    """Whether a text has all groups of `leaf`. Its phrase is not looked at."""
    *others, last = leaf.groups
    return all(any(term in analysis.terms for term in group) for group in others) and (
        any(term in analysis.terms for term in last)
        or (leaf.prefix is not None and any(word.startswith(leaf.prefix) for word in analysis.words))
    )


def _have(clauses: list[list[Leaf]], found: list[str]) -> bool:
    """Whether a text has, for each clause, one of its leaves; none of them a phrase. Quicker than its analysis."""
    sought = {term for leaves in clauses for leaf in leaves for group in leaf.groups for term in group}
    tokens = terms.tokens_of(set(found))
    there = {term for token in tokens for term in token.terms if term in sought}
    if any(term[0] == "r" for term in sought) and terms.looks_roman(terms.tokens_of(found[: terms.SAMPLE])):
        there |= {term for token in tokens for term in token.roman if term in sought}
    beginnings = tuple({leaf.prefix for leaves in clauses for leaf in leaves if leaf.prefix})
    words = (
        [
            term[1:]
            for token in tokens
            for term in token.terms
            if term[0] == "w" and term.startswith(beginnings, 1)
        ]
        if beginnings
        else []
    )
    seen = Analysis(dict.fromkeys(there, 1), frozenset(words), 0)
    return all(any(_has(leaf, seen) for leaf in leaves) for leaves in clauses)


def _follow(leaf: Leaf, line: str) -> bool:
    """Whether the words of the phrase of `leaf` follow each other in a text's words."""
    return f" {' '.join(leaf.phrase)}{'' if leaf.is_open else ' '}" in line


def _items(text: str, *, typing: bool) -> Iterator[_Item]:
    for found in _ITEM.finditer(text):
        last = typing and found.end() == len(text)
        if found["quoted"] is not None:
            is_excluded = found["not"] == "-" and _begins(text, found.start())
            going_on = last and not found["closed"] and not found[0][-1:].isspace()
            yield _Item(
                found["quoted"], quoted=True, excluded=is_excluded, typing=going_on and not is_excluded
            )
            continue
        word = found[0]
        is_excluded = len(word) > 1 and word[0] == "-" != word[1] and _begins(text, found.start())
        yield _Item(
            word[1:] if is_excluded else word,
            quoted=False,
            excluded=is_excluded,
            typing=last and not is_excluded,
        )


def _begins(text: str, at: int) -> bool:
    return at == 0 or text[at - 1].isspace()


def _is_or(item: _Item) -> bool:
    return not item.quoted and not item.excluded and item.text in {"or", "OR"}


def _sense(leaf: Leaf) -> tuple[object, ...]:
    """What a leaf looks for, however it was written."""
    return (leaf.groups, leaf.prefix, leaf.phrase)


def _can_follow_or(following: list[_Item]) -> bool:
    """Whether what comes next can be the other half of an `or`."""
    return any(not item.excluded and words_of(item.text) for item in following)


def _clauses(item: _Item, left: int, *, roman: bool) -> tuple[list[tuple[Leaf, ...]], int, int]:
    """The clauses of one item, of `left` words at most; how many words they have, and how many were too many."""
    made: list[tuple[Leaf, ...]] = []
    used = unused = 0
    names = [item.text] if item.quoted else _names(item.text)
    for place, name in enumerate(names):
        words = words_of(name)
        kept = words[: left - used]
        used += len(kept)
        unused += len(words) - len(kept)
        typing = item.typing and place == len(names) - 1 and len(kept) == len(words)
        if not kept:
            continue
        if item.quoted or len(kept) < len(words):
            made.append((_phrase(name, kept, typing=typing),))
        elif len(kept) == 1:
            made.append((_word(name, kept[0], typing=typing, roman=roman, excluded=item.excluded),))
        else:
            made.append(_name(name, kept, typing=typing))
    return made, used, unused


def _names(text: str) -> list[str]:
    """The names in a text without blanks: tokens, those together that only marks such as `::` and `->` divide."""
    names: list[tuple[int, int]] = []
    for found in terms.TOKEN.finditer(text):
        if names and _GLUE.fullmatch(text, names[-1][1], found.start()):
            names[-1] = (names[-1][0], found.end())
        else:
            names.append(found.span())
    return [part for start, end in names for part in _without_commas(text[start:end])]


def _without_commas(name: str) -> list[str]:
    """`a,b` is two; `1,000` is one number."""
    return [name] if len(words_of(name)) == 1 else [part for part in name.split(",") if part]


def _name(name: str, words: list[str], *, typing: bool) -> tuple[Leaf, ...]:
    """A name of several parts: as these, one after the other, or as a whole that is written in another way."""
    parts = _phrase(name, words, typing=typing)
    longest = max(map(len, words))
    whole = [term[1:] for term in terms.known(name).terms if term[0] == "w" and len(term) > longest + 1]
    if (
        not whole
        or len(words) > _MANY_PARTS
        or not terms.TOKEN.fullmatch(name)
        or scripts.IS_UNSPACED.search(name)
    ):
        return (parts,)
    if typing:
        wholes = [(_forms(one), one if len(one) > 2 else None) for one in whole]
    else:
        wholes = [(tuple(dict.fromkeys(term for one in whole for term in _forms(one))), None)]
    return (parts, *[Leaf(name, (group,), prefix) for group, prefix in wholes])


def _word(text: str, word: str, *, typing: bool, roman: bool, excluded: bool) -> Leaf:
    special = [term for term in terms.known(text).terms if term[0] == "w" and term[-1] in "+#"]
    if special:
        return Leaf(text, (tuple(special),))
    group = _group(word, roman=roman, excluded=excluded)
    if not typing or scripts.IS_UNSPACED.match(word):
        return Leaf(text, (group,))
    if len(word) == 2:
        return Leaf(text, ((*group, "p" + word),))
    return Leaf(text, (group,), word if len(word) > 2 else None)


def _group(word: str, *, roman: bool, excluded: bool) -> tuple[str, ...]:
    """The terms that a folded word is looked for as, the most exact first.

    What is excluded is not excluded by the spellings of Roman Urdu: these are many words' own.
    """
    forms = _forms(word)
    spelling = None if excluded else terms.roman(word)
    if spelling is None or not (roman or (len(spelling) > 2 and word not in vocabulary().english)):
        return forms
    return (*forms, "r" + spelling)


def _forms(word: str) -> tuple[str, ...]:
    if not terms.may_be_stem(word):
        return ("w" + word,)
    stem = terms.stem(word)
    return tuple(dict.fromkeys(("w" + word, "w" + stem, "s" + stem)))


def _phrase(text: str, words: list[str], *, typing: bool) -> Leaf:
    """Words that must follow each other; one alone must be there as it is."""
    while len(words) > 1 and _is_half(words[-1], typing=typing):
        words = words[:-1]
        typing = False
    while len(words) > 1 and _is_half(words[0], typing=False):
        words = words[1:]
    if scripts.IS_UNSPACED.match(words[-1]):
        typing = False
    last = words[-1]
    whole = words[:-1] if typing else words
    groups = [("w" + word,) for word in words[:-1]]
    groups += [(terms.pair(one, two),) for one, two in pairwise(whole)]
    final = ("w" + last, "p" + last) if typing and len(last) == 2 else ("w" + last,)
    return Leaf(
        text,
        (*dict.fromkeys(groups), final),
        last if typing and len(last) > 2 else None,
        tuple(words) if len(words) > 1 else (),
    )


def _is_half(word: str, *, typing: bool) -> bool:
    """Whether a word at the edge of a phrase may be no word of the text.

    A letter of a script without blanks, whose words are two letters; the first letter of a word that is being typed.
    """
    return len(word) == 1 and (typing or scripts.IS_UNSPACED.match(word) is not None)
