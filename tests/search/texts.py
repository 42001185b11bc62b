"""Texts as people and models write them, and as nobody would."""
# ruff: noqa: RUF001 - letters that look like others are meant.

from hypothesis import strategies as st

_WORDS = [
    "the", "running", "Lahore", "لاہور", "كتابٌ", "کتابیں", "कमरा", "ज़रूर", "kitaab", "hai", "nahi", "mera",
    "foo_bar", "getUserName", "src/app/main.py", "std::vector", "c++", "C#", "e-mail", "don't", "user’s", "l'homme",
    "1,000", "3.14", "2023-05-05", "۱۲۳", "我喜欢", "日本語", "한국어", "ไทย", "Straße", "café", "PDFکو", "Python是好",
    "ﷺ", "½", "…", "👩‍👩‍👧", "ء", "or", "OR", "-not", "--force", "-", '"', '"a b"', "“q", "«", "'", "_", "__init__",
    "\u200c", "\u00ad", "a,b", "x->y", "(f(x))", "i++", "#", "\u0301", "<b>", "٫", "ഇന്ത്യ", "ਪੰਜਾਬ", "дом",
]  # fmt: skip
_GAPS = st.sampled_from([" ", " ", " ", "", "\n", "\n\n", "\t", ". ", ", ", "۔ ", "\u2009", "\u3000", "\x1c"])


def texts(*, most: int = 25) -> st.SearchStrategy[str]:
    """Words of all kinds with anything between them; sometimes any characters at all."""
    word = st.one_of(st.sampled_from(_WORDS), st.sampled_from(_WORDS), st.text(max_size=12))
    return st.lists(st.tuples(word, _GAPS), max_size=most).map(lambda parts: "".join(map("".join, parts)))
