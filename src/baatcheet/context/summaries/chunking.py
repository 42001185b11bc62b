"""Dividing a block of messages into chunks that a model can read at once."""

# ruff: noqa: RUF001 - punctuation of several scripts, each meant

from collections.abc import Callable, Iterator, Sequence

from baatcheet.context.summaries.prompts import written
from baatcheet.context.summaries.sections import Line

Measure = Callable[[str], int]
_BESIDE = 16  # tokens that a line costs beside its text: who, and when


def chunks(lines: Sequence[Line], tokens: int, measure: Measure) -> Iterator[list[Line]]:
    """`lines` in order, in chunks of at most `tokens` tokens by `measure`. A line larger than that is divided."""
    if tokens <= _BESIDE:
        raise ValueError(f"a chunk of {tokens} tokens has no room for text")
    chunk: list[Line] = []
    left = tokens
    for line in lines:
        for part in _parts(line.text, tokens - _BESIDE, measure):
            piece = line._replace(text=part)
            cost = measure("\n".join(written([piece]))) + 2
            if chunk and cost > left:
                yield chunk
                chunk, left = [], tokens
            chunk.append(piece)
            left -= cost
    if chunk:
        yield chunk


def _parts(text: str, tokens: int, measure: Measure) -> Iterator[str]:
    """`text` in parts of at most `tokens` tokens, divided at a line, a sentence or a blank where there is one."""
    rest = text
    while rest:
        size = min(len(rest), tokens * 8)
        while size > 1 and (cost := measure(rest[:size])) > tokens:
            size = max(1, min(size - 1, size * tokens // cost))
        if size < len(rest):
            size = _seam(rest, size)
        yield rest[:size]
        rest = rest[size:]


def _seam(text: str, size: int) -> int:
    """Where in the second half of the first `size` characters to divide."""
    for mark in ("\n", ". ", "۔ ", "। ", " "):
        at = text.rfind(mark, size // 2, size)
        if at > 0:
            return at + len(mark)
    return size
