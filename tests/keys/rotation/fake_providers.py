"""FAKES of OpenRouter's provisioning API and of OpenAI's admin API, over real HTTP.

Their answers have the members that the providers' documents give them. `/probe` stands for a provider's cheapest call.
"""

import asyncio
import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

PROVISIONING_KEY = "sk-or-v1-provisioning-0123456789abcdef"
ADMIN_KEY = "sk-admin-0123456789abcdef0123"
PROJECT = "proj_abc"


@dataclass
class Kept:
    """A key at the provider. `at`: what the provider calls it."""

    at: str
    name: str
    key: str
    limits: dict[str, Any] = field(default_factory=dict)


class FakeProviders:
    """Listens for as long as the block lasts. `keys`: by what the provider calls each."""

    def __init__(self) -> None:
        self.keys: dict[str, Kept] = {}
        self.asked: list[tuple[str, str]] = []
        self.failures: list[int] = []  # the statuses that the next requests to key APIs are answered with
        self.lose_answers = False  # what is asked is done, and the connection cut
        self.refuse_new = False  # keys that were made are no good
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._around])
        app.router.add_get("/probe", self._probe)
        app.router.add_post("/openrouter/keys", self._create)
        app.router.add_get("/openrouter/keys", self._list)
        app.router.add_get("/openrouter/keys/{at}", self._get)
        app.router.add_delete("/openrouter/keys/{at}", self._delete)
        accounts = "/openai/organization/projects/{project}/service_accounts"
        app.router.add_post(accounts, self._create_account)
        app.router.add_get(accounts, self._list_accounts)
        app.router.add_delete(accounts + "/{at}", self._delete_account)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        server = site._server
        assert isinstance(server, asyncio.Server)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def sell(self, count: int, **limits: Any) -> list[str]:
        """Keys that somebody had made by hand."""
        return [self._new(f"by hand {number}", limits).key for number in range(count)]

    def of(self, rotation: object) -> list[Kept]:
        """The keys that carry the rotation's name."""
        return [one for one in self.keys.values() if one.name.startswith(f"baatcheet {rotation} ")]

    def works(self, key: str) -> bool:
        return any(one.key == key for one in self.keys.values())

    def _new(self, name: str, limits: dict[str, Any]) -> Kept:
        key = f"sk-or-v1-{secrets.token_hex(32)}"
        made = Kept(hashlib.sha256(key.encode()).hexdigest(), name, key, limits)
        self.keys[made.at] = made
        return made

    @web.middleware
    async def _around(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path != "/probe":
            self.asked.append((request.method, request.path_qs))
            wanted = PROVISIONING_KEY if request.path.startswith("/openrouter/") else ADMIN_KEY
            if request.headers.get("authorization") != f"Bearer {wanted}":
                return web.json_response({"error": {"message": "no", "code": 401}}, status=401)
            if self.failures:
                return web.json_response({"error": {"message": "no"}}, status=self.failures.pop(0))
        answer: web.StreamResponse = await handler(request)
        if self.lose_answers and request.method == "POST":
            self.lose_answers = False
            assert request.transport is not None
            request.transport.abort()
        return answer

    async def _probe(self, request: web.Request) -> web.Response:
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        found = next((one for one in self.keys.values() if one.key == key), None)
        refused = found is None or (self.refuse_new and found.name.startswith("baatcheet "))
        return web.json_response({}, status=401 if refused else 200)

    # OpenRouter --------------------------------------------------------------------------------------------

    def _shown(self, one: Kept) -> dict[str, Any]:
        label = f"{one.key[:12]}...{one.key[-3:]}"
        return {
            "hash": one.at,
            "name": one.name,
            "label": label,
            "disabled": False,
            "limit": None,
        } | one.limits

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        one = self._new(body.pop("name"), body)
        return web.json_response({"data": self._shown(one), "key": one.key}, status=201)

    async def _list(self, request: web.Request) -> web.Response:
        offset = int(request.query.get("offset", "0"))
        page = list(self.keys.values())[offset : offset + 2]  # theirs has 100
        return web.json_response({"data": [self._shown(one) for one in page]})

    async def _get(self, request: web.Request) -> web.Response:
        one = self.keys.get(request.match_info["at"])
        if one is None:
            return web.json_response({"error": {"message": "Not found", "code": 404}}, status=404)
        return web.json_response({"data": self._shown(one)})

    async def _delete(self, request: web.Request) -> web.Response:
        if self.keys.pop(request.match_info["at"], None) is None:
            return web.json_response({"error": {"message": "Not found", "code": 404}}, status=404)
        return web.json_response({"deleted": True})

    # OpenAI ------------------------------------------------------------------------------------------------

    def _account(self, one: Kept) -> dict[str, Any]:
        kind = "organization.project.service_account"
        return {"object": kind, "id": one.at, "name": one.name, "role": "member", "created_at": 1711471533}

    async def _create_account(self, request: web.Request) -> web.Response:
        if request.match_info["project"] != PROJECT:
            return web.json_response({"error": {"message": "no such project"}}, status=404)
        one = self._new((await request.json())["name"], {})
        key = {
            "object": "organization.project.service_account.api_key",
            "value": one.key,
            "name": "Secret Key",
            "created_at": 1711471533,
            "id": "key_abc",
        }
        return web.json_response(self._account(one) | {"api_key": key})

    async def _list_accounts(self, request: web.Request) -> web.Response:
        ids = list(self.keys)
        after = request.query.get("after")
        begin = ids.index(after) + 1 if after is not None else 0
        page = ids[begin : begin + 2]  # a smaller page than was asked for
        listed = {"object": "list", "data": [self._account(self.keys[at]) for at in page]}
        last = page[-1] if page else None
        return web.json_response(listed | {"last_id": last, "has_more": begin + 2 < len(ids)})

    async def _delete_account(self, request: web.Request) -> web.Response:
        at = request.match_info["at"]
        if self.keys.pop(at, None) is None:
            return web.json_response({"error": {"message": "no such account"}}, status=404)
        kind = "organization.project.service_account.deleted"
        return web.json_response({"object": kind, "id": at, "deleted": True})
