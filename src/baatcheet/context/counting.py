"""Token counts: exact for OpenAI's vocabularies, offline, and never on the event loop beyond a size.

The vocabularies are files of this package (OpenAI's own cl100k_base and o200k_base, MIT licence), whose hashes
tiktoken checks when it first uses them. A message's tokens are counted once, when it is written, by o200k_base.
"""

import asyncio
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import tiktoken

from baatcheet.providers.model import Encoding

VOCABULARIES = Path(__file__).parent / "vocabularies"
STORED_ENCODING: Encoding = "o200k_base"
INLINE_CHARACTERS = 16_384  # about a millisecond of counting; more goes to a thread
MESSAGE_OVERHEAD = 4  # tokens that a chat format spends per message (OpenAI cookbook: 3, and 1 for a name)
REPLY_PRIMING = 3
IMAGE_TOKENS = 1_105  # a high-detail image of 1024 x 1024 (OpenAI's vision guide: 85 + 6 x 170)

# A run of white space this long makes tiktoken's pattern engine give up with a panic: such runs are counted apart.
_LONG_RUN = re.compile(r"\s{4096,}")
_PIECE = 4096


@cache
def encoding(name: Encoding) -> tiktoken.Encoding:
    """The vocabulary `name`. Raises ValueError when its file is not the published one."""
    os.environ["TIKTOKEN_CACHE_DIR"] = str(VOCABULARIES)  # tiktoken's own way to be told where its files are
    return tiktoken.get_encoding(name)


def warm_up() -> None:
    """Read the vocabulary now (0.4 s), so that no request has to wait for it."""
    encoding(STORED_ENCODING)


def count(text: str, name: Encoding = STORED_ENCODING) -> int:
    """The number of tokens of `text`, special tokens counted as the plain text that they are here."""
    if len(text) < _PIECE or _LONG_RUN.search(text) is None:
        return len(encoding(name).encode_ordinary(text))
    total, start = 0, 0
    for run in _LONG_RUN.finditer(text):
        total += len(encoding(name).encode_ordinary(text[start : run.start()]))
        blanks = run.group()
        total += sum(
            len(encoding(name).encode_ordinary(blanks[at : at + _PIECE]))
            for at in range(0, len(blanks), _PIECE)
        )
        start = run.end()
    return total + len(encoding(name).encode_ordinary(text[start:]))


async def count_aside(text: str, name: Encoding = STORED_ENCODING) -> int:
    """`count`, in a thread when the text is long (tiktoken lets go of the interpreter lock while it counts)."""
    if len(text) <= INLINE_CHARACTERS:
        return count(text, name)
    return await asyncio.to_thread(count, text, name)


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
