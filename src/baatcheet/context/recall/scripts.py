"""Letters of several scripts brought to one spelling."""
# ruff: noqa: RUF001 - letters that look like others are what this is about.

import re
import unicodedata

MARKS = "\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed"  # Arabic vowel signs
ARABIC = "\u0620-\u064a\u066e-\u066f\u0671-\u06d3\u06d5\u06ee-\u06ef\u06fa-\u06ff\u0750-\u077f"
DEVANAGARI = "\u0900-\u0963\u0970-\u097f"
UNSPACED = (  # scripts that put no blank between words
    "\u0e00-\u0e7f\u0e80-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
    "\U00020000-\U0003134f"
)

STOPS = "۔।॥。！？؟"  # that end a sentence, beside the Latin ones
WIDE_STOPS = "。！？"  # with no blank after them
QUESTION_MARKS = "?؟？"
COMMAS = ",;:،؛、，"
CLOSING = "\"'”’)\\]*"  # in a regular expression's set

_FOLDED = str.maketrans(
    {
        "ي": "ی", "ى": "ی", "ئ": "ی", "ې": "ی", "ك": "ک", "ه": "ہ", "ة": "ہ", "ۃ": "ہ", "ۀ": "ہ", "ە": "ہ",
        "أ": "ا", "إ": "ا", "آ": "ا", "ٱ": "ا", "ؤ": "و", "ۂ": "ہ", "ۓ": "ے", "ء": None, "ـ": None,
        "\u200c": None, "\u200d": None, "\u200e": None, "\u200f": None, "\u093c": None,
        "ँ": "ं", "ॅ": "े", "ॉ": "ो", "’": "'", "‘": "'", "ʼ": "'",
        **{chr(code): str(unicodedata.decimal(chr(code))) for start in (0x660, 0x6F0, 0x966)
           for code in range(start, start + 10)},
    }
)  # fmt: skip
_VOWEL_SIGNS = re.compile(f"[{MARKS}]")
_LONE_ASPIRATE = re.compile("(?<![بپتٹجچدڈرڑکگلمن])ھ")
_IS_ARABIC = re.compile(f"[{ARABIC}]")
_IS_DEVANAGARI = re.compile(f"[{DEVANAGARI}]")
IS_UNSPACED = re.compile(f"[{UNSPACED}]")

_URDU_ENDING = re.compile("(?:یوں|یاں|وں|یں|اں|ات|ا|ے|ی|ہ|و)$")
_HINDI_ENDING = re.compile("(?:ियों|ियां|ाओं|ों|ें|ां|ीं|ा|े|ी|ो|ि|ु|ू|ं)$")

# Consonants that sound alike, across scripts and spellings; vowels and silent letters are left out.
_CONSONANTS = {
    "b": "ب ब भ", "p": "پ ف प फ", "t": "ت ٹ ط त ट थ ठ", "s": "س ث ص स", "z": "ز ذ ض ظ ج ژ ज झ", "c": "چ च छ",
    "k": "ک ق خ क ख", "g": "گ غ ग घ", "d": "د ڈ द ड ध ढ", "r": "ر ڑ र", "S": "ش श ष", "l": "ل ल", "m": "م म",
    "n": "ن ں न ण ं ञ ङ", "h": "ہ ح ह", "y": "ی य", "v": "و व",
}  # fmt: skip
_SOUND = str.maketrans(
    {letter: sound for sound, letters in _CONSONANTS.items() for letter in letters.split()}
    | {"f": "p", "q": "k", "w": "v", "j": "z", "c": "k", "C": "c"}
)
_LATIN_SOUNDS = (("sh", "S"), ("ch", "C"), ("ph", "p"), ("gh", "g"), ("kh", "k"), ("th", "t"),
                 ("dh", "d"), ("bh", "b"), ("jh", "z"), ("zh", "z"), ("ck", "k"), ("x", "ks"))  # fmt: skip
_NOT_SOUNDS = re.compile("[^bptszckgdrSlmnhyv]")
_INNER_SEMIVOWELS = re.compile("(?<=.)[yv]")
_DOUBLED = re.compile(r"(.)\1+")

_ROMAN_SPELLINGS = (
    ("aa", "a"), ("ee", "i"), ("oo", "u"), ("ph", "f"), ("q", "k"), ("w", "v"), ("ei", "e"), ("ai", "e"), ("ay", "e"),
    ("ey", "e"), ("y", "i"), ("kh", "k"), ("gh", "g"), ("o", "u"),
)  # fmt: skip


def folded(text: str) -> str:
    """`text` with the variants of a letter brought to one, vowel signs and joiners dropped, digits as 0-9."""
    if text.isascii():
        return text
    text = _VOWEL_SIGNS.sub("", unicodedata.normalize("NFKC", text).translate(_FOLDED))
    return _LONE_ASPIRATE.sub("ہ", text) if "ھ" in text else text


def unaccented(word: str) -> str:
    """A Latin word without its accents."""
    return "".join(one for one in unicodedata.normalize("NFD", word) if not unicodedata.combining(one))


def is_arabic(word: str) -> bool:
    return _IS_ARABIC.match(word) is not None


def is_devanagari(word: str) -> bool:
    return _IS_DEVANAGARI.match(word) is not None


def urdu_stem(word: str) -> str:
    """A folded Urdu word without the endings of number, gender and case."""
    return _without(_URDU_ENDING, word)


def hindi_stem(word: str) -> str:
    """A folded Hindi word without the endings of number, gender and case."""
    return _without(_HINDI_ENDING, word)


def _without(ending: re.Pattern[str], word: str) -> str:
    shorter = ending.sub("", word) if len(word) > 3 else word
    return shorter if len(shorter) >= 2 else word


def roman_spelling(word: str) -> str:
    """One spelling for the many of a Roman Urdu or Hindi word: `kitaab`, `kitab`."""
    for written, one in _ROMAN_SPELLINGS:
        word = word.replace(written, one)
    word = _DOUBLED.sub(r"\1", word)
    return word[:-1] if len(word) > 3 and word.endswith("h") else word


def skeleton(word: str) -> str:
    """The consonants of a folded, lower-case word, the same in every script: Lahore, لاہور and लाहौर are `lhr`."""
    if word.isascii():
        for written, sound in _LATIN_SOUNDS:
            word = word.replace(written, sound)
    word = _NOT_SOUNDS.sub("", word.translate(_SOUND))
    word = _DOUBLED.sub(r"\1", _INNER_SEMIVOWELS.sub("", word))
    return word[:-1] if len(word) > 1 and word.endswith("h") else word
