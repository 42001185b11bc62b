"""Emails, each a job."""

from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.auth.models import User
from baatcheet.jobs.declaration import DeadJob, GiveUp, Job, TryAgain, job
from baatcheet.kit.text import headline
from baatcheet.notifications import repository
from baatcheet.notifications.models import Notification
from baatcheet.notifications.wording import LONGEST_TITLE, page_of
from baatcheet.platform.database import Database
from baatcheet.platform.mail import MailDelayed, Mailer, MailRefused, mailbox


class Letter(msgspec.Struct, frozen=True):
    """Which notification to send."""

    notification: UUID


@dataclass(frozen=True)
class EmailParts:
    """What an email needs. `mailer` None: there is no mail server any more."""

    db: Database
    mailer: Mailer | None
    public_url: str | None


async def _failed(dead: DeadJob, session: AsyncSession, parts: EmailParts) -> None:
    _, notification = dead.concerns
    await repository.set_email_status(session, [notification], "failed")


@job(
    "notification.email",
    queue="email",
    seconds=180,
    later=(300.0, 1800.0, 7200.0, 6 * 3600.0),
    visible=False,
    on_dead=_failed,
)
async def send_email(job: Job[Letter], parts: EmailParts) -> dict[str, Any] | None:
    """The notification's user has it by email. Sent twice after a crash, both have the same Message-ID.

    One that was sent already, or whose user or address is gone, is left.
    """
    async with parts.db.system() as session:
        found = (
            await session.execute(
                select(Notification, User.name, User.email)
                .join(User, User.id == Notification.user_id)
                .where(Notification.id == job.payload.notification, User.active, User.email.is_not(None))
            )
        ).one_or_none()
    if found is None or found.Notification.email_status == "sent":
        return {"sent": False}
    if parts.mailer is None:
        raise GiveUp("No mail server is configured any more.")
    notification, name, email = found
    assert email is not None
    try:
        message = compose(parts.mailer.sender, mailbox(email, name), notification, parts.public_url)
        await parts.mailer.send(message)
    except MailRefused as error:
        raise GiveUp(str(error)) from error
    except MailDelayed as error:
        raise TryAgain(str(error)) from error
    async with job.finish({"sent": True}) as session:
        await repository.set_email_status(session, [notification.id], "sent")
    return None


def compose(
    sender: Address, recipient: Address, notification: Notification, public_url: str | None
) -> EmailMessage:
    """The notification as a plain email: the same one each time."""
    message = EmailMessage()
    message["From"] = sender
    message["To"] = recipient
    message["Subject"] = headline(notification.title, LONGEST_TITLE)
    message["Date"] = format_datetime(notification.created_at)
    message["Message-ID"] = f"<{notification.id}@{sender.domain}>"
    # Nobody's absence is told to us (RFC 3834).
    message["Auto-Submitted"] = "auto-generated"
    message["X-Auto-Response-Suppress"] = "All"
    lines = [notification.text]
    page = page_of(notification.link) if notification.link is not None else None
    if public_url is not None and page is not None:
        lines += ["", f"{public_url.rstrip('/')}{page}"]
    message.set_content("\n".join(lines) + "\n", charset="utf-8")
    return message
