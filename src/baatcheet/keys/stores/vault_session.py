"""A client of Vault that is signed in: by a token, AppRole or Kubernetes, renewed before its lease ends.

Everything here blocks, is called in one thread at a time, and returns its failures: see `remote`.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol
from urllib.parse import urlsplit

import hvac
import requests
from hvac import exceptions
from hvac.constants.client import VAULT_CACERT, VAULT_CAPATH, VAULT_CLIENT_CERT, VAULT_CLIENT_KEY
from pydantic import SecretStr

from baatcheet.keys.stores.model import StoreRefused, StoreUnavailable
from baatcheet.keys.stores.remote import Failure
from baatcheet.platform.logging import get_logger
from baatcheet.platform.redaction import register_passing_secret

log = get_logger(__name__)

_RENEW_AFTER: Final = 2 / 3  # of the lease
_SHORTENED: Final = 1 / 2  # of the first lease: a renewal that gives less has come near the token's last end


class SignIn(Protocol):
    """A way of proving to Vault who we are."""

    @property
    def repeatable(self) -> bool:
        """Whether a new token can be had in this way."""
        ...

    def sign_in(self, client: Any) -> "Lease | Failure":
        """A token and its lease. Raises what hvac raises."""
        ...

    @property
    def refused(self) -> str:
        """What to do when Vault refuses it."""
        ...


@dataclass(frozen=True, slots=True)
class Lease:
    """A token and for how many seconds it holds; None: for ever, or nobody knows."""

    token: SecretStr
    seconds: float | None
    renewable: bool


@dataclass(frozen=True, slots=True)
class TokenAuth:
    """A token that somebody else has made."""

    token: SecretStr
    repeatable: ClassVar[bool] = False
    refused: ClassVar[str] = (
        "The token has lapsed, was revoked or is wrong: give another one as VAULT_TOKEN, or use AppRole or Kubernetes, "
        "with which BaatCheet signs in anew by itself."
    )

    def sign_in(self, client: Any) -> "Lease | Failure":
        client.token = self.token.get_secret_value()
        try:
            told = client.auth.token.lookup_self()
        except exceptions.Forbidden:
            # It may hold without the right to look at itself: the first request tells.
            return Lease(self.token, None, renewable=False)
        data = told.get("data") if isinstance(told, dict) else None
        if not isinstance(data, dict):
            return _NOT_VAULT
        seconds = _number(data.get("ttl")) or None
        if seconds and not data.get("renewable"):
            log.warning("keys.vault.token_ends", seconds=seconds, problem="VAULT_TOKEN can't be renewed")
        return Lease(self.token, seconds, bool(data.get("renewable")) and seconds is not None)


@dataclass(frozen=True, slots=True)
class AppRoleAuth:
    """An AppRole, mounted at `auth/<mount>`."""

    role_id: SecretStr
    secret_id: SecretStr
    mount: str = "approle"
    repeatable: ClassVar[bool] = True

    @property
    def refused(self) -> str:
        return (
            f"Check VAULT_ROLE_ID, VAULT_SECRET_ID (it may have lapsed or be used up) and that AppRole is mounted at "
            f"auth/{self.mount}."
        )

    def sign_in(self, client: Any) -> "Lease | Failure":
        return _lease_of(
            client.auth.approle.login(
                self.role_id.get_secret_value(),
                self.secret_id.get_secret_value(),
                use_token=False,
                mount_point=self.mount,
            )
        )


@dataclass(frozen=True, slots=True)
class KubernetesAuth:
    """The pod's service account, whose token is read anew each time: Kubernetes replaces it."""

    role: str
    jwt_file: Path
    mount: str = "kubernetes"
    repeatable: ClassVar[bool] = True

    @property
    def refused(self) -> str:
        return (
            f"Check that BAATCHEET_VAULT_ROLE ({self.role}) is bound to this pod's service account, and that "
            f"Kubernetes is mounted at auth/{self.mount}."
        )

    def sign_in(self, client: Any) -> "Lease | Failure":
        try:
            jwt = self.jwt_file.read_text("ascii").strip()
        except (OSError, ValueError):
            return Failure(
                StoreRefused,
                f"the service account's token can't be read from {self.jwt_file}. BaatCheet must run in a pod with a "
                "service account, or BAATCHEET_VAULT_JWT_FILE name another file.",
            )
        register_passing_secret(jwt)
        return _lease_of(
            client.auth.kubernetes.login(self.role, jwt, use_token=False, mount_point=self.mount)
        )


_NOT_VAULT: Final = Failure(
    StoreUnavailable,
    "answers, but not as Vault does. Check VAULT_ADDR, and what stands before it.",
    again=True,
)


def _lease_of(told: Any) -> Lease | Failure:
    auth = told.get("auth") if isinstance(told, dict) else None
    if not isinstance(auth, dict) or not isinstance(auth.get("client_token"), str):
        return _NOT_VAULT
    seconds = _number(auth.get("lease_duration")) or None
    return Lease(
        SecretStr(auth["client_token"]), seconds, bool(auth.get("renewable")) and seconds is not None
    )


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and value > 0 else 0.0


class _SameScheme(requests.Session):
    """Follows a standby node's redirect to the active one, but never from https to http: the token goes along."""

    def get_redirect_target(self, resp: Any) -> str | None:
        target: str | None = super().get_redirect_target(resp)
        scheme = urlsplit(target).scheme if target else ""
        if scheme == "http" and urlsplit(resp.url).scheme == "https":
            raise requests.exceptions.InvalidSchema("a redirect away from TLS")
        return target


class VaultSession:
    """One client of Vault.

    Certificates are verified by the system's authorities, or by VAULT_CACERT or VAULT_CAPATH; VAULT_CLIENT_CERT and
    VAULT_CLIENT_KEY are shown to it: as Vault's own programs do. Neither proxy variables nor `.netrc` are read.
    """

    def __init__(
        self,
        address: str,
        sign_in: SignIn,
        *,
        namespace: str | None = None,
        timeout: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        session = _SameScheme()
        session.trust_env = False
        session.verify = VAULT_CACERT or VAULT_CAPATH or True
        if VAULT_CLIENT_CERT:
            session.cert = (VAULT_CLIENT_CERT, VAULT_CLIENT_KEY) if VAULT_CLIENT_KEY else VAULT_CLIENT_CERT
        self._client: Any = hvac.Client(
            address, token="", timeout=timeout, session=session, namespace=namespace
        )
        self._address = address
        self._timeout = timeout
        self._sign_in = sign_in
        self._clock = clock
        self._lease: Lease | None = None
        self._since = 0.0
        self._longest = 0.0
        self._last_end_told = False

    @property
    def due(self) -> float | None:
        """Seconds until the lease is to be renewed or had anew; None: there is nothing to do."""
        lease = self._lease
        if lease is None or lease.seconds is None or not (lease.renewable or self._sign_in.repeatable):
            return None
        return self._since + lease.seconds * _RENEW_AFTER - self._clock()

    def call(self, request: Callable[[Any], Any], capability: str, path: str) -> Any:
        """What `request(client)` returns, or a Failure. It may raise hvac's InvalidPath and InvalidRequest.

        `capability` and `path`: what Vault's policy must allow for it.
        """
        failure = self._ready()
        if failure is not None:
            return failure
        for again in (True, False):
            try:
                return request(self._client)
            except (exceptions.Forbidden, exceptions.Unauthorized):
                holds = self._token_holds()
            except (exceptions.InvalidPath, exceptions.InvalidRequest):
                raise
            except (exceptions.VaultError, requests.exceptions.RequestException) as error:
                return self._failure(error)
            if isinstance(holds, Failure):
                return holds
            if holds:
                break
            if not (again and self._sign_in.repeatable):
                return Failure(StoreRefused, f"{self._address} refuses us. {self._sign_in.refused}")
            failure = self.sign_in()
            if failure is not None:
                return failure
        return Failure(
            StoreRefused,
            f"{self._address} refuses the capability `{capability}` on `{path}`. Allow it in the policy of "
            "BaatCheet's token.",
        )

    def renew(self) -> Failure | None:
        """Renew the lease, or sign in anew where that is the way."""
        lease = self._lease
        if lease is None or not lease.renewable:
            return self.sign_in()
        try:
            told = self._client.auth.token.renew_self()
        except (exceptions.Forbidden, exceptions.Unauthorized, exceptions.InvalidRequest):
            # Lapsed, revoked, or not to be renewed after all.
            return self.sign_in()
        except (exceptions.VaultError, requests.exceptions.RequestException) as error:
            return self._failure(error)
        renewed = _lease_of(told)
        if isinstance(renewed, Failure):
            return renewed
        if renewed.seconds is not None and renewed.seconds < self._longest * _SHORTENED:
            if self._sign_in.repeatable:
                return self.sign_in()
            if not self._last_end_told:
                log.warning(
                    "keys.vault.token_ends",
                    seconds=renewed.seconds,
                    problem="VAULT_TOKEN is near its longest lifetime: give another one",
                )
                self._last_end_told = True
        self._hold(Lease(lease.token, renewed.seconds, renewed.renewable))
        return None

    def sign_in(self) -> Failure | None:
        """Have a token, and know its lease. Where that fails, the token of before stays."""
        before = self._client.token
        self._client.token = ""
        lease = self._new_lease()
        if isinstance(lease, Failure):
            self._client.token = before
            return lease
        self._longest = 0.0
        self._hold(lease)
        return None

    def _new_lease(self) -> Lease | Failure:
        try:
            return self._sign_in.sign_in(self._client)
        except (
            exceptions.Forbidden,
            exceptions.Unauthorized,
            exceptions.InvalidRequest,
            exceptions.InvalidPath,
        ):
            return Failure(StoreRefused, f"{self._address} lets us not sign in. {self._sign_in.refused}")
        except (exceptions.VaultError, requests.exceptions.RequestException) as error:
            return self._failure(error)

    def close(self) -> None:
        self._client.adapter.close()

    def _hold(self, lease: Lease) -> None:
        token = lease.token.get_secret_value()
        register_passing_secret(token)
        self._client.token = token
        self._since = self._clock()
        self._longest = max(self._longest, lease.seconds or 0.0)
        self._lease = lease

    def _ready(self) -> Failure | None:
        """Sign in for the first time, or when the lease has ended; renew what is due."""
        lease = self._lease
        if lease is None:
            return self.sign_in()
        due = self.due
        if due is None or due > 0:
            return None
        failure = self.renew()
        ended = lease.seconds is not None and self._clock() >= self._since + lease.seconds
        # A renewal that fails costs nothing while the token still holds.
        return failure if ended else None

    def _token_holds(self) -> bool | Failure:
        try:
            self._client.auth.token.lookup_self()
        except (exceptions.Forbidden, exceptions.Unauthorized):
            return False
        except (exceptions.VaultError, requests.exceptions.RequestException) as error:
            return self._failure(error)
        return True

    def _failure(self, error: Exception) -> Failure:
        """Words for what hvac or requests raised; nothing of its text, which may repeat what was sent."""
        address = self._address
        match error:
            case requests.exceptions.SSLError():
                problem = f"{address} has no certificate that is trusted. Name its authority's file as VAULT_CACERT."
                return Failure(StoreUnavailable, problem)
            case requests.exceptions.InvalidSchema():
                return Failure(StoreUnavailable, f"{address} redirects away from TLS. Correct VAULT_ADDR.")
            case requests.exceptions.Timeout():
                problem = f"{address} did not answer within {self._timeout:g} seconds."
            case exceptions.VaultDown():
                problem = f"{address} is sealed or in maintenance (503). Unseal it: vault operator unseal."
            case exceptions.VaultNotInitialized():
                problem = f"{address} is not initialised (501)."
            case exceptions.RateLimitExceeded():
                problem = f"{address} has had too many requests (429)."
            case exceptions.VaultError():
                problem = f"{address} can't answer now ({type(error).__name__})."
            case _:
                problem = f"{address} can't be reached ({type(error).__name__}). Check that Vault runs, and VAULT_ADDR."
        return Failure(StoreUnavailable, problem, again=True)


def version_in(answer: Mapping[str, Any]) -> int | None:
    """The version that KV's answer is about; None when it says none."""
    metadata = (answer.get("data") or {}).get("metadata", answer.get("data")) or {}
    version = metadata.get("version") if isinstance(metadata, dict) else None
    return version if isinstance(version, int) else None
