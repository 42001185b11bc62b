"""The stores that settings name."""

from pathlib import Path

import pytest

from baatcheet.keys.secret import SecretKey
from baatcheet.keys.stores.building import build_stores
from baatcheet.platform.settings import SettingsError, load

VAULT = {"BAATCHEET_SECRET_STORES": "vault", "VAULT_ADDR": "https://vault.example.com:8200"}


def names(environ: dict[str, str]) -> list[str]:
    settings = load(environ, dotenv=None).secrets
    return [store.name for store in build_stores(settings, {"groq": [SecretKey("gsk_one")]})]


def test_stores_come_in_the_order_that_is_written_and_each_once(tmp_path: Path) -> None:
    environ = {
        "BAATCHEET_SECRET_STORES": "aws,vault,environment,file,aws",
        "VAULT_ADDR": "https://vault.example.com:8200",
        "VAULT_TOKEN": "hvs.token-of-the-tests",
        "BAATCHEET_SECRETS_FILE": str(tmp_path / ".env.secrets"),
    }
    assert names(environ) == ["aws", "vault", "environment", "file"]


def test_without_a_word_there_are_the_file_and_the_environment() -> None:
    assert names({}) == ["file", "environment"]


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        ({"BAATCHEET_SECRET_STORES": "vault"}, "VAULT_ADDR"),
        (VAULT, "VAULT_TOKEN"),
        ({**VAULT, "BAATCHEET_VAULT_AUTH": "approle", "VAULT_ROLE_ID": "role"}, "VAULT_SECRET_ID"),
        ({**VAULT, "BAATCHEET_VAULT_AUTH": "kubernetes"}, "BAATCHEET_VAULT_ROLE"),
        ({**VAULT, "VAULT_TOKEN": "hvs.x", "VAULT_ADDR": "http://vault.example.com:8200"}, "VAULT_ADDR"),
        (
            {**VAULT, "VAULT_TOKEN": "hvs.x", "VAULT_ADDR": "https://me:hunter22@vault.example.com"},
            "VAULT_ADDR",
        ),
        (
            {"BAATCHEET_SECRET_STORES": "aws", "BAATCHEET_AWS_ENDPOINT": "http://aws.example.com"},
            "BAATCHEET_AWS_ENDPOINT",
        ),
    ],
)
def test_what_is_missing_or_unsafe_is_named(environ: dict[str, str], variable: str) -> None:
    with pytest.raises(SettingsError, match=variable) as caught:
        names(environ)
    assert "hunter22" not in str(caught.value)


@pytest.mark.parametrize("auth", ["token", "approle", "kubernetes"])
def test_each_way_of_signing_in_can_be_chosen(auth: str) -> None:
    environ = {
        **VAULT,
        "BAATCHEET_VAULT_AUTH": auth,
        "VAULT_TOKEN": "hvs.token-of-the-tests",
        "VAULT_ROLE_ID": "role",
        "VAULT_SECRET_ID": "secret",
        "BAATCHEET_VAULT_ROLE": "baatcheet",
    }
    assert names(environ) == ["vault"]


@pytest.mark.parametrize("address", ["http://127.0.0.1:8200", "http://localhost:8200"])
def test_this_machine_needs_no_tls(address: str) -> None:
    assert names({**VAULT, "VAULT_TOKEN": "hvs.x", "VAULT_ADDR": address}) == ["vault"]


def test_what_is_marked_as_insecure_needs_no_tls() -> None:
    environ = {**VAULT, "VAULT_TOKEN": "hvs.x", "VAULT_ADDR": "http://vault.internal:8200"}
    assert names({**environ, "BAATCHEET_SECRETS_ALLOW_INSECURE": "true"}) == ["vault"]
