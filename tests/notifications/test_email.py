"""Notifications by email, from the event to a real SMTP server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import SMTP, default
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text, update

from baatcheet.auth.models import User
from baatcheet.jobs.models import JobRow
from baatcheet.jobs.worker import Worker
from baatcheet.kit.ids import new_id
from baatcheet.notifications.jobs import EmailParts, compose, send_email
from baatcheet.notifications.models import Notification
from baatcheet.notifications.subscriber import EMAILS_PER_HOUR
from baatcheet.platform.database import Database, connect
from baatcheet.platform.mail import Mailer, mailbox
from baatcheet.platform.settings import NotificationSettings
from tests.jobs.conftest import QUICK
from tests.notifications.conftest import NewPerson, Person, Teller
from tests.notifications.mail_server import MailServer
from tests.servers import past_bouncer

EXPORT = {"export_id": str(uuid4()), "format": "pdf", "size": 1000}
TO = "alice@example.com"

StartWorker = Callable[[int | None], Awaitable[None]]


def mailer(port: int) -> Mailer:
    return Mailer(
        NotificationSettings.model_validate(
            {"smtp_url": f"smtp://127.0.0.1:{port}", "smtp_from": "BaatCheet <noreply@example.com>"}
        )
    )


@pytest_asyncio.fixture(loop_scope="session")
async def start_worker(db: Database, own_database: str) -> AsyncIterator[StartWorker]:
    """Runs a worker that sends by a server at a port."""
    async with AsyncExitStack() as stack:

        async def start(port: int | None) -> None:
            parts = EmailParts(db, None if port is None else mailer(port), "https://chat.example.com/")
            worker = Worker(
                db,
                partial(connect, past_bouncer(own_database)),
                [send_email.bind(parts, later=(0.1, 0.1))],
                rooms={"email": 4},
                rhythm=QUICK,
            )
            await worker.start()
            stack.push_async_callback(worker.stop)

        yield start


@pytest.fixture(autouse=True)
def with_email(tell: Teller) -> None:
    tell.email = True


async def jobs(db: Database) -> list[JobRow]:
    async with db.system() as session:
        found = await session.execute(
            text("SELECT id FROM jobs WHERE kind = 'notification.email' ORDER BY id")
        )
        rows = [await session.get(JobRow, id_) for id_ in found.scalars()]
    return [row for row in rows if row is not None]


async def ended(db: Database, count: int = 1) -> list[JobRow]:
    """The jobs, once there are so many and all have ended."""
    async with asyncio.timeout(30):
        while True:
            rows = await jobs(db)
            if len(rows) == count and all(row.ended_at is not None for row in rows):
                return rows
            await asyncio.sleep(0.02)


async def test_a_notification_arrives_by_email(
    alice: Person, tell: Teller, db: Database, start_worker: StartWorker
) -> None:
    async with MailServer() as server:
        await tell("export.completed", alice.id, **EXPORT)
        assert (await alice.listed())[0]["email_status"] == "queued"
        await start_worker(server.port)
        [job] = await ended(db)
    assert job.status == "succeeded"
    assert job.visible is False
    [mail] = server.taken
    [notice] = await alice.listed()
    assert notice["email_status"] == "sent"
    message = mail.message
    assert mail.recipients == [TO]
    assert str(message["to"]) == f"Alice <{TO}>"
    assert str(message["from"]) == "BaatCheet <noreply@example.com>"
    assert message["subject"] == "Your export is ready"
    assert message["message-id"] == f"<{notice['id']}@example.com>"
    assert message["auto-submitted"] == "auto-generated"
    assert message.get_content().splitlines() == [
        "The export of all your data as PDF (1.0 kB) can be fetched now.",
        "",
        f"https://chat.example.com/console/jobs/about/{EXPORT['export_id']}",
    ]


async def test_a_name_and_a_text_in_urdu_arrive(
    new_person: NewPerson, tell: Teller, db: Database, start_worker: StartWorker
) -> None:
    person = await new_person("عالیہ بیگم", email="a@example.com")
    await person.want("audio.transcribed", email=True)
    async with MailServer() as server:
        await start_worker(server.port)
        await tell("audio.transcribed", person.id, filename="گفتگو کی ریکارڈنگ.mp3")
        await ended(db)
    message = server.taken[0].message
    assert message["to"].addresses[0].display_name == "عالیہ بیگم"
    assert "گفتگو کی ریکارڈنگ.mp3" in message.get_content()
    assert message.get_content_charset() == "utf-8"


async def test_a_refused_address_is_given_up_and_told_in_the_list(
    alice: Person, tell: Teller, db: Database, start_worker: StartWorker
) -> None:
    async with MailServer(refuse={TO: ["550 5.1.1 No such user"]}) as server:
        await start_worker(server.port)
        await tell("export.completed", alice.id, **EXPORT)
        [job] = await ended(db)
        assert server.tried == 1
    assert (job.status, job.attempts) == ("dead", 1)
    assert job.error is not None
    assert "550" in job.error
    assert (await alice.listed())[0]["email_status"] == "failed"


async def test_a_server_that_says_later_is_asked_again(
    alice: Person, tell: Teller, db: Database, start_worker: StartWorker
) -> None:
    async with MailServer(refuse={TO: ["451 Greylisted", "250"]}, after_data=["452 Full"]) as server:
        await start_worker(server.port)
        await tell("export.completed", alice.id, **EXPORT)
        [job] = await ended(db)
    assert (job.status, job.attempts) == ("succeeded", 3)
    assert len(server.taken) == 1


async def test_a_server_that_was_down_is_given_the_mail_when_it_is_back(
    alice: Person, tell: Teller, db: Database, start_worker: StartWorker
) -> None:
    async with MailServer() as server:
        port = server.port
    await start_worker(port)
    await tell("export.completed", alice.id, **EXPORT)
    async with asyncio.timeout(10):
        while not (await jobs(db))[0].failures:
            await asyncio.sleep(0.02)
    again = MailServer(port=port)
    async with again:
        [job] = await ended(db)
    assert job.status == "succeeded"
    assert len(again.taken) == 1


async def test_a_mail_that_is_sent_twice_is_the_same_mail(
    alice: Person, tell: Teller, db: Database, start_worker: StartWorker
) -> None:
    """As after a worker's death between the server's answer and our note of it."""
    await tell("export.completed", alice.id, **EXPORT)
    async with MailServer() as server:
        await start_worker(server.port)
        [job] = await ended(db)
        async with db.system() as session:
            await session.execute(update(Notification).values(email_status="queued"))
            await session.execute(
                text("UPDATE jobs SET status = 'queued', ended_at = NULL, attempts = 0 WHERE id = :id"),
                {"id": job.id},
            )
        await ended(db)
        # And once more, noted as sent: it is not sent.
        async with db.system() as session:
            await session.execute(
                text("UPDATE jobs SET status = 'queued', ended_at = NULL, attempts = 0 WHERE id = :id"),
                {"id": job.id},
            )
        [last] = await ended(db)
    assert last.result == {"sent": False}
    first, second = server.taken
    assert first.raw.split(b"\r\n")[1:] == second.raw.split(b"\r\n")[1:]
    assert first.message["message-id"] == second.message["message-id"]


async def test_nothing_is_sent_to_who_wants_none_or_has_no_address(
    alice: Person, new_person: NewPerson, tell: Teller, db: Database
) -> None:
    nowhere = await new_person("no address")
    await alice.want("export.completed", email=False)
    for person in (alice, nowhere):
        await tell("export.completed", person.id, **EXPORT)
        await tell("audio.transcribed", person.id, filename="a.mp3")
        assert {one["email_status"] for one in await person.listed()} == {None}
    assert await jobs(db) == []


async def test_without_a_mail_server_nothing_is_queued(alice: Person, tell: Teller, db: Database) -> None:
    tell.email = False
    await tell("export.completed", alice.id, **EXPORT)
    assert await jobs(db) == []


async def test_what_is_only_wanted_by_email_is_not_in_the_list(
    alice: Person, tell: Teller, db: Database, start_worker: StartWorker
) -> None:
    await alice.want("export.completed", in_app=False)
    async with MailServer() as server:
        await start_worker(server.port)
        await tell("export.completed", alice.id, **EXPORT)
        await ended(db)
    assert len(server.taken) == 1
    assert await alice.listed() == []
    assert await alice.unread() == 0


async def test_an_address_that_was_taken_away_meanwhile_is_not_written_to(
    alice: Person, tell: Teller, db: Database, start_worker: StartWorker
) -> None:
    await tell("export.completed", alice.id, **EXPORT)
    async with db.system() as session:
        await session.execute(update(User).where(User.id == alice.id).values(email=None))
    async with MailServer() as server:
        await start_worker(server.port)
        [job] = await ended(db)
    assert (job.status, job.result) == ("succeeded", {"sent": False})
    assert not server.taken


async def test_a_mail_server_that_was_taken_away_meanwhile_is_told(
    alice: Person, tell: Teller, db: Database, start_worker: StartWorker
) -> None:
    await tell("export.completed", alice.id, **EXPORT)
    await start_worker(None)
    [job] = await ended(db)
    assert job.status == "dead"
    assert (await alice.listed())[0]["email_status"] == "failed"


async def test_a_flood_of_events_is_no_flood_of_emails(alice: Person, tell: Teller, db: Database) -> None:
    for _ in range(2):
        await tell("export.completed", alice.id, *[EXPORT] * EMAILS_PER_HOUR)
    await alice.want("job.dead", email=True)
    assert len(await alice.listed(limit=200)) == 2 * EMAILS_PER_HOUR
    assert len(await jobs(db)) == EMAILS_PER_HOUR


async def test_those_alike_are_one_email(alice: Person, tell: Teller, db: Database) -> None:
    await alice.want("job.dead", email=True)
    failed = {"kind": "ocr.extract", "queue": "ocr", "error": "Can't be read"}
    await tell("job.dead", alice.id, *[failed] * 20)
    await tell("job.dead", alice.id, **failed)
    assert len(await jobs(db)) == 1


async def test_a_mail_that_can_t_be_sent_leads_to_no_mail_about_it(
    alice: Person, root: Person, tell: Teller, db: Database, start_worker: StartWorker
) -> None:
    await root.want("job.dead", email=True)
    async with MailServer(refuse={TO: ["550 no"], "root@example.com": ["550 no"]}) as server:
        await start_worker(server.port)
        await tell("export.completed", alice.id, **EXPORT)
        await ended(db)
        await tell.relay()
        [notice] = await root.listed()
    assert notice["title"] == "A job of the system has failed"
    assert notice["email_status"] is None
    assert len(await jobs(db)) == 1


@given(title=st.text(max_size=300), body=st.text(max_size=300), name=st.text(max_size=100))
def test_no_text_of_a_notification_breaks_out_of_its_place(title: str, body: str, name: str) -> None:
    notification = Notification(
        id=new_id(), title=title, text=body, link="/api/v1/jobs/1", created_at=datetime.now(UTC)
    )
    message: Any = compose(mailer(25).sender, mailbox(TO, name), notification, "https://chat.example.com")
    raw = message.as_bytes(policy=SMTP)
    parsed: Any = message_from_bytes(raw, policy=default)
    assert sorted(parsed.keys()) == sorted(message.keys())
    assert [one.addr_spec for one in parsed["to"].addresses] == [TO]
    assert not parsed.is_multipart()
    assert parsed.get_content_type() == "text/plain"
