"""A FAKE OpenID provider over real HTTP: a discovery document, a key set, and tokens signed with its keys."""

import gzip
import json
import threading
import time
from base64 import urlsafe_b64encode
from collections import Counter
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt import PyJWS
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

DISCOVERY = "/.well-known/openid-configuration"
JWKS = "/keys"
AUDIENCE = "https://baatcheet.example.com"

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@cache
def rsa_key(number: int = 0, bits: int = 2048) -> rsa.RSAPrivateKey:
    """The same one for the same number: making one takes long."""
    return rsa.generate_private_key(65537, bits)


def ec_key(curve: type[ec.EllipticCurve] = ec.SECP256R1) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve())


def ed_key() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


def jwk_of(key: PrivateKey, **members: Any) -> dict[str, Any]:
    """The public key as a provider publishes it."""
    public = key.public_key()
    jwk: dict[str, Any]
    if isinstance(public, rsa.RSAPublicKey):
        jwk = RSAAlgorithm.to_jwk(public, as_dict=True)
    elif isinstance(public, ec.EllipticCurvePublicKey):
        jwk = ECAlgorithm.to_jwk(public, as_dict=True)
    else:
        jwk = OKPAlgorithm.to_jwk(public, as_dict=True)
    jwk.pop("key_ops", None)
    return {**jwk, "use": "sig", **members}


def part(value: Any) -> str:
    """A part of a token, as it is written."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(
    claims: dict[str, Any] | bytes, key: Any, algorithm: str, header: dict[str, Any] | None = None
) -> str:
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    return PyJWS().encode(payload, key, algorithm, headers=header)


class FakeProvider:
    """What it serves can be changed at any time. It begins with one Ed25519 key, `first`."""

    def __init__(self) -> None:
        self.private: dict[str, tuple[PrivateKey, str]] = {}
        self.published: dict[str, dict[str, Any]] = {}
        self.asked: Counter[str] = Counter()
        self.status = 200
        self.delay = 0.0
        self.discovery: dict[str, Any] = {}  # over what it would say
        self.body: bytes | None = None  # in place of the key set
        self.headers: dict[str, str] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self.issuer = f"http://127.0.0.1:{self._server.server_port}"
        self.add("first", ed_key(), "EdDSA")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def add(self, name: str, key: PrivateKey, algorithm: str, *, publish: bool = True) -> None:
        self.private[name] = (key, algorithm)
        if publish:
            self.publish(name)

    def publish(self, name: str) -> None:
        key, algorithm = self.private[name]
        self.published[name] = jwk_of(key, kid=name, alg=algorithm)

    def withdraw(self, name: str) -> None:
        del self.published[name]

    def claims(self, **claims: Any) -> dict[str, Any]:
        now = int(time.time())
        whole = {
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": "u-1",
            "iat": now - 10,
            "exp": now + 300,
            **claims,
        }
        return {name: value for name, value in whole.items() if value is not ...}

    def token(self, key: str = "first", *, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token with these claims over the usual ones; `...` leaves one out."""
        private, algorithm = self.private[key]
        return sign(self.claims(**claims), private, algorithm, {"kid": key, **(header or {})})

    def _answer(self, path: str) -> bytes:
        if path.endswith(DISCOVERY):
            whole = {"issuer": self.issuer, "jwks_uri": self.issuer + JWKS, **self.discovery}
            return json.dumps(whole).encode()
        if self.body is not None:
            return self.body
        return json.dumps({"keys": list(self.published.values())}).encode()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked[self.path] += 1
                time.sleep(provider.delay)
                body = provider._answer(self.path)
                if provider.headers.get("content-encoding") == "gzip":
                    body = gzip.compress(body)
                try:
                    self.send_response(provider.status)
                    for name, value in provider.headers.items():
                        self.send_header(name, value)
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    return  # whoever asked did not wait

            def log_message(self, *_: object) -> None:
                """Nothing: it is asked often."""

        return Handler
