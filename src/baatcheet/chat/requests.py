"""Reading chat requests: what the two surfaces have in common."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from baatcheet.kit.text import unstorable
from baatcheet.platform.errors import BadRequest, Invalid, Problem, TooLarge, bad_header

Parsed = TypeVar("Parsed")

_AT = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<where>.*)`)?$", re.DOTALL)
_KEY = re.compile(r"^[\x21-\x7e]{1,255}$")


def decode_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`. Raises BadRequest."""
    try:
        value = msgspec.json.decode(body)
    except UnicodeDecodeError as error:
        raise BadRequest(f"The body is not UTF-8: {error.reason} at byte {error.start}.") from None
    except (msgspec.DecodeError, RecursionError) as error:
        hint = (
            " An unpaired surrogate escape (\\ud800-\\udfff) is not valid." if b"\\ud" in body.lower() else ""
        )
        raise BadRequest(f"The body is not valid JSON: {error}.{hint}") from None
    if not isinstance(value, dict):
        raise BadRequest("The body must be a JSON object.")
    if b"\\u0000" in body:
        try:
            refuse_unstorable(value)
        except RecursionError:
            raise BadRequest("The body is nested too deeply.") from None
    return value


def refuse_unstorable(value: Any, where: str = "") -> None:
    """Raise Invalid when a text in `value` can't be stored."""
    if isinstance(value, str):
        problem = unstorable(value)
        if problem is not None:
            raise Invalid(f"{where or 'The body'} {problem}.", param=where or None)
    elif isinstance(value, dict):
        for key, item in value.items():
            refuse_unstorable(key, where)
            refuse_unstorable(item, f"{where}.{key}" if where else key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            refuse_unstorable(item, f"{where}[{index}]")


def shaped(value: Mapping[str, Any], shape: type[Parsed], *, problem: type[Problem]) -> Parsed:
    """`value` as a `shape`. Raises `problem` naming the member and what is wrong with it."""
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        found = _AT.match(str(error))
        assert found is not None
        where = (found["where"] or "").lstrip(".")
        raise problem(f"{where or 'The body'}: {found['what']}.", param=where or None) from None


def bounded(texts: Iterable[str], limit: int, *, param: str) -> None:
    """Raise TooLarge when the texts of one message are together larger than `limit` bytes."""
    size = 0
    for text in texts:
        size += len(text) if len(text) * 4 <= limit else len(text.encode("utf-8", "replace"))
    if size > limit:
        raise TooLarge(f"The message has {size:,} bytes; at most {limit:,} are taken.", param=param)


def texts_of(content: Any) -> Iterable[str]:
    """The texts of a message's content."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield part["text"]


def part_problem(content: Any) -> str | None:
    """What is wrong with a message's list of parts; None when nothing is."""
    if isinstance(content, list):
        for index, part in enumerate(content):
            if not isinstance(part, dict) or not isinstance(part.get("type"), str):
                return f"part {index} must be an object with a type"
            if part["type"] == "text" and not isinstance(part.get("text"), str):
                return f"part {index} must have its text as a string"
    return None


def is_blank(content: Any) -> bool:
    """Whether a user's message says nothing at all."""
    if isinstance(content, str):
        return not content.strip()
    return not content or all(
        part.get("type") == "text" and not part["text"].strip() for part in content if isinstance(part, dict)
    )


def idempotency_key(headers: Mapping[str, str]) -> str | None:
    """The request's Idempotency-Key. Raises BadRequest when it is not 1 to 255 visible ASCII characters."""
    key = headers.get("idempotency-key")
    if key is not None and not _KEY.match(key):
        raise bad_header("Idempotency-Key")
    return key


def fingerprint(route: str, body: bytes, *more: str) -> str:
    """What makes two requests the same one, as a hexadecimal SHA-256."""
    digest = hashlib.sha256(route.encode())
    for part in more:
        digest.update(b"\0" + part.encode())
    digest.update(b"\0" + body)
    return digest.hexdigest()


def last_event_id(headers: Mapping[str, str]) -> int:
    """The Last-Event-ID of a reconnecting client; 0 without one. Raises BadRequest when it is not a number."""
    text = headers.get("last-event-id", "").strip()
    if not text:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise bad_header("Last-Event-ID")
    return int(text)
