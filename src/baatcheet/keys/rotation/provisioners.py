"""Making and revoking keys by the providers' own key APIs.

OpenRouter: <https://openrouter.ai/docs/features/provisioning-api-keys> (`/api/v1/keys`, with a provisioning key).
OpenAI: <https://platform.openai.com/docs/api-reference/project-service-accounts>
(`/v1/organization/projects/{project_id}/service_accounts`, with an admin key): a key there is a service account's own.

What is made is named `baatcheet <rotation> <n>`, so that a key whose value was lost is found again, and deleted.
"""

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import quote
from uuid import UUID

import aiohttp
import msgspec

from baatcheet.keys.secret import KeyNotUsable, SecretKey
from baatcheet.platform.http import require_tls
from baatcheet.platform.redaction import register_secret

OPENROUTER_URL: Final = "https://openrouter.ai/api/v1"
OPENAI_URL: Final = "https://api.openai.com/v1"
SECONDS: Final = 20.0  # for one call
LONGEST_ANSWER: Final = 4_000_000  # bytes
MOST_PAGES: Final = 100

AdminKey = Callable[[], SecretKey | None]


class ProvisionerError(Exception):
    """A provider's key API did not do what was asked. The message holds no key.

    `passing`: whether the same may succeed later.
    """

    def __init__(self, provider: str, message: str, *, passing: bool) -> None:
        super().__init__(f"{provider}'s key API: {message}")
        self.passing = passing


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made, and what the provider calls it."""

    at: str
    key: SecretKey


@dataclass(frozen=True, slots=True)
class Listed:
    """A key as the provider lists it."""

    at: str
    name: str


class Provisioner(Protocol):
    """One provider's key API. Every method raises ProvisionerError and nothing else, and is bounded in time."""

    @property
    def available(self) -> bool:
        """Whether there is what it takes to ask."""
        ...

    async def create(self, name: str, like: str | None) -> NewKey:
        """Make a key called `name`, limited as `like` is (the provider's word for another), where there are limits."""
        ...

    async def listed(self) -> list[Listed]:
        """Every key that there is."""
        ...

    async def delete(self, at: str) -> None:
        """Revoke a key. One that is not there any more is no error."""
        ...

    async def find(self, key: SecretKey) -> str | None:
        """What the provider calls this key; None where that can't be known for certain."""
        ...


def name_of(rotation: UUID, number: int) -> str:
    """What the `number`th key that a rotation makes is called at the provider."""
    return f"{_prefix(rotation)}{number}"


def is_of(rotation: UUID, name: str) -> bool:
    """Whether the key that is called so was made by this rotation."""
    return name.startswith(_prefix(rotation))


def _prefix(rotation: UUID) -> str:
    return f"baatcheet {rotation} "


class _Api:
    """HTTP with one provider's key API."""

    def __init__(
        self, provider: str, variable: str, session: aiohttp.ClientSession, url: str, key: AdminKey
    ) -> None:
        require_tls(variable, provider, url)
        self._provider = provider
        self._session = session
        self._url = url.rstrip("/")
        self._key = key

    @property
    def has_key(self) -> bool:
        return self._key() is not None

    async def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, query: str = ""
    ) -> dict[str, Any] | None:
        """The JSON object that is answered; None for 404."""
        key = self._key()
        if key is None:
            raise ProvisionerError(self._provider, "there is no key to ask it with.", passing=False)
        try:
            async with (
                asyncio.timeout(SECONDS),
                self._session.request(
                    method,
                    f"{self._url}{path}{query}",
                    json=body,
                    headers={"Authorization": f"Bearer {key.reveal()}"},
                    allow_redirects=False,
                ) as answer,
            ):
                status, text = answer.status, await answer.content.read(LONGEST_ANSWER)
        except TimeoutError:
            raise self._error("it did not answer in time.", passing=True) from None
        except (aiohttp.ClientError, OSError) as error:
            # Without its text: what a request held may be in there.
            raise self._error(f"it can't be reached ({type(error).__name__}).", passing=True) from None
        if status == 404:
            return None
        if not 200 <= status < 300:
            passing = status == 429 or status >= 500
            raise self._error(f"it answered {status} to {method} {path}.", passing=passing)
        try:
            return msgspec.json.decode(text, type=dict[str, Any])
        except msgspec.DecodeError:
            raise self.unreadable() from None

    def unreadable(self) -> ProvisionerError:
        return self._error("what it answered can't be read.", passing=False)

    def _error(self, words: str, *, passing: bool) -> ProvisionerError:
        return ProvisionerError(self._provider, words, passing=passing)


class OpenRouterKeys:
    """OpenRouter's provisioning API. `key`: gives the provisioning key. Raises SettingsError for a URL without TLS."""

    def __init__(self, session: aiohttp.ClientSession, key: AdminKey, url: str = OPENROUTER_URL) -> None:
        self._api = _Api("openrouter", "BAATCHEET_OPENROUTER_KEYS_URL", session, url, key)

    @property
    def available(self) -> bool:
        return self._api.has_key

    async def create(self, name: str, like: str | None) -> NewKey:
        body: dict[str, Any] = {"name": name}
        if like is not None:
            found = _object(await self._api.ask("GET", f"/keys/{quote(like, safe='')}"), "data")
            limits = ("limit", "limit_reset", "include_byok_in_limit")
            body |= {name: found[name] for name in limits if found.get(name) is not None}
        answer = await self._api.ask("POST", "/keys", body) or {}
        return _new_key(self._api, _object(answer, "data").get("hash"), answer.get("key"))

    async def listed(self) -> list[Listed]:
        found: dict[str, Listed] = {}
        for _ in range(MOST_PAGES):
            query = f"?include_disabled=true&offset={len(found)}"
            answer = await self._api.ask("GET", "/keys", query=query) or {}
            page = _listed(self._api, answer, "hash")
            before = len(found)
            found |= {one.at: one for one in page}
            if len(found) == before:
                break
        return list(found.values())

    async def delete(self, at: str) -> None:
        await self._api.ask("DELETE", f"/keys/{quote(at, safe='')}")

    async def find(self, key: SecretKey) -> str | None:
        # The provider's hash of a key is its SHA-256; where it is not, nothing is found, and nothing else is deleted.
        digest = hashlib.sha256(key.reveal().encode()).hexdigest()
        return digest if await self._api.ask("GET", f"/keys/{digest}") is not None else None


class OpenAIKeys:
    """OpenAI's admin API: the service accounts of one project. Raises SettingsError for a URL without TLS."""

    def __init__(
        self, session: aiohttp.ClientSession, key: AdminKey, project: str | None, url: str = OPENAI_URL
    ) -> None:
        self._api = _Api("openai", "BAATCHEET_OPENAI_ADMIN_URL", session, url, key)
        self._project = project
        self._path = f"/organization/projects/{quote(project or '', safe='')}/service_accounts"

    @property
    def available(self) -> bool:
        return self._project is not None and self._api.has_key

    async def create(self, name: str, like: str | None) -> NewKey:
        answer = await self._api.ask("POST", self._path, {"name": name}) or {}
        return _new_key(self._api, answer.get("id"), _object(answer, "api_key").get("value"))

    async def listed(self) -> list[Listed]:
        found: list[Listed] = []
        query = "?limit=100"
        for _ in range(MOST_PAGES):
            answer = await self._api.ask("GET", self._path, query=query) or {}
            page = _listed(self._api, answer, "id")
            found += page
            if not answer.get("has_more") or not page:
                break
            query = f"?limit=100&after={quote(page[-1].at, safe='')}"
        return found

    async def delete(self, at: str) -> None:
        await self._api.ask("DELETE", f"{self._path}/{quote(at, safe='')}")

    async def find(self, key: SecretKey) -> str | None:
        return None  # no call of theirs tells whose a key is


def _object(answer: Mapping[str, Any] | None, name: str) -> dict[str, Any]:
    found = (answer or {}).get(name)
    return found if isinstance(found, dict) else {}


def _new_key(api: _Api, at: object, text: object) -> NewKey:
    if not isinstance(text, str) or not isinstance(at, str):
        raise api.unreadable()
    register_secret(text, fragments=True)
    try:
        return NewKey(at, SecretKey(text))
    except KeyNotUsable:
        raise api.unreadable() from None


def _listed(api: _Api, answer: Mapping[str, Any], member: str) -> list[Listed]:
    rows = answer.get("data")
    if not isinstance(rows, list):
        raise api.unreadable()
    return [
        Listed(row[member], row["name"])
        for row in rows
        if isinstance(row, dict) and isinstance(row.get(member), str) and isinstance(row.get("name"), str)
    ]
