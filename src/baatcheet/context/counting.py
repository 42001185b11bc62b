"""Token counts: exact for OpenAI's vocabularies, offline, and never on the event loop beyond a size.

toktok counts, at some 100 MB/s whatever the text, without the interpreter's lock. It knows Unicode 16; tiktoken,
which says what is right, knows Unicode 17, so what is around a character on which they differ is tiktoken's.
Its vocabularies are files of this package (OpenAI's own cl100k_base and o200k_base, MIT licence), whose hashes it
checks when it first uses them. A message's tokens are counted once, when it is written, by o200k_base.
"""

import asyncio
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import tiktoken
from toktok._toktok import Tokenizer as Counter  # the package's own functions start a thread for every text

from baatcheet.context import other_vocabularies
from baatcheet.context.images import picture_tokens
from baatcheet.context.pieces import PIECE, pieces
from baatcheet.providers.families import GPT_4O_IMAGES
from baatcheet.providers.model import Encoding, OpenAIEncoding

VOCABULARIES = Path(__file__).parent / "vocabularies"
Answer = TypeVar("Answer")

STORED_ENCODING: OpenAIEncoding = "o200k_base"
INLINE_CHARACTERS = 16_384  # a fraction of a millisecond of counting; more goes to a thread
# What else takes time, in characters that take as long.
_PER_MESSAGE, _PER_PICTURE, _PER_VALUE = 64, 256, 32
MESSAGE_OVERHEAD = 4  # tokens that a chat format spends per message (OpenAI cookbook: 3, and 1 for a name)
REPLY_PRIMING = 3
IMAGE_TOKENS = GPT_4O_IMAGES.worst  # what a picture whose size is not known is counted as when it is stored

# A character of Unicode 17, or the long s, which only one of the two takes for that of a contraction.
_DISPUTED = re.compile(
    "[^\x00-\u017e\u0180-\u088e\u0890-\u0c5b\u0c5d-\u0cdb\u0cdd-\u1ace\u1b00-\ua7cd\ua7d0\ua7d1\ua7d3"
    "\ua7d5-\ua7f0\ua7f2-\uffff"
    "\U0001e700-\U0002b739\U00010000-\U0001093f\U0001095a-\U00010ec4\U00010ec8-\U00010ef9"
    "\U00010efc-\U00011b5f\U00011b68-\U00011daf\U00011dea-\U00016e9f\U00016ed4-\U00016ff1"
    "\U00016ff7-\U000187f7\U00018800-\U00018d08\U00018d1f-\U00018d7f\U00018df3-\U0001e6bf"
    "\U0002b740-\U0002cea1\U0002ceae-\U000323af\U0003347a-\U0010ffff]"
)

# tiktoken's pattern engine gives up, with a panic, on a run of a million blanks that no line break ends.
BLANK_LIMIT = 900_000
_PART = (
    65_536  # a longer run is encoded in parts, at one token more or less a part: nobody else knows its count
)
_REACH = (
    8_192  # characters on either side of a disputed one that tiktoken is given of a text that nothing divides
)
_BLANKS = (
    "\t\v\f \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
)
# Sixteen megabytes take a fifth of a second, or one where tiktoken must help. The very long wait for each other, and
# nobody for them.
VERY_LONG = 500_000  # characters
_threads = ThreadPoolExecutor(os.cpu_count() or 2, thread_name_prefix="counting")
_thread_of_the_very_long = ThreadPoolExecutor(1, thread_name_prefix="counting-long")


@cache
def _counter(name: OpenAIEncoding) -> Counter:
    return Counter(name, "")


@cache
def encoding(name: OpenAIEncoding) -> tiktoken.Encoding:
    """The vocabulary `name`. Raises ValueError when its file is not the published one."""
    os.environ["TIKTOKEN_CACHE_DIR"] = str(VOCABULARIES)  # tiktoken's own way to be told where its files are
    return tiktoken.get_encoding(name)


def warm_up() -> None:
    """Read the vocabulary now, and begin to read in a thread what is seldom needed: no request has to wait."""
    count("", "o200k_base")
    _threads.submit(_read_the_rest)


def _read_the_rest() -> None:
    _counter("cl100k_base")
    encoding("o200k_base")


@cache
def _one_piece(name: OpenAIEncoding) -> tiktoken.Encoding:
    """The vocabulary `name` for a text that its pattern does not divide."""
    ranks = encoding(name)._mergeable_ranks  # noqa: SLF001 - what tiktoken's own README extends an encoding with
    return tiktoken.Encoding(
        f"{name} in one piece", pat_str="(?s:.+)", mergeable_ranks=ranks, special_tokens={}
    )


def encode(text: str, name: OpenAIEncoding = "o200k_base") -> list[int]:
    """The tokens of `text`, special tokens taken as the plain text that they are here. Any text will do."""
    tokens: list[int] = []
    for piece, whole in around_blanks(text, BLANK_LIMIT):
        if whole:
            for at in range(0, len(piece), _PART):
                tokens += _one_piece(name).encode_ordinary(piece[at : at + _PART])
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


def is_disputed(text: str) -> bool:
    """Whether `text` has a character on which toktok and tiktoken may differ."""
    return _disputed_at(text) is not None


def _disputed_at(text: str, start: int = 0) -> int | None:
    """Where the first such character is, from `start` on."""
    if text.isascii():
        return None
    for at in range(start, len(text), PIECE):
        if found := _DISPUTED.search(text, at, at + PIECE):
            return found.start()
    return None


def _is_encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def count(text: str, name: Encoding = "o200k_base") -> int:
    """The number of tokens of `text`, special tokens counted as the plain text that they are here.

    By o200k_base where another vocabulary is not installed.
    """
    if name != "o200k_base" and name != "cl100k_base":  # noqa: PLR1714 - mypy narrows by these
        if other_vocabularies.INSTALLED:
            return other_vocabularies.count(text, name)
        name = "o200k_base"
    counter = _counter(name)
    if not _is_encodable(text):  # an unpaired surrogate counts as what UTF-8 has in its place
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if not is_disputed(text):
        tokens: int = counter.count(text)
        return tokens
    return sum(_around_disputed(piece, name) for piece in pieces(text))


def _around_disputed(text: str, name: OpenAIEncoding) -> int:
    """The count of a text of which tiktoken sees what is around each disputed character, and toktok the rest.

    A text of more than a few `_PART`s that neither a seam nor a run of blanks divides is cut there, at about a token
    a cut: tiktoken alone would take half a minute for sixteen megabytes.
    """
    counter, total = _counter(name), 0
    if len(text) <= 2 * _PART:
        return len(encode(text, name)) if is_disputed(text) else counter.count(text)
    for piece, _ in around_blanks(text, 2 * _PART):
        at, reach = 0, len(piece) if len(piece) <= 2 * _PART else _REACH
        while (found := _disputed_at(piece, at)) is not None:
            first, end = max(at, found - reach), found + reach
            total += counter.count(piece[at:first]) + len(encode(piece[first:end], name))
            at = end
        total += counter.count(piece[at:])
    return total


async def aside(length: int, work: Callable[[], Answer]) -> Answer:
    """Do what is mostly counting, of `length` characters, in a thread: it lets go of the interpreter's lock."""
    threads = _threads if length <= VERY_LONG else _thread_of_the_very_long
    return await asyncio.get_running_loop().run_in_executor(threads, work)


async def count_aside(text: str, name: Encoding = "o200k_base") -> int:
    """`count`, in a thread when the text is long."""
    if len(text) <= INLINE_CHARACTERS:
        return count(text, name)
    return await aside(len(text), partial(count, text, name))


def as_json(value: Any) -> str:
    """The JSON of `value`, its unpaired surrogates as they are."""
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def extent(value: Any) -> int:
    """About how many characters take as long to count as `value`, which is JSON.

    Told in a few milliseconds at most: of what is VERY_LONG, no more than that it is.
    """
    total, left = 0, [value]
    while left and total <= VERY_LONG:
        value = left.pop()
        if isinstance(value, str):
            total += len(value)
        elif isinstance(value, dict | list):
            total += _PER_VALUE * len(value)
            if total <= VERY_LONG:
                left += value
                if isinstance(value, dict):
                    left += value.values()
    return total


def message_extent(content: Any, beside: Mapping[str, Any] | None = None) -> int:
    """`extent` of a message: of its text or parts, and of what `beside` has besides."""
    total = _PER_MESSAGE + extent([beside[key] for key in _BESIDE if key in beside] if beside else [])
    if isinstance(content, str):
        return total + len(content)
    for part in content if isinstance(content, list) else []:
        text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
        total += _PER_MESSAGE + len(text) if isinstance(text, str) else _PER_PICTURE
        if total > VERY_LONG:
            break
    return total


_BESIDE = ("tool_calls", "refusal", "name", "tool_call_id")


def counted_text(content: str, parts: Mapping[str, Any] | None) -> str:
    """The text that stands for a whole message, tool calls and names included."""
    if not parts:
        return content
    beside = [as_json(parts[key]) for key in _BESIDE if parts.get(key)]
    return "\n".join([content, *beside])


def countable(content: str, parts: Mapping[str, Any] | None) -> tuple[str, int]:
    """The text that stands for a whole message, and the tokens to add for what is not text."""
    return counted_text(content, parts), MESSAGE_OVERHEAD + picture_tokens(parts, GPT_4O_IMAGES)


def _message(content: str, parts: Mapping[str, Any] | None) -> int:
    text, extra = countable(content, parts)
    return count(text) + extra


async def count_message(content: str, parts: Mapping[str, Any] | None) -> int:
    """What a message costs in a prompt, its chat-format overhead included."""
    length = message_extent(parts.get("content", content) if parts else content, parts)
    work = partial(_message, content, parts)
    return await aside(length, work) if length > INLINE_CHARACTERS else work()
