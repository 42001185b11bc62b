"""Vectors made of hashed words: the same text has the same vector, and texts that share words are near."""

import base64
import hashlib
import math
import struct
from collections.abc import Mapping
from typing import Any

from .frames import tokens
from .requests import BadRequestError

DIMENSIONS = 64


def embed(body: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to an embeddings request."""
    given = body.get("input")
    if isinstance(given, str) or (isinstance(given, list) and given and isinstance(given[0], int)):
        given = [given]
    if not isinstance(given, list) or not given or not all(map(_is_embeddable, given)):
        raise BadRequestError("'$.input' is invalid.", "input", "invalid_value")
    size = body.get("dimensions")
    if size is None:
        size = DIMENSIONS
    if type(size) is not int or not 1 <= size <= 4096:
        raise BadRequestError("'$.dimensions' is invalid.", "dimensions", "invalid_value")
    as_base64 = body.get("encoding_format") == "base64"
    texts = [one if isinstance(one, str) else " ".join(map(str, one)) for one in given]
    data = []
    for at, text in enumerate(texts):
        numbers = vector(text, size)
        packed = base64.b64encode(struct.pack(f"<{size}f", *numbers)).decode() if as_base64 else numbers
        data.append({"object": "embedding", "index": at, "embedding": packed})
    used = sum(map(tokens, texts))
    usage = {"prompt_tokens": used, "total_tokens": used}
    return {"object": "list", "data": data, "model": body["model"], "usage": usage}


def _is_embeddable(one: object) -> bool:
    """Whether it is a text, or a text's tokens."""
    if isinstance(one, list):
        return bool(one) and all(type(token) is int for token in one)
    return isinstance(one, str) and one != ""


def vector(text: str, size: int = DIMENSIONS) -> list[float]:
    numbers = [0.0] * size
    for word in text.lower().split() or [""]:
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        numbers[int.from_bytes(digest[:4], "big") % size] += 1.0 if digest[4] % 2 else -1.0
    length = math.sqrt(sum(n * n for n in numbers)) or 1.0
    return [n / length for n in numbers] if any(numbers) else [1.0] + [0.0] * (size - 1)
