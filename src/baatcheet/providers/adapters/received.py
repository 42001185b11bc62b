"""JSON as providers write it, read without trust.

A number that is none (not finite, negative, a text, a bool) counts as absent.
"""

import json
import math
import re
from typing import Any

import msgspec

from baatcheet.kit.text import storable
from baatcheet.providers.model import KIND_OF_TOKENS, MOST_TOKENS, TokensByKind

# msgspec reports bytes that are not UTF-8, and endless nesting, in Python's own terms.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
LATEST = 2**40  # Unix seconds


class UnreadableError(ValueError):
    """Not JSON, or not the object that was asked for."""


class ErrorEvent(Exception):
    """The provider reports an error where a chunk or a completion belongs."""

    def __init__(self, error: object) -> None:
        super().__init__("the provider reported an error")
        self.error = error


def read_object(data: bytes) -> dict[str, Any]:
    """The JSON object in `data`. Raises UnreadableError."""
    value = read(data)
    if not isinstance(value, dict):
        raise UnreadableError("it is not a JSON object")
    return value


def read(data: bytes) -> Any:
    """The JSON in `data`. Half of a surrogate pair and bytes that are not UTF-8 become U+FFFD.

    Raises UnreadableError.
    """
    try:
        return msgspec.json.decode(data)
    except UNREADABLE:
        try:
            text = data.decode("utf-8", "replace")
            return _storable(json.loads(text, parse_constant=_no_constant, parse_float=_finite))
        except (ValueError, RecursionError):
            raise UnreadableError("it is not JSON") from None


def tokens(value: object) -> int | None:
    """A number of tokens. What is too large for a table is the largest that fits."""
    number = _whole_number(value)
    return None if number is None else min(number, MOST_TOKENS)


def moment(value: object) -> int | None:
    """A moment in Unix seconds."""
    number = _whole_number(value)
    return None if number is None or number >= LATEST else number


def tokens_by_kind(value: object) -> TokensByKind | None:
    """Numbers of tokens by what they are of; None when there are none."""
    if not isinstance(value, dict):
        return None
    found: TokensByKind = {
        kind: counted
        for kind, number in value.items()
        if re.match(KIND_OF_TOKENS, kind) and (counted := tokens(number)) is not None
    }
    return found or None


def _whole_number(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        return None
    return int(value)


def _no_constant(name: str) -> None:
    """NaN and the infinities are not JSON."""


def _finite(digits: str) -> float | None:
    """None for what is larger than any float: no encoder of ours writes infinity."""
    number = float(digits)
    return number if math.isfinite(number) else None


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, list):
        return [_storable(one) for one in value]
    if isinstance(value, dict):
        return {storable(name): _storable(one) for name, one in value.items()}
    return value
