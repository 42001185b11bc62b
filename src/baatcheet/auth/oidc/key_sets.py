"""The keys that a provider signs with (JWKS, RFC 7517): fetched, kept, and fetched again when they change.

The last good set goes on while the provider is away. It is asked again every few minutes, and at once for a token that
is signed with a key that is not in the set: one request at a time, whoever waits, and not more often than every
`PAUSE` seconds, since anybody can make up a key's name.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import PyJWTError

from baatcheet.platform.errors import Unauthenticated, Unavailable
from baatcheet.platform.http import require_tls
from baatcheet.platform.logging import get_logger
from baatcheet.platform.settings import OidcProvider, SettingsError

log = get_logger(__name__)

REFRESH: Final = 300.0  # seconds between two looks, give or take a fifth
PAUSE: Final = 5.0  # between two fetches that somebody waits for
TIMEOUT: Final = 5.0  # that one answer may take
ADDRESS_KEPT: Final = 3600.0  # that a discovery document is believed
LARGEST: Final = 256 * 1024  # bytes of an answer
MOST_KEYS: Final = 100
LONGEST_NAME: Final = 512  # characters of a key's name
_RSA_BITS: Final = range(2048, 8192 + 1)  # RFC 7518 § 3.3; larger ones take long

_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_EC: Final = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_PUBLIC: Final = (
    "kty",
    "n",
    "e",
    "crv",
    "x",
    "y",
)  # whatever else is in a key, its private part above all, stays out

WELL_KNOWN: Final = "/.well-known/openid-configuration"


class IdentityProviderAway(Unavailable):
    """The identity provider can't be asked for its keys now."""

    type = "identity-provider-away"
    openai_code = "identity_provider_away"


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key, and the algorithms that it may be used with."""

    name: str | None
    algorithms: frozenset[str]
    key: Any


def read_key_set(document: bytes) -> tuple[VerifyingKey, ...]:
    """The keys in a JWKS that signatures can be checked with; what is not understood is passed over (RFC 7517 § 5).

    Raises ValueError when there is none.
    """
    keys = _object(document).get("keys")
    if not isinstance(keys, list):
        raise ValueError("has no list of keys")  # noqa: TRY004 - a wrong document
    usable = [
        key for one in keys[:MOST_KEYS] if isinstance(one, dict) and (key := _read_key(one)) is not None
    ]
    if not usable:
        raise ValueError("has no key that a signature can be checked with")
    return tuple(usable)


def _read_key(jwk: dict[str, Any]) -> VerifyingKey | None:
    name = jwk.get("kid")
    operations = jwk.get("key_ops")
    if name is not None and not (isinstance(name, str) and len(name) <= LONGEST_NAME):
        return None
    if jwk.get("use", "sig") != "sig":
        return None
    if operations is not None and not (isinstance(operations, list) and "verify" in operations):
        return None
    public: dict[str, Any] = {part: jwk[part] for part in _PUBLIC if part in jwk}
    if not all(isinstance(part, str) for part in public.values()):
        return None
    try:
        key, algorithms = _material(public)
    except (PyJWTError, ValueError, TypeError, UnsupportedAlgorithm):
        return None
    if (only := jwk.get("alg")) is not None:
        algorithms = [one for one in algorithms if one == only]
    return VerifyingKey(name, frozenset(algorithms), key) if algorithms else None


def _material(jwk: dict[str, Any]) -> tuple[Any, Sequence[str]]:
    """A key, and what it can be used with: nothing for those that are no good, symmetric ones above all."""
    match jwk.get("kty"), jwk.get("crv"):
        case "RSA", _:
            rsa = RSAAlgorithm.from_jwk(jwk)
            return rsa, _RSA if rsa.key_size in _RSA_BITS else ()
        case "EC", str(curve) if curve in _EC:
            return ECAlgorithm.from_jwk(jwk), (_EC[curve],)
        case "OKP", "Ed25519":
            return OKPAlgorithm.from_jwk(jwk), ("EdDSA",)
    return None, ()


def _object(document: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(document)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise ValueError("is not JSON") from error
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")  # noqa: TRY004
    return value


class KeySet:
    """The keys of one provider. `clock` and `wall` give seconds: since whenever, and since 1970."""

    def __init__(
        self,
        provider: OidcProvider,
        session: aiohttp.ClientSession,
        *,
        seconds: float = TIMEOUT,
        pause: float = PAUSE,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._provider = provider
        self._session = session
        self._seconds = seconds
        self._pause = pause
        self._clock = clock
        self._wall = wall
        self._keys: tuple[VerifyingKey, ...] = ()
        self._asked_at: float | None = None  # wall: when the set that is held was asked for
        self._resting_until = 0.0
        self._failed = False
        self._fetching: asyncio.Task[None] | None = None
        self._address: tuple[str, float] | None = None  # of the set, and until when it is believed

    async def keys_for(self, name: str | None, algorithm: str, issued_at: float) -> tuple[VerifyingKey, ...]:
        """The keys that a token with these headers may be signed with.

        Raises Unauthenticated when the provider has no such key, and IdentityProviderAway when that can't be told:
        it does not answer, or was asked a moment ago and the token is newer (`issued_at`, seconds since 1970).
        """
        if keys := self._matching(name, algorithm):
            return keys
        begins_now = self._fetching is None
        wait = self._resting_until - self._clock()
        if begins_now and wait > 0:
            if self._failed or self._is_newer(issued_at):
                raise IdentityProviderAway(retry_after=max(1.0, wait))
            raise Unauthenticated(_UNKNOWN_KEY)
        await self._fetched()
        if keys := self._matching(name, algorithm):
            return keys
        if not begins_now and self._is_newer(issued_at):
            raise IdentityProviderAway(retry_after=max(1.0, self._pause))
        raise Unauthenticated(_UNKNOWN_KEY)

    async def refresh(self) -> None:
        """Ask the provider now. Raises IdentityProviderAway; what was known stays."""
        await self._fetched()

    async def run(self, every: float = REFRESH) -> None:
        """Keep the set up to date, until cancelled."""
        try:
            while True:
                try:
                    await self.refresh()
                    wait = every * random.uniform(0.8, 1.2)  # noqa: S311 - so that not all ask at once
                except IdentityProviderAway:
                    wait = min(every, 3 * self._pause)
                await asyncio.sleep(wait)
        finally:
            if self._fetching is not None:
                self._fetching.cancel()

    def _is_newer(self, issued_at: float) -> bool:
        """Whether a token may be newer than the set; it tells its time in whole seconds."""
        return self._asked_at is None or issued_at + 1 > self._asked_at

    def _matching(self, name: str | None, algorithm: str) -> tuple[VerifyingKey, ...]:
        keys = tuple(key for key in self._keys if algorithm in key.algorithms and name in {None, key.name})
        # A token need not name its key, if there is no choice.
        return keys if name is not None or len(keys) == 1 else ()

    async def _fetched(self) -> None:
        """Until the fetch that is under way, or a new one, is over."""
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch(), name="oidc_keys")
            self._fetching.add_done_callback(self._over)
        # A client that leaves must not fail the others that wait for the same answer.
        await asyncio.shield(self._fetching)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._fetching = None
        if not task.cancelled():
            task.exception()  # told to those who waited, if anybody still does

    async def _fetch(self) -> None:
        asked = self._wall()
        try:
            keys = read_key_set(await self._read(await self._address_of_set()))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, SettingsError) as error:
            self._address = None
            self._failed = True
            self._resting_until = self._clock() + self._pause
            log.warning(
                "oidc.keys_not_fetched",
                issuer=self._provider.issuer,
                reason=str(error) or type(error).__name__,
                known=len(self._keys),
            )
            raise IdentityProviderAway(retry_after=max(1.0, self._pause)) from error
        if {key.name for key in keys} != {key.name for key in self._keys}:
            log.info("oidc.keys_fetched", issuer=self._provider.issuer, keys=len(keys))
        self._keys = keys
        self._asked_at = asked
        self._failed = False
        self._resting_until = self._clock() + self._pause

    async def _address_of_set(self) -> str:
        provider = self._provider
        if provider.jwks_uri is not None:
            return provider.jwks_uri
        if self._address is not None and self._address[1] > self._clock():
            return self._address[0]
        document = _object(await self._read(provider.issuer.rstrip("/") + WELL_KNOWN))
        # OpenID Connect Discovery 1.0 § 4.3: exactly.
        if (said := document.get("issuer")) != provider.issuer:
            raise ValueError(
                f"its discovery document calls it {str(said)[:200]!r}: the issuer must be written so here"
            )
        address = document.get("jwks_uri")
        if not isinstance(address, str):
            raise ValueError("its discovery document has no jwks_uri")  # noqa: TRY004
        require_safe(address, provider)
        self._address = (address, self._clock() + ADDRESS_KEPT)
        return address

    async def _read(self, address: str) -> bytes:
        """A document of at most `LARGEST` bytes. Raises ValueError, aiohttp.ClientError, TimeoutError."""
        async with self._session.get(
            address,
            # Neither unpacked nor followed elsewhere: both would be more than was asked for.
            headers={"accept": "application/json", "accept-encoding": "identity"},
            auto_decompress=False,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=self._seconds),
        ) as answer:
            if answer.status != 200:
                raise ValueError(f"{address} answered {answer.status}")
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise ValueError(f"{address} answered in a packed form, which was not asked for")
            body = bytearray()
            async for part in answer.content.iter_chunked(65_536):
                body += part
                if len(body) > LARGEST:
                    raise ValueError(f"{address} answered with more than {LARGEST} bytes")
            return bytes(body)


_UNKNOWN_KEY = "This token is signed with a key that its issuer does not publish."


def require_safe(address: str, provider: OidcProvider) -> None:
    """Raises SettingsError unless keys may be taken from `address`.

    Whoever could change them on the way would come in as anybody.
    """
    try:
        require_tls(
            "BAATCHEET_OIDC_PROVIDERS", provider.issuer, address, allow_insecure=provider.allow_insecure
        )
    except SettingsError:
        raise SettingsError(
            f"BAATCHEET_OIDC_ISSUER: {address[:200]} is no address to take the keys of {provider.issuer} from: it must "
            'begin with https://, or lead to this machine, or "allow_insecure": true must be in '
            "BAATCHEET_OIDC_PROVIDERS; and it may hold neither a user name nor a password."
        ) from None
