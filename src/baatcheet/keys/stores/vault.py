"""HashiCorp Vault or OpenBao: one secret of the KV engine, version 2, that holds every provider's keys.

    {"groq": ["gsk_…", "gsk_…"], "groq.pending": ["gsk_…"], "groq.previous": ["gsk_…"], "openrouter": "sk-or-…,sk-or-…"}

A set is a list, or one text with commas or lines between the keys. Every change is one write of the whole, with
check-and-set (developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2): it is made on what was read or not at all.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

from hvac import exceptions

from baatcheet.keys.secret import SecretKey
from baatcheet.keys.stores.contents import Unreadable, keys_of, version_of
from baatcheet.keys.stores.model import (
    KeySet,
    StoreChanged,
    StoreMalformed,
    StoreRefused,
    Versions,
)
from baatcheet.keys.stores.remote import Failure, Remote
from baatcheet.keys.stores.vault_session import SignIn, VaultSession, version_in
from baatcheet.kit.backoff import exponential, jittered
from baatcheet.platform.logging import get_logger

log = get_logger(__name__)

_TRIES: Final = 12  # of a change that others are quicker than
_SOONEST: Final = 1.0  # seconds between two renewals at least
_LONGEST_PAUSE: Final = 60.0  # seconds after a renewal that failed
_PREVIOUS: Final = ".previous"
_PENDING: Final = ".pending"

Keys = tuple[SecretKey, ...]


class _Answer(Enum):
    CONFLICT = "somebody else has written meanwhile"


@dataclass(frozen=True, slots=True)
class _Sets:
    """What is kept for one provider; no keys: no such set."""

    current: Keys = ()
    previous: Keys = ()
    pending: Keys = ()


class _Document:
    """The secret as it was read. `number`: its version, 0 for none. It shows nothing of what it holds."""

    def __init__(self, entries: Mapping[str, Any], number: int) -> None:
        self.entries = entries
        self.number = number

    def sets_of(self, provider: str) -> _Sets | tuple[str, Unreadable]:
        """The provider's sets; or the entry that can't be read, and why."""
        found = {}
        for field, entry in _entries_of(provider).items():
            keys = keys_of(self.entries[entry]) if entry in self.entries else ()
            if isinstance(keys, Unreadable):
                return entry, keys
            found[field] = keys
        return _Sets(**found)

    def changed(self, provider: str, sets: _Sets) -> dict[str, Any]:
        """The entries with other sets of one provider; everything else stays as it is."""
        entries = dict(self.entries)
        for field, entry in _entries_of(provider).items():
            keys: Keys = getattr(sets, field)
            if keys:
                entries[entry] = [key.reveal() for key in keys]
            else:
                entries.pop(entry, None)
        return entries


def _entries_of(provider: str) -> dict[str, str]:
    return {"current": provider, "previous": provider + _PREVIOUS, "pending": provider + _PENDING}


class VaultStore:
    """Keys in Vault. `path`: mount and `data` included, `secret/data/baatcheet/api-keys`; `timeout`: of one request."""

    name: Final = "vault"
    writable: Final = True

    def __init__(
        self, address: str, path: str, sign_in: SignIn, *, namespace: str | None = None, timeout: float = 5.0
    ) -> None:
        self._path = path
        self._mount, _, self._place = path.partition("/data/")
        self._session = VaultSession(address, sign_in, namespace=namespace, timeout=timeout)
        # One thread: the client and its token are used by one request at a time.
        self._remote = Remote(self.name, 1)
        self._keeping: asyncio.Task[None] | None = None
        self._closed = False

    async def fetch(self, providers: Sequence[str]) -> Mapping[str, KeySet]:
        found: dict[str, KeySet] = await self._ask(self._fetch, tuple(providers))
        return found

    async def versions(self, provider: str) -> Versions:
        sets = await self._ask(self._sets, provider)
        return Versions(
            self._key_set(provider, sets.current),
            self._key_set(provider, sets.previous),
            self._key_set(provider, sets.pending),
        )

    async def replace(self, provider: str, keys: Sequence[SecretKey]) -> str:
        def decide(now: _Sets, first: _Sets) -> _Sets | None:
            if now.current == tuple(keys):
                return now
            return replace(now, current=tuple(keys), previous=now.current) if _same(now, first) else None

        return self._version(provider, (await self._change(provider, decide)).current)

    async def stage(self, provider: str, keys: Sequence[SecretKey]) -> str:
        staged = await self._change(provider, lambda now, _: replace(now, pending=tuple(keys)))
        return self._version(provider, staged.pending)

    async def promote(self, provider: str, version: str) -> str:
        def decide(now: _Sets, _: _Sets) -> _Sets | None:
            if now.pending and self._version(provider, now.pending) == version:
                return _Sets(now.pending, now.current, ())
            done = not now.pending and self._version(provider, now.current) == version
            return now if done else None

        return self._version(provider, (await self._change(provider, decide)).current)

    async def roll_back(self, provider: str, version: str) -> str:
        def decide(now: _Sets, _: _Sets) -> _Sets | None:
            if not now.previous or self._version(provider, now.current) != version:
                return None
            return replace(now, current=now.previous, previous=now.current)

        return self._version(provider, (await self._change(provider, decide)).current)

    async def discard(self, provider: str) -> None:
        await self._change(provider, lambda now, _: replace(now, pending=()))

    async def close(self) -> None:
        self._closed = True
        if self._keeping is not None:
            self._keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeping
        await self._remote.close()
        self._session.close()

    async def _change(self, provider: str, decide: "Decide") -> _Sets:
        """Write what `decide` makes of the provider's sets; returns them. Raises StoreChanged when it says None."""
        change = _Change(decide)
        for attempt in range(1, _TRIES + 1):
            outcome = await self._ask(self._try, provider, change)
            if isinstance(outcome, _Sets):
                return outcome
            if change.hopeless:
                break
            await asyncio.sleep(jittered(exponential(attempt, first=0.02, longest=0.5)))
        raise StoreChanged(
            self.name,
            f"entry {provider!r} of secret {self._path!r} was changed by somebody else meanwhile. "
            "Look at it and try again.",
        )

    async def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return await self._remote.ask(function, *arguments)
        finally:
            running = self._keeping is not None and not self._keeping.done()
            if self._session.due is not None and not running and not self._closed:
                self._keeping = asyncio.create_task(self._keep_signed_in(), name="vault-renewal")

    async def _keep_signed_in(self) -> None:
        """Renew the lease before it ends, whatever happens, for as long as there is one to renew."""
        failures = 0
        while (due := self._session.due) is not None:
            pause = max(due, _SOONEST)
            if failures:
                pause = max(pause, exponential(failures, first=_SOONEST, longest=_LONGEST_PAUSE))
            await asyncio.sleep(pause if failures == 0 else jittered(pause))
            left = self._session.due
            if left is None or left > 0:  # a request has done it meanwhile
                failures = 0
                continue
            failure = await self._remote.once(self._session.renew)
            if failure is None:
                failures = 0
                continue
            failures += 1
            log.warning("keys.vault.not_renewed", problem=failure.message, failures=failures)

    # What follows blocks, and returns its failures.

    def _fetch(self, providers: tuple[str, ...]) -> dict[str, KeySet] | Failure:
        document = self._load()
        if isinstance(document, Failure):
            return document
        found = {}
        failed: Failure | None = None
        for provider in providers:
            if provider not in document.entries:
                continue
            keys = keys_of(document.entries[provider])
            if isinstance(keys, Unreadable):
                failed = failed or self._malformed(provider, keys)
                continue
            kept = self._key_set(provider, keys)
            if kept is not None:
                found[provider] = kept
        return replace(failed, found=found) if failed is not None else found

    def _sets(self, provider: str) -> _Sets | Failure:
        document = self._load()
        if isinstance(document, Failure):
            return document
        sets = document.sets_of(provider)
        return self._malformed(*sets) if isinstance(sets, tuple) else sets

    def _try(self, provider: str, change: "_Change") -> "_Sets | _Answer | Failure":
        document = self._load()
        if isinstance(document, Failure):
            return document
        sets = document.sets_of(provider)
        if isinstance(sets, tuple):
            return self._malformed(*sets)
        wanted = change.next(sets)
        if wanted is None:
            return _Answer.CONFLICT
        if wanted == sets:
            return sets
        change.wrote = wanted
        written = self._write(document.changed(provider, wanted), document.number)
        return wanted if written is None else written

    def _load(self) -> _Document | Failure:
        try:
            answer = self._session.call(
                lambda client: client.secrets.kv.v2.read_secret_version(
                    self._place, mount_point=self._mount, raise_on_deleted_version=False
                ),
                "read",
                self._path,
            )
        except exceptions.InvalidPath as error:
            if any("route" in str(one) for one in error.errors or ()):
                return self._no_engine()
            # Never written (0), or destroyed: then its number goes on.
            told = error.json if isinstance(error.json, dict) else {}
            return _Document({}, version_in(told) or 0)
        except exceptions.InvalidRequest:
            return self._no_engine()
        if isinstance(answer, Failure):
            return answer
        number = version_in(answer) if isinstance(answer, dict) else None
        if number is None:
            return self._no_engine()
        entries = answer["data"].get("data")
        return _Document(entries if isinstance(entries, dict) else {}, number)

    def _write(self, entries: dict[str, Any], number: int) -> _Answer | Failure | None:
        try:
            answer = self._session.call(
                lambda client: client.secrets.kv.v2.create_or_update_secret(
                    self._place, entries, cas=number, mount_point=self._mount
                ),
                "update" if number else "create",
                self._path,
            )
        except exceptions.InvalidRequest as error:
            if any("check-and-set" in str(one) for one in error.errors or ()):
                return _Answer.CONFLICT
            return Failure(
                StoreRefused, f"secret {self._path!r} can't be written: Vault calls it invalid (400)."
            )
        except exceptions.InvalidPath:
            return self._no_engine()
        if isinstance(answer, Failure):
            return answer
        return None if isinstance(answer, dict) and version_in(answer) is not None else self._no_engine()

    def _no_engine(self) -> Failure:
        return Failure(
            StoreMalformed,
            f"secret {self._path!r} is not in a KV engine of version 2. Enable one: "
            f"vault secrets enable -path={self._mount} -version=2 kv; or correct BAATCHEET_VAULT_PATH.",
        )

    def _malformed(self, entry: str, problem: Unreadable) -> Failure:
        return Failure(
            StoreMalformed,
            f"secret {self._path!r}, entry {entry!r}: it {problem.why}. Correct it, for example: "
            f"vault kv patch -mount={self._mount} {self._place} {entry}=@keys.txt",
        )

    def _key_set(self, provider: str, keys: Keys) -> KeySet | None:
        return KeySet(provider, keys, self._version(provider, keys)) if keys else None

    def _version(self, provider: str, keys: Keys) -> str:
        return version_of(keys, f"{self._path}/{provider}")


Decide = Callable[[_Sets, _Sets], _Sets | None]


class _Change:
    """One change under way, through as many attempts as it takes. `hopeless`: it does not apply any more."""

    def __init__(self, decide: Decide) -> None:
        self._decide = decide
        self._first: _Sets | None = None
        self.wrote: _Sets | None = None
        self.hopeless = False

    def next(self, now: _Sets) -> _Sets | None:
        """The sets to write in place of `now`; `now` itself when the answer to our own write was lost on its way."""
        if self._first is None:
            self._first = now
        if now == self.wrote:
            return now
        wanted = self._decide(now, self._first)
        self.hopeless = wanted is None
        return wanted


def _same(now: _Sets, first: _Sets) -> bool:
    return now.current == first.current
