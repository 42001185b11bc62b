"""Asking for a user's deletion, and its receipt."""

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.auth import repository as auth
from baatcheet.auth.models import ApiToken, User
from baatcheet.auth.principal import DEFAULT_SCOPES, Principal
from baatcheet.auth.service import Authenticator, LastAdmin, UserNotFound
from baatcheet.jobs.enqueueing import enqueue
from baatcheet.kit.ids import new_id
from baatcheet.kit.pagination import Slice, decode, slice_of
from baatcheet.platform.database import Database
from baatcheet.platform.errors import Invalid
from baatcheet.platform.signed_links import SignedLinks
from baatcheet.retention.erasing import Erasing, erase_user
from baatcheet.retention.errors import DeletionNotFound
from baatcheet.retention.models import UserDeletion

RECEIPTS: Final = "/files/deletions"  # where a receipt is read by its link
RECEIPT_SECONDS: Final = 365 * 24 * 3600.0

_LIST = "deletions"


class Deletions:
    """Deleting users with all that is theirs."""

    def __init__(self, db: Database, authenticator: Authenticator, links: SignedLinks) -> None:
        self._db = db
        self._authenticator = authenticator
        self._links = links

    async def request_own(self, who: Principal, confirm: UUID | None) -> UserDeletion:
        """Have everything of `who` deleted. Raises Forbidden, Invalid, LastAdmin."""
        for scope in sorted(DEFAULT_SCOPES["user"]):
            who.require(scope)
        if confirm != who.user_id:
            raise Invalid(
                "This deletes everything of yours, for good. If you mean it, send confirm with your user's id, as "
                "GET /api/v1/me shows it.",
                param="confirm",
            )
        return await self.request(who.user_id, "owner")

    async def request(self, user_id: UUID, by: str = "administrator") -> UserDeletion:
        """Have everything of a user deleted: from now on they can do nothing. Asked again, it is the same deletion.

        Raises UserNotFound, LastAdmin.
        """
        async with self._db.system() as session:
            deletion = await self._begin(session, user_id, by)
        self._authenticator.forget(user_id=user_id)
        return deletion

    async def _begin(self, session: AsyncSession, user_id: UUID, by: str) -> UserDeletion:
        admins = await auth.lock_active_admins(session)
        user = await session.get(User, user_id, with_for_update=True)
        asked = select(UserDeletion).where(UserDeletion.subject == user_id)
        if (found := (await session.scalars(asked)).one_or_none()) is not None:
            return found
        if user is None:
            raise UserNotFound(f"There is no user {user_id}.")
        if list(admins) == [user_id]:
            raise LastAdmin("Make another user an administrator first.")
        deletion = UserDeletion(id=new_id(), subject=user_id, requested_by=by)
        session.add(deletion)
        user.active = False
        await session.flush()
        await session.refresh(deletion)
        mine = (ApiToken.user_id == user_id, ApiToken.revoked_at.is_(None))
        await session.execute(update(ApiToken).where(*mine).values(revoked_at=func.clock_timestamp()))
        await enqueue(
            session, erase_user, Erasing(deletion.id), owner=None, key=str(deletion.id), lane=user_id
        )
        return deletion

    async def get(self, deletion_id: UUID) -> UserDeletion:
        """Raises DeletionNotFound."""
        async with self._db.system() as session:
            found = await session.get(UserDeletion, deletion_id)
        if found is None:
            raise DeletionNotFound(deletion_id)
        return found

    async def list(self, *, limit: int, cursor: str | None) -> Slice[UserDeletion]:
        """Newest first. Raises BadCursor."""
        query = select(UserDeletion).order_by(UserDeletion.id.desc()).limit(limit + 1)
        if cursor is not None:
            query = query.where(UserDeletion.id < decode(_LIST, cursor, UUID))
        async with self._db.system() as session:
            rows = (await session.scalars(query)).all()
        return slice_of(_LIST, rows, limit, lambda row: row.id)

    async def link(self, deletion_id: UUID) -> str:
        """What opens a receipt without a token."""
        return await self._links.sign(f"{RECEIPTS}/{deletion_id}", RECEIPT_SECONDS)

    async def linked(self, path: str, signed: Mapping[str, str], deletion_id: UUID) -> UserDeletion:
        """The deletion whose link `path` and what is `signed` are. Raises LinkNotValid, DeletionNotFound."""
        await self._links.check(path, signed)
        return await self.get(deletion_id)
