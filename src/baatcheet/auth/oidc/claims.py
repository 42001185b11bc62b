"""What a provider's token says of its holder, and whether that lets them in: no I/O, and no signature."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from baatcheet.auth.principal import Role
from baatcheet.kit.text import is_invisible, uncontrolled, unstorable
from baatcheet.platform.errors import Forbidden, Unauthenticated
from baatcheet.platform.settings import ClaimPath, OidcProvider, SettingsError

LONGEST_SUBJECT = 255  # characters: OpenID Connect Core 1.0 § 2
LONGEST_NAME = 200
LONGEST_EMAIL = 320
_LAST_MOMENT = 253_402_300_799  # the end of the year 9999, in seconds
_NAMES = ("preferred_username", "nickname")
# Keycloak writes into the claims what kind of token it is.
EXPIRED = (
    'Bearer realm="baatcheet", error="invalid_token", error_description="The token expired"'  # RFC 6750 § 3
)
_OTHER_KINDS = frozenset({"refresh", "offline", "logout"})
_LOGOUT = "http://schemas.openid.net/event/backchannel-logout"


class TokenExpired(Unauthenticated):
    """This token's time is over.

    It was a right one: whoever presents it forgot to renew it, and does not guess.
    """

    type = "token-expired"
    openai_code = "token_expired"

    def __init__(self, detail: str = "", **extras: Any) -> None:
        super().__init__(detail, **extras)
        self.headers["www-authenticate"] = EXPIRED


class NoRole(Forbidden):
    """Your role at the identity provider does not let you in."""

    type = "no-role"
    openai_code = "no_role"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who a token belongs to, as its provider says.

    `role` None: the provider does not say, it is decided here. `email` is a verified one.
    """

    issuer: str
    subject: str
    issued_at: datetime
    expires_at: datetime  # the clocks' difference included
    name: str
    email: str | None = None
    role: Role | Literal["none"] | None = None
    sign_up: bool = True
    link_by_email: bool = False


def judge(claims: Mapping[str, Any], provider: OidcProvider, now: float) -> Holder:
    """The holder of a token with these `claims`, whose signature is `provider`'s, at `now` (seconds since 1970).

    Raises Unauthenticated with the reason, TokenExpired.
    Source: RFC 7519 § 4.1, RFC 9068 § 4, OpenID Connect Core 1.0 § 3.1.3.7.
    """
    if claims.get("iss") != provider.issuer:
        raise Unauthenticated(UNKNOWN_ISSUER)
    expires = _moment(claims, "exp")
    issued = _moment(claims, "iat")
    begins = _moment(claims, "nbf") if "nbf" in claims else issued
    _check_kind(claims)
    _check_audience(claims, provider)
    if now >= expires + provider.leeway:
        raise TokenExpired("This token has expired. Get a new one from your identity provider.")
    if max(begins, issued) > now + provider.leeway:
        raise Unauthenticated("This token is not valid yet. If it is new, compare this server's clock.")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not _is_line(subject, LONGEST_SUBJECT):
        raise Unauthenticated("This token does not say whose it is: it has no usable `sub`.")
    email = _verified_email(claims, provider)
    return Holder(
        issuer=provider.issuer,
        subject=subject,
        issued_at=datetime.fromtimestamp(issued, UTC),
        expires_at=datetime.fromtimestamp(min(expires + provider.leeway, _LAST_MOMENT), UTC),
        name=_name(claims, provider, email or subject),
        email=email,
        role=role_of(claims, provider),
        sign_up=provider.sign_up,
        link_by_email=provider.link_by_email,
    )


UNKNOWN_ISSUER = "This token is not known: its issuer is none that this server trusts."


def role_of(claims: Mapping[str, Any], provider: OidcProvider) -> Role | Literal["none"] | None:
    """What the provider's roles make of a holder here; None when it is not for the provider to say."""
    if provider.role_claim is None:
        return None
    held = roles_in(found(claims, provider.role_claim))
    if held & set(provider.admin_roles):
        return "admin"
    if not provider.user_roles or held & set(provider.user_roles):
        return "user"
    return "none"


def roles_in(value: Any) -> frozenset[str]:
    """The roles in a claim: a list of them, or one text with blanks between them, as OAuth's `scope` has."""
    if isinstance(value, str):
        return frozenset([value, *value.split()])
    if isinstance(value, Sequence):
        return frozenset(one for one in value if isinstance(one, str))
    return frozenset()


def found(claims: Mapping[str, Any], path: ClaimPath) -> Any:
    """What is at `path` in `claims`; None when nothing is.

    A text is a claim's whole name if there is one so called (`https://example.com/roles`), else names joined by dots
    (`realm_access.roles`).
    """
    if isinstance(path, str):
        if path in claims:
            return claims[path]
        path = tuple(path.split("."))
    value: Any = claims
    for name in path:
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return value


def _moment(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unauthenticated(f"This token has no usable `{name}`.")
    if not 0 <= value <= _LAST_MOMENT:  # neither is NaN
        raise Unauthenticated(f"This token has no usable `{name}`.")
    return float(value)


def _check_kind(claims: Mapping[str, Any]) -> None:
    """The same provider signs other things with the same keys (RFC 8725 § 2.8)."""
    kind = claims.get("typ")
    events = claims.get("events")
    if (isinstance(kind, str) and kind.lower() in _OTHER_KINDS) or (
        isinstance(events, Mapping) and _LOGOUT in events
    ):
        raise Unauthenticated("This is not an access token.")
    if claims.get("cnf") is not None:  # RFC 9449 § 7.2: it is worth nothing without the proof of its key
        raise Unauthenticated(
            "This token is bound to a key or a certificate, and can't be used as a bearer token."
        )


def _check_audience(claims: Mapping[str, Any], provider: OidcProvider) -> None:
    if not provider.audiences and not provider.authorized_parties:
        raise Unauthenticated("This server does not say for whom its provider's tokens must be made.")
    if provider.audiences:
        named = claims.get("aud")
        names = [named] if isinstance(named, str) else named if isinstance(named, list) else []
        if not any(name in provider.audiences for name in names if isinstance(name, str)):
            raise Unauthenticated(
                "This token was made for somebody else: its `aud` does not name this server."
            )
    if provider.authorized_parties and claims.get("azp") not in provider.authorized_parties:
        raise Unauthenticated(
            "This token was made for an application that this server does not serve (`azp`)."
        )


def _verified_email(claims: Mapping[str, Any], provider: OidcProvider) -> str | None:
    """An address that nobody has proved to be theirs is none: it could be anybody's."""
    email = found(claims, provider.email_claim)
    verified = found(claims, provider.email_verified_claim)
    if verified is not True and verified != "true":  # some say it in a text
        return None
    if not isinstance(email, str) or not _is_line(email, LONGEST_EMAIL):
        return None
    name, at, host = email.partition("@")
    return email if name and at and host and "@" not in host and not any(map(str.isspace, email)) else None


def _name(claims: Mapping[str, Any], provider: OidcProvider, otherwise: str) -> str:
    for value in (found(claims, provider.name_claim), *(claims.get(name) for name in _NAMES)):
        if isinstance(value, str) and _is_line(value.strip()[:LONGEST_NAME], LONGEST_NAME):
            return value.strip()[:LONGEST_NAME].strip()
    return otherwise[:LONGEST_NAME]


def _is_line(text: str, longest: int) -> bool:
    """Whether `text` can be kept and shown as one line."""
    return (
        0 < len(text) <= longest
        and not unstorable(text)
        and not uncontrolled(text)
        and not is_invisible(text)
    )


def checked(provider: OidcProvider, setting: str) -> OidcProvider:
    """`provider`, if it says enough of whose tokens are taken. Raises SettingsError, naming `setting`."""
    if not provider.audiences and not provider.authorized_parties:
        raise SettingsError(
            f"{setting}: the tokens of {provider.issuer} must be held to something, or those that it makes for any "
            "other application would be taken here too. Name this server as they do in `aud` "
            '(BAATCHEET_OIDC_AUDIENCE, "audiences") or the applications that they are made for in `azp` '
            '(BAATCHEET_OIDC_AUTHORIZED_PARTIES, "authorized_parties").'
        )
    if provider.role_claim is not None and not provider.admin_roles and not provider.user_roles:
        raise SettingsError(
            f"{setting}: {provider.issuer} has a claim with roles, but none of them means anything here. Name some "
            'in BAATCHEET_OIDC_ADMIN_ROLES ("admin_roles") or BAATCHEET_OIDC_USER_ROLES ("user_roles").'
        )
    if provider.role_claim is None and (provider.admin_roles or provider.user_roles):
        raise SettingsError(
            f"{setting}: {provider.issuer} has roles that mean something here, but not the claim that they are in. "
            'Name it in BAATCHEET_OIDC_ROLE_CLAIM ("role_claim").'
        )
    return provider
