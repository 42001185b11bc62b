"""From a token of a text to its index terms."""

import re
from functools import partial

from baatcheet.context.recall import scripts
from baatcheet.context.recall.vocabulary import Vocabulary, english_stem, vocabulary

Terms = tuple[str, ...]

LONGEST = 64  # characters: what is longer is no word
_REMEMBERED = 60_000  # tokens

TOKEN = re.compile(r"[\w\u0900-\u0963]+(?:['./:@,-][\w\u0900-\u0963]+)*", re.UNICODE)
_INNER = re.compile(r"[^\w\u0900-\u0963]+|_+")
_HUMPS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\dA-Za-z_]+")
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_ORDINAL = re.compile(r"(\d{1,2})(?:st|nd|rd|th)")
_MULTIPLE = re.compile(r"(\d+(?:\.\d+)?)(k|m|am|pm|kg|km|cm|mb|gb|ms|hrs?|mins?|yrs?)")
_DATE = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})|(\d{1,2})[-/.](\d{1,2})[-/.](\d{4})")
_NAME = re.compile(r"[A-Z][a-zA-Z]{2,}")


class Tokens(dict[str, Terms]):
    """Terms by token, worked out once; forgets everything when it has seen too much."""

    def __init__(self, *, roman: bool) -> None:
        super().__init__()
        self._analyse = partial(_terms_of, vocabulary(), roman=roman)

    def __missing__(self, token: str) -> Terms:
        made = self._analyse(token)
        if len(token) <= LONGEST:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[token] = made
        return made


def _terms_of(words: Vocabulary, token: str, *, roman: bool) -> Terms:
    if len(token) > LONGEST and not scripts.IS_UNSPACED.search(token):
        return ()
    if token[0].isdigit():
        return _number(words, token, roman=roman)
    if token.isalpha() and token.isascii():
        return _latin(words, token, roman=roman)
    stem, apostrophe, _ = token.partition("'")
    if apostrophe and stem.isalpha():
        return _terms_of(words, stem, roman=roman) if len(stem) > 1 else ()
    parts = [part for part in _INNER.split(token) if part]
    if len(parts) > 1 or "_" in token:
        whole = token.lower().strip("_")
        named = len(whole) <= LONGEST and ("_" in whole or "." in whole or "/" in whole or "@" in whole)
        made = [term for part in parts for term in _terms_of(words, part, roman=roman)]
        return (whole, *made) if named else tuple(made)
    return _word(words, token, roman=roman)


def _word(words: Vocabulary, token: str, *, roman: bool) -> Terms:
    """Letters, with digits or of another script than Latin, without a mark inside."""
    if scripts.IS_UNSPACED.search(token):
        return tuple(token[at : at + 2] for at in range(max(1, len(token) - 1)))
    if scripts.is_arabic(token) or scripts.is_devanagari(token):
        return _eastern(words, token)
    if not token.isascii():
        plain = scripts.unaccented(token)
        return _latin(words, plain, roman=roman) if plain.isascii() and plain.isalpha() else (plain.lower(),)
    humps = _HUMPS.findall(token)
    return (token.lower(), *(one for hump in humps for one in _terms_of(words, hump, roman=roman)))


def _eastern(words: Vocabulary, token: str) -> Terms:
    if token in words.other:
        return ()
    if token in words.months:
        return (f"~m{words.months[token]}",)
    stem = scripts.urdu_stem(token) if scripts.is_arabic(token) else scripts.hindi_stem(token)
    bones = scripts.skeleton(token)
    meanings = words.plain.shown.get(stem, ())
    return (stem, *meanings, "^" + bones) if len(bones) > 1 else (stem, *meanings)


def _latin(words: Vocabulary, word: str, *, roman: bool) -> Terms:
    lower = word.lower()
    if lower in words.english or len(lower) == 1 or (roman and scripts.roman_spelling(lower) in words.roman):
        return ()
    if word == "May":
        return ("~m5",)
    if lower in words.months and (word[0].isupper() or lower not in {"march", "jan", "sep", "dec", "mar"}):
        return (f"~m{words.months[lower]}",)
    stem = english_stem(words.forms.get(lower, lower))
    made = [stem, *words.plain.shown.get(stem, ())]
    if roman:
        made += words.in_roman.shown.get(scripts.roman_spelling(lower), ())
    if roman or _NAME.fullmatch(word):
        bones = scripts.skeleton(lower)
        if len(bones) > 1:
            made.append("^" + bones)
    if not word.islower() and not word.isupper() and not word[1:].islower():
        made += [one for hump in _HUMPS.findall(word) for one in _latin(words, hump.lower(), roman=False)]
    return tuple(dict.fromkeys(made))


def _number(words: Vocabulary, token: str, *, roman: bool) -> Terms:
    if date := _DATE.fullmatch(token):
        year, middle, last, first, second, last_year = date.groups()
        if year:
            return (token, year, f"~m{int(middle)}", str(int(last)))
        day, month = (int(first), int(second)) if int(second) <= 12 else (int(second), int(first))
        return (token, last_year, f"~m{month}", str(day))
    if _NUMBER.fullmatch(token):
        return (token.replace(",", ""),)
    if ordinal := _ORDINAL.fullmatch(token.lower()):
        return (ordinal[1],)
    if multiple := _MULTIPLE.fullmatch(token.lower()):
        number, unit = multiple.groups()
        if unit in {"k", "m"}:
            return (f"{float(number) * (1_000 if unit == 'k' else 1_000_000):.0f}", token.lower())
        return (number, token.lower())
    parts = [part for part in re.split(r"[^\w\u0900-\u0963]+", token) if part]
    if len(parts) == 1:
        return (token.lower(),)
    return (token.lower(), *(term for part in parts for term in _terms_of(words, part, roman=roman)))
