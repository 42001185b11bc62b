"""Who is in front of the console: sessions, each bound to the API token that it was begun with.

A browser holds a random name and the database its hash, so that neither the token nor anything that opens the API
is in a cookie or in a row. On every request the token itself is asked about: what is true of it is true of the
session, its scopes, its end and its user's.
"""

import hashlib
import hmac
import secrets
import time
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from datetime import timedelta

from baatcheet.auth.principal import Principal
from baatcheet.auth.rate_limits import RateLimits
from baatcheet.auth.service import Authenticator
from baatcheet.platform.database import Database
from baatcheet.platform.errors import Unauthenticated

KNOWN_FOR = 4.0  # seconds that a session is believed: one that was ended is refused everywhere within 5
MOST_KNOWN = 10_000
TOUCH_EVERY = 60.0  # seconds between two notes of one session's use
LIFETIME = timedelta(days=30)
MOST_OF_A_TOKEN = 50  # sessions; the oldest go
LONGEST_NAME = 64  # characters

_OVER = "You are signed out."

_BEGIN = """
INSERT INTO console_sessions (hash, token_id) VALUES ($1, $2)
"""
_TRIM = """
DELETE FROM console_sessions WHERE hash IN (
    SELECT hash FROM console_sessions WHERE token_id = $1 ORDER BY created_at DESC, hash OFFSET $2
)
"""
_LIVE = "s.hash = $1 AND s.used_at > now() - $2::interval AND s.created_at > now() - $3::interval"
_FIND = f"""
SELECT t.hash FROM console_sessions s JOIN api_tokens t ON t.id = s.token_id WHERE {_LIVE}
"""  # noqa: S608 - no value is written into it
_TOUCH = f"""
UPDATE console_sessions s SET used_at = clock_timestamp() FROM api_tokens t WHERE t.id = s.token_id AND {_LIVE}
RETURNING t.hash
"""  # noqa: S608
_END = "DELETE FROM console_sessions WHERE hash = $1"
_FORGET = """
DELETE FROM console_sessions WHERE hash IN (
    SELECT hash FROM console_sessions WHERE used_at < now() - $1::interval LIMIT 1000
)
"""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks for a page, and the word that their forms must carry."""

    who: Principal
    csrf: str

    def may(self, scope: str) -> bool:
        return scope in self.who.scopes


@dataclass(frozen=True, slots=True)
class _Known:
    token: bytes  # the token's hash
    until: float
    touched: float


class Sessions:
    """`idle`: how long a session lives that nobody does anything with. Every method raises DatabaseUnavailable."""

    def __init__(self, db: Database, authenticator: Authenticator, *, idle: timedelta) -> None:
        self._db = db
        self._authenticator = authenticator
        self._idle = idle
        self._known: dict[bytes, _Known] = {}

    async def begin(self, token: str, limits: RateLimits) -> tuple[str, Principal]:
        """A session for the holder of an API token: its name, for the cookie. It counts as a request of the token.

        Raises Unauthenticated and RateLimited.
        """
        who = await self._authenticator.authenticate(f"Bearer {token}")
        if who.kind != "token":  # it ends within minutes, and a session can't renew it
            raise Unauthenticated(
                "Sign in with an API token (bc_…): a token of an identity provider opens the API only."
            )
        await limits.check(who.token_id)
        name = secrets.token_urlsafe(32)
        async with self._db.hot() as connection:
            await connection.execute(_FORGET, self._idle)
            await connection.execute(_BEGIN, _hash(name), who.token_id)
            await connection.execute(_TRIM, who.token_id, MOST_OF_A_TOKEN)
        return name, who

    async def visitor(self, name: str | None, *, active: bool) -> Visitor:
        """Whose session this is; `active`: it is somebody who asks, and not a page that keeps itself up to date.

        Raises Unauthenticated when it is nobody's: it was ended, or left alone too long, or its token is no good.
        """
        if not name or len(name) > LONGEST_NAME:
            raise Unauthenticated(_OVER)
        digest = _hash(name)
        now = time.monotonic()
        known = self._known.get(digest)
        touch = active and (known is None or now - known.touched >= TOUCH_EVERY)
        if known is None or known.until <= now or touch:
            known = await self._look_up(digest, now, known, touch=touch)
        return Visitor(await self._authenticator.recognise(known.token), csrf_of(name))

    async def end(self, name: str | None) -> None:
        """Sign out: at once in this process, within 5 s in every other."""
        if not name:
            return
        digest = _hash(name)
        async with self._db.hot() as connection:
            await connection.execute(_END, digest)
        self._known.pop(digest, None)

    async def _look_up(self, digest: bytes, now: float, known: _Known | None, *, touch: bool) -> _Known:
        async with self._db.hot() as connection:
            token = await connection.fetchval(_TOUCH if touch else _FIND, digest, self._idle, LIFETIME)
        if token is None:
            self._known.pop(digest, None)
            raise Unauthenticated(_OVER)
        touched = now if touch else known.touched if known is not None else now - TOUCH_EVERY
        found = _Known(token, now + KNOWN_FOR, touched)
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[digest] = found
        return found


def csrf_of(name: str) -> str:
    """What a session's forms carry: whoever does not hold its cookie can't make it."""
    mac = hmac.digest(name.encode(), b"baatcheet console form", "sha256")
    return urlsafe_b64encode(mac).decode().rstrip("=")


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
