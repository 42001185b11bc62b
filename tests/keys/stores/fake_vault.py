"""A FAKE of HashiCorp Vault: the part of its HTTP API that BaatCheet uses, over a real socket.

There is no Vault to be had where the tests run. This speaks what Vault 1.x documents of KV version 2 (check-and-set,
versions, soft and hard deletion, metadata), of tokens (lookup, renewal, leases that end, a longest lifetime), of
AppRole and of Kubernetes, with namespaces, policies by capability, seals and redirects. It stores in memory and
encrypts nothing.
"""

import json
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

ALL = frozenset({"create", "read", "update", "delete"})


@dataclass
class Token:
    """One token of the fake. `ends`: when its lease ends; `last`: when it ends however often it is renewed."""

    text: str
    namespace: str
    seconds: float = 0.0
    renewable: bool = True
    ends: float | None = None
    last: float | None = None
    capabilities: frozenset[str] = ALL
    sees_itself: bool = True
    made: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        return 0.0 if self.ends is None else max(self.ends - time.monotonic(), 0.0)


@dataclass
class Secret:
    """All versions of one secret; None: that one was deleted. `destroyed`: for good."""

    versions: list[dict[str, Any] | None] = field(default_factory=list)
    destroyed: set[int] = field(default_factory=set)


class FakeVault:
    """A server. The tests turn its knobs, and count what it was asked."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.lock = threading.RLock()
        self.tokens: dict[str, Token] = {}
        self.secrets: dict[tuple[str, str, str], Secret] = {}  # by namespace, mount and path
        self.mounts = {"secret"}
        self.roles: dict[tuple[str, str], str] = {}  # of AppRole: mount, role id → secret id
        self.jwts: dict[tuple[str, str], str] = {}  # of Kubernetes: mount, role → the service account's token
        self.lease = 3600.0
        self.longest: float | None = None
        self.renewable = True
        self.sealed = False
        self.refusing = False
        self.hanging = threading.Event()
        self.asked: list[str] = []
        self.lose_answers = 0  # so many writes are carried out, and their answers never sent
        self.not_vault = False
        self.redirect_to: str | None = None
        self._released = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        self.start()

    @property
    def address(self) -> str:
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        fake = self

        class Handler(_Handler):
            vault = fake

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that has gone is no news."""

        self._released.clear()
        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        if self._tls is not None:
            self._server.socket = self._tls.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def stop(self) -> None:
        if self._server is not None:
            self._released.set()
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_while_hanging(self) -> None:
        while self.hanging.is_set() and not self._released.wait(0.02):
            pass

    def token(self, namespace: str = "", seconds: float = 0.0, **more: Any) -> Token:
        """Make a token; `seconds` 0: one that never ends."""
        token = Token("s." + secrets.token_hex(12), namespace, seconds, **more)
        if seconds:
            token.ends = token.made + seconds
        with self.lock:
            self.tokens[token.text] = token
        return token

    def revoke_all(self) -> None:
        with self.lock:
            self.tokens.clear()

    def holds(self, text: str, namespace: str) -> Token | None:
        token = self.tokens.get(text)
        if token is None or token.namespace != namespace or (token.ends is not None and token.left <= 0):
            return None
        return token

    def document(self, path: str, namespace: str = "") -> dict[str, Any]:
        """The latest version of `secret/data/…`."""
        mount, _, place = path.partition("/data/")
        secret = self.secrets.get((namespace, mount, place))
        return dict(secret.versions[-1] or {}) if secret is not None and secret.versions else {}

    def write(self, path: str, entries: dict[str, Any], namespace: str = "") -> None:
        """What an operator's `vault kv patch` does."""
        mount, _, place = path.partition("/data/")
        with self.lock:
            secret = self.secrets.setdefault((namespace, mount, place), Secret())
            secret.versions.append({**self.document(path, namespace), **entries})

    def count(self, ending: str) -> int:
        """How many requests there were whose method and path end so."""
        return sum(one.endswith(ending) for one in self.asked)

    @contextmanager
    def knob(self, **values: Any) -> Iterator[None]:
        before = {name: getattr(self, name) for name in values}
        for name, value in values.items():
            setattr(self, name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                setattr(self, name, value)


class _Handler(BaseHTTPRequestHandler):
    vault: FakeVault
    protocol_version = "HTTP/1.1"
    timeout = 30

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Nothing is written."""

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("POST")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def _answer(self, method: str) -> None:
        vault = self.vault
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        parts = urlsplit(self.path)
        path = unquote(parts.path).removeprefix("/v1/")
        vault.asked.append(f"{method} {path}")
        vault.wait_while_hanging()
        if vault.redirect_to is not None:
            self.send_response(307)
            self.send_header("Location", vault.redirect_to + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if vault.not_vault:
            self._send(200, b"<html>Sign in to the hotel's network</html>", "text/html")
            return
        body = json.loads(raw) if raw else {}
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        with vault.lock:
            status, answer = self._route(method, path, query, body)
            lost = method == "POST" and "/data/" in path and status == 200 and vault.lose_answers > 0
            if lost:
                vault.lose_answers -= 1
        if lost:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self._send(status, json.dumps(answer).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _route(
        self, method: str, path: str, query: dict[str, str], body: dict[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        vault = self.vault
        namespace = self.headers.get("X-Vault-Namespace", "").strip("/")
        if vault.sealed:
            return 503, {"errors": ["Vault is sealed"]}
        if vault.refusing:
            return 403, {"errors": ["permission denied"]}
        if path.startswith("auth/") and path.endswith("/login"):
            return self._login(path.removeprefix("auth/").removesuffix("/login"), namespace, body)
        token = vault.holds(self.headers.get("X-Vault-Token", ""), namespace)
        if token is None:
            return 403, {"errors": ["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}
        if path.startswith("auth/token/"):
            return self._renew(token) if path.endswith("/renew-self") else self._lookup(token)
        return self._in_mount(method, path, namespace, token, query, body)

    @staticmethod
    def _lookup(token: Token) -> tuple[int, dict[str, Any]]:
        if not token.sees_itself:
            return 403, {"errors": ["1 error occurred:\n\t* permission denied\n\n"]}
        return 200, {
            "data": {
                "id": token.text,
                "ttl": token.left,
                "creation_ttl": token.seconds,
                "renewable": token.renewable and token.ends is not None,
                "policies": ["baatcheet", "default"],
            }
        }

    def _in_mount(
        self,
        method: str,
        path: str,
        namespace: str,
        token: Token,
        query: dict[str, str],
        body: dict[str, Any],
    ) -> tuple[int, dict[str, Any]]:
        vault = self.vault
        mount, _, rest = path.partition("/")
        if mount not in vault.mounts:
            return 404, {"errors": [f'no handler for route "{path}". route entry not found.']}
        kind, _, place = rest.partition("/")
        if kind == "metadata" and method == "GET":
            return self._metadata(namespace, mount, place)
        if kind == "data":
            return self._data(method, token, (namespace, mount, place), query, body)
        return 404, {"errors": []}

    def _login(self, mount: str, namespace: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        vault = self.vault
        secret_id = vault.roles.get((mount, body.get("role_id", "")))
        jwt = vault.jwts.get((mount, body.get("role", "")))
        if not ({mount} & {known for known, _ in (*vault.roles, *vault.jwts)}):
            return 403, {"errors": ["permission denied"]}  # as Vault says of a mount that is not there
        if "role_id" in body and (secret_id is None or secret_id != body.get("secret_id")):
            return 400, {"errors": ["invalid role or secret ID"]}
        if "jwt" in body and (jwt is None or jwt != body["jwt"]):
            return 403, {"errors": ["permission denied"]}
        token = vault.token(namespace, vault.lease, renewable=vault.renewable)
        if vault.longest is not None:
            token.last = token.made + vault.longest
        return 200, {"auth": self._auth(token)}

    def _renew(self, token: Token) -> tuple[int, dict[str, Any]]:
        if not token.renewable or token.ends is None:
            return 400, {"errors": ["lease is not renewable"]}
        token.ends = time.monotonic() + token.seconds
        if token.last is not None:
            token.ends = min(token.ends, token.last)
        return 200, {"auth": self._auth(token)}

    @staticmethod
    def _auth(token: Token) -> dict[str, Any]:
        return {
            "client_token": token.text,
            "accessor": "fake",
            "policies": ["baatcheet", "default"],
            # Real leases are whole seconds; tests can't wait for those.
            "lease_duration": token.left,
            "renewable": token.renewable,
        }

    def _metadata(self, namespace: str, mount: str, place: str) -> tuple[int, dict[str, Any]]:
        secret = self.vault.secrets.get((namespace, mount, place))
        if secret is None:
            return 404, {"errors": []}
        return 200, {
            "data": {
                "current_version": len(secret.versions),
                "versions": {
                    str(number): {"destroyed": number in secret.destroyed}
                    for number in range(1, len(secret.versions) + 1)
                },
            }
        }

    def _data(
        self,
        method: str,
        token: Token,
        key: tuple[str, str, str],
        query: dict[str, str],
        body: dict[str, Any],
    ) -> tuple[int, dict[str, Any]]:
        vault = self.vault
        secret = vault.secrets.get(key)
        needed = {"GET": "read", "DELETE": "delete"}.get(method, "update" if secret else "create")
        if needed not in token.capabilities:
            return 403, {"errors": ["1 error occurred:\n\t* permission denied\n\n"]}
        if method == "GET":
            return self._read(secret, int(query.get("version", 0)))
        if method == "DELETE":
            if secret is not None and secret.versions:
                secret.versions[-1] = None
            return 204, {}
        cas = body.get("options", {}).get("cas")
        number = len(secret.versions) if secret is not None else 0
        if cas is not None and cas != number:
            return 400, {"errors": ["check-and-set parameter did not match the current version"]}
        secret = vault.secrets.setdefault(key, Secret())
        secret.versions.append(body["data"])
        return 200, {"data": _about(len(secret.versions))}

    @staticmethod
    def _read(secret: Secret | None, number: int) -> tuple[int, dict[str, Any]]:
        if secret is None or not secret.versions:
            return 404, {"errors": []}
        number = number or len(secret.versions)
        entries = secret.versions[number - 1]
        if entries is None:
            gone = number in secret.destroyed
            deleted = "" if gone else "2026-01-01T00:00:00Z"
            return 404, {
                "data": {
                    "data": None,
                    "metadata": _about(number) | {"deletion_time": deleted, "destroyed": gone},
                }
            }
        return 200, {"data": {"data": entries, "metadata": _about(number)}}


def _about(number: int) -> dict[str, Any]:
    return {
        "created_time": "2026-01-01T00:00:00Z",
        "custom_metadata": None,
        "deletion_time": "",
        "destroyed": False,
        "version": number,
    }
