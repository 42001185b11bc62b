"""Guessing tokens over HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from baatcheet.auth.guard import FailureGuard
from baatcheet.auth.oidc.claims import TokenExpired
from baatcheet.auth.rate_limits import FailureLimit
from baatcheet.platform.asgi import Frame, Receive, Scope, Send, send_json, send_problem
from baatcheet.platform.cache import Cache
from baatcheet.platform.errors import Unauthenticated
from baatcheet.platform.settings import CacheSettings, ServerSettings
from baatcheet.platform.telemetry import Metrics, Telemetry

WRONG = {"authorization": "Bearer wrong"}
EXPIRED = {"authorization": "Bearer expired"}
RIGHT = {"authorization": "Bearer right"}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """One surface raises its refusal, the other sends it."""
    if (b"authorization", b"Bearer right") in scope["headers"]:
        await send_json(send, 200, b"{}")
        return
    expired = (b"authorization", b"Bearer expired") in scope["headers"]
    refusal = TokenExpired() if expired else Unauthenticated()
    if scope["path"].startswith("/v1"):
        raise refusal
    await send_problem(scope, send, refusal)


@asynccontextmanager
async def client_from(address: str) -> AsyncIterator[httpx.AsyncClient]:
    limit = FailureLimit(Cache(CacheSettings.model_validate({})), limit=20)
    framed = Frame(FailureGuard(app, limit), ServerSettings.model_validate({}), Telemetry(Metrics()))
    transport = httpx.ASGITransport(framed, client=(address, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        yield client


@pytest.mark.parametrize("path", ["/v1/models", "/api/v1/me"])
async def test_too_many_wrong_tokens_are_answered_429_in_the_surfaces_shape(path: str) -> None:
    async with client_from("192.0.2.1") as client:
        answers = [await client.get(path, headers=WRONG) for _ in range(25)]
        assert [answer.status_code for answer in answers] == [401] * 20 + [429] * 5
        assert int(answers[-1].headers["retry-after"]) > 0
        told = answers[-1].json()
        assert (
            told["error"]["type"] == "rate_limit_error" if path.startswith("/v1") else told["status"] == 429
        )


async def test_a_right_token_passes_whoever_guesses_beside_it() -> None:
    async with client_from("192.0.2.1") as client:
        for _ in range(25):
            await client.get("/v1/models", headers=WRONG)
        assert (await client.get("/v1/models", headers=RIGHT)).status_code == 200


async def test_no_token_at_all_is_not_a_guess() -> None:
    async with client_from("192.0.2.1") as client:
        assert {(await client.get("/v1/models")).status_code for _ in range(30)} == {401}


@pytest.mark.parametrize("path", ["/v1/models", "/api/v1/me"])
async def test_a_token_that_was_right_until_it_expired_is_not_a_guess(path: str) -> None:
    async with client_from("192.0.2.1") as client:
        answers = [await client.get(path, headers=EXPIRED) for _ in range(30)]
        assert {answer.status_code for answer in answers} == {401}
        assert "invalid_token" in answers[0].headers["www-authenticate"]


async def test_this_machine_is_not_counted() -> None:
    async with client_from("127.0.0.1") as client:
        assert {(await client.get("/v1/models", headers=WRONG)).status_code for _ in range(30)} == {401}
