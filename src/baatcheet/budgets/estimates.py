"""What a request may come to, before anybody has counted: enough to know what is under way."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from baatcheet.providers.model import MOST_TOKENS, Usage

CHARACTERS = 4  # of a token
PICTURE: Final = 1_000  # tokens
REPLY: Final = 500  # tokens, of one whose length nobody has limited


def of_messages(messages: Iterable[Mapping[str, Any]], reply: int | None) -> Usage:
    """A chat's. `reply`: the most tokens that the reply may have."""
    prompt = sum(_weight(message.get("content")) for message in messages)
    return _usage(prompt, REPLY if reply is None else reply)


def of_input(given: Any) -> Usage:
    """What embeddings are asked of: texts, or tokens by their numbers."""
    if isinstance(given, str):
        return _usage(len(given) // CHARACTERS, 0)
    total = 0
    for one in given if isinstance(given, list) else ():
        match one:
            case str():
                total += len(one) // CHARACTERS
            case list():
                total += len(one)
            case _:
                total += 1
    return _usage(total, 0)


def of_answer(messages: Iterable[Mapping[str, Any]], answer: bytes) -> Usage:
    """A chat's, whose whole answer is there and does not say."""
    return of_messages(messages, len(answer) // CHARACTERS)


class _Said(msgspec.Struct):
    usage: Usage | None = None


def said_in(answer: bytes) -> Usage | None:
    """What an answer in JSON says that it used; None when it does not say."""
    try:
        return msgspec.json.decode(answer, type=_Said).usage
    except msgspec.MsgspecError:
        return None


def _weight(content: Any) -> int:
    if isinstance(content, str):
        return len(content) // CHARACTERS
    total = 0
    for part in content if isinstance(content, list) else ():
        text = part.get("text") if isinstance(part, Mapping) else None
        total += len(text) // CHARACTERS if isinstance(text, str) else PICTURE
    return total


def _usage(prompt: int, reply: int) -> Usage:
    prompt, reply = min(max(1, prompt), MOST_TOKENS // 2), min(reply, MOST_TOKENS // 2)
    return Usage(prompt, reply, prompt + reply)
