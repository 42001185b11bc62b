"""Taking people's words out of events whose subject is gone for good. That something has happened stays told."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

# Only what is there, and as the type that it has: who reads events finds the fields that they know.
_SCRUBBED = """data
    || CASE WHEN jsonb_typeof(data -> 'title') = 'string' THEN '{"title": ""}' ELSE '{}' END::jsonb
    || CASE WHEN jsonb_typeof(data -> 'tags') = 'array' THEN '{"tags": []}' ELSE '{}' END::jsonb
    || CASE WHEN jsonb_typeof(data -> 'error') = 'string' THEN '{"error": ""}' ELSE '{}' END::jsonb"""
_WORDS = "data ?| ARRAY['title', 'tags', 'error']"
# The outbox first: a row that the relay has in its hands is waited for, and found among the events then.
_OUTBOX = text(
    f"UPDATE outbox SET data = {_SCRUBBED} "  # noqa: S608 - the parts are constants
    f"WHERE conversation_id = ANY(CAST(:conversations AS uuid[])) AND {_WORDS}"
)
# Along the users' own events, which are kept for days.
_EVENTS = text(
    f"UPDATE events SET data = {_SCRUBBED} WHERE user_id = ANY(CAST(:users AS uuid[])) "  # noqa: S608
    f"AND conversation_id = ANY(CAST(:conversations AS uuid[])) AND {_WORDS}"
)


async def scrub(session: AsyncSession, users: Sequence[UUID], conversations: Sequence[UUID]) -> None:
    """Take titles, tags and words of errors out of every event of `users`' `conversations`.

    `session` is the system's, and holds the conversations or has deleted them, so that no further event can come.
    """
    await session.execute(_OUTBOX, {"conversations": conversations})
    await session.execute(_EVENTS, {"users": users, "conversations": conversations})
