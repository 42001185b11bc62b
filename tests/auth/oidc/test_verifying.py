"""Tokens that somebody made up, changed, or took from elsewhere."""

import hmac
import json
import time
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator, Callable, Iterator
from hashlib import sha256
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from baatcheet.auth.oidc.claims import TokenExpired
from baatcheet.auth.oidc.key_sets import IdentityProviderAway, KeySet
from baatcheet.auth.oidc.verifying import LONGEST, Verifier, looks_signed, providers_of
from baatcheet.platform.errors import Unauthenticated
from baatcheet.platform.http import client_session
from baatcheet.platform.settings import AuthSettings, SettingsError, load
from tests.auth.oidc.fake_provider import (
    AUDIENCE,
    JWKS,
    FakeProvider,
    PrivateKey,
    ec_key,
    ed_key,
    jwk_of,
    part,
    rsa_key,
    sign,
)


@pytest.fixture
def fake() -> Iterator[FakeProvider]:
    with FakeProvider() as provider:
        yield provider


def settings_for(*providers: FakeProvider, **fields: Any) -> AuthSettings:
    described = [{"issuer": one.issuer, "audiences": [AUDIENCE], **fields} for one in providers]
    return load({"BAATCHEET_OIDC_PROVIDERS": json.dumps(described)}, dotenv=None).auth


@pytest_asyncio.fixture
async def verifier(fake: FakeProvider) -> AsyncIterator[Verifier]:
    async with client_session() as session:
        yield Verifier(providers_of(settings_for(fake)), session)


async def refusal(verifier: Verifier, token: str) -> str:
    with pytest.raises(Unauthenticated) as refused:
        await verifier.verify(token)
    return refused.value.detail


@pytest.mark.parametrize(
    "algorithm",
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "EdDSA"],
)
async def test_a_good_token_has_a_holder_however_it_is_signed(
    fake: FakeProvider, verifier: Verifier, algorithm: str
) -> None:
    makers: dict[str, Callable[[], PrivateKey]] = {"R": rsa_key, "P": rsa_key, "E": ec_key}
    key = ed_key() if algorithm == "EdDSA" else makers[algorithm[0]]()
    fake.add("k", key, algorithm)
    holder = await verifier.verify(fake.token("k", sub="u-7"))
    assert (holder.issuer, holder.subject) == (fake.issuer, "u-7")
    assert looks_signed(fake.token("k"))


async def test_a_token_that_is_not_signed_lets_nobody_in(fake: FakeProvider, verifier: Verifier) -> None:
    good = fake.token()
    _, payload, signature = good.split(".")
    for algorithm in ("none", "None", "NONE", "", None, ["EdDSA"], "nOnE"):
        head = part({"alg": algorithm, "kid": "first"})
        assert await refusal(verifier, f"{head}.{payload}.{signature}")
    assert await refusal(verifier, f"{part({'alg': 'none'})}.{payload}.")
    assert await refusal(verifier, f"{payload}.{signature}")


async def test_a_public_key_is_no_secret_to_sign_with(fake: FakeProvider, verifier: Verifier) -> None:
    fake.add("r", rsa_key(), "RS256")
    public = rsa_key().public_key()
    for form in (PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1):
        for secret in (public.public_bytes(Encoding.PEM, form), public.public_bytes(Encoding.DER, form)):
            said = f"{part({'alg': 'HS256', 'kid': 'r'})}.{part(fake.claims())}"
            forged = f"{said}.{part(hmac.digest(secret, said.encode(), sha256))}"
            assert "not signed in a way" in await refusal(verifier, forged)


async def test_a_secret_in_the_key_set_is_not_used(fake: FakeProvider, verifier: Verifier) -> None:
    fake.published["s"] = {"kty": "oct", "kid": "s", "k": part(b"x" * 32), "alg": "HS256"}
    assert await refusal(verifier, sign(fake.claims(), b"x" * 32, "HS256", {"kid": "s"}))


async def test_a_key_is_used_with_its_own_algorithm_only(fake: FakeProvider, verifier: Verifier) -> None:
    fake.add("r", rsa_key(), "RS256")
    assert (await verifier.verify(sign(fake.claims(), rsa_key(), "RS256", {"kid": "r"}))).subject
    assert await refusal(verifier, sign(fake.claims(), rsa_key(), "PS256", {"kid": "r"}))
    assert await refusal(verifier, sign(fake.claims(), rsa_key(), "RS512", {"kid": "r"}))


async def test_only_the_algorithms_that_are_set_are_taken(fake: FakeProvider) -> None:
    async with client_session() as session:
        only = Verifier(providers_of(settings_for(fake, algorithms=["RS256"])), session)
        fake.add("r", rsa_key(), "RS256")
        assert (await only.verify(fake.token("r"))).subject
        assert await refusal(only, fake.token())


async def test_keys_and_addresses_in_a_token_are_never_looked_at(
    fake: FakeProvider, verifier: Verifier
) -> None:
    mine = ed_key()
    with FakeProvider() as evil:
        evil.add("first", mine, "EdDSA")
        for header in (
            {"jwk": jwk_of(mine)},
            {"jku": evil.issuer + JWKS},
            {"x5u": evil.issuer + "/cert"},
            {"x5c": ["AAAA"]},
            {"kid": evil.issuer + JWKS},
            {"kid": "../../../../dev/null"},
            {"kid": "first' OR '1'='1"},
            {"kid": "first\x00"},
        ):
            forged = sign(fake.claims(), mine, "EdDSA", {"kid": "first", **header})
            assert await refusal(verifier, forged)
            # They do a good token no harm.
            if "kid" not in header:
                assert (await verifier.verify(fake.token(header=header))).subject
        assert not evil.asked


async def test_a_keys_name_that_is_no_text_is_refused(fake: FakeProvider, verifier: Verifier) -> None:
    _, payload, signature = fake.token().split(".")
    for name in (7, ["first"], {"first": 1}, True, "x" * 513):
        head = part({"alg": "EdDSA", "kid": name})
        assert await refusal(verifier, f"{head}.{payload}.{signature}")


async def test_a_changed_token_is_refused(fake: FakeProvider, verifier: Verifier) -> None:
    head, _, signature = fake.token().split(".")
    assert "signature" in await refusal(verifier, f"{head}.{part(fake.claims(sub='boss'))}.{signature}")
    assert await refusal(verifier, sign(fake.claims(), ed_key(), "EdDSA", {"kid": "first"}))


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "application/at+jwt", "AT+JWT"])
async def test_access_tokens_and_plain_ones_are_taken(
    fake: FakeProvider, verifier: Verifier, kind: str
) -> None:
    assert (await verifier.verify(fake.token(header={"typ": kind}))).subject


@pytest.mark.parametrize(
    "header",
    [
        {"typ": "logout+jwt"},
        {"typ": "secevent+jwt"},
        {"typ": "dpop+jwt"},
        {"typ": ["JWT"]},
        {"crit": ["exp"], "exp": 1},
        {"crit": []},
        {"b64": True},
    ],
)
async def test_what_is_something_else_or_asks_for_something_unknown_is_refused(
    fake: FakeProvider, verifier: Verifier, header: dict[str, Any]
) -> None:
    head = part({"alg": "EdDSA", "kid": "first", **header})
    said = f"{head}.{part(fake.claims())}"
    private: Any = fake.private["first"][0]
    assert await refusal(verifier, f"{said}.{part(private.sign(said.encode()))}")


async def test_odd_texts_are_refused_in_words(fake: FakeProvider, verifier: Verifier) -> None:
    good = fake.token()
    head, payload, signature = good.split(".")
    deep = part(b'{"a":' * 2000 + b"1" + b"}" * 2000)
    for odd in (
        "",
        "..",
        "a.b.c",
        good + ".x.y",
        good + "=",
        good.replace(".", ". ", 1),
        f"{deep}.{payload}.{signature}",
        f"{head}.{deep}.{signature}",
        f"{part(b'[]')}.{payload}.{signature}",
        f"{head}.{part(b'null')}.{signature}",
        f"{part(b'{')}.{payload}.{signature}",
        f"{part(bytes([0xFF, 0xFE]))}.{payload}.{signature}",
        f"{head}.{part(b'7')}.{signature}",
        f"{head}.{payload}.",
        f"{head}.{payload}.AAAA",
    ):
        assert await refusal(verifier, odd), odd


async def test_a_token_that_is_too_long_is_refused_even_if_it_is_right(
    fake: FakeProvider, verifier: Verifier
) -> None:
    assert (await verifier.verify(fake.token(groups=["g" * 100] * 80))).subject
    assert len(fake.token(groups=["g" * 100] * 200)) > LONGEST
    assert await refusal(verifier, fake.token(groups=["g" * 100] * 200))


async def test_one_issuer_cannot_speak_for_another(fake: FakeProvider) -> None:
    with FakeProvider() as other:
        async with client_session() as session:
            both = Verifier(providers_of(settings_for(fake, other)), session)
            assert (await both.verify(fake.token())).issuer == fake.issuer
            assert (await both.verify(other.token())).issuer == other.issuer
            assert await refusal(both, fake.token(iss=other.issuer))
            assert await refusal(both, other.token(iss=fake.issuer))
            for stranger in ("https://evil.example.com", fake.issuer + "/", 7, None, [fake.issuer]):
                assert "issuer" in await refusal(both, fake.token(iss=stranger))


async def test_an_expired_token_is_told_from_a_wrong_one(fake: FakeProvider, verifier: Verifier) -> None:
    now = int(time.time())
    with pytest.raises(TokenExpired):
        await verifier.verify(fake.token(iat=now - 900, exp=now - 600))
    forged = sign(fake.claims(iat=now - 900, exp=now - 600), ed_key(), "EdDSA", {"kid": "first"})
    with pytest.raises(Unauthenticated) as refused:
        await verifier.verify(forged)
    assert not isinstance(refused.value, TokenExpired)


async def test_an_outage_is_never_a_wrong_token(fake: FakeProvider, verifier: Verifier) -> None:
    fake.status = 503
    for _ in range(3):
        with pytest.raises(IdentityProviderAway) as away:
            await verifier.verify(fake.token())
        assert int(away.value.headers["retry-after"]) >= 1
    # What can be told without it is told.
    assert await refusal(verifier, fake.token(iss="https://evil.example.com"))


async def test_tokens_go_on_while_keys_are_changed(fake: FakeProvider) -> None:
    async with client_session() as session:
        verifier = Verifier(
            providers_of(settings_for(fake)),
            session,
            make_key_set=lambda provider, session: KeySet(provider, session, pause=0.0),
        )
        for number in range(5):
            name = f"k{number}"
            fake.add(name, ed_key(), "EdDSA")
            for key in list(fake.published):
                assert (await verifier.verify(fake.token(key))).subject
            fake.withdraw(next(iter(fake.published)))


def refused_settings(**variables: str) -> str:
    with pytest.raises(SettingsError) as refused:
        providers_of(load(variables, dotenv=None).auth)
    return str(refused.value)


def test_one_provider_is_described_by_plain_settings() -> None:
    [provider] = providers_of(
        load(
            {
                "BAATCHEET_OIDC_ISSUER": "https://id.example.com/",
                "BAATCHEET_OIDC_AUDIENCE": "one, two",
                "BAATCHEET_OIDC_AUTHORIZED_PARTIES": "https://app.example.com",
                "BAATCHEET_OIDC_ROLE_CLAIM": "realm_access.roles",
                "BAATCHEET_OIDC_ADMIN_ROLES": "boss",
                "BAATCHEET_OIDC_USER_ROLES": "staff",
            },
            dotenv=None,
        ).auth
    )
    assert provider.issuer == "https://id.example.com/"
    assert provider.audiences == ("one", "two")
    assert provider.admin_roles == ("boss",)
    assert providers_of(load({}, dotenv=None).auth) == ()


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"BAATCHEET_OIDC_ISSUER": "https://id.example.com"}, "BAATCHEET_OIDC_AUDIENCE"),
        ({"BAATCHEET_OIDC_AUDIENCE": "x"}, "BAATCHEET_OIDC_ISSUER"),
        (
            {"BAATCHEET_OIDC_ISSUER": "http://id.example.com", "BAATCHEET_OIDC_AUDIENCE": "x"},
            "https://",
        ),
        (
            {"BAATCHEET_OIDC_ISSUER": "https://a:b@id.example.com", "BAATCHEET_OIDC_AUDIENCE": "x"},
            "user name",
        ),
        (
            {
                "BAATCHEET_OIDC_ISSUER": "https://id.example.com",
                "BAATCHEET_OIDC_AUDIENCE": "x",
                "BAATCHEET_OIDC_ROLE_CLAIM": "roles",
            },
            "BAATCHEET_OIDC_ADMIN_ROLES",
        ),
        (
            {
                "BAATCHEET_OIDC_ISSUER": "https://id.example.com",
                "BAATCHEET_OIDC_AUDIENCE": "x",
                "BAATCHEET_OIDC_ADMIN_ROLES": "boss",
            },
            "BAATCHEET_OIDC_ROLE_CLAIM",
        ),
        (
            {
                "BAATCHEET_OIDC_ISSUER": "https://id.example.com",
                "BAATCHEET_OIDC_AUDIENCE": "x",
                "BAATCHEET_OIDC_PROVIDERS": '[{"issuer": "https://id.example.com", "audiences": ["y"]}]',
            },
            "twice",
        ),
        (
            {
                "BAATCHEET_OIDC_PROVIDERS": '[{"issuer": "https://id.example.com", "audiences": ["y"], '
                '"jwks_uri": "http://192.0.2.1/keys"}]'
            },
            "https://",
        ),
        (
            {
                "BAATCHEET_OIDC_PROVIDERS": '[{"issuer": "https://id.example.com", "audiences": ["y"], '
                '"algorithms": ["HS256"]}]'
            },
            "algorithms",
        ),
        (
            {
                "BAATCHEET_OIDC_PROVIDERS": '[{"issuer": "https://id.example.com", "audiences": ["y"], '
                '"algorithms": ["none"]}]'
            },
            "algorithms",
        ),
        ({"BAATCHEET_OIDC_PROVIDERS": '[{"issuer": "id.example.com"}]'}, "issuer"),
        ({"BAATCHEET_OIDC_PROVIDERS": "id.example.com"}, "JSON"),
    ],
)
def test_settings_that_would_let_in_too_many_or_nobody_are_refused_in_words(
    variables: dict[str, str], said: str
) -> None:
    assert said in refused_settings(**variables)


def test_a_token_of_ours_is_not_taken_for_a_providers() -> None:
    for ours in ("bc_" + "x" * 43, "a.b.c", "my.admin.token-0123456789", "eyJ.eyJ.x", ""):
        assert not looks_signed(ours)
    assert urlsafe_b64decode(part({"alg": "x"}) + "==")
    assert looks_signed(f"{part({'alg': 'x'})}.x.y")
