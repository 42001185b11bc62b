"""Identifiers that sort by the time of their making."""

import os
import threading
import time
from uuid import UUID

_lock = threading.Lock()
_last = 0
_RANDOM = 6  # bytes of chance in an id
_entropy = b""  # random bytes from the system, fetched for many ids at once


def new_id() -> UUID:
    """A UUID version 7 (RFC 9562 § 5.7), strictly increasing within this process.

    48 bits of milliseconds, 12 + 14 bits of sub-millisecond order, 48 random bits. The order within a
    millisecond is what lets a list be paged by id alone.
    """
    global _last, _entropy  # noqa: PLW0603 - monotonicity is a property of the process
    with _lock:
        # 26 bits below the millisecond: a counter seeded by the clock's own microseconds.
        now = time.time_ns()
        ticks = ((now // 1_000_000) << 26) | ((now % 1_000_000) << 6)
        _last = ticks = max(ticks, _last + 1)
        if len(_entropy) < _RANDOM:
            _entropy = os.urandom(_RANDOM * 256)
        random, _entropy = _entropy[:_RANDOM], _entropy[_RANDOM:]
    millis, order = ticks >> 26, ticks & 0x3FFFFFF
    rand_a = order >> 14
    rand_b = ((order & 0x3FFF) << 48) | int.from_bytes(random, "big")
    return UUID(int=(millis << 80) | (0x7 << 76) | (rand_a << 64) | (0b10 << 62) | rand_b)


def made_at(id: UUID) -> int:  # noqa: A002 - what it is
    """When `new_id` made this, in whole Unix seconds."""
    return (id.int >> 80) // 1000


def parse_id(text: str) -> UUID | None:
    """The UUID that `text` spells in its canonical 36-character form, or None."""
    try:
        value = UUID(text)
    except (ValueError, AttributeError, TypeError):
        return None
    return value if str(value) == text.lower() else None
