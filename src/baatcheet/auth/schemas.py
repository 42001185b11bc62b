"""Users and tokens as clients send and see them."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, ConfigDict, Field

from baatcheet.auth.principal import Role, Scope
from baatcheet.platform.rest import Body, Flag, Id, Line, Moment, Name, Out, Page, absent

_ID = "0190f3a2-7c1e-7d4b-9a51-3f0c2b8e6d10"


def _once_each(scopes: list[Scope]) -> list[Scope]:
    if len(set(scopes)) != len(scopes):
        raise ValueError("names a scope twice")
    return scopes


Email = Annotated[
    Line,
    Field(
        min_length=3, max_length=320, pattern=r"^[^@ \t\r\n]+@[^@ \t\r\n]+$", examples=["alice@example.com"]
    ),
]
Scopes = Annotated[
    list[Scope],
    Field(min_length=1, max_length=4, json_schema_extra={"uniqueItems": True}),
    AfterValidator(_once_each),
]


class UserOut(Out):
    """A user."""

    id: UUID
    name: str
    email: str | None
    role: Role
    active: bool
    created_at: datetime
    updated_at: datetime


class UserPage(Page[UserOut]):
    """Users, newest first."""


class NewUser(Body):
    """A user to be made."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Alice"}]})

    name: Name
    email: Email | None = None
    role: Role = "user"


class UserChanges(Body):
    """What to change of a user; what is left out stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Alice B."}]})

    name: Name = absent()
    email: Email | None = None
    role: Role = absent()
    active: Flag = absent(description="false: every token of theirs is refused.")


class TokenOut(Out):
    """An API token, without its text."""

    id: UUID
    user_id: UUID
    name: str
    prefix: str = Field(description="Its first characters, to tell it apart.")
    scopes: list[Scope]
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="To about a minute.")
    revoked_at: datetime | None
    created_at: datetime


class TokenPage(Page[TokenOut]):
    """Tokens, newest first."""


class NewToken(Body):
    """A token to be made."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "laptop", "scopes": ["read"]}]})

    name: Name
    scopes: Scopes | None = Field(
        None, description="Left out: all that its owner's role and this token allow."
    )
    expires_at: Moment | None = Field(None, description="Left out: it does not expire.")
    user_id: Id | None = Field(None, description="For somebody else: administrators only.", examples=[_ID])


class MadeToken(TokenOut):
    """A new token."""

    token: str | None = Field(
        description="Its text, shown this once: null when an Idempotency-Key is repeated."
    )


class IdentityOut(Out):
    """A user as an identity provider knows them."""

    id: UUID
    issuer: str
    subject: str
    last_used_at: datetime | None = Field(description="To about a minute.")
    created_at: datetime


class Me(Out):
    """Who is asking, and with which token: one of ours, or one of an identity provider's."""

    user: UserOut
    token: TokenOut | None = Field(description="null: with a token of an identity provider.")
    identity: IdentityOut | None = Field(description="null: with an API token.")
