"""What the keys' page shows, made once for all who look at it at the same time. No key is in any of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from itertools import groupby
from typing import Any, Final, Literal
from uuid import UUID

from markupsafe import Markup

from baatcheet.auth.principal import Principal
from baatcheet.console.pages import render
from baatcheet.console.sharing import Shared
from baatcheet.keys.models import AuditEntry
from baatcheet.keys.schemas import RotationOut
from baatcheet.keys.service import Keys, KeyView, NoKeys
from baatcheet.kit.text import headline
from baatcheet.platform.redaction import redact

FRESH: Final = 0.75  # seconds that the view is believed: with a look a second, a change is seen within two
MOST_KEYS: Final = 1000  # on the page
MOST_ROTATIONS: Final = 10
MOST_ENTRIES: Final = 20
DIGITS: Final = 8  # of a fingerprint
LONGEST_LINE: Final = 160  # characters of an error in the table
LONGEST_DETAIL: Final = 240  # characters of an entry of the audit

Condition = Literal["usable", "resting", "exhausted", "quarantined", "retired"]

WORDS: Final[Mapping[Condition, str]] = {
    "usable": "Usable",
    "resting": "Rests",
    "exhausted": "Used up",
    "quarantined": "Quarantined",
    "retired": "Retired",
}
OUTCOMES: Final = {"rotated": "Rotated", "rolled_back": "Rolled back", "failed": "Failed"}
# What a rotation does at each step.
STEPS: Final = {
    "stage": "has new keys made, or takes the staged ones",
    "probe": "asks the provider about each new key",
    "promote": "makes the new keys the current ones in the store",
    "serve": "waits until every process uses them",
    "watch": "watches whether the new keys are refused in use",
    "drain": "waits until requests with old keys have ended",
    "revoke": "revokes the old keys at the provider",
    "verify": "looks whether all is as it was meant",
    "undo": "gives the new keys up: nothing has changed",
    "roll_back": "makes the old keys the current ones again",
    "withdraw": "waits until every process uses the old keys again",
}


@dataclass(frozen=True, slots=True)
class Line:
    """A key in its provider's table."""

    key: KeyView
    condition: Condition
    reason: str | None
    last_error: str | None

    @property
    def state(self) -> str:
        return WORDS[self.condition]

    @property
    def fingerprint(self) -> str:
        return self.key.id[:DIGITS]

    @property
    def name(self) -> str:
        """For those who listen: which key a link is about."""
        return f"{self.key.provider} {self.fingerprint}"

    @property
    def may_rest(self) -> bool:
        return self.condition in {"usable", "exhausted"}

    @property
    def may_quarantine(self) -> bool:
        return self.condition in {"usable", "exhausted", "resting"}

    @property
    def may_restore(self) -> bool:
        return self.condition in {"resting", "quarantined"}


@dataclass(frozen=True, slots=True)
class Group:
    """One provider's keys. `back`: when the next of those that can't be used now can be; None: of none it is known."""

    provider: str
    lines: Sequence[Line]
    back: datetime | None
    rotation: RotationOut | None  # under way

    def many(self, condition: Condition) -> int:
        return sum(line.condition == condition for line in self.lines)

    @property
    def usable(self) -> int:
        return self.many("usable")

    @property
    def old(self) -> int:
        return sum(line.key.too_old for line in self.lines)


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the audit. `hint`: of the key that it is about, where that is still in use."""

    id: UUID
    at: datetime
    actor: str
    via: str
    address: str | None
    action: str
    subject: str
    hint: str | None
    detail: str


class KeyViews:
    """The parts of the keys' page. Methods raise what `Keys` raises, and Forbidden for all but administrators."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._pages: Shared[None, Markup] = Shared(FRESH, patience=2)

    def forget(self) -> None:
        """Something was changed here: show it at once."""
        self._pages.forget()

    async def everything(self, who: Principal) -> Markup:
        """What changes on the page."""
        who.require("admin")

        async def make() -> Markup:
            found = await self._keys.list(limit=MOST_KEYS)
            rotations = [
                RotationOut.of(row) for row in (await self._keys.rotations(limit=MOST_ROTATIONS)).rows
            ]
            entries = (await self._keys.audit(limit=MOST_ENTRIES)).rows
            hints = {key.id: key.hint for key in found.rows}
            return render(
                "keys/list_live.html",
                groups=_groups(found.rows, rotations, datetime.now(UTC)),
                more=found.next_cursor is not None,
                most=MOST_KEYS,
                rotations=rotations,
                entries=[_entry(row, hints) for row in entries],
                steps=STEPS,
                outcomes=OUTCOMES,
                digits=DIGITS,
            )

        return await self._pages.get(None, make)

    async def line(self, who: Principal, key_id: str) -> Line:
        """A key as the table shows it. Raises KeyNotFound."""
        who.require("admin")
        return line_of(await self._keys.get(key_id))

    async def lines(self, who: Principal, provider: str) -> Sequence[Line]:
        """A provider's keys, one at least. Raises NoKeys."""
        who.require("admin")
        found = await self._keys.list(provider=provider, limit=MOST_KEYS)
        if not found.rows:
            raise NoKeys(f"There are no keys of {provider}.")
        return [line_of(key) for key in found.rows]


def line_of(key: KeyView) -> Line:
    """A key in words. Texts that others have said are without what looks like a secret."""
    condition: Condition = "usable"
    reason = key.reason if key.state in {"resting", "quarantined"} else None
    if key.state != "active":
        condition = key.state
    elif key.requests_left == 0:
        condition, reason = "exhausted", "The day's requests are made. It is usable again at midnight UTC."
    return Line(
        key,
        condition,
        redact(reason) if reason is not None else None,
        headline(redact(key.last_error), LONGEST_LINE) if key.last_error is not None else None,
    )


def back_at(lines: Sequence[Line], now: datetime) -> datetime | None:
    """When the next of those that can't be used at `now` can be. Nobody knows that of quarantined ones."""
    midnight = datetime.combine(now.astimezone(UTC).date() + timedelta(days=1), time(), UTC)
    moments = [line.key.resting_until for line in lines if line.condition == "resting"]
    moments += [midnight for line in lines if line.condition == "exhausted"]
    return min((one for one in moments if one is not None), default=None)


def _groups(keys: Sequence[KeyView], rotations: Sequence[RotationOut], now: datetime) -> list[Group]:
    running = {one.provider: one for one in rotations if one.outcome is None}
    groups = []
    for provider, some in groupby(keys, key=lambda key: key.provider):
        lines = [line_of(key) for key in some]
        groups.append(Group(provider, lines, back_at(lines, now), running.get(provider)))
    return groups


def _entry(row: AuditEntry, hints: Mapping[str, str]) -> Entry:
    provider, _, key = row.subject.rpartition("/")
    about_key = bool(provider) and len(key) == 2 * 16
    return Entry(
        id=row.id,
        at=row.at,
        actor=row.actor,
        via=row.via,
        address=row.address,
        action=row.action,
        subject=f"{provider}/{key[:DIGITS]}" if about_key else row.subject,
        hint=hints.get(key) if about_key else None,
        detail=headline(redact(_words(row.detail)), LONGEST_DETAIL),
    )


def _words(detail: Mapping[str, Any]) -> str:
    """`keys: a, b; store: file`."""
    parts = []
    for name, value in detail.items():
        shown = ", ".join(str(one) for one in value) if isinstance(value, list) else str(value)
        parts.append(f"{name}: {shown}")
    return "; ".join(parts)
