"""Rows of users and their tokens."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.auth.models import ApiToken, User

# For the raw connection: run at every request whose token is not in memory.
FIND_BY_HASH = """
SELECT t.id, t.user_id, u.role, t.scopes, u.name, u.active, t.expires_at, t.revoked_at
FROM api_tokens t JOIN users u ON u.id = t.user_id WHERE t.hash = $1
"""

FIND_BY_SUBJECT = """
SELECT i.id, i.user_id, i.claims_at, u.role, u.name, u.active
FROM user_identities i JOIN users u ON u.id = i.user_id WHERE i.issuer = $1 AND i.subject = $2
"""

# The newest token's role counts, whichever comes first: no row when a newer one has been seen.
APPLY_ROLE = """
WITH newest AS (
    UPDATE user_identities SET claims_at = $2 WHERE id = $1 AND (claims_at IS NULL OR claims_at < $2) RETURNING user_id
), held AS (
    SELECT u.id, u.role FROM users u JOIN newest ON newest.user_id = u.id FOR UPDATE OF u
), wanted AS (
    -- The last active administrator stays one: nobody could undo it.
    SELECT held.id, held.role AS before, CASE
        WHEN held.role = 'admin' AND NOT EXISTS (
            SELECT FROM users o WHERE o.role = 'admin' AND o.active AND o.id <> held.id
        ) THEN held.role ELSE $3 END AS role
    FROM held
), changed AS (
    UPDATE users u SET role = wanted.role, updated_at = clock_timestamp() FROM wanted
    WHERE u.id = wanted.id AND wanted.before <> wanted.role
)
SELECT before, role FROM wanted
"""

# Each is a token's or an identity's. One that another process has marked within the minute, or is marking now, is
# left alone.
MARK_USED = """
WITH used (id, at) AS (SELECT * FROM unnest($1::uuid[], $2::timestamptz[])), due AS (
    SELECT t.id, used.at FROM api_tokens t JOIN used USING (id)
    WHERE t.last_used_at IS NULL OR t.last_used_at < used.at - interval '1 minute'
    ORDER BY t.id FOR UPDATE OF t SKIP LOCKED
), due_identities AS (
    SELECT i.id, used.at FROM user_identities i JOIN used USING (id)
    WHERE i.last_used_at IS NULL OR i.last_used_at < used.at - interval '1 minute'
    ORDER BY i.id FOR UPDATE OF i SKIP LOCKED
), marked AS (
    UPDATE user_identities i SET last_used_at = due.at FROM due_identities due WHERE i.id = due.id
)
UPDATE api_tokens t SET last_used_at = due.at FROM due WHERE t.id = due.id
"""


async def user_by_id(session: AsyncSession, user_id: UUID) -> User | None:
    return await session.get(User, user_id)


async def names_of(session: AsyncSession, ids: Collection[UUID]) -> dict[UUID, str]:
    rows = await session.execute(select(User.id, User.name).where(User.id.in_(ids)))
    return {row.id: row.name for row in rows}


async def users_after(session: AsyncSession, after: UUID | None, limit: int) -> Sequence[User]:
    """Newest first."""
    query = select(User).order_by(User.id.desc()).limit(limit)
    if after is not None:
        query = query.where(User.id < after)
    return (await session.scalars(query)).all()


async def lock_active_admins(session: AsyncSession) -> Sequence[UUID]:
    query = select(User.id).where(User.role == "admin", User.active).order_by(User.id).with_for_update()
    return (await session.scalars(query)).all()


async def change_user(session: AsyncSession, user_id: UUID, fields: Mapping[str, Any]) -> User | None:
    changed = (
        update(User)
        .where(User.id == user_id)
        .values(**fields, updated_at=func.clock_timestamp())
        .returning(User)
    )
    return (await session.scalars(changed, execution_options={"populate_existing": True})).one_or_none()


async def token_by_id(session: AsyncSession, token_id: UUID, owner: UUID | None) -> ApiToken | None:
    """`owner` None: anybody's."""
    query = select(ApiToken).where(ApiToken.id == token_id)
    if owner is not None:
        query = query.where(ApiToken.user_id == owner)
    return (await session.scalars(query)).one_or_none()


async def tokens_after(
    session: AsyncSession, owner: UUID, after: UUID | None, limit: int
) -> Sequence[ApiToken]:
    """Newest first."""
    query = select(ApiToken).where(ApiToken.user_id == owner).order_by(ApiToken.id.desc()).limit(limit)
    if after is not None:
        query = query.where(ApiToken.id < after)
    return (await session.scalars(query)).all()


async def revoke_token(session: AsyncSession, token_id: UUID, owner: UUID | None, now: datetime) -> bool:
    """Whether there is such a token; one that was revoked before keeps its time."""
    change = (
        update(ApiToken)
        .where(ApiToken.id == token_id)
        .values(revoked_at=func.coalesce(ApiToken.revoked_at, now))
    )
    if owner is not None:
        change = change.where(ApiToken.user_id == owner)
    return (await session.scalars(change.returning(ApiToken.id))).one_or_none() is not None
