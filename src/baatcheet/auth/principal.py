"""Who is asking, and what their token lets them do."""

from dataclasses import dataclass
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
    """A user, by way of one token. `name` is the user's."""

    user_id: UUID
    token_id: UUID
    role: str
    scopes: frozenset[str]
    name: str

    def require(self, scope: str) -> None:
        """Raises Forbidden when the token lacks `scope`."""
        if scope not in self.scopes:
            held = ", ".join(one for one in SCOPES if one in self.scopes) or "none"
            raise Forbidden(f"This needs the scope {scope!r}; the token has: {held}.", needs=scope)
