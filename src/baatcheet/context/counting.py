"""Token counts: exact for OpenAI's vocabularies, offline, and never on the event loop beyond a size.

The vocabularies are files of this package (OpenAI's own cl100k_base and o200k_base, MIT licence), whose hashes
tiktoken checks when it first uses them. A message's tokens are counted once, when it is written, by o200k_base.
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import tiktoken

from baatcheet.providers.model import Encoding

VOCABULARIES = Path(__file__).parent / "vocabularies"
Answer = TypeVar("Answer")

STORED_ENCODING: Encoding = "o200k_base"
INLINE_CHARACTERS = 16_384  # about a millisecond of counting; more goes to a thread
MESSAGE_OVERHEAD = 4  # tokens that a chat format spends per message (OpenAI cookbook: 3, and 1 for a name)
REPLY_PRIMING = 3
IMAGE_TOKENS = 1_105  # a high-detail image of 1024 x 1024 (OpenAI's vision guide: 85 + 6 x 170)

# tiktoken's pattern engine gives up, with a panic, on a run of a million blanks that no line break ends.
BLANK_LIMIT = 900_000
_SEAM = (
    65_536  # a longer run is encoded in parts, at one token more or less a seam: nobody else knows its count
)
_BLANKS = (
    "\t\v\f \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
)
# A megabyte of one letter takes a third of a second. The very long wait for each other, and nobody for them.
VERY_LONG = 500_000  # characters
_threads = ThreadPoolExecutor(os.cpu_count() or 2, thread_name_prefix="counting")
_thread_of_the_very_long = ThreadPoolExecutor(1, thread_name_prefix="counting-long")


@cache
def encoding(name: Encoding) -> tiktoken.Encoding:
    """The vocabulary `name`. Raises ValueError when its file is not the published one."""
    os.environ["TIKTOKEN_CACHE_DIR"] = str(VOCABULARIES)  # tiktoken's own way to be told where its files are
    return tiktoken.get_encoding(name)


def warm_up() -> None:
    """Read the vocabulary now (0.4 s), so that no request has to wait for it."""
    encoding(STORED_ENCODING)


@cache
def _one_piece(name: Encoding) -> tiktoken.Encoding:
    """The vocabulary `name` for a text that its pattern does not divide."""
    ranks = encoding(name)._mergeable_ranks  # noqa: SLF001 - what tiktoken's own README extends an encoding with
    return tiktoken.Encoding(
        f"{name} in one piece", pat_str="(?s:.+)", mergeable_ranks=ranks, special_tokens={}
    )


def encode(text: str, name: Encoding = STORED_ENCODING) -> list[int]:
    """The tokens of `text`, special tokens taken as the plain text that they are here. Any text will do."""
    tokens: list[int] = []
    for piece, whole in around_blanks(text, BLANK_LIMIT):
        if whole:
            for at in range(0, len(piece), _SEAM):
                tokens += _one_piece(name).encode_ordinary(piece[at : at + _SEAM])
        else:
            tokens += encoding(name).encode_ordinary(piece)
    return tokens


def around_blanks(text: str, limit: int) -> Iterator[tuple[str, bool]]:
    """`text` in parts, and of each whether it is one piece to the vocabularies' patterns: a long run of blanks is.

    Encoding the parts one by one gives the tokens of the whole. No other part has a run of `limit` blanks.
    """
    start, at, stride = 0, 0, limit // 2
    while at + stride <= len(text):  # such a run holds one of these strides whole
        if text[at : at + stride].strip(_BLANKS):
            at += stride
            continue
        before = text[max(start, at - stride) : at]
        first = at - (len(before) - len(before.rstrip(_BLANKS)))
        while blanks := _leading_blanks(text[at : at + stride]):
            at += blanks
        if at - first >= limit and text[at : at + 1] not in {"\r", "\n"}:
            end = at - (at < len(text))  # the patterns leave the last blank to the word that follows
            yield text[start:first], False
            yield text[first:end], True
            start = end
    yield text[start:], False


def _leading_blanks(text: str) -> int:
    return len(text) - len(text.lstrip(_BLANKS))


def count(text: str, name: Encoding = STORED_ENCODING) -> int:
    """The number of tokens of `text`, special tokens counted as the plain text that they are here."""
    return len(encode(text, name))


async def aside(length: int, work: Callable[[], Answer]) -> Answer:
    """Do what is mostly encoding, of `length` characters, in a thread: tiktoken lets go of the interpreter's lock."""
    threads = _threads if length <= VERY_LONG else _thread_of_the_very_long
    return await asyncio.get_running_loop().run_in_executor(threads, work)


async def count_aside(text: str, name: Encoding = STORED_ENCODING) -> int:
    """`count`, in a thread when the text is long."""
    if len(text) <= INLINE_CHARACTERS:
        return count(text, name)
    return await aside(len(text), partial(count, text, name))


def countable(content: str, parts: Mapping[str, Any] | None) -> tuple[str, int]:
    """The text that stands for a whole message, and the tokens to add for what is not text."""
    if not parts:
        return content, MESSAGE_OVERHEAD
    extra = MESSAGE_OVERHEAD
    texts = [content]
    content_parts = parts.get("content")
    for part in content_parts if isinstance(content_parts, list) else ():
        if isinstance(part, Mapping) and part.get("type") != "text":
            extra += IMAGE_TOKENS
    keys = ("tool_calls", "refusal", "name", "tool_call_id")
    texts += [msgspec.json.encode(parts[key]).decode() for key in keys if parts.get(key)]
    return "\n".join(texts), extra


async def count_message(content: str, parts: Mapping[str, Any] | None) -> int:
    """What a message costs in a prompt, its chat-format overhead included."""
    text, extra = countable(content, parts)
    return await count_aside(text) + extra


async def count_tools(tools: Sequence[Any] | None) -> int:
    """What tool definitions cost: their JSON, which is within a few per cent of every provider's own rendering."""
    return await count_aside(msgspec.json.encode(tools).decode()) if tools else 0
