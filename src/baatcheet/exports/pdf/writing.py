"""A PDF file as it is written, object by object, with none of it kept in memory but where each object is."""

import hashlib
import zlib
from array import array
from collections.abc import Mapping
from typing import IO, Final

from baatcheet.exports.pdf.objects import Name, Ref, Text, Value, written

_PACKED: Final = 200  # objects in one stream of objects


class Output:
    """The file. `new` numbers an object, `object` and `stream` write one, `finish` writes where they all are."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._at = 0
        # For each object: 0 and its place in the file, or the stream that it is in and its place there.
        self._holders = array("Q", [0])
        self._places = array("Q", [0])
        self._waiting: list[tuple[int, bytes]] = []
        self._digest = hashlib.sha256()
        self._put(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")

    def new(self) -> int:
        """The number of an object that will be written."""
        return self.reserve(1) + 1

    def reserve(self, count: int) -> int:
        """Room for so many objects: they have the numbers that follow the one returned."""
        before = len(self._places) - 1
        self._holders.extend([0] * count)
        self._places.extend([0] * count)
        return before

    def add(self, value: Value) -> int:
        """Write `value` as a new object; its number."""
        number = self.new()
        self.object(number, written(value))
        return number

    def object(self, number: int, value: bytes, stream: bytes | None = None) -> None:
        """Write an object: at once if it has a stream; otherwise with others in one, which saves most of its room."""
        if stream is None:
            self._waiting.append((number, value))
            if len(self._waiting) >= _PACKED:
                self._pack()
            return
        self._places[number] = self._at
        self._put(b"%d 0 obj\n%b\nstream\n%b\nendstream\nendobj\n" % (number, value, stream))

    def stream(
        self, number: int, entries: Mapping[str, Value], data: bytes, *, compressed: bool = True
    ) -> None:
        """Write an object that is a stream of `data`."""
        stream = zlib.compress(data) if compressed else data
        value: dict[str, Value] = {**entries, "Length": len(stream)}
        if compressed:
            value["Filter"] = Name("FlateDecode")
        self.object(number, written(value), stream)

    def finish(self, catalog: int, info: int) -> None:
        """Write what a reader begins with."""
        self._pack()
        table = self.new()
        start = self._at
        self._places[table] = start
        rows = bytearray()
        for number, (holder, place) in enumerate(zip(self._holders, self._places, strict=True)):
            if holder:
                rows += b"\x02" + holder.to_bytes(5, "big") + place.to_bytes(2, "big")
            elif place:
                rows += b"\x01" + place.to_bytes(5, "big") + b"\x00\x00"
            else:
                rows += b"\x00" + bytes(5) + (b"\xff\xff" if number == 0 else b"\x00\x00")
        sign = Text(b"<" + self._digest.hexdigest()[:32].encode() + b">")
        entries: dict[str, Value] = {
            "Type": Name("XRef"),
            "Size": len(self._places),
            "W": [1, 5, 2],
            "Root": Ref(catalog),
            "Info": Ref(info),
            "ID": [sign, sign],
        }
        self.stream(table, entries, bytes(rows))
        self._put(b"startxref\n%d\n%%%%EOF\n" % start)

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._at += len(data)

    def _pack(self) -> None:
        if not self._waiting:
            return
        holder = self.new()
        offsets: list[bytes] = []
        at = 0
        for place, (number, value) in enumerate(self._waiting):
            offsets.append(b"%d %d" % (number, at))
            at += len(value) + 1
            self._holders[number], self._places[number] = holder, place
        first = b" ".join(offsets) + b"\n"
        entries: dict[str, Value] = {"Type": Name("ObjStm"), "N": len(offsets), "First": len(first)}
        data = first + b"\n".join(value for _, value in self._waiting)
        self._waiting = []
        self.stream(holder, entries, data)
