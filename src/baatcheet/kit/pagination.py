"""Keyset pages: a list goes on after the last row that was seen, however far that is.

A cursor is opaque to its holder: URL-safe base64 of a version, a checksum and the row's position as JSON. The
checksum covers the list's name, so that a cursor of one list is refused by another, and one that was cut or
edited by both. It is no secret: whoever forges one sees nothing but rows that the list shows them anyway.
"""

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

import msgspec

Position = TypeVar("Position")
Row = TypeVar("Row")

VERSION = b"1"
DEFAULT_LIMIT = 50
MAX_LIMIT = 200
MAX_CURSOR = 1024  # characters
_KEY = b"baatcheet.pagination"
_SUM_BYTES = 9
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class BadCursor(ValueError):
    """The cursor was not made by this list."""


def encode(name: str, position: Any) -> str:
    """The cursor for `position` (anything that JSON holds) in the list called `name`."""
    body = msgspec.json.encode(position)
    return _spelled(VERSION + _checksum(name, body) + body)


def decode(name: str, cursor: str, shape: type[Position]) -> Position:
    """The position in `cursor`, checked to be of `shape`. Raises BadCursor."""
    if len(cursor) > MAX_CURSOR or not cursor.isascii():
        raise BadCursor("is not a cursor")
    try:
        raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except (Base64Error, ValueError):
        raise BadCursor("is not a cursor") from None
    checksum, body = raw[1 : 1 + _SUM_BYTES], raw[1 + _SUM_BYTES :]
    if raw[:1] != VERSION or checksum != _checksum(name, body) or _spelled(raw) != cursor:
        raise BadCursor("was changed, cut short, or made by another list")
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, ValueError):
        raise BadCursor("was made by another version") from None


def _spelled(raw: bytes) -> str:
    # base64 can spell the same bytes in several ways: only this one is taken back.
    return urlsafe_b64encode(raw).decode().rstrip("=")


def _checksum(name: str, body: bytes) -> bytes:
    sealed = hashlib.sha256(b"\0".join((_KEY, VERSION, name.encode(), body)))
    return sealed.digest()[:_SUM_BYTES]


def microseconds(moment: datetime) -> int:
    """`moment` as microseconds since 1970, PostgreSQL's own precision."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moment_of(micros: int) -> datetime:
    """The inverse of `microseconds`. Raises BadCursor for what no calendar holds."""
    try:
        return _EPOCH + timedelta(microseconds=micros)
    except OverflowError:
        raise BadCursor("names no moment") from None


@dataclass(frozen=True)
class Slice(Generic[Row]):
    """Some rows of a list, and where to go on."""

    rows: list[Row]
    next_cursor: str | None


def slice_of(name: str, rows: Sequence[Row], limit: int, position: Callable[[Row], Any]) -> Slice[Row]:
    """The first `limit` of `rows`, of which one more than `limit` was fetched where there were more."""
    if len(rows) <= limit:
        return Slice(list(rows), None)
    shown = list(rows[:limit])
    return Slice(shown, encode(name, position(shown[-1])))
