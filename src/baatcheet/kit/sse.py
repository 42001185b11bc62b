"""Server-sent events (WHATWG HTML § 9.2): framing what we send, parsing what we receive."""

KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"


def event(data: bytes, *, id: int | None = None, name: str | None = None) -> bytes:  # noqa: A002
    """One event. `data` is a single line (JSON has no raw newline)."""
    head = b"" if id is None else b"id: %d\n" % id
    if name is not None:
        head += b"event: " + name.encode() + b"\n"
    return b"%bdata: %b\n\n" % (head, data)


_BOM = b"\xef\xbb\xbf"


class Parser:
    """Turns bytes, cut anywhere, into the `data` of each complete event.

    A comment or a field other than `data` is passed over. A line ends with LF, CRLF or CR; a byte order mark
    before the first is dropped. `limit` bounds the bytes of one unfinished event; more raises ValueError.
    """

    def __init__(self, limit: int = 32 * 1024 * 1024) -> None:
        self._limit = limit
        self._tail: list[bytes] = []  # of the unfinished line
        self._tail_size = 0
        self._data: list[bytes] = []  # of the unfinished event
        self._data_size = 0
        self._after_cr = False  # an LF that comes next belongs to a CR that has been dealt with
        self._at_start = True

    def feed(self, block: bytes) -> list[bytes]:
        """The data of each event that `block` completes, several `data` lines joined by LF."""
        if not (self._tail or self._data or self._after_cr):
            whole = _whole(block)
            if whole is not None:
                self._at_start = False
                return whole
        return self._feed(block)

    def _feed(self, block: bytes) -> list[bytes]:
        if self._after_cr and block:
            self._after_cr = False
            if block[0] == 0x0A:
                block = block[1:]
        if b"\r" in block:
            self._after_cr = block.endswith(b"\r")
            block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = block.split(b"\n")
        rest = lines.pop()
        events: list[bytes] = []
        if lines:
            if self._tail:
                lines[0] = b"".join((*self._tail, lines[0]))
                self._tail.clear()
                self._tail_size = 0
            if self._at_start:
                self._at_start = False
                lines[0] = lines[0].removeprefix(_BOM)
            self._read(lines, events)
        if rest:
            self._tail.append(rest)
            self._tail_size += len(rest)
        if self._data_size + self._tail_size > self._limit:
            raise ValueError(f"a server-sent event is larger than {self._limit} bytes")
        return events

    def _read(self, lines: list[bytes], events: list[bytes]) -> None:
        data = self._data
        for line in lines:
            if not line:
                if data:
                    events.append(data[0] if len(data) == 1 else b"\n".join(data))
                    data.clear()
                    self._data_size = 0
            elif line.startswith(b"data:"):
                value = line[6:] if line.startswith(b"data: ") else line[5:]
                data.append(value)
                # One more for the LF that joins it to the next: empty lines must not be free.
                self._data_size += len(value) + 1
            elif line == b"data":
                data.append(b"")
                self._data_size += 1

    def close(self) -> list[bytes]:
        """What a stream that ended without its last blank line still holds."""
        return self.feed(b"\n\n")


def _whole(block: bytes) -> list[bytes] | None:
    """The events of a block that holds nothing but whole ones of one `data: ` line each, as most do; else None."""
    if not block.endswith(b"\n\n") or b"\r" in block:
        return None
    events = block[:-2].split(b"\n\n")
    for event in events:
        if not event.startswith(b"data: ") or b"\n" in event:
            return None
    return [event[6:] for event in events]
