r"""Where a term occurs, and how such lists are packed into rows.

A segment's terms stand in sorted order in *chunks* of about 2 KB, each a row that is found by its first term. A chunk
is, little-endian,

    uint16 terms, uint32 bytes of the table, the table ("\n" term "\n" term … "\n", UTF-8),
    uint16 ends of the postings (only where there are several), the postings

A posting of `n` documents is `n` uint16 numbers, and then `n` uint8 impacts where the term has such; of a term that
more than an eighth of the segment's documents have, it is one uint8 for every document, 0 where the term is absent. The
latter has exactly as many bytes as the segment has documents, and the former always fewer.
"""

from collections.abc import Iterator
from struct import Struct
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

WITHOUT_IMPACTS: Final = ("2", "k")  # first characters of the terms that only say yes or no
CHUNK_BYTES: Final = 1_900  # four rows fill a page, and none is moved out of it
ALONE_BYTES: Final = 1_000  # a posting above that has a chunk to itself
DENSE: Final = 8  # a term that more than one document of so many has is packed densely

_HEAD: Final = Struct("<HI")
_NUMBERS: Final = np.dtype("<u2")


class Posting(NamedTuple):
    """The documents of one segment that have a term.

    Either their `numbers`, ascending, with the impact of each (None where the term has none); or no numbers, and the
    `impacts` of all the segment's documents, 0 where the term is absent.
    """

    numbers: NDArray[np.uint16] | None
    impacts: NDArray[np.uint8] | None


def pack(numbers: bytes, impacts: bytes | None, documents: int) -> bytes:
    """One posting's bytes, from little-endian uint16 `numbers`, of a segment of `documents`."""
    n = len(numbers) // 2
    if n * DENSE <= documents:
        return numbers if impacts is None else numbers + impacts
    dense = np.zeros(documents, np.uint8)
    places = np.frombuffer(numbers, _NUMBERS)
    dense[places] = 1 if impacts is None else np.frombuffer(impacts, np.uint8)
    return dense.tobytes()


def unpack(term: str, payload: bytes, start: int, end: int, documents: int) -> Posting:
    """The posting of `term` at payload[start:end]. It shares the payload's memory."""
    size = end - start
    if size == documents:
        return Posting(None, np.frombuffer(payload, np.uint8, size, start))
    if term[0] in WITHOUT_IMPACTS:
        return Posting(np.frombuffer(payload, _NUMBERS, size // 2, start), None)
    n = size // 3
    return Posting(
        np.frombuffer(payload, _NUMBERS, n, start), np.frombuffer(payload, np.uint8, n, start + 2 * n)
    )


class Chunk(NamedTuple):
    """A row of the index: the first of its terms, and all of them."""

    first: str
    payload: bytes


def chunks(postings: Iterator[tuple[str, bytes]]) -> Iterator[Chunk]:
    """Terms in ascending order with their packed postings, in chunks."""
    terms: list[str] = []
    packed: list[bytes] = []
    size = 0
    for term, posting in postings:
        alone = len(posting) > ALONE_BYTES
        # In UTF-8 a character has four bytes at most; a term in ASCII, and most are, has as many as characters.
        more = (len(term) if term.isascii() else len(term.encode())) + 3 + len(posting)
        if terms and (alone or size + more > CHUNK_BYTES):
            yield _chunk(terms, packed)
            terms, packed, size = [], [], 0
        if alone:
            yield _chunk([term], [posting])
            continue
        if not terms:
            size = _HEAD.size + 1
        terms.append(term)
        packed.append(posting)
        size += more
    if terms:
        yield _chunk(terms, packed)


def _chunk(terms: list[str], packed: list[bytes]) -> Chunk:
    table = ("\n" + "\n".join(terms) + "\n").encode()
    ends = b""
    if len(terms) > 1:
        ends = np.cumsum([len(one) for one in packed]).astype(_NUMBERS).tobytes()
    return Chunk(terms[0], b"".join((_HEAD.pack(len(terms), len(table)), table, ends, *packed)))


def find(payload: bytes, term: str, documents: int) -> Posting | None:
    """The posting of `term` in a chunk, or None."""
    n, length = _HEAD.unpack_from(payload)
    begin = _HEAD.size
    data = begin + length
    place = payload.find(b"\n" + term.encode() + b"\n", begin, data)
    if place < 0:
        return None
    if n == 1:
        return unpack(term, payload, data, len(payload), documents)
    nth = payload.count(b"\n", begin, place)
    return unpack(term, payload, *_within(payload, data, n, nth), documents)


def _within(payload: bytes, data: int, terms: int, nth: int) -> tuple[int, int]:
    """Where the nth of several postings begins and ends."""
    start = data + 2 * terms
    at = data + 2 * nth
    end = start + (payload[at] | payload[at + 1] << 8)
    return (start + (payload[at - 2] | payload[at - 1] << 8) if nth else start), end


def terms_of(payload: bytes) -> list[str]:
    """A chunk's terms, ascending."""
    _, length = _HEAD.unpack_from(payload)
    return payload[_HEAD.size + 1 : _HEAD.size + length - 1].decode().split("\n")


def slices(payload: bytes) -> Iterator[tuple[str, int, int]]:
    """A chunk's terms, each with where its posting begins and ends."""
    n, length = _HEAD.unpack_from(payload)
    data = _HEAD.size + length
    if n == 1:
        yield terms_of(payload)[0], data, len(payload)
        return
    start = data + 2 * n
    begin = start
    for term, end in zip(terms_of(payload), np.frombuffer(payload, _NUMBERS, n, data).tolist(), strict=True):
        yield term, begin, start + end
        begin = start + end
