"""The stores that the settings name, in their order of precedence."""

from collections.abc import Mapping, Sequence

from baatcheet.keys.secret import SecretKey
from baatcheet.keys.stores.aws import AwsStore
from baatcheet.keys.stores.encrypted_file import EncryptedFileStore
from baatcheet.keys.stores.environment import EnvironmentStore
from baatcheet.keys.stores.model import SecretStore
from baatcheet.keys.stores.vault import VaultStore
from baatcheet.keys.stores.vault_session import AppRoleAuth, KubernetesAuth, SignIn, TokenAuth
from baatcheet.platform.http import require_tls
from baatcheet.platform.settings import SecretSettings, SettingsError


def build_stores(
    settings: SecretSettings, environment: Mapping[str, Sequence[SecretKey]]
) -> tuple[SecretStore, ...]:
    """One store for each name, asked nothing yet. `environment`: the keys that the process was started with.

    Raises SettingsError for what a store is missing, or for an address without TLS.
    """
    return tuple(build_store(name, settings, environment) for name in dict.fromkeys(settings.stores))


def build_store(
    name: str, settings: SecretSettings, environment: Mapping[str, Sequence[SecretKey]]
) -> SecretStore:
    """The store called `name`: `environment`, `file`, `aws` or `vault`. Raises SettingsError."""
    match name:
        case "environment":
            return EnvironmentStore(environment)
        case "file":
            return EncryptedFileStore.of(settings)
        case "aws":
            if settings.aws_endpoint is not None:
                _require_tls("BAATCHEET_AWS_ENDPOINT", settings.aws_endpoint, settings)
            return AwsStore(settings.aws_region, settings.aws_endpoint, settings.aws_prefix, settings.timeout)
        case "vault":
            return _vault(settings)
        case _:
            raise SettingsError(f"BAATCHEET_SECRET_STORES: there is no store {name!r}.")


def _vault(settings: SecretSettings) -> VaultStore:
    if settings.vault_address is None:
        raise SettingsError(
            "VAULT_ADDR: the store `vault` needs Vault's address. Example: VAULT_ADDR=https://vault.example.com:8200"
        )
    _require_tls("VAULT_ADDR", settings.vault_address, settings)
    return VaultStore(
        settings.vault_address,
        settings.vault_path,
        _sign_in(settings),
        namespace=settings.vault_namespace,
        timeout=settings.timeout,
    )


def _sign_in(settings: SecretSettings) -> SignIn:
    match settings.vault_auth:
        case "token":
            if settings.vault_token is None:
                raise SettingsError(
                    "VAULT_TOKEN: the store `vault` needs a token, or another way of signing in. "
                    "Example: BAATCHEET_VAULT_AUTH=approle"
                )
            return TokenAuth(settings.vault_token)
        case "approle":
            if settings.vault_role_id is None or settings.vault_secret_id is None:
                raise SettingsError(
                    "VAULT_ROLE_ID, VAULT_SECRET_ID: signing in to Vault with AppRole needs both. They are what "
                    "`vault read auth/approle/role/baatcheet/role-id` and "
                    "`vault write -f auth/approle/role/baatcheet/secret-id` say."
                )
            mount = settings.vault_mount or "approle"
            return AppRoleAuth(settings.vault_role_id, settings.vault_secret_id, mount)
        case "kubernetes":
            if settings.vault_role is None:
                raise SettingsError(
                    "BAATCHEET_VAULT_ROLE: signing in to Vault with Kubernetes needs the role's name. "
                    "Example: BAATCHEET_VAULT_ROLE=baatcheet"
                )
            mount = settings.vault_mount or "kubernetes"
            return KubernetesAuth(settings.vault_role, settings.vault_jwt_file, mount)


def _require_tls(variable: str, address: str, settings: SecretSettings) -> None:
    """Raises SettingsError unless keys may be sent to `address`: by `platform.http`'s rule, in a store's words."""
    try:
        require_tls(variable, variable, address, allow_insecure=settings.allow_insecure)
    except SettingsError:
        raise SettingsError(
            f"{variable}: a store of keys must be reached by TLS, since they would be readable on the way, and its "
            "address may hold no user name or password. Use https://host, or, where that network is safe, set "
            "BAATCHEET_SECRETS_ALLOW_INSECURE=true."
        ) from None
