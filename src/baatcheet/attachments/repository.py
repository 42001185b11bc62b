"""Rows of attachments and of their pages."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Text, cast, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.attachments.models import Attachment, AttachmentPage


async def by_id(session: AsyncSession, owner: UUID, attachment_id: UUID) -> Attachment | None:
    query = select(Attachment).where(Attachment.id == attachment_id, Attachment.user_id == owner)
    return (await session.scalars(query)).one_or_none()


async def by_ids(session: AsyncSession, owner: UUID, ids: Collection[UUID]) -> dict[UUID, Attachment]:
    query = select(Attachment).where(Attachment.id.in_(ids), Attachment.user_id == owner)
    return {row.id: row for row in await session.scalars(query)}


async def id_of(session: AsyncSession, owner: UUID, sha256: str) -> UUID | None:
    """The attachment that a file is already."""
    query = select(Attachment.id).where(Attachment.user_id == owner, Attachment.sha256 == sha256)
    return await session.scalar(query)


async def by_hash(session: AsyncSession, owner: UUID, sha256: str) -> Attachment | None:
    """Locked: whoever would read it again waits for who does."""
    query = select(Attachment).where(Attachment.user_id == owner, Attachment.sha256 == sha256)
    return (await session.scalars(query.with_for_update())).one_or_none()


async def locked(session: AsyncSession, owner: UUID, attachment_id: UUID) -> Attachment | None:
    query = select(Attachment).where(Attachment.id == attachment_id, Attachment.user_id == owner)
    return (await session.scalars(query.with_for_update())).one_or_none()


async def after(
    session: AsyncSession, owner: UUID, last: UUID | None, limit: int, filters: Mapping[str, Any]
) -> Sequence[Attachment]:
    """Newest first."""
    query = select(Attachment).where(Attachment.user_id == owner)
    if last is not None:
        query = query.where(Attachment.id < last)
    for name, value in filters.items():
        query = query.where(getattr(Attachment, name) == value)
    return (await session.scalars(query.order_by(Attachment.id.desc()).limit(limit))).all()


async def add(session: AsyncSession, fields: Mapping[str, Any]) -> Attachment | None:
    """The new row; None when its owner has this file already."""
    made = (
        insert(Attachment)
        .values(**fields)
        .on_conflict_do_nothing(index_elements=["user_id", "sha256"])
        .returning(Attachment)
    )
    return (await session.scalars(made)).one_or_none()


async def remove(session: AsyncSession, owner: UUID, attachment_id: UUID) -> bool:
    """Whether there was one. Its pages go with it."""
    removed = (
        delete(Attachment)
        .where(Attachment.id == attachment_id, Attachment.user_id == owner)
        .returning(Attachment.id)
    )
    return await session.scalar(removed) is not None


# Reading ------------------------------------------------------------------------------------------------------


async def begin(session: AsyncSession, owner: UUID, attachment_id: UUID, job: UUID) -> Attachment | None:
    """The attachment, which `job` reads from now on; None when it is gone, or another job's by now."""
    begun = (
        update(Attachment)
        .where(Attachment.id == attachment_id, Attachment.user_id == owner, Attachment.job_id == job)
        .values(status="processing", error=None)
        .returning(Attachment)
    )
    return (await session.scalars(begun)).one_or_none()


async def show_view(session: AsyncSession, owner: UUID, attachment_id: UUID) -> bool:
    """There is a picture of it that models can be shown. False when the attachment is gone."""
    shown = (
        update(Attachment)
        .where(Attachment.id == attachment_id, Attachment.user_id == owner)
        .values(has_view=True)
        .returning(Attachment.id)
    )
    return await session.scalar(shown) is not None


async def complete(
    session: AsyncSession, owner: UUID, attachment_id: UUID, reading: UUID, fields: Mapping[str, Any]
) -> bool:
    """From now on the pages of `reading` hold, and no others. Whether the attachment is still there."""
    done = (
        update(Attachment)
        .where(Attachment.id == attachment_id, Attachment.user_id == owner)
        .values(
            **fields, reading=reading, status="completed", error=None, completed_at=func.clock_timestamp()
        )
        .returning(Attachment.id)
    )
    there = await session.scalar(done) is not None
    await session.execute(
        delete(AttachmentPage).where(
            AttachmentPage.attachment_id == attachment_id, AttachmentPage.reading != reading
        )
    )
    return there


async def end_without(
    session: AsyncSession, owner: UUID, attachment_id: UUID, reading: UUID, *, status: str, error: str
) -> Attachment | None:
    """Write down that `reading` came to nothing, and why. What an earlier one found stays. The row, if it waited."""
    await session.execute(
        delete(AttachmentPage).where(
            AttachmentPage.attachment_id == attachment_id, AttachmentPage.reading == reading
        )
    )
    ended = (
        update(Attachment)
        .where(
            Attachment.id == attachment_id,
            Attachment.user_id == owner,
            Attachment.job_id == reading,
            Attachment.status == "processing",
        )
        .values(status=status, error=error, completed_at=func.clock_timestamp())
        .returning(Attachment)
    )
    return (await session.scalars(ended)).one_or_none()


# Pages --------------------------------------------------------------------------------------------------------


async def keep_pages(session: AsyncSession, pages: Sequence[Mapping[str, Any]]) -> bool:
    """Unless they are there already. False when their attachment is gone."""
    there = (
        select(Attachment.id)
        .where(Attachment.id == pages[0]["attachment_id"])
        .with_for_update(read=True, key_share=True)
    )
    if await session.scalar(there) is None:
        return False
    await session.execute(insert(AttachmentPage).on_conflict_do_nothing(), list(pages))
    return True


async def kept_notes(session: AsyncSession, attachment_id: UUID, reading: UUID) -> dict[int, str | None]:
    """The number of each page that is kept, and its note."""
    query = select(AttachmentPage.number, AttachmentPage.note).where(
        AttachmentPage.attachment_id == attachment_id, AttachmentPage.reading == reading
    )
    return {row.number: row.note for row in await session.execute(query)}


async def sums(session: AsyncSession, attachment_id: UUID, reading: UUID) -> Sequence[Any]:
    """Of each page: `number`, `characters`, `confidence`, `language`, `engine`, `note`."""
    page = AttachmentPage
    query = (
        select(
            page.number, func.length(page.text).label("characters"), page.confidence, page.language,
            page.engine, page.note,
        )
        .where(page.attachment_id == attachment_id, page.reading == reading)
        .order_by(page.number)
    )  # fmt: skip
    return (await session.execute(query)).all()


async def texts(
    session: AsyncSession, owner: UUID, attachment_id: UUID, reading: UUID, *, most: int
) -> list[str]:
    """The text of each page in order, until there are `most` characters."""
    page = AttachmentPage
    mine = (page.attachment_id == attachment_id, page.reading == reading, page.user_id == owner)
    so_far = func.sum(func.length(page.text)).over(order_by=page.number) - func.length(page.text)
    inner = select(page.number, func.left(page.text, most).label("text"), so_far.label("before")).where(*mine)
    rows = inner.subquery()
    query = select(rows.c.text).where(rows.c.before < most).order_by(rows.c.number)
    return list(await session.scalars(query))


class Measure(NamedTuple):
    """A page's number, and the size of its text."""

    number: int
    characters: int
    bytes: int


async def measures(
    session: AsyncSession, owner: UUID, attachment_id: UUID, reading: UUID
) -> Sequence[Measure]:
    """Of all pages, in their order."""
    text = AttachmentPage.text
    query = (
        select(AttachmentPage.number, func.length(text), func.octet_length(text))
        .where(*_of(owner, attachment_id, reading))
        .order_by(AttachmentPage.number)
    )
    return [Measure(*row) for row in await session.execute(query)]


async def texts_between(
    session: AsyncSession, owner: UUID, attachment_id: UUID, reading: UUID, first: int, last: int
) -> list[str]:
    """The texts of the pages from number `first` to number `last`, in their order."""
    page = AttachmentPage
    query = (
        select(page.text)
        .where(*_of(owner, attachment_id, reading), page.number.between(first, last))
        .order_by(page.number)
    )
    return list(await session.scalars(query))


async def text_from(
    session: AsyncSession, owner: UUID, attachment_id: UUID, reading: UUID, number: int, start: int, most: int
) -> str | None:
    """At most `most` characters of a page's text from the one after `start` on; None when the page is gone."""
    page = AttachmentPage
    query = select(func.substr(page.text, start + 1, most)).where(
        *_of(owner, attachment_id, reading), page.number == number
    )
    text: str | None = await session.scalar(query)
    return text


class ShownPage(NamedTuple):
    """A page as it is shown: the beginning of its text, and its lines as JSON."""

    number: int
    beginning: str
    characters: int
    engine: str
    width: int | None
    height: int | None
    turned: float
    confidence: float | None
    language: str | None
    lines: str
    note: str | None


async def pages_after(
    session: AsyncSession,
    owner: UUID,
    attachment_id: UUID,
    reading: UUID,
    last: int,
    limit: int,
    *,
    begin: int,
    most: int,
) -> Sequence[ShownPage]:
    """In their order, each with the first `begin` characters of its text.

    Once they have `most` bytes with their lines, no other follows.
    """
    page = AttachmentPage
    lines = cast(page.lines, Text)
    size = func.octet_length(page.text) + func.octet_length(lines)
    measured = (
        select(page.number, size.label("size"))
        .where(*_of(owner, attachment_id, reading), page.number > last)
        .order_by(page.number)
        .limit(limit)
        .subquery()
    )
    before = func.sum(measured.c.size).over(order_by=measured.c.number) - measured.c.size
    summed = select(measured.c.number, before.label("before")).subquery()
    query = (
        select(
            page.number, func.left(page.text, begin), func.length(page.text), page.engine, page.width,
            page.height, page.turned, page.confidence, page.language, lines, page.note,
        )
        .join(summed, summed.c.number == page.number)
        .where(*_of(owner, attachment_id, reading), summed.c.before < most)
        .order_by(page.number)
    )  # fmt: skip
    return [ShownPage(*row) for row in await session.execute(query)]


def _of(owner: UUID, attachment_id: UUID, reading: UUID) -> tuple[ColumnElement[bool], ...]:
    page = AttachmentPage
    return page.attachment_id == attachment_id, page.reading == reading, page.user_id == owner


async def still_there(session: AsyncSession, ids: Sequence[UUID]) -> set[UUID]:
    """Those of `ids` that are attachments'."""
    return set(await session.scalars(select(Attachment.id).where(Attachment.id.in_(ids))))
