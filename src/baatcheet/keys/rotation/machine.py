"""One rotation, step by step.

    stage → probe → promote → serve → watch → drain → revoke → verify        rotated
      └───────┴────────┴→ undo                                               failed
                            serve, watch └→ roll_back → withdraw             rolled_back

Which step it is at, and what the later ones must know, is written down before each of them begins. Each may be broken
off anywhere and begun again: it looks at what is there, at the store and at the provider, and does what is missing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.events.outbox import record as record_event
from baatcheet.jobs.declaration import LeaseLost, TryAgain
from baatcheet.keys.audit import SYSTEM, note
from baatcheet.keys.probing import Probe, Probed
from baatcheet.keys.rotation import record
from baatcheet.keys.rotation.provisioners import Provisioner, ProvisionerError, is_of, name_of
from baatcheet.keys.rotation.record import Made, Outcome, State, Step
from baatcheet.keys.secret import SecretKey
from baatcheet.keys.stores.model import (
    KeySet,
    SecretStore,
    StoreChanged,
    StoreError,
    StoreUnavailable,
    Versions,
)
from baatcheet.platform.database import Database
from baatcheet.platform.logging import get_logger
from baatcheet.platform.redaction import register_secret

log = get_logger(__name__)

PROBED_AT_ONCE: Final = 4
LONGEST_WORDS: Final = 300  # characters
EVENTS: Final[Mapping[Outcome, str]] = {
    "rotated": "key.rotated",
    "rolled_back": "key.rotation_failed",
    "failed": "key.rotation_failed",
}

Answer = TypeVar("Answer")
Finish = Callable[[], AbstractAsyncContextManager[AsyncSession]]


class Ring(Protocol):
    """What a rotation asks of `keys.ring.KeyRing`."""

    @property
    def stores(self) -> tuple[SecretStore, ...]: ...

    @property
    def failing(self) -> Mapping[str, str]: ...

    def store_of(self, provider: str) -> SecretStore | None: ...

    def fingerprint(self, provider: str, key: SecretKey) -> str: ...

    async def refresh(self) -> None: ...


@dataclass(frozen=True)
class Pace:
    """How long the parts of a rotation may take, in seconds."""

    watch: float = 120.0  # that the new keys are watched in use
    patience: float = 3600.0  # that what is passing may last before the new keys are given up
    serve: float = 60.0  # that processes are waited for before the watch begins
    drain: float = 600.0  # that requests with old keys may still take
    look: float = 1.0  # between two looks
    ripen: float = 3.0  # that a new key is given until the provider knows it everywhere
    ripenings: int = 4


@dataclass(frozen=True)
class RotationParts:
    """What a rotation takes. `provisioners`: by provider."""

    db: Database
    ring: Ring
    probe: Probe
    provisioners: Mapping[str, Provisioner] = field(default_factory=dict)
    pace: Pace = Pace()


class _Lost(Exception):
    """The new keys can't be used, or not be had. `str(error)` says why."""


class Rotator:
    """Brings a rotation to its end."""

    def __init__(self, parts: RotationParts) -> None:
        self._parts = parts
        self._db = parts.db
        self._pace = parts.pace

    async def run(self, id_: UUID, finish: Finish | None = None) -> Outcome:
        """Go on from where it is. `finish`: the transaction in which it ends; one of its own unless given.

        Raises TryAgain for what is passing, GiveUp when there is no such rotation, LeaseLost when another run has
        taken it, DatabaseUnavailable: nothing is decided before the keys can be told apart.
        """
        async with self._db.system() as session:
            state = await record.take(session, id_)
        if state.outcome is not None:
            return state.outcome
        steps: Mapping[Step, Callable[[State], Awaitable[Step | _End]]] = {
            "stage": self._stage,
            "probe": self._probe,
            "promote": self._promote,
            "serve": self._serve,
            "watch": self._watch,
            "drain": self._drain,
            "revoke": self._revoke,
            "verify": self._verify,
            "undo": self._undo,
            "roll_back": self._roll_back,
            "withdraw": self._withdraw,
        }
        while True:
            following = await self._step(steps[state.step], state)
            if isinstance(following, _End):
                break
            if following != state.step:
                log.info("rotation.step", rotation=str(id_), provider=state.provider, step=following)
            state.step = following
            await self._write(state)
        async with (finish or self._db.system)() as session:
            await _end(session, state, following)
        outcome, words = following.outcome, following.words
        tell = log.info if outcome == "rotated" else log.warning
        tell("rotation.ended", rotation=str(id_), provider=state.provider, outcome=outcome, reason=words)
        return outcome

    async def _step(self, step: Callable[[State], Awaitable["Step | _End"]], state: State) -> "Step | _End":
        """What `step` says comes next; what goes wrong before the promotion ends in `undo`."""
        before = state.step in {"stage", "probe", "promote"}
        try:
            return await step(state)
        except _Lost as error:
            state.detail.why = _short(str(error))
            return "undo" if before else "roll_back"
        except (StoreError, ProvisionerError) as error:
            passing = (
                error.passing if isinstance(error, ProvisionerError) else isinstance(error, StoreUnavailable)
            )
            if before and not (passing and await self._has_patience(state)):
                state.detail.why = _short(str(error))
                return "undo"
            await self._fail(state, str(error))
            raise TryAgain(_short(str(error))) from error
        except TryAgain as error:
            if before and not await self._has_patience(state):
                state.detail.why = _short(str(error))
                return "undo"
            await self._fail(state, str(error))
            raise

    # Up to the promotion -----------------------------------------------------------------------------------

    async def _stage(self, state: State) -> "Step | _End":
        store = self._store(state)
        if not store.writable:
            raise _Lost(
                f"The keys of {state.provider} come from the store {store.name}, which is only read. "
                "Move them into another one first: `baatcheet secrets import`."
            )
        versions = await store.versions(state.provider)
        current, pending = self._ids(state, versions.current), self._ids(state, versions.pending)
        detail, known = state.detail, _known_keys(self._parts.ring, state.provider, versions)
        detail.before = detail.before or list(current)
        detail.hints |= {key: known[key].hint for key in (*current, *pending)}
        if not current or list(current) != detail.before:
            raise _Lost(f"The keys of {state.provider} have changed meanwhile, or there are none.")
        if state.key_id is not None and state.key_id not in current:
            raise _Lost(f"The key {state.key_id} is none of {state.provider}'s keys.")
        if detail.target and list(pending) == detail.target:
            return "probe"
        if detail.source is None:
            detail.source = "staged" if pending else "provisioner"
            await self._write(state)
        if detail.source == "staged":
            return await self._stage_what_was_given(state, store, versions)
        return await self._stage_what_is_made(state, store, versions)

    async def _stage_what_was_given(self, state: State, store: SecretStore, versions: Versions) -> "Step":
        """The operator's list: as a whole, or its one new key in the place of one."""
        detail, pending = state.detail, versions.pending
        new = [key for key in self._ids(state, pending) if key not in detail.before]
        if pending is None or not new:
            raise _Lost(
                f"Nothing new is staged for {state.provider}: `baatcheet keys stage {state.provider}`."
            )
        if state.key_id is None:
            detail.target = list(self._ids(state, pending))
        elif len(new) == 1:
            detail.target = [new[0] if key == state.key_id else key for key in detail.before]
        else:
            raise _Lost(f"{len(new)} new keys are staged; to replace one key, stage one.")
        detail.fresh = new
        detail.gone = [key for key in detail.before if key not in detail.target]
        await self._write(state)
        if list(self._ids(state, pending)) != detail.target:
            known = _known_keys(self._parts.ring, state.provider, versions)
            await store.stage(state.provider, [known[key] for key in detail.target])
        return "probe"

    async def _stage_what_is_made(self, state: State, store: SecretStore, versions: Versions) -> "Step":
        """New keys of the provider's own API. Those that an earlier run had made are gone with it, and are deleted."""
        detail = state.detail
        if versions.pending is not None:
            raise _Lost("Other keys were staged meanwhile.")
        maker = self._maker(state)
        if maker is None:
            raise _Lost(
                f"There are no new keys for {state.provider}: stage some (`baatcheet keys stage {state.provider}`)"
                " or give BaatCheet the key of the provider's own key API, where it has one."
            )
        await self._delete_made(state, maker, keep=())
        detail.gone = [state.key_id] if state.key_id is not None else list(detail.before)
        known = _known_keys(self._parts.ring, state.provider, versions)
        new: dict[str, SecretKey] = {}
        made: list[Made] = []
        for number, old in enumerate(detail.gone, 1):
            like = await self._found_at(state, maker, old, known)
            key = await maker.create(name_of(state.id, number), like)
            id_ = self._parts.ring.fingerprint(state.provider, key.key)
            new[old] = key.key
            made.append(Made(id_, key.at))
            detail.hints[id_] = key.key.hint
        target = [new.get(key, known[key]) for key in detail.before]
        detail.made, detail.fresh = made, [one.key for one in made]
        detail.target = [self._parts.ring.fingerprint(state.provider, key) for key in target]
        try:
            await self._write(state)
        except (
            LeaseLost
        ):  # another run makes keys of its own: it may have looked for these before they were there
            for one in made:
                await maker.delete(one.at)
            raise
        await store.stage(state.provider, target)
        return "probe"

    async def _probe(self, state: State) -> "Step":
        pending = (await self._store(state).versions(state.provider)).pending
        if list(self._ids(state, pending)) != state.detail.target:
            raise _Lost("What was staged has changed meanwhile.")
        assert pending is not None
        await self._probe_keys(state, pending)
        return "promote"

    async def _probe_keys(self, state: State, keys: KeySet) -> None:
        """Every new key in `keys` is good. Raises _Lost when one is refused, TryAgain when that can't be known."""
        left = [
            key
            for key in keys.keys
            if self._parts.ring.fingerprint(state.provider, key) in state.detail.fresh
        ]
        room = asyncio.Semaphore(PROBED_AT_ONCE)

        async def probe(key: SecretKey) -> Probed:
            # It is new here: what the provider says of it may hold it.
            register_secret(key.reveal(), fragments=True)
            async with room:
                return await self._parts.probe(state.provider, key)

        answers: list[tuple[SecretKey, Probed]] = []
        # A key that was made a moment ago may not be known everywhere at once.
        for attempt in range(self._pace.ripenings if state.detail.source == "provisioner" else 1):
            if attempt:
                await asyncio.sleep(self._pace.ripen)
            found = await asyncio.gather(*(probe(key) for key in left))
            answers = [one for one in zip(left, found, strict=True) if one[1].verdict != "good"]
            left = [key for key, _ in answers]
            if not left:
                return
        refused = [(key, one) for key, one in answers if one.verdict == "refused"]
        if refused:
            key, said = refused[0]
            raise _Lost(
                f"{len(refused)} of {len(state.detail.fresh)} new keys were refused. {key.hint}: {said.words}"
            )
        key, said = answers[0]
        raise TryAgain(f"{state.provider} can't say whether the new key {key.hint} is good: {said.words}")

    async def _promote(self, state: State) -> "Step":
        store = self._store(state)
        versions = await store.versions(state.provider)
        if list(self._ids(state, versions.current)) != state.detail.target:  # else it is done already
            pending = versions.pending
            if (
                pending is None
                or list(self._ids(state, pending)) != state.detail.target
                or list(self._ids(state, versions.current)) != state.detail.before
            ):
                raise _Lost("The keys have changed meanwhile.")
            await store.promote(state.provider, pending.version)
        await self._announce(state)
        return "serve"

    # After it ----------------------------------------------------------------------------------------------

    async def _serve(self, state: State) -> "Step":
        """Nobody uses the old keys any more. Raises TryAgain while somebody does, and _Lost when that goes on."""
        await self._parts.ring.refresh()
        if left := await self._until_served(state, self._pace.serve):
            words = f"{left} of the old keys are still used by a process that does not serve the new ones."
            if await self._has_patience(state):
                raise TryAgain(words)
            raise _Lost(words)
        await self._set_clock(state, self._pace.watch)
        return "watch"

    async def _watch(self, state: State) -> "Step":
        while True:
            async with self._db.system() as session:
                refused = await record.quarantined(session, state.detail.fresh)
                moment = await record.now(session)
            if refused:
                hint, why = refused[0]
                raise _Lost(
                    f"{len(refused)} of {len(state.detail.fresh)} new keys were refused in use. {hint}: {why}"
                )
            if moment >= state.detail.until:
                break
            await asyncio.sleep(min(self._pace.look, state.detail.until - moment))
        await self._set_clock(state, self._pace.drain)
        return "drain"

    async def _drain(self, state: State) -> "Step":
        await self._until_drained(state, state.detail.gone)
        return "revoke"

    async def _revoke(self, state: State) -> "Step | _End":
        detail, store = state.detail, self._store(state)
        versions = await store.versions(state.provider)
        in_use = set(self._ids(state, versions.current))
        if in_use & set(detail.gone):
            return _End(
                "failed",
                "Old keys are in use again: somebody has changed the store meanwhile. Nothing was revoked.",
            )
        async with self._db.system() as session:
            held = await record.held(session, detail.gone)
        if held:  # a store of its own, perhaps, which nobody has changed
            detail.by_hand += [key for key in self._unsettled(state, ()) if key in held]
            detail.notes.append(f"{len(held)} old keys are still in use by a process, and were not revoked.")
        maker = self._maker(state)
        known = _known_keys(self._parts.ring, state.provider, versions)
        for old in self._unsettled(state, detail.at):
            at = None
            if maker is not None:
                at = await self._asked(state, self._found_at(state, maker, old, known))
            if at is None:
                detail.by_hand.append(old)
            else:
                detail.at[old] = at
        # Written down before any is deleted: what is deleted is found no more.
        await self._write(state)
        for old in self._unsettled(state, ()):
            done = maker is not None and await self._asked(state, _delete(maker, detail.at[old]))
            (detail.revoked if done else detail.by_hand).append(old)
            await self._write(state)
        return "verify"

    def _unsettled(self, state: State, known: Container[str]) -> list[str]:
        """The old keys that are neither revoked nor left to a person, nor in `known`."""
        settled = {*state.detail.revoked, *state.detail.by_hand}
        return [key for key in state.detail.gone if key not in settled and key not in known]

    async def _asked(self, state: State, question: Awaitable[Answer]) -> Answer | None:
        """What the provider answers; None, and a note, when it does not for good. Raises ProvisionerError."""
        try:
            return await question
        except ProvisionerError as error:
            if error.passing and await self._has_patience(state):
                raise
            state.detail.notes.append(_short(str(error)))
            return None

    async def _verify(self, state: State) -> "Step | _End":
        detail = state.detail
        versions = await self._store(state).versions(state.provider)
        if list(self._ids(state, versions.current)) != detail.target:
            detail.notes.append("The store has been changed since.")
        elif versions.current is not None:
            try:
                await self._probe_keys(state, versions.current)
            except TryAgain as error:
                if await self._has_patience(state):
                    raise
                detail.notes.append(_short(str(error)))
            except _Lost as error:
                return _End(
                    "failed", f"The new keys are in use, the old ones revoked where possible, but: {error}"
                )
        maker = self._maker(state)
        if maker is not None:
            try:
                await self._delete_made(state, maker, keep={one.at for one in detail.made})
            except ProvisionerError as error:
                if error.passing and await self._has_patience(state):
                    raise
                detail.notes.append(_short(str(error)))
        return _End("rotated", _summary(state))

    # Back --------------------------------------------------------------------------------------------------

    async def _undo(self, state: State) -> "Step | _End":
        detail = state.detail
        store = self._store_named(state)
        if store is not None and store.writable and detail.target:
            versions = await store.versions(state.provider)
            if list(self._ids(state, versions.current)) == detail.target:
                return "roll_back"  # it was promoted, whatever was answered then
            pending = versions.pending
            if pending is not None and list(self._ids(state, pending)) == detail.target:
                if detail.source == "provisioner":
                    await store.discard(state.provider)
                elif state.key_id is not None:  # what the operator had staged was the new key alone
                    known = _known_keys(self._parts.ring, state.provider, versions)
                    await store.stage(state.provider, [known[key] for key in detail.fresh])
        return _End("failed", f"{_sentence(detail.why)}{await self._withdraw_made(state)}")

    async def _roll_back(self, state: State) -> "Step | _End":
        detail, store = state.detail, self._store(state)
        versions = await store.versions(state.provider)
        current = list(self._ids(state, versions.current))
        if current == detail.target and versions.current is not None:
            try:
                await store.roll_back(state.provider, versions.current.version)
            except StoreChanged as error:
                return _End(
                    "failed", f"{_sentence(detail.why)} The old keys could not be brought back: {error}"
                )
        elif current != detail.before:
            return _End(
                "failed",
                f"{_sentence(detail.why)} Nothing was brought back: somebody has changed the store since.",
            )
        await self._announce(state)
        return "withdraw"

    async def _withdraw(self, state: State) -> "_End":
        await self._parts.ring.refresh()
        if not state.detail.until:
            await self._set_clock(state, self._pace.drain)
            await self._write(state)
        await self._until_drained(state, state.detail.fresh)
        left = await self._withdraw_made(state)
        return _End("rolled_back", f"{_sentence(state.detail.why)} The old keys are in use again.{left}")

    # Parts of steps ----------------------------------------------------------------------------------------

    def _store(self, state: State) -> SecretStore:
        """The store that the rotation writes to: where the provider's keys came from when it began."""
        if state.store is None:
            found = self._parts.ring.store_of(state.provider)
            if found is None:
                raise _Lost(f"There are no keys of {state.provider} to be replaced.")
            state.store = found.name
            return found
        named = self._store_named(state)
        if named is None:
            raise TryAgain(f"The store {state.store} is not among BAATCHEET_SECRET_STORES any more.")
        return named

    def _store_named(self, state: State) -> SecretStore | None:
        return next((one for one in self._parts.ring.stores if one.name == state.store), None)

    def _maker(self, state: State) -> Provisioner | None:
        maker = self._parts.provisioners.get(state.provider)
        return maker if maker is not None and maker.available else None

    def _ids(self, state: State, keys: KeySet | None) -> tuple[str, ...]:
        if keys is None:
            return ()
        return tuple(dict.fromkeys(self._parts.ring.fingerprint(state.provider, key) for key in keys.keys))

    async def _found_at(
        self, state: State, maker: Provisioner, key: str, known: Mapping[str, SecretKey]
    ) -> str | None:
        """What the provider calls a key: as an earlier rotation wrote it down, or as the provider says."""
        async with self._db.system() as session:
            noted = await record.made_before(session, state.provider, [key])
        if key in noted:
            return noted[key]
        return await maker.find(known[key]) if key in known else None

    async def _delete_made(self, state: State, maker: Provisioner, *, keep: Sequence[str] | set[str]) -> None:
        """No key of this rotation is left at the provider, but for `keep`."""
        for one in await maker.listed():
            if is_of(state.id, one.name) and one.at not in keep:
                await maker.delete(one.at)

    async def _withdraw_made(self, state: State) -> str:
        """Delete what was made at the provider; what there is to say where that is not possible."""
        if state.detail.source != "provisioner":
            return ""
        if in_use := await self._made_in_use(state):
            return f" {in_use} keys that were made are in use, and stay at the provider."
        maker = self._maker(state)
        if maker is None:
            return f" At the provider, delete the keys whose names begin with {name_of(state.id, 0)[:-1]!r}."
        await self._delete_made(state, maker, keep=())
        return ""

    async def _made_in_use(self, state: State) -> int:
        """How many of the keys that were made are current in the store, or picked from by a process."""
        made = [one.key for one in state.detail.made]
        store = self._store_named(state)
        current = (
            self._ids(state, (await store.versions(state.provider)).current) if store is not None else ()
        )
        async with self._db.system() as session:
            held = await record.held(session, made)
        return len([key for key in made if key in current or key in held])

    async def _until_served(self, state: State, seconds: float) -> int:
        """Until no live process picks from the old keys, or the time is over: how many of them are picked from then."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            async with self._db.system() as session:
                left = len(await record.held(session, state.detail.gone))
            if not left or loop.time() >= deadline:
                return left
            await asyncio.sleep(self._pace.look)

    async def _until_drained(self, state: State, keys: Sequence[str]) -> None:
        """Until no live process picks from `keys` or has a request under way with one, or the time is over."""
        while True:
            async with self._db.system() as session:
                held = len(await record.held(session, keys))
                flying = await record.in_flight(session, keys)
                moment = await record.now(session)
            if not held and not flying:
                return
            if moment >= state.detail.until:
                state.detail.notes.append(
                    f"When the time was over, {held} of these keys were still picked from, and {flying} requests with "
                    "them had not ended."
                )
                return
            await asyncio.sleep(self._pace.look)

    async def _set_clock(self, state: State, seconds: float) -> None:
        async with self._db.system() as session:
            state.detail.until = await record.now(session) + seconds

    async def _has_patience(self, state: State) -> bool:
        async with self._db.system() as session:
            return await record.now(session) < state.started_at + self._pace.patience

    async def _announce(self, state: State) -> None:
        state.detail.until = 0.0
        async with self._db.system() as session:
            state.detail.sets = await record.announce(session)
            await record.write(session, state)

    async def _write(self, state: State) -> None:
        async with self._db.system() as session:
            await record.write(session, state)

    async def _fail(self, state: State, words: str) -> None:
        async with self._db.system() as session:
            await record.write(session, state, _short(words))


def _sentence(words: str) -> str:
    return words if words.endswith((".", "!", "?")) else f"{words}."


@dataclass(frozen=True)
class _End:
    """How a rotation ended, and what there is to say of it."""

    outcome: Outcome
    words: str


async def _end(session: AsyncSession, state: State, how: _End) -> None:
    words = _short(how.words)
    await record.end(session, state, how.outcome, None if how.outcome == "rotated" else words)
    told = {"provider": state.provider, "fingerprint": state.key_id, "reason": words}
    await record_event(session, EVENTS[how.outcome], told, user=None)
    subject = f"{state.provider}/{state.key_id}" if state.key_id is not None else state.provider
    audited = {"rotation": str(state.id), "reason": words, "revoked": state.detail.revoked}
    note(session, SYSTEM, f"keys.{how.outcome}", subject, audited | {"by_hand": state.detail.by_hand})


async def _delete(maker: Provisioner, at: str) -> bool:
    await maker.delete(at)
    return True


def _known_keys(ring: Ring, provider: str, versions: Versions) -> dict[str, SecretKey]:
    """Every key that the store has of this provider, by its id."""
    sets = (versions.previous, versions.pending, versions.current)
    return {ring.fingerprint(provider, key): key for one in sets if one is not None for key in one.keys}


def _summary(state: State) -> str:
    detail = state.detail
    said = [f"{_count(len(detail.fresh))} in use instead of {len(detail.gone)}."]
    if detail.revoked:
        said.append(f"{len(detail.revoked)} revoked at the provider.")
    if detail.by_hand:
        hints = ", ".join(detail.hints.get(key, key[:8]) for key in detail.by_hand[:5])
        more = f" and {len(detail.by_hand) - 5} more" if len(detail.by_hand) > 5 else ""
        said.append(f"To be revoked by hand: {hints}{more}.")
    return " ".join([*said, *detail.notes])


def _count(keys: int) -> str:
    return "1 new key is" if keys == 1 else f"{keys} new keys are"


def _short(words: str) -> str:
    return words if len(words) <= LONGEST_WORDS else words[: LONGEST_WORDS - 1] + "…"
