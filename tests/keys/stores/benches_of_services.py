"""The contract suite's surroundings of the two stores on the network, each behind a gate."""

import asyncio
import json
from typing import Any, Self
from uuid import uuid4

import boto3
import hvac
from pydantic import SecretStr

from baatcheet.keys.stores.aws import AwsStore
from baatcheet.keys.stores.model import SecretStore
from baatcheet.keys.stores.vault import VaultStore
from baatcheet.keys.stores.vault_session import SignIn, TokenAuth
from tests.keys.stores.fake_vault import FakeVault
from tests.keys.stores.gate import Gate

TIMEOUT = (
    0.5  # seconds that a store waits in these tests; a server that is alive answers in a few milliseconds
)
PATH = "secret/data/baatcheet/api-keys"


class _BehindGate:
    writable = True
    remote = True

    def __init__(self, host: str, port: int) -> None:
        self.gate = Gate(host, port)

    async def __aenter__(self) -> Self:
        await self.gate.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.gate.shut()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.gate.port}"

    async def take_away(self) -> None:
        await self.gate.shut()

    async def bring_back(self) -> None:
        await self.gate.open()

    async def hang(self) -> None:
        await self.gate.hang()


class AwsBench(_BehindGate):
    """moto's server, with names of this test's own. moto asks for no permission: the gate refuses in AWS's words."""

    name = "aws"

    def __init__(self, host: str, port: int, timeout: float = TIMEOUT) -> None:
        super().__init__(host, port)
        self.prefix = f"test-{uuid4().hex}/"
        self._direct = f"http://{host}:{port}"
        self._client: Any = None
        self._timeout = timeout

    def store(self) -> SecretStore:
        return AwsStore("us-east-1", self.address, self.prefix, self._timeout)

    def secret(self, provider: str) -> str:
        return f"{self.prefix}{provider.replace('_', '-')}-api-keys"

    async def put(self, provider: str, keys: list[str]) -> None:
        await self.write(provider, json.dumps({"keys": keys}))

    async def spoil(self, provider: str, secret: str) -> None:
        await self.write(provider, f'{{"keys": [{secret}')

    async def refuse(self) -> None:
        await self.gate.answer(
            "400 Bad Request",
            "application/x-amz-json-1.1",
            b'{"__type": "AccessDeniedException", "Message": "User: arn:aws:iam::1:user/x is not authorized"}',
        )

    async def write(self, provider: str, text: str) -> None:
        """As `aws secretsmanager create-secret` or `put-secret-value` does."""

        def work(client: Any) -> None:
            secrets = client.list_secrets(Filters=[{"Key": "name", "Values": [self.secret(provider)]}])
            if secrets["SecretList"]:
                client.put_secret_value(SecretId=self.secret(provider), SecretString=text)
            else:
                client.create_secret(Name=self.secret(provider), SecretString=text)

        await self.directly(work)

    async def directly(self, work: Any) -> Any:
        """What `work` returns, done with a client past the gate."""

        def run() -> Any:
            if self._client is None:
                self._client = boto3.session.Session().client(
                    "secretsmanager", region_name="us-east-1", endpoint_url=self._direct
                )
            return work(self._client)

        return await asyncio.to_thread(run)

    async def __aexit__(self, *error: object) -> None:
        await super().__aexit__(*error)
        if self._client is not None:
            self._client.close()


class VaultBench(_BehindGate):
    """The fake Vault."""

    name = "vault"

    def __init__(self, vault: FakeVault, timeout: float = TIMEOUT) -> None:
        super().__init__("127.0.0.1", vault.port)
        self.vault = vault
        self._root = vault.token()
        self._timeout = timeout

    def store(self, sign_in: SignIn | None = None, namespace: str | None = None) -> VaultStore:
        return VaultStore(
            self.address,
            PATH,
            sign_in or TokenAuth(SecretStr(self._root.text)),
            namespace=namespace,
            timeout=self._timeout,
        )

    async def put(self, provider: str, keys: list[str]) -> None:
        await self.write({provider: ",".join(keys)})

    async def spoil(self, provider: str, secret: str) -> None:
        await self.write({provider: {secret: secret}})

    async def refuse(self) -> None:
        self.vault.refusing = True

    async def bring_back(self) -> None:
        self.vault.refusing = False
        await super().bring_back()

    async def write(self, entries: dict[str, Any]) -> None:
        """As `vault kv patch` does, with hvac."""

        def work() -> None:
            client = hvac.Client(self.vault.address, token=self._root.text)
            try:
                kept = self.vault.document(PATH)
                client.secrets.kv.v2.create_or_update_secret("baatcheet/api-keys", {**kept, **entries})
            finally:
                client.adapter.close()

        await asyncio.to_thread(work)
