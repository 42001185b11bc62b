"""AWS Secrets Manager: a secret for each provider, `baatcheet/groq-api-keys`, that holds `{"keys": ["gsk_…", …]}`.

The sets of keys are versions of the secret, under the labels that AWS's own rotation uses: AWSCURRENT, AWSPREVIOUS and
AWSPENDING. Moving AWSCURRENT is one request, which AWS refuses when the label is no longer where the request says, and
which moves AWSPREVIOUS along (docs.aws.amazon.com/secretsmanager, API_UpdateSecretVersionStage).
"""

import asyncio
import importlib
import json
import re
import threading
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Final
from uuid import uuid4

from baatcheet.keys.secret import SecretKey
from baatcheet.keys.stores.contents import Unreadable, keys_of
from baatcheet.keys.stores.model import (
    KeySet,
    StoreChanged,
    StoreError,
    StoreMalformed,
    StoreRefused,
    StoreUnavailable,
    Versions,
)
from baatcheet.keys.stores.remote import Failure, Remote
from baatcheet.platform.logging import get_logger

log = get_logger(__name__)

CURRENT: Final = "AWSCURRENT"
PREVIOUS: Final = "AWSPREVIOUS"
PENDING: Final = "AWSPENDING"
# Keeps a version that is about to become current from being one without a label, which AWS may delete.
_NEXT: Final = "BAATCHEETNEXT"
_CALLS_AT_ONCE: Final = 8
_NAME_OF_STORE: Final = "aws"

_CREDENTIALS_REFUSED: Final = frozenset(
    {
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "ExpiredTokenException",
        "RequestExpired",
        "IncompleteSignature",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "NotAuthorized",
        "OptInRequired",
    }
)
_BUSY: Final = frozenset(
    {
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "RequestLimitExceeded",
        "RequestTimeout",
    }
)
_WRITES: Final = frozenset({"PutSecretValue", "CreateSecret"})


class _Answer(Enum):
    """What AWS says instead of doing what was asked, where that is part of the plan."""

    MISSING = "there is no such secret, or no such version of it"
    CONFLICT = "the secret is not in the state that the request expects"


class AwsStore:
    """Keys in AWS Secrets Manager. Credentials come by the SDK's own chain.

    `prefix` begins the secrets' names; `timeout`: seconds that one request may take; `endpoint`: another server that
    speaks the same protocol.
    """

    name: Final = _NAME_OF_STORE
    writable: Final = True

    def __init__(
        self, region: str, endpoint: str | None = None, prefix: str = "baatcheet/", timeout: float = 5.0
    ) -> None:
        self._region = region
        self._endpoint = endpoint
        self._prefix = prefix
        self._timeout = timeout
        self._remote = Remote(self.name, _CALLS_AT_ONCE)
        self._building = threading.Lock()
        self._built: Any = None

    def secret_of(self, provider: str) -> str:
        """The name of a provider's secret."""
        return f"{self._prefix}{provider.replace('_', '-')}-api-keys"

    async def fetch(self, providers: Sequence[str]) -> Mapping[str, KeySet]:
        sets = await asyncio.gather(
            *(self._remote.ask(self._read, provider, VersionStage=CURRENT) for provider in providers),
            return_exceptions=True,
        )
        found = {}
        failed: BaseException | None = None
        for provider, one in zip(providers, sets, strict=True):
            if isinstance(one, BaseException):
                failed = failed or one
            elif one is not None:
                found[provider] = one
        if isinstance(failed, StoreError):
            failed.found = found
        if failed is not None:
            raise failed
        return found

    async def versions(self, provider: str) -> Versions:
        labels = await self._labels(provider)
        if labels is None:
            return Versions()

        async def read(version: str | None) -> KeySet | None:
            if version is None:
                return None
            return await self._remote.ask(self._read, provider, VersionId=version)

        current, previous, pending = await asyncio.gather(
            read(labels.get(CURRENT)), read(labels.get(PREVIOUS)), read(_pending(labels))
        )
        return Versions(current, previous, pending)

    async def replace(self, provider: str, keys: Sequence[SecretKey]) -> str:
        version = str(uuid4())
        labels = await self._labels(provider)
        if labels is None:
            if await self._remote.ask(self._create, provider, tuple(keys), version) is _Answer.CONFLICT:
                raise self._changed(provider)
            return version
        current = labels.get(CURRENT)
        if current is None:
            await self._put(provider, keys, version, CURRENT)
            return version
        await self._put(provider, keys, version, _NEXT)
        try:
            await self._move(provider, current, version)
        finally:
            await self._drop(provider, _NEXT, version)
        return version

    async def stage(self, provider: str, keys: Sequence[SecretKey]) -> str:
        labels = await self._labels(provider)
        # AWS makes the first version of a secret current whatever its label: that is to be an empty set then.
        if labels is None:
            await self._remote.ask(self._create, provider, (), str(uuid4()))
        elif CURRENT not in labels:
            await self._put(provider, (), str(uuid4()), CURRENT)
        version = str(uuid4())
        await self._put(provider, keys, version, PENDING)
        return version

    async def promote(self, provider: str, version: str) -> str:
        labels = await self._labels(provider) or {}
        current = labels.get(CURRENT)
        if current != version:
            if _pending(labels) != version:
                raise self._changed(provider)
            await self._move(provider, current, version)
        await self._drop(provider, PENDING, version)
        return version

    async def roll_back(self, provider: str, version: str) -> str:
        labels = await self._labels(provider) or {}
        previous = labels.get(PREVIOUS)
        if labels.get(CURRENT) != version or previous is None:
            raise self._changed(provider)
        if await self._remote.ask(self._read, provider, VersionId=previous) is None:
            raise StoreChanged(
                self.name, f"secret {self.secret_of(provider)!r} has no previous keys to go back to."
            )
        await self._move(provider, version, previous)
        # A promotion that was cut short may have left it on the set that is given up.
        if labels.get(PENDING) == version:
            await self._drop(provider, PENDING, version)
        return previous

    async def discard(self, provider: str) -> None:
        labels = await self._labels(provider)
        pending = labels and _pending(labels)
        if pending:
            await self._remote.ask(self._label, provider, PENDING, pending, None)

    async def close(self) -> None:
        await self._remote.close()
        if self._built is not None:
            self._built.close()

    async def _labels(self, provider: str) -> dict[str, str] | None:
        """The version under each label; None when there is no such secret."""
        return await self._remote.ask(self._describe, provider)

    async def _put(self, provider: str, keys: Sequence[SecretKey], version: str, label: str) -> None:
        done = await self._remote.ask(self._store, provider, tuple(keys), version, label)
        if done is not None:
            raise self._changed(provider)

    async def _move(self, provider: str, source: str | None, target: str) -> None:
        """Move AWSCURRENT from one version to another. Raises StoreChanged when it is elsewhere."""
        if await self._remote.ask(self._label, provider, CURRENT, source, target) is None:
            return
        # An answer that was lost on its way is followed by a refusal: then it is where it is to be.
        labels = await self._labels(provider) or {}
        if labels.get(CURRENT) != target:
            raise self._changed(provider)

    async def _drop(self, provider: str, label: str, version: str) -> None:
        """Take a label away that has done its work. What is left of it does no harm: `_pending` sees through it."""
        try:
            await self._remote.ask(self._label, provider, label, version, None)
        except StoreError as error:
            log.warning(
                "keys.aws.label_left", secret=self.secret_of(provider), label=label, problem=str(error)
            )

    def _changed(self, provider: str) -> StoreChanged:
        return StoreChanged(
            self.name,
            f"secret {self.secret_of(provider)!r} was changed by somebody else meanwhile. Look at it and try again.",
        )

    # What follows blocks, and returns its failures.

    def _read(self, provider: str, **which: str) -> KeySet | Failure | None:
        answer = self._request("GetSecretValue", provider, **which)
        if isinstance(answer, Failure):
            return answer
        if isinstance(answer, _Answer):
            return None
        keys = _keys_in(answer.get("SecretString"))
        if isinstance(keys, Unreadable):
            return Failure(
                StoreMalformed,
                f"secret {self.secret_of(provider)!r} {keys.why}. "
                'It must be JSON like {"keys": ["first key", "second key"]}.',
            )
        return KeySet(provider, keys, str(answer.get("VersionId", ""))) if keys else None

    def _describe(self, provider: str) -> dict[str, str] | Failure | None:
        answer = self._request("DescribeSecret", provider)
        if isinstance(answer, Failure):
            return answer
        if isinstance(answer, _Answer):
            return None
        if answer.get("DeletedDate") is not None:
            return self._deleted(provider)
        versions: Mapping[str, Sequence[str]] = answer.get("VersionIdsToStages") or {}
        return {label: version for version, labels in versions.items() for label in labels}

    def _create(self, provider: str, keys: tuple[SecretKey, ...], version: str) -> Failure | _Answer | None:
        answer = self._request(
            "CreateSecret",
            provider,
            Name=self.secret_of(provider),
            Description=f"Keys of {provider}, for BaatCheet",
            ClientRequestToken=version,
            SecretString=_as_text(keys),
        )
        return answer if isinstance(answer, Failure | _Answer) else None

    def _store(
        self, provider: str, keys: tuple[SecretKey, ...], version: str, label: str
    ) -> Failure | _Answer | None:
        answer = self._request(
            "PutSecretValue",
            provider,
            ClientRequestToken=version,
            SecretString=_as_text(keys),
            VersionStages=[label],
        )
        return answer if isinstance(answer, Failure | _Answer) else None

    def _label(
        self, provider: str, label: str, source: str | None, target: str | None
    ) -> Failure | _Answer | None:
        ends = {"RemoveFromVersionId": source, "MoveToVersionId": target}
        answer = self._request(
            "UpdateSecretVersionStage",
            provider,
            VersionStage=label,
            **{name: version for name, version in ends.items() if version is not None},
        )
        return answer if isinstance(answer, Failure | _Answer) else None

    def _request(self, operation: str, provider: str, **parameters: Any) -> Any:
        """AWS's answer, or a Failure, or an _Answer."""
        errors = importlib.import_module("botocore.exceptions")
        parsers = importlib.import_module("botocore.parsers")
        if operation != "CreateSecret":
            parameters["SecretId"] = self.secret_of(provider)
        try:
            method = re.sub(r"(?<!^)(?=[A-Z])", "_", operation).lower()
            answer = getattr(self._client(), method)(**parameters)
        except errors.ClientError as error:
            return self._refused(operation, provider, error.response)
        except (errors.HTTPClientError, errors.ConnectionError) as error:
            return Failure(
                StoreUnavailable,
                f"secret {self.secret_of(provider)!r} can't be read: {self._where()} can't be reached "
                f"({type(error).__name__}). Check the network, BAATCHEET_AWS_REGION and BAATCHEET_AWS_ENDPOINT.",
                again=True,
            )
        except (parsers.ResponseParserError, errors.IncompleteReadError):
            return Failure(StoreUnavailable, f"{self._where()} sent no answer that can be read.", again=True)
        except (errors.BotoCoreError, ValueError) as error:
            return Failure(
                StoreRefused,
                f"{self._where()} was not asked for secret {self.secret_of(provider)!r}: the SDK has no usable "
                f"credentials or settings ({type(error).__name__}). Give it AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, a profile, or a role.",
            )
        if "ARN" not in answer:
            return Failure(StoreUnavailable, f"{self._where()} answers, but not as AWS does.", again=True)
        return answer

    def _refused(self, operation: str, provider: str, response: Mapping[str, Any]) -> Failure | _Answer:
        told = response.get("Error", {})
        code = re.sub(r"[^A-Za-z0-9.]", "", str(told.get("Code", "")))[:64]
        message = str(told.get("Message", "")).lower()
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        secret = self.secret_of(provider)
        if status >= 500 or status == 429 or code in _BUSY:
            return Failure(
                StoreUnavailable, f"{self._where()} can't answer now ({code or status}).", again=True
            )
        if code == "ResourceNotFoundException":
            return _Answer.MISSING
        if code == "ResourceExistsException":
            return _Answer.CONFLICT
        if code == "InvalidParameterException" and operation == "UpdateSecretVersionStage":
            return _Answer.CONFLICT
        if code == "InvalidRequestException" and "delet" in message:
            return _Answer.MISSING if operation == "GetSecretValue" else self._deleted(provider)
        if code in _CREDENTIALS_REFUSED:
            return Failure(
                StoreRefused, f"{self._where()} refuses the credentials ({code}). Renew or correct them."
            )
        if code in {"AccessDeniedException", "AccessDenied", "DecryptionFailure", "EncryptionFailure"}:
            action = f"secretsmanager:{operation}"
            if "kms" in message or code.endswith("Failure"):
                action = "kms:GenerateDataKey" if operation in _WRITES else "kms:Decrypt"
            return Failure(
                StoreRefused,
                f"{self._where()} refuses secret {secret!r}. Allow the action {action} on it.",
            )
        return Failure(StoreRefused, f"{self._where()} refuses secret {secret!r} ({code or status}).")

    def _deleted(self, provider: str) -> Failure:
        return Failure(
            StoreRefused,
            f"secret {self.secret_of(provider)!r} is about to be deleted, and can't be written. "
            "Restore it: aws secretsmanager restore-secret --secret-id " + self.secret_of(provider),
        )

    def _where(self) -> str:
        return self._endpoint or f"Secrets Manager in {self._region}"

    def _client(self) -> Any:
        with self._building:
            if self._built is None:
                config = importlib.import_module("botocore.config")
                session = importlib.import_module("boto3.session").Session()
                self._built = session.client(
                    "secretsmanager",
                    region_name=self._region,
                    endpoint_url=self._endpoint,
                    config=config.Config(
                        connect_timeout=self._timeout,
                        read_timeout=self._timeout,
                        max_pool_connections=_CALLS_AT_ONCE,
                        retries={"mode": "standard", "total_max_attempts": 1},
                        user_agent_extra="baatcheet",
                    ),
                )
            return self._built


def _pending(labels: Mapping[str, str]) -> str | None:
    """The version that is pending: not one that has been current since it was staged."""
    pending = labels.get(PENDING)
    return None if pending in {labels.get(CURRENT), labels.get(PREVIOUS)} else pending


def _keys_in(text: str | None) -> tuple[SecretKey, ...] | Unreadable:
    if text is None:
        return Unreadable("holds no text")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return Unreadable("is not JSON")
    if not isinstance(document, dict) or "keys" not in document:
        return Unreadable('is no JSON object with the member "keys"')
    keys = keys_of(document["keys"])
    return Unreadable(f'has a member "keys" that {keys.why}') if isinstance(keys, Unreadable) else keys


def _as_text(keys: Sequence[SecretKey]) -> str:
    return json.dumps({"keys": [key.reveal() for key in keys]})
