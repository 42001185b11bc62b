"""Names of files that strangers gave, made safe to keep, to show and to send back."""

import re
import unicodedata
from typing import Final
from urllib.parse import quote

from baatcheet.kit.text import SPELLING, is_invisible

MAX_BYTES: Final = 200  # of a name in UTF-8; file systems hold 255
MAX_SUFFIX: Final = 16  # characters of an ending that survives a cut, its dot included
NAMELESS: Final = "file"

# What reorders, embeds or isolates the text after it: with these `gpj.exe` reads as `exe.jpg`.
_BIDI: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_FORBIDDEN: Final = re.compile(r'[<>:"|?*]')  # on Windows
_DEVICE: Final = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?=\.|$)", re.IGNORECASE)
_EDGES: Final = " ."


def safe_name(text: str) -> str:
    """A name for the file that a client called `text`: never empty, at most `MAX_BYTES` long, of one line.

    The folders before it are left out, and so is what a terminal, a browser or a file system would take for
    more than a letter: control characters, bidirectional overrides, `<>:"|?*`, dots and blanks at the ends.
    Letters of every script stay. The ending stays too where a long name is cut. A safe name is its own safe name.
    """
    name = re.split(r"[/\\]", text)[-1]
    name = unicodedata.normalize("NFC", "".join(map(_shown, name)))
    name = " ".join(_FORBIDDEN.sub("_", name).split(" ")).strip(_EDGES)
    name = re.sub(" {2,}", " ", name)
    if _DEVICE.match(name):
        name = f"_{name}"
    name = _cut(name)
    return NAMELESS if is_invisible(name) else name


def _shown(one: str) -> str:
    """`one` as it may stand in a name: itself, a blank or nothing."""
    kind = unicodedata.category(one)
    if kind in {"Zs", "Zl", "Zp"} or one in "\t\n\r":
        return " "
    if one in _BIDI or kind in {"Cc", "Cs", "Cn", "Co"} or (kind == "Cf" and one not in SPELLING):
        return ""
    return one


def _cut(name: str) -> str:
    if len(name.encode()) <= MAX_BYTES:
        return name
    stem, dot, ending = name.rpartition(".")
    suffix = dot + ending if stem and len(dot + ending) <= MAX_SUFFIX else ""
    room = MAX_BYTES - len(suffix.encode())
    # "ignore" leaves out a character of which only the first bytes fit.
    return name[: len(name) - len(suffix)].encode()[:room].decode(errors="ignore").rstrip(_EDGES) + suffix


def content_disposition(name: str, *, inline: bool = False) -> str:
    """The header by which a download is called `safe_name(name)` in every browser (RFC 6266)."""
    name = safe_name(name)
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9._ ()\[\]-]", "_", plain).strip(_EDGES) or NAMELESS
    kind = "inline" if inline else "attachment"
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
