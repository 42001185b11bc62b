"""Who is asking, and what their token lets them do."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args
from uuid import UUID

from baatcheet.platform.errors import Forbidden

Scope = Literal["read", "write", "chat", "admin"]
Role = Literal["admin", "user"]

SCOPES: tuple[str, ...] = get_args(Scope)
DEFAULT_SCOPES: dict[str, frozenset[str]] = {
    "admin": frozenset(SCOPES),
    "user": frozenset({"read", "write", "chat"}),
}


@dataclass(frozen=True, slots=True)
class Principal:
    """A user, by way of one token. `name` is the user's.

    `token_id` is what the request is counted by: the id of an API token or, where `kind` says so, of the user's
    identity at a provider, which stays the same from one of its tokens to the next. Such a token ends at `expires_at`.
    """

    user_id: UUID
    token_id: UUID
    role: str
    scopes: frozenset[str]
    name: str
    kind: Literal["token", "identity"] = "token"
    expires_at: datetime | None = None

    def require(self, scope: str) -> None:
        """Raises Forbidden when the token lacks `scope`."""
        if scope not in self.scopes:
            held = ", ".join(one for one in SCOPES if one in self.scopes) or "none"
            raise Forbidden(f"This needs the scope {scope!r}; the token has: {held}.", needs=scope)
