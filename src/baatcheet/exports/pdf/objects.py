"""The objects of a PDF file as the typesetter writes it: read, renumbered, written.

No reader of PDFs in general: the files come from our own typesetter, whose objects stand in a plain cross-reference
table, each stream with its length in its dictionary. What is otherwise raises `Malformed`.
"""

import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Final, NamedTuple, TypeAlias

Value: TypeAlias = "dict[str, Value] | list[Value] | Name | Ref | Text | int | float | bool | None"


class Malformed(ValueError):
    """A PDF file that is not as the typesetter writes them."""


class Name(str):
    """A name, without its slash."""

    __slots__ = ()


class Text(bytes):
    """A string, as it stands in the file: with its brackets."""

    __slots__ = ()


class Ref(NamedTuple):
    """A reference to an object."""

    number: int


class Mark(NamedTuple):
    """Where a heading stands: the object of its page, and the place on it, in points from its lower left corner."""

    page: int
    x: float
    y: float


class Body(NamedTuple):
    """An object: what stands between its number and its end, and its stream if it has one."""

    value: bytes
    stream: bytes | None


_TOKEN: Final = re.compile(
    rb"\s*(?:(?P<ref>\d+) 0 R\b|(?P<open><<)|(?P<close>>>)|(?P<list>\[)|(?P<end>\])|(?P<hex><[0-9A-Fa-f\s]*>)"
    rb"|(?P<name>/[^\s()<>\[\]{}/%]*)|(?P<number>[+-]?(?:\d+\.?\d*|\.\d+))|(?P<word>true|false|null)|(?P<text>\())"
)
_IN_TEXT: Final = re.compile(rb"[()\\]")
_HEAD: Final = re.compile(rb"(\d+) 0 obj\s+")
_LENGTH: Final = re.compile(rb"/Length (\d+)")
_NUMBERS: Final = re.compile(rb"(?<![\w.])(\d+) 0 R\b|/StructParents? (\d+)")


def text_end(data: bytes, at: int) -> int:
    """Where the string that begins at `at` with a bracket ends: brackets nest in it, and a backslash hides one."""
    depth = 0
    while match := _IN_TEXT.search(data, at):
        at = match.end()
        match match.group():
            case b"(":
                depth += 1
            case b")":
                depth -= 1
                if not depth:
                    return at
            case _:
                at += 1
    raise Malformed("a string has no end")


def parse(data: bytes) -> Value:
    """The value that `data` is."""
    value, at = _parse(data, 0)
    if data[at:].strip():
        raise Malformed(f"more than one value: {data[at : at + 40]!r}")
    return value


def _parse(data: bytes, at: int) -> tuple[Value, int]:
    match = _TOKEN.match(data, at)
    if match is None:
        raise Malformed(f"no value: {data[at : at + 40]!r}")
    at = match.end()
    kind = str(match.lastgroup)
    if kind == "open":
        return _parse_dictionary(data, at)
    if kind == "list":
        return _parse_list(data, at)
    if kind == "text":
        end = text_end(data, at - 1)
        return Text(data[at - 1 : end]), end
    if kind not in _SIMPLE:
        raise Malformed(f"unexpected {kind}")
    return _SIMPLE[kind](match[kind]), at


_SIMPLE: Final[Mapping[str, Callable[[bytes], Value]]] = {
    "ref": lambda token: Ref(int(token)),
    "hex": Text,
    "name": lambda token: Name(token[1:].decode("latin-1")),
    "number": lambda token: float(token) if b"." in token else int(token),
    "word": lambda token: {b"true": True, b"false": False, b"null": None}[token],
}


def _parse_list(data: bytes, at: int) -> tuple[list[Value], int]:
    found: list[Value] = []
    while not ((end := _TOKEN.match(data, at)) and end.lastgroup == "end"):
        item, at = _parse(data, at)
        found.append(item)
    return found, end.end()


def _parse_dictionary(data: bytes, at: int) -> tuple[dict[str, Value], int]:
    found: dict[str, Value] = {}
    while True:
        match = _TOKEN.match(data, at)
        if match is None or match.lastgroup not in {"name", "close"}:
            raise Malformed(f"no key: {data[at : at + 40]!r}")
        at = match.end()
        if match.lastgroup == "close":
            return found, at
        found[match["name"][1:].decode("latin-1")], at = _parse(data, at)


def written(value: Value) -> bytes:
    """`value` as it stands in a file."""
    match value:
        case dict():
            return (
                b"<<"
                + b"".join(b"/%b %b" % (key.encode("latin-1"), written(one)) for key, one in value.items())
                + b">>"
            )
        case Ref():
            return b"%d 0 R" % value.number
        case list():
            return b"[" + b" ".join(map(written, value)) + b"]"
        case Name():
            return b"/" + value.encode("latin-1")
        case Text():
            return bytes(value)
        case bool():
            return b"true" if value else b"false"
        case None:
            return b"null"
        case float():
            return f"{value:.4f}".rstrip("0").rstrip(".").encode()
        case int():
            return b"%d" % value
        case _:
            raise Malformed(repr(value))


def text(value: str) -> Text:
    """`value` as a text string: UTF-16, in hexadecimal."""
    return Text(b"<FEFF" + value.encode("utf-16-be", "replace").hex().upper().encode() + b">")


class File:
    """One file of the typesetter's. Its objects are numbered from 1 to `size` - 1."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        start = data.rfind(b"startxref")
        tail = data[start:].split()
        if start < 0 or len(tail) < 2:
            raise Malformed("no startxref")
        at = int(tail[1])
        head = re.compile(rb"xref\s+0 (\d+)\s*\n").match(data, at)
        if head is None:
            raise Malformed("no table of objects")
        self.size = int(head[1])
        rows = data[head.end() : head.end() + 20 * self.size]
        self._places = [int(rows[20 * number : 20 * number + 10]) for number in range(self.size)]
        # Each ends where the next in the file begins; the last, where the table does.
        in_order = [*sorted(self._places[1:]), at]
        self._ends = dict(pairwise(in_order))
        trailer = dictionary(
            parse(data[head.end() + 20 * self.size : start].strip().removeprefix(b"trailer"))
        )
        self.root_number = reference(trailer["Root"])
        self.root = self.dictionary(self.root_number)
        self._pages: list[int] = []
        self._bookmarks: list[int] = []
        self._marks: list[Mark] = []

    def body(self, number: int) -> Body:
        """Object `number`."""
        place = self._places[number]
        head = _HEAD.match(self._data, place)
        if head is None or int(head[1]) != number:
            raise Malformed(f"no object {number}")
        end = self._ends[place]
        whole = self._data[head.end() : end].rstrip()
        if not whole.endswith(b"endobj"):
            raise Malformed(f"object {number} has no end")
        whole = whole[: -len(b"endobj")].rstrip()
        if not whole.endswith(b"endstream"):
            return Body(whole, None)
        length = _LENGTH.search(whole)
        if length is None:
            raise Malformed(f"stream {number} has no length")
        stop = len(whole) - len(b"\nendstream")
        start = stop - int(length[1])
        if not whole.endswith(b"stream\n", 0, start) or whole[stop : stop + 1] != b"\n":
            raise Malformed(f"stream {number} has another length")
        return Body(whole[: start - len(b"stream\n")].rstrip(), whole[start:stop])

    def value(self, number: int) -> Value:
        return parse(self.body(number).value)

    def dictionary(self, number: int) -> dict[str, Value]:
        return dictionary(self.value(number))

    def resolved(self, value: Value) -> Value:
        """`value`, or the object that it refers to."""
        return self.value(value.number) if isinstance(value, Ref) else value

    def pages(self) -> list[int]:
        """The objects of the pages, in their order."""
        if not self._pages:
            self._pages = self._find_pages()
        return self._pages

    def _find_pages(self) -> list[int]:
        found: list[int] = []
        waiting = [reference(self.root["Pages"])]
        while waiting:
            number = waiting.pop()
            node = self.dictionary(number)
            if node.get("Type") == "Pages":
                waiting += [reference(kid) for kid in reversed(items_of(node["Kids"]))]
            else:
                found.append(number)
        return found

    def bookmarks(self) -> list[int]:
        """The objects of the bookmarks, in the order of the document; first that of their tree, if there is one."""
        if self._bookmarks or "Outlines" not in self.root:
            return self._bookmarks
        waiting = [reference(self.root["Outlines"])]
        while waiting:
            number = waiting.pop()
            self._bookmarks.append(number)
            item = self.dictionary(number)
            waiting += [reference(item[key]) for key in ("Next", "First") if key in item]
        return self._bookmarks

    def marks(self) -> list[Mark]:
        """Where each heading stands, in their order."""
        if not self._marks:
            self._marks = self._find_marks()
        return self._marks

    def _find_marks(self) -> list[Mark]:
        found: list[Mark] = []
        for number in self.bookmarks()[1:]:
            place = self.dictionary(number).get("Dest")
            match self.resolved(place):
                case [Ref(number=page), _, int() | float() as x, int() | float() as y, *_]:
                    found.append(Mark(page, float(x), float(y)))
                case other:
                    raise Malformed(f"a bookmark leads to {other!r}")
        return found


def renumbered(value: bytes, by: int, parents_by: int) -> bytes:
    """`value` with every reference, and every key into the tree of structure parents, moved on."""

    def moved(match: re.Match[bytes]) -> bytes:
        if match[1]:
            return b"%d 0 R" % (int(match[1]) + by)
        name, number = match.group().split()
        return b"%b %d" % (name, int(number) + parents_by)

    if b" 0 R" not in value and b"/StructParent" not in value:
        return value
    if b"(" not in value:
        return _NUMBERS.sub(moved, value)
    parts = []
    at = 0
    while (start := value.find(b"(", at)) >= 0:
        end = text_end(value, start)
        parts += [_NUMBERS.sub(moved, value[at:start]), value[start:end]]
        at = end
    return b"".join(parts) + _NUMBERS.sub(moved, value[at:])


def moved(value: Value, by: int) -> Value:
    """`value`, parsed, with every reference moved on."""
    match value:
        case Ref():
            return Ref(value.number + by)
        case dict():
            return {key: moved(one, by) for key, one in value.items()}
        case list():
            return [moved(one, by) for one in value]
        case _:
            return value


def reference(value: Value) -> int:
    """The number of the object that `value` refers to."""
    if not isinstance(value, Ref):
        raise Malformed(f"no reference: {value!r}")
    return value.number


def dictionary(value: Value) -> dict[str, Value]:
    """`value`, which is a dictionary."""
    if not isinstance(value, dict):
        raise Malformed(f"no dictionary: {value!r}")
    return value


def items_of(value: Value) -> list[Value]:
    """`value`, which is a list."""
    if not isinstance(value, list):
        raise Malformed(f"no list: {value!r}")
    return value
