"""Providers' keys as administrators see and handle them. No key is ever answered, only what tells it apart."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal
from uuid import UUID

from sqlalchemy import and_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.jobs.models import JobSchedule
from baatcheet.keys.audit import Actor, note
from baatcheet.keys.ledger import Ledger
from baatcheet.keys.models import AuditEntry, KeyRotation, KeyUsage, ProviderKey
from baatcheet.keys.pool import LONGEST_REST, fit
from baatcheet.keys.probing import Probe, Verdict
from baatcheet.keys.ring import tell_of_change
from baatcheet.keys.rotation import jobs as rotation_jobs
from baatcheet.keys.rotation.machine import Ring
from baatcheet.keys.secret import SecretKey
from baatcheet.keys.stores.model import ReadOnlyStore, SecretStore, StoreChanged, StoreError, Versions
from baatcheet.kit.pagination import Slice, decode, slice_of
from baatcheet.platform.database import Database
from baatcheet.platform.errors import Conflict, Invalid, NotFound, Unavailable
from baatcheet.platform.redaction import register_secret

MOST_KEYS: Final = 500  # of one provider
STAGE_LIMIT: Final = 60.0  # seconds: a store is asked three times

_KEYS, _ROTATIONS, _AUDIT = "keys", "key rotations", "audit"
State = Literal["active", "resting", "quarantined", "retired"]


class KeyNotFound(NotFound):
    """There is no such key."""

    type = "key-not-found"


class RotationNotFound(NotFound):
    """There is no such rotation."""

    type = "rotation-not-found"


class NoKeys(NotFound):
    """There are no keys of this provider."""

    type = "no-keys"


class RotationRunning(Conflict):
    """This provider's keys are being replaced."""

    type = "rotation-running"


class KeyRetired(Conflict):
    """This key is no longer in any store."""

    type = "key-retired"


class KeyQuarantined(Conflict):
    """This key is quarantined."""

    type = "key-quarantined"


class StoreReadOnly(Conflict):
    """The store that these keys come from is only read."""

    type = "store-read-only"


class StoreFailed(Unavailable):
    """The store of providers' keys did not answer as asked."""

    type = "store-failed"


@dataclass(frozen=True)
class KeyView:
    """A key, and how it fares. `id`: its fingerprint.

    `requests_limit`: a day's; `requests_left`: today (UTC); None: without limit.
    """

    id: str
    provider: str
    hint: str
    store: str
    state: State
    reason: str | None
    resting_until: datetime | None
    requests_today: int
    tokens_today: int
    errors_today: int
    requests_limit: int | None
    requests_left: int | None
    last_error: str | None
    last_error_at: datetime | None
    last_used_at: datetime | None
    added_at: datetime
    retired_at: datetime | None
    age_days: int
    too_old: bool
    next_rotation_at: datetime | None


@dataclass(frozen=True)
class Checked:
    """What a provider says of a key. `words`: fit for people."""

    id: str
    provider: str
    hint: str
    verdict: Verdict
    words: str


class Keys:
    """The keys of this deployment.

    `daily`: requests that one key of a provider may make in a day; None: without limit. `rotating`: whether new keys
    for a provider come by themselves every month.
    """

    def __init__(
        self,
        db: Database,
        ring: Ring,
        probe: Probe,
        *,
        daily: Callable[[str], int | None] = lambda _provider: None,
        rotating: Callable[[str], bool] = lambda _provider: False,
        max_age: timedelta = timedelta(days=90),
    ) -> None:
        self._db = db
        self._ring = ring
        self._ledger = Ledger(db)
        self._probe = probe
        self._daily = daily
        self._rotating = rotating
        self._max_age = max_age

    # Reading -----------------------------------------------------------------------------------------------

    async def list(
        self,
        *,
        provider: str | None = None,
        retired: bool = False,
        limit: int,
        cursor: str | None = None,
    ) -> Slice[KeyView]:
        """By provider, the oldest first; with `retired`, also those that are in no store any more. Raises BadCursor."""
        query = select(ProviderKey).order_by(ProviderKey.provider, ProviderKey.added_at, ProviderKey.id)
        if provider is not None:
            query = query.where(ProviderKey.provider == provider)
        if not retired:
            query = query.where(ProviderKey.state != "retired")
        if cursor is not None:
            after = decode(_KEYS, cursor, tuple[str, datetime, str])
            query = query.where(
                tuple_(ProviderKey.provider, ProviderKey.added_at, ProviderKey.id) > tuple_(*after)
            )
        async with self._db.system() as session:
            rows = (await session.scalars(query.limit(limit + 1))).all()
            page = slice_of(_KEYS, rows, limit, lambda row: (row.provider, row.added_at, row.id))
            views = await self._views(session, page.rows)
        return Slice([*views], page.next_cursor)

    async def get(self, key_id: str) -> KeyView:
        """Raises KeyNotFound."""
        async with self._db.system() as session:
            row = await session.get(ProviderKey, key_id)
            if row is None:
                raise KeyNotFound(f"There is no key {key_id}.")
            (view,) = await self._views(session, [row])
        return view

    async def rotation(self, rotation_id: UUID) -> KeyRotation:
        """Raises RotationNotFound."""
        async with self._db.system() as session:
            row = await session.get(KeyRotation, rotation_id)
        if row is None:
            raise RotationNotFound(f"There is no rotation {rotation_id}.")
        return row

    async def rotations(
        self, *, provider: str | None = None, limit: int, cursor: str | None = None
    ) -> Slice[KeyRotation]:
        """Newest first. Raises BadCursor."""
        query = select(KeyRotation).order_by(KeyRotation.id.desc()).limit(limit + 1)
        if provider is not None:
            query = query.where(KeyRotation.provider == provider)
        if cursor is not None:
            query = query.where(KeyRotation.id < decode(_ROTATIONS, cursor, UUID))
        async with self._db.system() as session:
            rows = (await session.scalars(query)).all()
        return slice_of(_ROTATIONS, rows, limit, lambda row: row.id)

    async def audit(
        self, *, filters: Mapping[str, str] | None = None, limit: int, cursor: str | None = None
    ) -> Slice[AuditEntry]:
        """Who did what, newest first. `filters`: by `action`, `subject` or `actor`. Raises BadCursor."""
        query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit + 1)
        for name, value in (filters or {}).items():
            query = query.where(getattr(AuditEntry, name) == value)
        if cursor is not None:
            query = query.where(AuditEntry.id < decode(_AUDIT, cursor, UUID))
        async with self._db.system() as session:
            rows = (await session.scalars(query)).all()
        return slice_of(_AUDIT, rows, limit, lambda row: row.id)

    # Handling ----------------------------------------------------------------------------------------------

    async def rest(self, actor: Actor, key_id: str, until: datetime, reason: str | None = None) -> KeyView:
        """Not to be used until then. Raises KeyNotFound, KeyRetired, KeyQuarantined, Invalid."""
        now = datetime.now(UTC)
        if not now < until <= now + timedelta(seconds=LONGEST_REST):
            raise Invalid("until must be a moment in the next 24 hours.", param="until")
        row = await self._in_use(key_id)
        if row.state == "quarantined":
            raise KeyQuarantined("It is not used at all. Restore it first.")
        said = reason or f"{actor.name} let it rest."
        await self._ledger.rest(key_id, until.timestamp(), said, actor)
        return await self.get(key_id)

    async def quarantine(self, actor: Actor, key_id: str, reason: str | None = None) -> KeyView:
        """Not to be used until it is restored. Raises KeyNotFound, KeyRetired."""
        await self._in_use(key_id)
        await self._ledger.quarantine(key_id, reason or f"{actor.name} quarantined it.", actor)
        return await self.get(key_id)

    async def restore(self, actor: Actor, key_id: str) -> KeyView:
        """To be used again, now. Raises KeyNotFound, KeyRetired."""
        await self._in_use(key_id)
        await self._ledger.restore(key_id, actor)
        return await self.get(key_id)

    async def refresh(self, actor: Actor) -> Mapping[str, str]:
        """Read the stores now, here and in every process. Returns the stores that did not answer, and why."""
        await self._ring.refresh()
        await tell_of_change(self._db)
        async with self._db.system() as session:
            note(session, actor, "keys.refreshed", "stores", {"failing": dict(self._ring.failing)})
        return self._ring.failing

    async def check(self, actor: Actor, key_id: str) -> Checked:
        """Ask the provider, by its cheapest call, whether the key is good. Changes nothing but the audit.

        Raises KeyNotFound, KeyRetired, StoreFailed.
        """
        row = await self._in_use(key_id)
        key = (await self._current(row.provider)).get(key_id)
        if key is None:
            raise KeyRetired(f"No store has the key {row.hint} of {row.provider} any more.")
        answer = await self._probe(row.provider, key)
        async with self._db.system() as session:
            detail = {"hint": row.hint, "verdict": answer.verdict}
            note(session, actor, "key.checked", f"{row.provider}/{row.id}", detail)
        return Checked(row.id, row.provider, row.hint, answer.verdict, answer.words)

    async def rotate(
        self,
        session: AsyncSession,
        actor: Actor,
        provider: str,
        key_id: str | None = None,
        reason: str | None = None,
    ) -> KeyRotation:
        """Replace the provider's keys, or one of them, in the background, from when `session` commits.

        Raises NoKeys, KeyNotFound, StoreReadOnly, RotationRunning.
        """
        store = self._store(provider)
        if not store.writable:
            raise StoreReadOnly(_only_read(provider, store))
        if key_id is not None:
            row = await session.get(ProviderKey, key_id)
            if row is None or row.provider != provider or row.state == "retired":
                raise KeyNotFound(f"{provider} has no key {key_id}.", param="key_id")
        said = fit(reason) if reason else f"asked for by {actor.name}"
        begun = await rotation_jobs.begin(session, actor, provider, key_id, said)
        if begun is None:
            raise RotationRunning(f"A rotation of {provider}'s keys is under way. Wait until it has ended.")
        return begun

    async def stage(self, actor: Actor, provider: str, keys: Sequence[SecretKey]) -> int:
        """Keep `keys` for the next rotation, in place of what was kept for it; how many there are.

        Raises NoKeys, StoreReadOnly, RotationRunning, StoreFailed, Invalid.
        """
        for key in keys:
            register_secret(key.reveal(), fragments=True)
        once = list(dict.fromkeys(keys))
        if not 1 <= len(once) <= MOST_KEYS:
            raise Invalid(f"Give 1 to {MOST_KEYS} keys.", param="keys")
        store = self._store(provider)
        async with self._db.system(limit=STAGE_LIMIT) as session:
            # A rotation that begins meanwhile waits until the keys are there, and finds them.
            await rotation_jobs.hold(session, provider)
            running = select(KeyRotation.id).where(
                KeyRotation.provider == provider, KeyRotation.outcome.is_(None)
            )
            if await session.scalar(running) is not None:
                raise RotationRunning(f"A rotation of {provider}'s keys is under way. Stage keys after it.")
            try:
                await store.stage(provider, once)
            except ReadOnlyStore:
                raise StoreReadOnly(_only_read(provider, store)) from None
            except StoreChanged as error:
                raise Conflict(str(error)) from None
            except StoreError as error:
                raise StoreFailed(str(error)) from error
            hints = [key.hint for key in once]
            note(session, actor, "keys.staged", provider, {"keys": hints, "store": store.name})
        return len(once)

    # Parts -------------------------------------------------------------------------------------------------

    def _store(self, provider: str) -> SecretStore:
        store = self._ring.store_of(provider)
        if store is None:
            raise NoKeys(
                f"There are no keys of {provider}. Put some into a store first: `baatcheet secrets set`.",
                param="provider",
            )
        return store

    async def _current(self, provider: str) -> dict[str, SecretKey]:
        store = self._ring.store_of(provider)
        if store is None:
            return {}
        try:
            versions: Versions = await store.versions(provider)
        except StoreError as error:
            raise StoreFailed(str(error)) from error
        keys = versions.current.keys if versions.current is not None else ()
        return {self._ring.fingerprint(provider, key): key for key in keys}

    async def _in_use(self, key_id: str) -> ProviderKey:
        async with self._db.system() as session:
            row = await session.get(ProviderKey, key_id)
        if row is None:
            raise KeyNotFound(f"There is no key {key_id}.")
        if row.state == "retired":
            raise KeyRetired(f"No store has the key {row.hint} of {row.provider} any more.")
        return row

    async def _views(self, session: AsyncSession, rows: Sequence[ProviderKey]) -> Sequence[KeyView]:
        now = datetime.now(UTC)
        query = select(KeyUsage).where(
            and_(KeyUsage.key_id.in_([row.id for row in rows]), KeyUsage.day == now.date())
        )
        usage = {one.key_id: one for one in (await session.scalars(query)).all()}
        monthly = select(JobSchedule.next_at).where(
            JobSchedule.name == rotation_jobs.MONTHLY, JobSchedule.paused.is_(False)
        )
        following = await session.scalar(monthly)
        return [self._view_of(row, usage.get(row.id), following, now) for row in rows]

    def _view_of(
        self, row: ProviderKey, used: KeyUsage | None, following: datetime | None, now: datetime
    ) -> KeyView:
        daily = self._daily(row.provider)
        requests = used.requests if used is not None else 0
        age = (row.retired_at or now) - row.added_at
        resting = row.state == "active" and row.resting_until is not None and row.resting_until > now
        live = row.state != "retired"
        return KeyView(
            id=row.id,
            provider=row.provider,
            hint=row.hint,
            store=row.store,
            state="resting" if resting else row.state,  # type: ignore[arg-type]
            reason=row.reason,
            resting_until=row.resting_until if resting else None,
            requests_today=requests,
            tokens_today=used.tokens if used is not None else 0,
            errors_today=used.errors if used is not None else 0,
            requests_limit=daily,
            requests_left=None if daily is None else max(0, daily - requests),
            last_error=row.last_error,
            last_error_at=row.last_error_at,
            last_used_at=row.last_used_at,
            added_at=row.added_at,
            retired_at=row.retired_at,
            age_days=max(0, age.days),
            too_old=live and age > self._max_age,
            next_rotation_at=following if live and self._rotating(row.provider) else None,
        )


def _only_read(provider: str, store: SecretStore) -> str:
    return (
        f"The keys of {provider} come from the store {store.name}, which is only read. Move them into another one "
        "first: `baatcheet secrets import`."
    )
