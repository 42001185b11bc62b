"""Speaking HTTP to the outside world: one client session per process, and TLS as a rule."""

import ipaddress
import ssl
from urllib.parse import urlsplit

import aiohttp

from baatcheet.platform.settings import SettingsError

USER_AGENT = "baatcheet"


def client_session() -> aiohttp.ClientSession:
    """A pooled session for calls to providers; made inside a running loop, closed by whoever made it.

    TLS is verified. No cookie is kept, since one user's answer must not colour another's request. Neither
    proxy variables nor `.netrc` are read. It has no time limits of its own: each call sets its own.
    """
    connector = aiohttp.TCPConnector(
        limit=0, limit_per_host=0, ttl_dns_cache=300, keepalive_timeout=30, ssl=ssl.create_default_context()
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        headers={"User-Agent": USER_AGENT},
        trust_env=False,
        raise_for_status=False,
    )


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address, can only be this machine."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def require_tls(variable: str, provider: str, url: str, *, allow_insecure: bool = False) -> None:
    """Raises SettingsError, naming `variable` and `provider`, unless `url` may be sent what is private.

    That is: https, or http to loopback, or `allow_insecure`. A URL that carries a user name or password is
    refused too, because URLs end up in logs.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise SettingsError(f"{variable}: the address of provider {provider!r} is not a URL.") from None
    if not host or parts.scheme not in {"http", "https"}:
        raise SettingsError(f"{variable}: the address of provider {provider!r} must begin with https://host.")
    if parts.username is not None or parts.password is not None:
        raise SettingsError(
            f"{variable}: the address of provider {provider!r} holds a user name or password. "
            "Give the key on its own, as api_key or api_key_env."
        )
    if parts.scheme == "http" and not allow_insecure and not is_loopback(host):
        shown = f"http://{host}:{port}" if port else f"http://{host}"
        raise SettingsError(
            f"{variable}: provider {provider!r} is at {shown}, without TLS and not on this machine: keys and "
            "conversations would be readable on the way. Use https://, or describe it in BAATCHEET_PROVIDERS "
            'with "allow_insecure": true. '
            'Example: BAATCHEET_PROVIDERS=[{"name": "lab", '
            f'"base_url": "{shown}/v1", "allow_insecure": true}}]'
        )
