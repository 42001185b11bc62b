"""A provider's keys: which are used, when they are asked for, and what happens while the provider is away."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession
from cryptography.hazmat.primitives.asymmetric import ec, ed448

from baatcheet.auth.oidc.key_sets import (
    LARGEST,
    IdentityProviderAway,
    KeySet,
    read_key_set,
)
from baatcheet.platform.errors import Unauthenticated
from baatcheet.platform.http import client_session
from baatcheet.platform.settings import OidcProvider
from tests.auth.oidc.fake_provider import (
    DISCOVERY,
    JWKS,
    FakeProvider,
    ec_key,
    ed_key,
    jwk_of,
    rsa_key,
)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def fake() -> Iterator[FakeProvider]:
    with FakeProvider() as provider:
        yield provider


@pytest_asyncio.fixture
async def session() -> AsyncIterator[ClientSession]:
    async with client_session() as opened:
        yield opened


@pytest.fixture
def clock() -> Clock:
    return Clock()


def key_set(fake: FakeProvider, session: ClientSession, clock: Clock, **fields: Any) -> KeySet:
    provider = OidcProvider.model_validate({"issuer": fake.issuer, "audiences": ("ours",)} | fields)
    return KeySet(provider, session, clock=clock, seconds=2.0)


def document(*keys: Any) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


def test_every_kind_of_key_is_used_with_its_own_algorithms_only() -> None:
    keys = read_key_set(
        document(
            jwk_of(rsa_key(), kid="r"),
            jwk_of(rsa_key(), kid="ps", alg="PS256"),
            jwk_of(ec_key(), kid="e"),
            jwk_of(ec_key(ec.SECP384R1), kid="e3"),
            jwk_of(ec_key(ec.SECP521R1), kid="e5"),
            jwk_of(ed_key(), kid="d"),
        )
    )
    assert {key.name: sorted(key.algorithms) for key in keys} == {
        "r": ["PS256", "PS384", "PS512", "RS256", "RS384", "RS512"],
        "ps": ["PS256"],
        "e": ["ES256"],
        "e3": ["ES384"],
        "e5": ["ES512"],
        "d": ["EdDSA"],
    }


@pytest.mark.parametrize(
    "bad",
    [
        {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQ", "kid": "x"},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "x", "alg": "HS256"},
        jwk_of(rsa_key(9, 1024), kid="x"),
        jwk_of(ec_key(ec.SECP256K1), kid="x"),
        jwk_of(ec_key(), kid="x", alg="RS256"),
        jwk_of(ec_key(), kid="x", alg="none"),
        jwk_of(ec_key(), kid="x", use="enc"),
        jwk_of(ec_key(), kid="x", key_ops=["encrypt"]),
        jwk_of(ec_key(), kid=7),
        jwk_of(ec_key(), kid="x" * 513),
        jwk_of(ec_key(), kid="x") | {"x": "AAAA"},
        jwk_of(ec_key(), kid="x") | {"y": 7},
        jwk_of(ed_key(), kid="x") | {"x": "not base64 !"},
        jwk_of(rsa_key(), kid="x") | {"e": ""},
        jwk_of(rsa_key(), kid="x") | {"n": "AA"},
        {"kty": "OKP", "crv": "Ed448", "x": "A" * 76, "kid": "x"},
        {"kty": ["RSA"]},
        {},
        7,
        None,
    ],
)
def test_a_key_that_is_no_good_is_passed_over(bad: Any) -> None:
    good = jwk_of(ed_key(), kid="good")
    assert [key.name for key in read_key_set(document(bad, good))] == ["good"]


def test_a_private_part_that_was_published_by_mistake_is_not_used() -> None:
    private = ed_key()
    [key] = read_key_set(document(jwk_of(private, kid="x", d="A" * 43)))
    assert not hasattr(key.key, "sign")
    assert not isinstance(key.key, ed448.Ed448PublicKey)


@pytest.mark.parametrize(
    "bad", [b"", b"[]", b"{}", b'{"keys": {}}', b'{"keys": []}', b"<html>", b"[" * 50_000]
)
def test_what_is_no_key_set_is_refused(bad: bytes) -> None:
    with pytest.raises(ValueError, match=r"has no|is not"):
        read_key_set(bad)


async def test_keys_are_found_by_way_of_the_discovery_document(
    fake: FakeProvider, session: ClientSession, clock: Clock
) -> None:
    keys = key_set(fake, session, clock)
    [key] = await keys.keys_for("first", "EdDSA", 0)
    assert key.name == "first"
    await keys.keys_for("first", "EdDSA", 0)
    assert fake.asked == {DISCOVERY: 1, JWKS: 1}
    clock.now += 60
    await keys.refresh()
    assert fake.asked == {DISCOVERY: 1, JWKS: 2}


async def test_with_the_keys_address_given_nothing_is_discovered(
    fake: FakeProvider, session: ClientSession, clock: Clock
) -> None:
    keys = key_set(fake, session, clock, jwks_uri=fake.issuer + JWKS)
    assert await keys.keys_for("first", "EdDSA", 0)
    assert fake.asked == {JWKS: 1}


async def test_a_token_that_names_no_key_is_taken_where_there_is_no_choice(
    fake: FakeProvider, session: ClientSession, clock: Clock
) -> None:
    keys = key_set(fake, session, clock)
    assert len(await keys.keys_for(None, "EdDSA", 0)) == 1
    fake.add("second", ed_key(), "EdDSA")
    clock.now += 60
    await keys.refresh()
    with pytest.raises(Unauthenticated):
        await keys.keys_for(None, "EdDSA", 0)


async def test_a_new_key_is_fetched_when_a_token_names_it(
    fake: FakeProvider, session: ClientSession, clock: Clock
) -> None:
    keys = key_set(fake, session, clock)
    await keys.refresh()
    fake.add("second", ec_key(), "ES256")
    clock.now += 60
    assert await keys.keys_for("second", "ES256", time.time())
    fake.withdraw("first")
    clock.now += 60
    await keys.refresh()
    with pytest.raises(Unauthenticated):
        await keys.keys_for("first", "EdDSA", 0)


async def test_made_up_names_do_not_make_us_ask_all_the_time(
    fake: FakeProvider, session: ClientSession, clock: Clock
) -> None:
    keys = key_set(fake, session, clock)
    for number in range(30):
        with pytest.raises(Unauthenticated):
            await keys.keys_for(f"../../{number}", "EdDSA", 0)
        with pytest.raises(Unauthenticated):
            await keys.keys_for("http://127.0.0.1:1/keys", "EdDSA", 0)
    assert fake.asked == {DISCOVERY: 1, JWKS: 1}
    clock.now += 6
    with pytest.raises(Unauthenticated):
        await keys.keys_for("x", "EdDSA", 0)
    assert fake.asked[JWKS] == 2


async def test_a_key_that_may_be_newer_than_the_last_look_is_asked_for_later_and_not_refused(
    fake: FakeProvider, session: ClientSession, clock: Clock
) -> None:
    keys = key_set(fake, session, clock)
    await keys.refresh()
    fake.add("second", ed_key(), "EdDSA")
    with pytest.raises(IdentityProviderAway) as later:
        await keys.keys_for("second", "EdDSA", time.time() + 1)
    assert 1 <= int(later.value.headers["retry-after"]) <= 5
    clock.now += 5
    assert await keys.keys_for("second", "EdDSA", time.time() + 1)


async def test_however_many_wait_the_provider_is_asked_once(
    fake: FakeProvider, session: ClientSession, clock: Clock
) -> None:
    fake.delay = 0.1
    keys = key_set(fake, session, clock)
    waiting = [asyncio.create_task(keys.keys_for("first", "EdDSA", 0)) for _ in range(100)]
    await asyncio.sleep(0.05)
    waiting[0].cancel()
    found = await asyncio.gather(*waiting[1:])
    assert all(found)
    assert fake.asked == {DISCOVERY: 1, JWKS: 1}


async def test_while_the_provider_is_away_known_keys_go_on_and_others_are_not_told_from_wrong_ones(
    fake: FakeProvider, session: ClientSession, clock: Clock
) -> None:
    keys = key_set(fake, session, clock)
    await keys.refresh()
    fake.status = 500
    clock.now += 60
    with pytest.raises(IdentityProviderAway) as away:
        await keys.keys_for("second", "EdDSA", 0)
    assert away.value.status == 503
    assert int(away.value.headers["retry-after"]) >= 1
    asked = fake.asked.total()
    with pytest.raises(IdentityProviderAway):  # nor is it asked at once again
        await keys.keys_for("second", "EdDSA", 0)
    assert fake.asked.total() == asked
    assert await keys.keys_for("first", "EdDSA", 0)
    fake.status = 200
    fake.add("second", ed_key(), "EdDSA")
    clock.now += 6
    assert await keys.keys_for("second", "EdDSA", 0)


@pytest.mark.parametrize(
    "change",
    [
        {"status": 302, "headers": {"location": "http://127.0.0.1:1/"}},
        {"status": 404},
        {"delay": 2.5},
        {"body": b"x" * (LARGEST + 1)},
        {"body": b" " * (8 * 1024 * 1024) + b"{}"},
        {"body": b"<html>"},
        {"body": b'{"keys": []}'},
        {"headers": {"content-encoding": "gzip"}},
        {"discovery": {"issuer": "https://other.example.com"}},
        {"discovery": {"jwks_uri": "http://192.0.2.1/keys"}},
        {"discovery": {"jwks_uri": "file:///etc/passwd"}},
        {"discovery": {"jwks_uri": "https://user:word@id.example.com/keys"}},
        {"discovery": {"jwks_uri": ["x"]}},
        {"discovery": {"jwks_uri": None}},
    ],
)
async def test_an_answer_that_is_no_good_counts_as_none(
    fake: FakeProvider, session: ClientSession, clock: Clock, change: dict[str, Any]
) -> None:
    keys = key_set(fake, session, clock)
    await keys.refresh()
    for name, value in change.items():
        setattr(fake, name, value)
    clock.now += 2 * 3600  # so that the discovery document is read again, too
    with pytest.raises(IdentityProviderAway):
        await keys.refresh()
    assert await keys.keys_for("first", "EdDSA", 0)


async def test_a_redirect_is_not_followed(fake: FakeProvider, session: ClientSession, clock: Clock) -> None:
    with FakeProvider() as elsewhere:
        fake.status, fake.headers = 302, {"location": elsewhere.issuer + JWKS}
        with pytest.raises(IdentityProviderAway):
            await key_set(fake, session, clock, jwks_uri=fake.issuer + JWKS).refresh()
        assert not elsewhere.asked


async def test_a_set_that_is_too_large_is_not_read_even_if_it_is_right(
    fake: FakeProvider, session: ClientSession, clock: Clock
) -> None:
    fake.body = document(*fake.published.values()) + b" " * LARGEST
    with pytest.raises(IdentityProviderAway):
        await key_set(fake, session, clock).refresh()


async def test_a_discovered_address_with_a_password_is_not_asked(
    fake: FakeProvider, session: ClientSession, clock: Clock
) -> None:
    fake.discovery = {"jwks_uri": fake.issuer.replace("//", "//user:word@") + JWKS}
    with pytest.raises(IdentityProviderAway):
        await key_set(fake, session, clock).refresh()
    assert JWKS not in fake.asked


async def test_a_provider_that_is_not_there_is_away(session: ClientSession, clock: Clock) -> None:
    with FakeProvider() as gone:
        pass
    with pytest.raises(IdentityProviderAway):
        await key_set(gone, session, clock).keys_for("first", "EdDSA", 0)


async def test_the_set_is_kept_up_to_date_by_itself(
    fake: FakeProvider, session: ClientSession, clock: Clock
) -> None:
    keys = key_set(fake, session, clock)
    running = asyncio.create_task(keys.run(every=0.02))
    try:
        async with asyncio.timeout(10):
            while fake.asked[JWKS] < 3:
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
