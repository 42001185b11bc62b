"""Links that open one address to whoever holds them, for a while.

    link = await links.sign(f"/files/exports/{export.id}", 3600)     # → /files/exports/…?expires=…&signature=…
    await links.check(request.url.path, request.query_params)

The signature is HMAC-SHA256 over the path and the moment of its end, with a secret that the deployment makes for
itself when it first needs one and keeps in its database: every process, on every machine, has the same.
"""

import hashlib
import hmac
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final
from urllib.parse import quote

from sqlalchemy import DateTime, Text, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column

from baatcheet.platform.database import Base, Database
from baatcheet.platform.errors import Forbidden

SECRET_BYTES: Final = 32
MAX_SECONDS: Final = 366 * 24 * 3600
_NAME: Final = "signed-links"
_LONGEST_MOMENT: Final = 12  # digits


class LinkNotValid(Forbidden):
    """This link is not valid."""

    type = "link-not-valid"
    openai_code = "link_not_valid"


class DeploymentSecret(Base):
    """A secret that the deployment made for itself. No tenant may read it."""

    __tablename__ = "deployment_secrets"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    value: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class SignedLinks:
    """Signs and checks. The secret is read once, and kept until the process ends."""

    def __init__(self, db: Database, clock: Callable[[], float] = time.time) -> None:
        self._db = db
        self._clock = clock
        self._secret: bytes | None = None

    async def sign(self, path: str, seconds: float) -> str:
        """`path` (absolute, unescaped, without a query) with what opens it for `seconds` from now.

        Raises DatabaseUnavailable.
        """
        if not path.startswith("/") or not 0 < seconds <= MAX_SECONDS:
            raise ValueError("a link is signed for an absolute path and a time of up to a year")
        expires = str(int(self._clock() + seconds))
        return f"{quote(path)}?expires={expires}&signature={await self._signature(path, expires)}"

    async def check(self, path: str, query: Mapping[str, str]) -> None:
        """Raises LinkNotValid unless `path` was signed and its time is not over, DatabaseUnavailable."""
        expires, signature = query.get("expires", ""), query.get("signature", "")
        readable = len(expires) <= _LONGEST_MOMENT and expires.isascii() and expires.isdigit()
        expected = await self._signature(path, expires)
        if not (readable and hmac.compare_digest(expected.encode(), signature.encode(errors="replace"))):
            raise LinkNotValid("The link was changed or cut short. Use it whole, as it was given.")
        if int(expires) <= self._clock():
            raise LinkNotValid("The link's time is over. Ask for a new one.")

    async def _signature(self, path: str, expires: str) -> str:
        if self._secret is None:
            self._secret = await deployment_secret(self._db, _NAME)
        # What is signed can't be read in two ways: a moment has no line break.
        signed = f"{expires}\n{path}".encode(errors="replace")
        digest = hmac.new(self._secret, signed, hashlib.sha256).digest()
        return urlsafe_b64encode(digest).decode().rstrip("=")


async def deployment_secret(db: Database, name: str) -> bytes:
    """The deployment's secret called `name`, made now if there is none: the same for all who ask at once."""
    made = {"name": name, "value": secrets.token_bytes(SECRET_BYTES)}
    async with db.system() as session:
        await session.execute(insert(DeploymentSecret).values(made).on_conflict_do_nothing())
    # Another transaction: this one sees what was committed by whoever came first.
    async with db.system() as session:
        found = await session.execute(select(DeploymentSecret.value).where(DeploymentSecret.name == name))
        return found.scalar_one()
