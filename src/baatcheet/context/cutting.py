"""Leaving out the middle of a message that is too large."""

from collections.abc import Callable
from typing import Any

from baatcheet.context.planning import Item
from baatcheet.context.tokenizers import Tokenizer, Tokenizers
from baatcheet.conversations.wire import stored_form, text_of

MARKER = "\n[… {} tokens left out …]\n"
LONGEST = 128  # characters of a token
CLOSE = 16  # an end may be short of what it could be by one part in so many
TRIES = 24

Count = Callable[[str], int]
Part = Callable[[int], str]
"""So many characters of one end of a text."""


def cut_middle(text: str, tokens: int, tokenizer: Tokenizer = Tokenizers.stored) -> str:
    """The beginning and the end of `text`, with a marker between, in at most `tokens` tokens."""
    # Only the ends matter: what a budget can hold is bounded in characters, so that a 16 MB text costs no more
    # than one that just does not fit.
    count = tokenizer.count
    reach = max(tokens, 1) * LONGEST
    total = count(text) if len(text) <= 2 * reach else max(len(text) // 4, tokens + 1)
    if total <= tokens:
        return text
    marker = MARKER.format(total - tokens)
    keep = max(0, tokens - count(marker) - 2)
    while keep > 0:
        head = _longest(lambda size: text[:size], len(text), keep - keep // 2, count)
        tail = _longest(lambda size: text[len(text) - size :], len(text) - len(head), keep // 2, count)
        shorter = head + marker + tail
        over = count(shorter) - tokens
        if over <= 0:
            return shorter
        keep -= over
    return beginning(text, max(tokens, 0), count)


def beginning(text: str, tokens: int, count: Count) -> str:
    """About the longest beginning of `text` that has at most `tokens` tokens."""
    return _longest(lambda size: text[:size], len(text), tokens, count)


def _longest(part: Part, most: int, tokens: int, count: Count) -> str:
    """About the longest part of at most `most` characters that has at most `tokens` tokens."""
    if tokens <= 0:
        return ""
    most = min(most, tokens * LONGEST)
    fits, too_long = 0, most + 1
    size = min(most, tokens * 4)
    for _ in range(TRIES):
        found = count(part(size))
        if found <= tokens:
            fits = size
            if size == most or tokens - found <= tokens // CLOSE // 4:
                break
        else:
            too_long = size
        if too_long - fits <= 1:
            break
        guess = size * tokens // max(found, 1)
        size = min(max(guess, fits + 1), too_long - 1)
        if size - fits > (too_long - fits) * 15 // 16 and too_long <= most:  # no slower than halving, nearly
            size = (fits + too_long) // 2
    return part(fits)


def cut_item(item: Item, tokens: int, tokenizer: Tokenizer = Tokenizers.stored) -> Item:
    """`item` in at most `tokens` tokens, the chat format's own included. What is not text stays or goes whole."""
    text, wire = text_of(item.wire.get("content")), item.wire
    beside = _cost(_with_text(wire, ""), tokenizer)
    if tokens <= beside and isinstance(wire.get("content"), list):  # images alone are too much: they go
        wire = {**wire, "content": ""}
        beside = _cost(wire, tokenizer)
    room = tokens - beside
    while True:
        shorter = _with_text(wire, cut_middle(text, max(0, room), tokenizer))
        cost = _cost(shorter, tokenizer)
        if cost <= tokens or room <= 0:
            return item._replace(wire=shorter, tokens=cost)
        room -= cost - tokens  # the text and what is beside it are not always counted apart


def _cost(wire: dict[str, Any], tokenizer: Tokenizer) -> int:
    return tokenizer.message(*stored_form(wire))


def _with_text(wire: dict[str, Any], text: str) -> dict[str, Any]:
    content = wire.get("content")
    if isinstance(content, list):
        others = [part for part in content if isinstance(part, dict) and part.get("type") != "text"]
        return {**wire, "content": [{"type": "text", "text": text}, *others]}
    return {**wire, "content": text}
