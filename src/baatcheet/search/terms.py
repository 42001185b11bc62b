"""What a text gives to the index: its terms, in any of the scripts that people write here.

A term's first character says what it is:

- `w` a folded word, as it stands in the text: also each part of an identifier, a path or an address, and the whole;
- `s` the stem of a word, where that is not the word itself;
- `r` the one spelling of a word in Roman Urdu or Hindi, in texts that look like it;
- `2` and three characters: two words that follow each other, hashed. A phrase is looked for by its pairs, which some
  texts have by chance: `query.confirms` reads the text itself;
- `p` the two letters that a word begins with.
"""
# ruff: noqa: RUF001 - letters that look like others are what this is about.

import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from string import ascii_letters, digits
from typing import NamedTuple

from baatcheet.context.recall import scripts
from baatcheet.context.recall.vocabulary import english_stem, vocabulary

LONGEST = 64  # characters of a term; a longer word is known by its beginning
LARGEST_PIECE = 6_000  # characters
_PIECE = 4_000
# The vowels about an h that few agree on: bahut, bohat, bohot; mohabbat, muhabbat; pehle, pahle.
_ABOUT_H = re.compile("(?<=[^aeiou])[aeu]h[au]?(?=[^aeiouh])")
_OVERLAP = 300  # characters that two pieces share
_SLACK = 1_000  # characters about the size of a piece in which a good place to cut is looked for

_MARKS = "\u0300-\u036f" + scripts.MARKS  # vowel signs and accents that stand alone
_SILENT = "\u00ad\u200c-\u200f\u2060\ufeff"  # joiners, marks of direction, soft hyphens
_INDIC = "\u0900-\u0963\u0966-\u0dff"
_LETTER = rf"[\w{_MARKS}{_SILENT}{_INDIC}{scripts.UNSPACED}]"
TOKEN = re.compile(rf"{_LETTER}+(?:[-'’./:@,]{_LETTER}+)*(?:\+\+|#)?")

_DROPPED = re.compile(f"[{_SILENT}]+")
_ACCENTS = re.compile("[\u0300-\u036f]+")
_SPECIAL = str.maketrans(
    {"ø": "o", "đ": "d", "ð": "d", "ł": "l", "ħ": "h", "ı": "i", "æ": "ae", "œ": "oe", "ё": "е"}
)
_CYRILLIC = re.compile("[\u0400-\u052f]")
_PART = re.compile(
    rf"[{scripts.UNSPACED}]+|[{scripts.ARABIC}]+|[{_INDIC}]+"
    rf"|(?:(?![{scripts.UNSPACED}{scripts.ARABIC}{_INDIC}_])[\w{_MARKS}])+"
)
_PLAIN_PART = re.compile("[0-9A-Za-z]+")
_INNER = re.compile("[-_./:@]")
_NO_SIMPLE_NAME = re.compile(r"[^\w-]")
_POSSESSIVE = re.compile(r"'s(?![^\W_])", re.IGNORECASE)
_ELIDED = re.compile(r"[^\W\d_]{1,2}'([^\W\d_]{3,})")
_NUMBER = re.compile(r"\d{1,3}(?:,\d{2,3})+(?:\.\d+)?")
_HUMPS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_MOST_HUMPS = 8  # of one word: what has more is no name but a code
_MOST_JOINED = 4  # parts that are put together as well: foobar for foo_bar
_LONGEST_JOINED = 40  # characters

# Urdu words that begin as if with the Arabic article.
_NO_ARTICLE = frozenset(
    scripts.folded("الماری الماریاں الماریوں الفاظ الزام الزامات الجھن الجھنیں الجھاؤ الٹانا الگنی").split()
)
_ARTICLE = re.compile("ال(?=.{4})")

_PAIRS = 1 << 18
_DIGITS = digits + ascii_letters + "-_"
_FIRST_DIGITS = tuple("2" + one + two for one in _DIGITS for two in _DIGITS)
SAMPLE = 60  # tokens that show whether a text is in Roman Urdu
_FEW = 8  # words that say little of their language

_REMEMBERED = 30_000  # tokens


class Analysis(NamedTuple):
    terms: dict[str, int]  # how often each is in the text; pairs: 1
    words: frozenset[str]  # folded: what a prefix, and a word that may be mistyped, is looked for in
    length: int  # words of the text, one after the other


class Token(NamedTuple):
    """What is known of a run of characters without a blank."""

    words: tuple[str, ...]  # folded, in their order
    terms: tuple[str, ...]  # but for the pairs and those of Roman Urdu
    roman: tuple[str, ...]
    hashes: tuple[int, ...]  # of each of the words, 36 bits
    is_roman_mark: bool
    is_common_english: bool


class _Known(dict[str, Token]):
    """What is known of runs of characters, each worked out once; forgets everything when it has seen too much."""

    def __init__(self, work_out: Callable[[str], Token]) -> None:
        super().__init__()
        self._work_out = work_out

    def __missing__(self, characters: str) -> Token:
        made = self._work_out(characters)
        if len(characters) <= LONGEST:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[characters] = made
        return made


def analyse(text: str) -> Analysis:
    """The terms of `text`. Every word counts, the common ones too."""
    found = text.split()
    tokens = tokens_of(found)
    sequence = [one for token in tokens for one in token.hashes]
    roman = looks_roman(tokens)
    distinct = dict(zip(found, tokens, strict=True))
    terms: dict[str, int] = {}
    for characters, times in Counter(found).items():
        token = distinct[characters]
        for term in token.terms + token.roman if roman else token.terms:
            terms[term] = terms.get(term, 0) + times
    words = frozenset([term[1:] for term in terms if term[0] == "w"])
    for number in {(one >> 18) ^ (two & (_PAIRS - 1)) for one, two in pairwise(sequence)}:
        terms[_FIRST_DIGITS[number >> 6] + _DIGITS[number & 63]] = 1
    return Analysis(terms, words, len(sequence))


def words_of(text: str) -> list[str]:
    """The folded words of `text` in their order: those that a phrase's words are compared with."""
    return [word for token in tokens_of(text.split()) for word in token.words]


def tokens_of(found: Iterable[str]) -> list[Token]:
    """What is known of each of the runs of characters that a text has between its blanks."""
    return list(map(known, found))


def pieces(text: str) -> list[tuple[int, int]]:
    """Where the pieces of `text` begin and end that are indexed each for itself. Together they are all of it.

    One, of at most 6,000 characters; else of about 4,000 each, cut at a paragraph, a line, a sentence or a blank.
    Each begins with the last words of the one before, so that a phrase that is cut in one is whole in the other.
    """
    made: list[tuple[int, int]] = []
    start = 0
    while len(text) - start > LARGEST_PIECE:
        end = _break(text, start + _PIECE - _SLACK, start + _PIECE + _SLACK)
        made.append((start, end))
        blank = text.find(" ", end - _OVERLAP, end)
        start = blank + 1 if blank >= 0 else end - _OVERLAP
    return [*made, (start, len(text))]


def pair(one: str, two: str) -> str:
    """The term of the folded word `two` after the folded word `one`."""
    number = (_hash(one) >> 18) ^ (_hash(two) & (_PAIRS - 1))
    return _FIRST_DIGITS[number >> 6] + _DIGITS[number & 63]


def stem(word: str) -> str:
    """The stem of a folded word: of English, Urdu, Arabic or Hindi. Else the word."""
    if word.isascii():
        if not word.isalpha() or len(word) < 3 or len(word) >= LONGEST - 1:
            return word
        return english_stem(vocabulary().forms.get(word, word))
    if scripts.is_arabic(word):
        return scripts.urdu_stem(word if word in _NO_ARTICLE else _ARTICLE.sub("", word, count=1))
    return scripts.hindi_stem(word) if scripts.is_devanagari(word) else word


def may_be_stem(word: str) -> bool:
    """Whether there are words of which a folded word can be the stem: of the languages whose endings are known."""
    return (word.isascii() and word.isalpha()) or scripts.is_arabic(word) or scripts.is_devanagari(word)


def roman(word: str) -> str | None:
    """The spelling of a folded word under which Roman Urdu knows it. None: it cannot be such a word."""
    if not (word.isascii() and word.isalpha() and 2 < len(word) < 40):
        return None
    return _ABOUT_H.sub("h", scripts.roman_spelling(word))


def looks_roman(tokens: Sequence[Token]) -> bool:
    """Whether a text is of Urdu or Hindi in Latin letters.

    Also where there is too little of it to tell, and nothing of English.
    """
    sample = tokens[:SAMPLE]
    marks = {token.words for token in sample if token.is_roman_mark}
    if marks:
        hits = sum([token.is_roman_mark for token in sample])
        if hits * 8 >= len(sample) and (len(marks) > 1 or len(sample) <= 4):
            return True
    return len(tokens) <= _FEW and not any(token.is_common_english for token in sample)


def _between_blanks(characters: str) -> Token:
    """All tokens of a run of characters as one."""
    found = [_tokens[one] for one in TOKEN.findall(characters)]
    if len(found) == 1:
        return found[0]
    return Token(
        tuple([word for token in found for word in token.words]),
        tuple([term for token in found for term in token.terms]),
        tuple([term for token in found for term in token.roman]),
        tuple([one for token in found for one in token.hashes]),
        is_roman_mark=False,
        is_common_english=False,
    )


def _token(characters: str) -> Token:
    if characters.isascii() and characters.isalnum():
        parts, others = [characters.lower()], _humps(characters)
    else:
        parts, others = _parts(characters)
    words: list[str] = []
    terms: dict[str, None] = {}
    spellings: dict[str, None] = {}
    for part in parts:
        if len(part) > 1 and scripts.IS_UNSPACED.match(part):
            both = [part[at : at + 2] for at in range(len(part) - 1)]
            words += both
            terms.update(dict.fromkeys(["w" + one for one in (*both, *part)]))
        else:
            words.append(part[: LONGEST - 1])
    for word in (*(one for one in words if "w" + one not in terms), *(one[: LONGEST - 1] for one in others)):
        terms["w" + word] = None
        if (ending := stem(word)) != word:
            terms["s" + ending] = None
        if len(word) > 1:
            terms["p" + word[:2]] = None
        if (spelling := roman(word)) is not None:
            spellings["r" + spelling] = None
    alone = words[0] if len(words) == 1 else ""
    return Token(
        tuple(words),
        tuple(terms),
        tuple(spellings),
        tuple(map(_hash, words)),
        is_roman_mark=alone in vocabulary().roman_marks,
        is_common_english=alone in vocabulary().english,
    )


def _parts(characters: str) -> tuple[list[str], list[str]]:
    """The words of a token that is no plain word, and the other words under which it can be found."""
    text = characters
    part = _PLAIN_PART
    if not text.isascii():
        text, part = scripts.folded(_DROPPED.sub("", text)), _PART
    others: list[str] = []
    if "'" in text:
        text = _POSSESSIVE.sub("", text)
        others += [_fold(one) for one in _ELIDED.findall(text)]
        text = text.replace("'", "")
    if "," in text:
        if not _NUMBER.fullmatch(text):
            both = [_parts(one) for one in text.split(",") if one]
            return [one for first, _ in both for one in first], [one for _, second in both for one in second]
        text = text.replace(",", "")
    found = part.findall(text)
    for one in found:
        others += _humps(one)
    parts = [word for one in found if (word := _fold(one))]
    whole = text.rstrip("+#")
    if (
        len(parts) > 1 and " " not in whole and _INNER.search(whole)
    ):  # folding makes several words of some letters
        others += _whole(_fold(whole).strip("_"), parts)
    if parts and len(whole) < len(text) and len(parts[-1]) <= 2:
        others.append(parts[-1] + text[len(whole) :])
    return parts, others


def _whole(whole: str, parts: list[str]) -> list[str]:
    """An identifier as it is written, and, if it is one word by its sense, without the marks: `foobar`."""
    made = [whole] if len(whole) < LONGEST else []
    together = "".join(parts)
    if len(parts) <= _MOST_JOINED and len(together) <= _LONGEST_JOINED and not _NO_SIMPLE_NAME.search(whole):
        made.append(together)
    return made


def _humps(word: str) -> list[str]:
    """The parts of `camelCase`, `HTTPServer` and `sha256`; none of a plain word, or of what looks like a code."""
    if len(word) < 3 or not word.isascii() or word.isdigit() or (word.isalpha() and word[1:].islower()):
        return []
    found = _HUMPS.findall(word)
    if not 1 < len(found) <= _MOST_HUMPS:
        return []
    if not word.isalpha() and any(len(one) < 2 for one in found if not one.isdigit()):
        return []
    humps = [one.lower() for one in found]
    together = ["".join(humps[at : at + size]) for size in (2, 3) for at in range(len(humps) - size + 1)]
    return humps + [one for one in together if len(one) <= _LONGEST_JOINED and len(one) < len(word)]


def _fold(part: str) -> str:
    """A folded text in small letters, and without accents; but й is another letter than и."""
    if part.isascii():
        return part.lower()
    part = part.casefold().translate(_SPECIAL)
    if _CYRILLIC.match(part):
        return part
    return unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFD", part)))


def _hash(word: str) -> int:
    """36 bits of a word that are the same in every process: 18 as the first of two words, 18 as the second."""
    first = zlib.crc32(word.encode("utf-8", "surrogatepass"))
    second = (
        first * 0x9E3779B1 & 0xFFFFFFFF
    ) >> 14  # another function than the first, or "a b" would be "b a"
    return (first & (_PAIRS - 1)) << 18 | second


def _break(text: str, first: int, last: int) -> int:
    """The best place to cut between two places: after a paragraph, a line, a sentence, a blank; else in the middle."""
    for mark in ("\n\n", "\n", ". ", "۔", "。", "। ", " "):
        at = text.rfind(mark, first, last)
        if at >= 0:
            return at + len(mark)
    return (first + last) // 2


_tokens = _Known(_token)
_runs = _Known(_between_blanks)
known = _runs.__getitem__  # what is between two blanks, by its characters: all of it is remembered
