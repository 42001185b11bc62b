"""From a bearer token to its holder: whose it is, by the signature of a provider that this server trusts.

Nothing in a token is believed before its signature is checked, but for which provider and which of its published keys
to check it with. Keys and addresses of keys in a token (`jwk`, `jku`, `x5c`, `x5u`) are never looked at (RFC 8725).
"""

import asyncio
import re
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Sequence
from typing import Any, Final

import aiohttp
import msgspec
from jwt import PyJWS
from jwt.exceptions import PyJWTError

from baatcheet.auth.oidc.claims import UNKNOWN_ISSUER, Holder, checked, judge
from baatcheet.auth.oidc.key_sets import LONGEST_NAME, REFRESH, KeySet, require_safe
from baatcheet.platform.errors import Unauthenticated
from baatcheet.platform.settings import SIGNATURE_ALGORITHMS, AuthSettings, OidcProvider, SettingsError

LONGEST: Final = 16 * 1024  # characters of a token
LONGEST_HEADER: Final = 4 * 1024

_SHAPE = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
# RFC 9068 § 4, RFC 7519 § 5.1; others are other things that a provider signs (RFC 8725 § 3.11).
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt", "application/jwt"})
_MALFORMED = "This token can't be read: it is not a signed JWT."


def looks_signed(token: str) -> bool:
    """Whether `token` has the form of a signed JWT. Says nothing of what it is worth."""
    if token.count(".") != 2 or not _SHAPE.fullmatch(token):
        return False
    head = token.partition(".")[0]
    return len(head) <= LONGEST_HEADER and "alg" in (_decoded(head) or {})


def providers_of(settings: AuthSettings) -> tuple[OidcProvider, ...]:
    """Every OpenID provider in the settings. Raises SettingsError."""
    providers = [checked(one, "BAATCHEET_OIDC_PROVIDERS") for one in settings.oidc_providers]
    if settings.oidc_issuer is not None:
        single = OidcProvider(
            issuer=settings.oidc_issuer,
            audiences=settings.oidc_audiences,
            authorized_parties=settings.oidc_authorized_parties,
            role_claim=settings.oidc_role_claim,
            admin_roles=settings.oidc_admin_roles,
            user_roles=settings.oidc_user_roles,
        )
        providers.insert(0, checked(single, "BAATCHEET_OIDC_ISSUER"))
    elif (
        settings.oidc_audiences
        or settings.oidc_authorized_parties
        or settings.oidc_role_claim
        or settings.oidc_admin_roles
        or settings.oidc_user_roles
    ):
        raise SettingsError(
            "BAATCHEET_OIDC_ISSUER: it is not set, but other settings of the OpenID provider are. "
            "Example: BAATCHEET_OIDC_ISSUER=https://id.example.com/realms/main"
        )
    for provider in providers:
        for address in (provider.issuer, provider.jwks_uri or provider.issuer):
            require_safe(address, provider)
    issuers = [provider.issuer for provider in providers]
    if twice := {issuer for issuer in issuers if issuers.count(issuer) > 1}:
        raise SettingsError(f"BAATCHEET_OIDC_PROVIDERS: {min(twice)} is there twice.")
    return tuple(providers)


class Verifier:
    """The tokens of `providers`, checked by the keys that each publishes. `wall`: seconds since 1970."""

    def __init__(
        self,
        providers: Sequence[OidcProvider],
        session: aiohttp.ClientSession,
        *,
        make_key_set: Callable[[OidcProvider, aiohttp.ClientSession], KeySet] = KeySet,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._providers = {one.issuer: (one, make_key_set(one, session)) for one in providers}
        self._wall = wall
        self._signatures = PyJWS(algorithms=list(SIGNATURE_ALGORITHMS))

    async def verify(self, token: str) -> Holder:
        """Whose `token` is. Raises Unauthenticated with the reason, TokenExpired, IdentityProviderAway."""
        head, payload, _ = token.split(".") if _SHAPE.fullmatch(token) else ("", "", "")
        header, claims = _decoded(head), _decoded(payload)
        if len(token) > LONGEST or header is None or claims is None:
            raise Unauthenticated(_MALFORMED)
        issuer = claims.get("iss")
        known = self._providers.get(issuer) if isinstance(issuer, str) else None
        if known is None:
            raise Unauthenticated(UNKNOWN_ISSUER)
        provider, key_set = known
        algorithm, name = _checked_header(header, provider)
        issued: Any = claims.get("iat")
        when = issued if type(issued) in {int, float} else 0
        keys = await key_set.keys_for(name, algorithm, min(when, self._wall()))
        if not any(self._is_signed(token, key.key, algorithm) for key in keys):
            raise Unauthenticated("This token's signature is not right.")
        return judge(claims, provider, self._wall())

    async def run(self, every: float = REFRESH) -> None:
        """Keep every provider's keys up to date, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _, key_set in self._providers.values():
                group.create_task(key_set.run(every))

    def _is_signed(self, token: str, key: Any, algorithm: str) -> bool:
        try:
            self._signatures.decode(token, key=key, algorithms=[algorithm])
        except (PyJWTError, ValueError, TypeError, RecursionError):
            return False
        return True


def _checked_header(header: dict[str, Any], provider: OidcProvider) -> tuple[str, str | None]:
    """The algorithm and the key's name. Raises Unauthenticated."""
    algorithm, name, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(algorithm, str) or algorithm not in provider.algorithms:
        raise Unauthenticated("This token is not signed in a way that this server takes.")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise Unauthenticated("This is not an access token.")
    if "crit" in header or "b64" in header:  # RFC 7515 § 4.1.11: what is not understood is refused
        raise Unauthenticated("This token asks for something that this server does not know (`crit`).")
    # A key's name is compared with those in the provider's set, and used for nothing else.
    if name is not None and not (isinstance(name, str) and len(name) <= LONGEST_NAME):
        raise Unauthenticated(_MALFORMED)
    return algorithm, name


def _decoded(part: str) -> dict[str, Any] | None:
    """The JSON object in a part of a token; None when there is none."""
    try:
        value = msgspec.json.decode(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None
    return value if isinstance(value, dict) else None
