"""Vault's own: how it is signed in to, how the lease is kept alive, and what its one document may look like.

Against the fake of fake_vault.py, by the real hvac, over real HTTP.
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr

from baatcheet.keys.secret import SecretKey
from baatcheet.keys.stores import vault_session
from baatcheet.keys.stores.model import (
    StoreChanged,
    StoreMalformed,
    StoreRefused,
    StoreUnavailable,
)
from baatcheet.keys.stores.vault import VaultStore
from baatcheet.keys.stores.vault_session import AppRoleAuth, KubernetesAuth, SignIn, TokenAuth
from baatcheet.platform.redaction import redact
from tests.keys.stores.benches_of_services import PATH, VaultBench
from tests.keys.stores.fake_vault import FakeVault

ROLE_ID = SecretStr("role-0123456789")
SECRET_ID = SecretStr("secret-of-the-role-0123456789")


def approle(mount: str = "approle") -> AppRoleAuth:
    return AppRoleAuth(ROLE_ID, SECRET_ID, mount)


def keys(*texts: str) -> tuple[SecretKey, ...]:
    return tuple(SecretKey(text) for text in texts)


NewStore = Callable[..., VaultStore]


@pytest_asyncio.fixture
async def stores(vault: VaultBench) -> AsyncIterator[NewStore]:
    vault.vault.roles["approle", ROLE_ID.get_secret_value()] = SECRET_ID.get_secret_value()
    await vault.put("groq", ["gsk_one"])
    async with contextlib.AsyncExitStack() as stack:

        def new(sign_in: SignIn | None = None, namespace: str | None = None) -> VaultStore:
            store = vault.store(sign_in, namespace)
            stack.push_async_callback(store.close)
            return store

        yield new


async def fetched(store: VaultStore, provider: str = "groq") -> list[str]:
    return [key.reveal() for key in (await store.fetch([provider]))[provider].keys]


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "written",
    [
        ["gsk_one", "gsk_two"],
        "gsk_one,gsk_two",
        "gsk_one, gsk_two,",
        "gsk_one\ngsk_two\n",
        "\r\ngsk_one\r\n\r\ngsk_two",
        ["gsk_one", " gsk_two\n", "gsk_one"],
    ],
)
async def test_a_set_may_be_a_list_or_one_text(vault: VaultBench, stores: NewStore, written: object) -> None:
    await vault.write({"groq": written})
    assert await fetched(stores()) == ["gsk_one", "gsk_two"]


@pytest.mark.parametrize(
    "written", [7, None, {"key": "gsk_canary"}, ["gsk_canary", 7], ["gsk canary"], [""], "gsk_canary\x00"]
)
async def test_what_is_no_set_is_named_with_its_entry_and_not_repeated(
    vault: VaultBench, stores: NewStore, written: object
) -> None:
    await vault.write({"groq": written})
    with pytest.raises(StoreMalformed, match="'secret/data/baatcheet/api-keys', entry 'groq'") as caught:
        await stores().fetch(["groq"])
    assert "canary" not in str(caught.value)


async def test_entries_of_others_stay_as_they_are(vault: VaultBench, stores: NewStore) -> None:
    others = {"note": {"owner": "team-a"}, "openrouter": "sk-or-one,sk-or-two"}
    await vault.write(others)
    store = stores()
    await store.promote("groq", await store.stage("groq", keys("gsk_two")))
    assert vault.vault.document(PATH) == {**others, "groq": ["gsk_two"], "groq.previous": ["gsk_one"]}


async def test_a_promotion_is_one_write(vault: VaultBench, stores: NewStore) -> None:
    store = stores()
    version = await store.stage("groq", keys("gsk_two"))
    before = vault.vault.count("POST " + PATH)
    await store.promote("groq", version)
    assert vault.vault.count("POST " + PATH) == before + 1


async def test_what_an_operator_changes_between_the_look_and_the_write_is_not_lost(
    vault: VaultBench, stores: NewStore
) -> None:
    store = stores()
    load = store._load
    done: list[bool] = []

    def load_and_let_others_write() -> Any:
        document = load()
        if not done:
            done.append(True)
            vault.vault.write(PATH, {"groq": ["gsk_of_an_operator"]})
        return document

    store._load = load_and_let_others_write  # type: ignore[method-assign]
    with pytest.raises(StoreChanged, match="groq"):
        await store.replace("groq", keys("gsk_two"))
    assert await fetched(store) == ["gsk_of_an_operator"]


@pytest.mark.parametrize("action", ["replace", "stage", "promote", "roll_back"])
async def test_a_write_whose_answer_is_lost_is_made_once(
    vault: VaultBench, stores: NewStore, action: str
) -> None:
    store = stores()
    current = await store.promote("groq", await store.stage("groq", keys("gsk_two")))
    staged = await store.stage("groq", keys("gsk_three"))
    vault.vault.lose_answers = 1
    match action:
        case "replace":
            await store.replace("groq", keys("gsk_four"))
            expected = (["gsk_four"], ["gsk_two"], ["gsk_three"])
        case "stage":
            await store.stage("groq", keys("gsk_four"))
            expected = (["gsk_two"], ["gsk_one"], ["gsk_four"])
        case "promote":
            await store.promote("groq", staged)
            expected = (["gsk_three"], ["gsk_two"], [])
        case _:
            await store.roll_back("groq", current)
            expected = (["gsk_one"], ["gsk_two"], ["gsk_three"])
    assert vault.vault.lose_answers == 0
    document = vault.vault.document(PATH)
    sets = tuple(document.get(entry, []) for entry in ("groq", "groq.previous", "groq.pending"))
    assert sets == expected


async def test_a_secret_that_was_deleted_is_empty_and_can_be_written(
    vault: VaultBench, stores: NewStore
) -> None:
    store = stores()
    secret = vault.vault.secrets["", "secret", "baatcheet/api-keys"]
    for destroyed in (False, True):
        secret.versions[-1] = None
        if destroyed:
            secret.destroyed.add(len(secret.versions))
        assert dict(await store.fetch(["groq"])) == {}
        await store.replace("groq", keys("gsk_two"))
        assert await fetched(store) == ["gsk_two"]


async def test_a_mount_that_is_not_there_is_told_how_to_be_made(vault: VaultBench, stores: NewStore) -> None:
    vault.vault.mounts.clear()
    with pytest.raises(StoreMalformed, match="vault secrets enable -path=secret -version=2 kv"):
        await stores().fetch(["groq"])


async def test_another_server_in_vaults_place_is_told(vault: VaultBench, stores: NewStore) -> None:
    with vault.vault.knob(not_vault=True):
        with pytest.raises(StoreUnavailable, match="not as Vault does"):
            await stores(approle()).fetch(["groq"])
        with pytest.raises(StoreUnavailable, match="not as Vault does"):
            await stores().fetch(["groq"])


async def test_a_policy_that_lacks_a_capability_is_named(vault: VaultBench, stores: NewStore) -> None:
    reader = vault.vault.token(seconds=60, capabilities=frozenset({"read"}))
    store = stores(TokenAuth(SecretStr(reader.text)))
    assert await fetched(store) == ["gsk_one"]
    with pytest.raises(StoreRefused, match=f"capability `update` on `{PATH}`"):
        await store.replace("groq", keys("gsk_two"))
    reader.capabilities = frozenset()
    with pytest.raises(StoreRefused, match=f"capability `read` on `{PATH}`"):
        await store.fetch(["groq"])


async def test_a_namespace_is_named_in_every_request(vault: VaultBench, stores: NewStore) -> None:
    theirs = vault.vault.token("team-a")
    vault.vault.write(PATH, {"groq": "gsk_of_team_a"}, "team-a")
    store = stores(TokenAuth(SecretStr(theirs.text)), "team-a")
    assert await fetched(store) == ["gsk_of_team_a"]
    await store.replace("groq", keys("gsk_two"))
    assert vault.vault.document(PATH, "team-a")["groq"] == ["gsk_two"]
    assert vault.vault.document(PATH)["groq"] == "gsk_one"
    assert await fetched(stores(approle(), "team-a")) == ["gsk_two"]
    with pytest.raises(StoreRefused):
        await stores(TokenAuth(SecretStr(theirs.text))).fetch(["groq"])


async def test_a_token_without_an_end_is_never_renewed(vault: VaultBench, stores: NewStore) -> None:
    store = stores()
    assert await fetched(store) == ["gsk_one"]
    assert store._session.due is None
    assert store._keeping is None


async def test_a_token_that_may_not_look_at_itself_is_used(vault: VaultBench, stores: NewStore) -> None:
    blind = vault.vault.token(seconds=60, sees_itself=False)
    assert await fetched(stores(TokenAuth(SecretStr(blind.text)))) == ["gsk_one"]


async def test_a_token_is_renewed_before_its_lease_ends_without_a_request(
    vault: VaultBench, stores: NewStore
) -> None:
    token = vault.vault.token(seconds=1.8)
    store = stores(TokenAuth(SecretStr(token.text)))
    assert await fetched(store) == ["gsk_one"]
    await until(lambda: vault.vault.count("renew-self") >= 3)
    assert token.left > 0
    assert await fetched(store) == ["gsk_one"]


async def test_a_token_that_cannot_be_renewed_is_used_to_its_end_and_then_told_of(
    vault: VaultBench, stores: NewStore
) -> None:
    token = vault.vault.token(seconds=0.6, renewable=False)
    store = stores(TokenAuth(SecretStr(token.text)))
    assert await fetched(store) == ["gsk_one"]
    await until(lambda: token.left <= 0)
    with pytest.raises(StoreRefused, match="give another one as VAULT_TOKEN"):
        await store.fetch(["groq"])
    assert vault.vault.count("renew-self") == 0


@pytest.mark.parametrize("renewable", [True, False])
async def test_a_lease_that_has_lapsed_is_had_anew(
    vault: VaultBench, stores: NewStore, renewable: bool
) -> None:
    with vault.vault.knob(renewable=renewable):
        store = stores(approle())
        assert await fetched(store) == ["gsk_one"]
        vault.vault.revoke_all()
        assert await fetched(store) == ["gsk_one"]
        assert vault.vault.count("auth/approle/login") == 2
        vault.vault.revoke_all()
        await store.replace("groq", keys("gsk_two"))
    assert vault.vault.document(PATH)["groq"] == ["gsk_two"]


async def test_what_cannot_be_renewed_is_signed_in_for_again_before_its_end(
    vault: VaultBench, stores: NewStore
) -> None:
    with vault.vault.knob(renewable=False, lease=1.8):
        store = stores(approle())
        assert await fetched(store) == ["gsk_one"]
        await until(lambda: vault.vault.count("auth/approle/login") >= 3)
        assert await fetched(store) == ["gsk_one"]
    assert vault.vault.count("renew-self") == 0


async def test_a_token_near_its_longest_lifetime_is_replaced(vault: VaultBench, stores: NewStore) -> None:
    with vault.vault.knob(lease=3.0, longest=4.5):
        store = stores(approle())
        assert await fetched(store) == ["gsk_one"]
        first = next(one for one in vault.vault.tokens.values() if one.ends is not None)
        await until(lambda: vault.vault.count("auth/approle/login") >= 2)
        assert first.left > 0
        assert await fetched(store) == ["gsk_one"]
    assert vault.vault.count("renew-self") >= 1


async def test_a_renewal_outlives_a_sealed_vault(vault: VaultBench, stores: NewStore) -> None:
    with vault.vault.knob(lease=1.8):
        store = stores(approle())
        assert await fetched(store) == ["gsk_one"]
        vault.vault.sealed = True
        await until(lambda: vault.vault.count("renew-self") >= 2)
        with pytest.raises(StoreUnavailable, match="sealed or in maintenance"):
            await store.fetch(["groq"])
        vault.vault.revoke_all()
        vault.vault.sealed = False
        await until(lambda: vault.vault.count("auth/approle/login") >= 2)
    assert await fetched(store) == ["gsk_one"]
    assert store._keeping is not None
    assert not store._keeping.done()


async def test_a_renewal_that_fails_costs_nothing_while_the_token_holds(
    vault: VaultBench, stores: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stores(approle())
    assert await fetched(store) == ["gsk_one"]
    monkeypatch.setattr(store._session, "_since", store._session._since - 3000)  # five sixths of the hour
    token = next(one for one in vault.vault.tokens.values() if one.ends is not None)
    token.renewable = False
    vault.vault.roles.clear()
    assert await fetched(store) == ["gsk_one"]


async def test_approle_that_is_refused_says_what_to_check(vault: VaultBench, stores: NewStore) -> None:
    wrong = AppRoleAuth(ROLE_ID, SecretStr("another-secret-0123456789"))
    with pytest.raises(StoreRefused, match="VAULT_SECRET_ID") as caught:
        await stores(wrong).fetch(["groq"])
    assert "another-secret" not in str(caught.value)
    with pytest.raises(StoreRefused, match="mounted at auth/elsewhere"):
        await stores(approle("elsewhere")).fetch(["groq"])


async def test_kubernetes_signs_in_with_the_service_accounts_token_of_the_day(
    vault: VaultBench, stores: NewStore, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("jwt-of-monday-0123456789\n")
    vault.vault.jwts["kube", "baatcheet"] = "jwt-of-monday-0123456789"
    store = stores(KubernetesAuth("baatcheet", file, "kube"))
    assert await fetched(store) == ["gsk_one"]
    file.write_text("jwt-of-tuesday-0123456789")
    vault.vault.jwts["kube", "baatcheet"] = "jwt-of-tuesday-0123456789"
    vault.vault.revoke_all()
    assert await fetched(store) == ["gsk_one"]
    file.write_text("jwt-of-nobody-0123456789")
    vault.vault.revoke_all()
    with pytest.raises(StoreRefused, match=r"BAATCHEET_VAULT_ROLE \(baatcheet\)") as caught:
        await store.fetch(["groq"])
    assert "jwt-of-nobody" not in str(caught.value)
    assert "jwt-of-nobody" not in redact("jwt-of-nobody-0123456789")
    file.unlink()
    with pytest.raises(StoreRefused, match="BAATCHEET_VAULT_JWT_FILE"):
        await store.fetch(["groq"])


async def test_a_token_that_vault_gives_is_kept_out_of_logs(vault: VaultBench, stores: NewStore) -> None:
    store = stores(approle())
    await store.fetch(["groq"])
    token = next(one.text for one in vault.vault.tokens.values() if one.ends is not None)
    assert token not in redact(f"the token {token} is here")
    assert token not in repr(vars(store._session))


async def test_a_standby_node_redirects_to_the_active_one(vault: VaultBench, stores: NewStore) -> None:
    with FakeVault() as standby:
        standby.redirect_to = vault.address
        store = VaultStore(standby.address, PATH, approle(), timeout=1)
        assert await fetched(store) == ["gsk_one"]
        await store.replace("groq", keys("gsk_two"))
        assert vault.vault.document(PATH)["groq"] == ["gsk_two"]
        await store.close()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A file with a certificate for 127.0.0.1 that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vault")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "vault.pem"
    file.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return file


async def test_a_certificate_is_verified_and_tls_never_left(
    vault: VaultBench, stores: NewStore, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with FakeVault(context) as tls:
        tls.write(PATH, {"groq": "gsk_by_tls"})
        sign_in = TokenAuth(SecretStr(tls.token().text))
        distrusting = VaultStore(tls.address, PATH, sign_in, timeout=1)
        with pytest.raises(StoreUnavailable, match="VAULT_CACERT"):
            await distrusting.fetch(["groq"])
        await distrusting.close()
        monkeypatch.setattr(vault_session, "VAULT_CACERT", str(certificate))
        trusting = VaultStore(tls.address, PATH, sign_in, timeout=1)
        assert await fetched(trusting) == ["gsk_by_tls"]
        tls.redirect_to = vault.address
        asked = len(vault.vault.asked)
        with pytest.raises(StoreUnavailable, match="redirects away from TLS"):
            await trusting.fetch(["groq"])
        assert len(vault.vault.asked) == asked
        await trusting.close()


async def test_the_renewal_ends_with_the_store(vault: VaultBench) -> None:
    vault.vault.roles["approle", ROLE_ID.get_secret_value()] = SECRET_ID.get_secret_value()
    store = vault.store(approle())
    await store.fetch(["groq"])
    renewal = store._keeping
    assert renewal is not None
    assert not renewal.done()
    await store.close()
    assert renewal.done()
