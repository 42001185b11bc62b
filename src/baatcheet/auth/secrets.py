"""The text of a token: shown once, kept only as its hash."""

import hashlib
import secrets

PREFIX = "bc_"
SHOWN = 10  # characters


def new_token() -> str:
    """`bc_` and 256 random bits in 43 URL-safe characters."""
    return PREFIX + secrets.token_urlsafe(32)


def token_hash(token: str) -> bytes:
    """A fast hash is enough: what is hashed is long and random, not a password."""
    return hashlib.sha256(token.encode()).digest()


def shown_part(token: str) -> str:
    """The first characters of `token`, for people to tell theirs apart: never more than a third of it."""
    return token[: min(SHOWN, len(token) // 3)]
