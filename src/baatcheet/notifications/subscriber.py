"""From events to notifications, in the transaction that relays the events."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.events.model import Event
from baatcheet.events.outbox import record
from baatcheet.jobs.enqueueing import Order, enqueue_many
from baatcheet.kit.ids import new_id
from baatcheet.notifications import repository
from baatcheet.notifications.jobs import Letter, send_email
from baatcheet.notifications.repository import Person, Wishes
from baatcheet.notifications.wording import KINDS, Notice, notice_of
from baatcheet.platform.logging import get_logger

log = get_logger(__name__)

EMAILS_PER_HOUR: Final = 30  # to one user: what is beyond that is in their list only


@dataclass(frozen=True)
class _Told:
    """A notice for one user. `times`: of how many alike events in this batch it tells."""

    person: Person
    event: Event
    notice: Notice
    alike: str | None
    wishes: Wishes
    times: int = 1


class Notifier:
    """A subscriber of the relay. `email`: whether there is a mail server to send by."""

    def __init__(self, *, email: bool) -> None:
        self._email = email

    async def relayed(self, session: AsyncSession, events: Sequence[Event]) -> None:
        """Notifications of `events`, their emails' jobs and what the live stream tells: all or none of it."""
        notices = [(event, notice) for event in events if (notice := notice_of(event)) is not None]
        if not notices:
            return
        owners = {event.user for event, _ in notices if event.user is not None}
        people = await repository.people(
            session, owners, admins=any(event.user is None for event, _ in notices)
        )
        told = _merged(_for_each(people, notices))
        emails = await self._emails_left(session, {one.person.id for one in told})
        letters: list[Order] = []
        listed: list[tuple[UUID, _Told]] = []
        for one in told:
            id_, is_new = await repository.add(session, _row(one))
            if one.wishes.in_app:
                listed.append((id_, one))
            if is_new and one.wishes.email and emails[one.person.id] > 0:
                emails[one.person.id] -= 1
                letters.append(Order(Letter(id_), one.person.id, id_))
        if letters:
            await repository.set_email_status(
                session, [one.subject for one in letters if one.subject], "queued"
            )
            await enqueue_many(session, send_email, letters)
        await _tell(session, listed)

    async def _emails_left(self, session: AsyncSession, owners: Collection[UUID]) -> dict[UUID, int]:
        if not self._email:
            return dict.fromkeys(owners, 0)
        lately = await repository.emailed_lately(session, owners)
        return {owner: EMAILS_PER_HOUR - lately.get(owner, 0) for owner in owners}


def _for_each(people: Sequence[Person], notices: Sequence[tuple[Event, Notice]]) -> list[_Told]:
    """Whom each notice is for, as far as they want it."""
    found = []
    for event, notice in notices:
        kind = KINDS[notice.kind]
        for person in people:
            meant = person.is_admin if event.user is None else person.id == event.user
            wishes = person.wishes.get(kind.name, Wishes(in_app=True, email=kind.email))
            wishes = replace(wishes, email=wishes.email and person.email is not None and not notice.quiet)
            if meant and (wishes.in_app or wishes.email):
                # Those alike are one a day: whoever reads emails only hears of the next day's too.
                alike = f"{notice.alike}:{event.at:%Y-%m-%d}" if notice.alike and wishes.in_app else None
                found.append(_Told(person, event, notice, alike, wishes))
    return found


def _merged(told: Sequence[_Told]) -> list[_Told]:
    """One for each user of those that are alike: the last, which counts them all."""
    merged: dict[tuple[UUID, str], _Told] = {}
    for one in told:
        key = (one.person.id, one.alike or f"event:{one.event.id}")
        before = merged.pop(key, None)
        merged[key] = one if before is None else replace(one, times=before.times + 1)
    return list(merged.values())


def _row(one: _Told) -> dict[str, object]:
    notice = one.notice
    return {
        "id": new_id(),
        "user_id": one.person.id,
        "event_id": one.event.id,
        "kind": notice.kind,
        "title": notice.title,
        "text": notice.text,
        "link": notice.link,
        "listed": one.wishes.in_app,
        "alike": one.alike,
        "times": one.times,
    }


async def _tell(session: AsyncSession, listed: Sequence[tuple[UUID, _Told]]) -> None:
    """Tell the live stream, with how many are unread now."""
    unread = await repository.count_unread(session, {one.person.id for _, one in listed})
    for id_, one in listed:
        told = {
            "notification_id": id_,
            "kind": one.notice.kind,
            "title": one.notice.title,
            "unread": unread.get(one.person.id, 0),
        }
        await record(session, "notification.created", told, user=one.person.id)
