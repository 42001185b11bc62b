"""Leaving out the middle of a message that is too large."""

from typing import Any

from baatcheet.context import counting
from baatcheet.context.planning import Item
from baatcheet.conversations.wire import text_of
from baatcheet.providers.model import Encoding

MARKER = "\n[… {} tokens left out …]\n"


def cut_middle(text: str, tokens: int, name: Encoding = counting.STORED_ENCODING) -> str:
    """The beginning and the end of `text`, with a marker between, in at most `tokens` tokens."""
    # Only the ends matter: what a budget can hold is bounded in characters, so that a 16 MB text costs no more
    # than one that just does not fit. No token of the vocabularies is longer than 128 characters.
    reach = max(tokens, 1) * 128
    total = counting.count(text, name) if len(text) <= 2 * reach else len(text) // 4
    if total <= tokens:
        return text
    vocabulary = counting.encoding(name)
    head = counting.encode(text[:reach], name)
    tail = counting.encode(text[-reach:], name)
    marker = MARKER.format(total - tokens)
    keep = max(0, tokens - counting.count(marker, name) - 2)
    while True:
        first, last = keep - keep // 2, keep // 2
        start = vocabulary.decode(head[:first], errors="ignore")
        end = vocabulary.decode(tail[len(tail) - last :], errors="ignore") if last else ""
        shorter = start + marker + end
        over = counting.count(shorter, name) - tokens
        if over <= 0:
            return shorter
        if keep == 0:
            return vocabulary.decode(head[: max(tokens, 0)], errors="ignore")
        keep = max(0, keep - over)


def cut_item(item: Item, tokens: int) -> Item:
    """`item` in at most `tokens` tokens, the chat format's own included. What is not text stays or goes whole."""
    text, wire = _text_of(item.wire)
    beside = item.tokens - counting.count(text)
    room = tokens - beside
    if room < 1 and isinstance(item.wire.get("content"), list):  # images alone are too much: they go
        wire = {**item.wire, "content": ""}
        room, beside = tokens - counting.MESSAGE_OVERHEAD, counting.MESSAGE_OVERHEAD
    shorter = cut_middle(text, max(0, room))
    return Item(_with_text(wire, shorter), beside + counting.count(shorter), item.id)


def _text_of(wire: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    content = wire.get("content")
    return text_of(content), wire


def _with_text(wire: dict[str, Any], text: str) -> dict[str, Any]:
    content = wire.get("content")
    if isinstance(content, list):
        others = [part for part in content if isinstance(part, dict) and part.get("type") != "text"]
        return {**wire, "content": [{"type": "text", "text": text}, *others]}
    return {**wire, "content": text}
