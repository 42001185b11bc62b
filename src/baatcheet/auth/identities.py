"""Users who come by way of an identity provider: known by issuer and subject, made when they are first seen."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.auth import repository
from baatcheet.auth.models import Identity, User
from baatcheet.auth.oidc.claims import Holder, NoRole
from baatcheet.auth.oidc.verifying import Verifier
from baatcheet.auth.principal import DEFAULT_SCOPES, Principal
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database
from baatcheet.platform.errors import Forbidden, Unauthenticated
from baatcheet.platform.logging import get_logger

log = get_logger(__name__)

ATTEMPTS = 3  # at making a user: another may take their e-mail address meanwhile


class NotInvited(Forbidden):
    """There is no user for you here."""

    type = "not-invited"
    openai_code = "not_invited"


@dataclass(frozen=True, slots=True)
class Admitted:
    """Who a provider's token lets in, until when, and whether it changed what their other tokens may do."""

    principal: Principal
    expires_at: datetime
    role_changed: bool


class Identities:
    """Tells who a provider's token belongs to. A user who is seen for the first time is made."""

    def __init__(self, db: Database, verifier: Verifier) -> None:
        self._db = db
        self._verifier = verifier

    async def admit(self, token: str) -> Admitted:
        """Raises Unauthenticated, TokenExpired, NoRole, NotInvited, IdentityProviderAway, DatabaseUnavailable."""
        holder = await self._verifier.verify(token)
        found = await self._find(holder)
        if found is None:
            if holder.role == "none":
                raise NoRole(_NO_ROLE)
            await self._make(holder)
            found = await self._find(holder)
        if found is None:  # its user was deleted just now
            raise Unauthenticated("This token's user is not there any more.")
        role, changed = found["role"], False
        if holder.role is not None and (found["claims_at"] is None or found["claims_at"] < holder.issued_at):
            role, changed = await self._apply(holder, found)
        if not found["active"]:
            raise Unauthenticated("This token's user is not active.")
        if holder.role == "none":
            raise NoRole(_NO_ROLE)
        scopes = DEFAULT_SCOPES[role]
        if holder.role is not None:
            # An older token, or one of another provider of theirs, does not bring back what a newer one took away.
            scopes &= DEFAULT_SCOPES[holder.role]
            role = "admin" if "admin" in scopes else "user"
        who = Principal(
            found["user_id"], found["id"], role, scopes, found["name"], "identity", holder.expires_at
        )
        return Admitted(who, holder.expires_at, changed)

    async def _find(self, holder: Holder) -> Any:
        async with self._db.hot() as connection:
            return await connection.fetchrow(repository.FIND_BY_SUBJECT, holder.issuer, holder.subject)

    async def _apply(self, holder: Holder, found: Any) -> tuple[str, bool]:
        """Give the user the role that the newest token tells of: the role that they have now, and whether it is new."""
        wanted = "admin" if holder.role == "admin" else "user"
        async with self._db.hot() as connection:
            row = await connection.fetchrow(repository.APPLY_ROLE, found["id"], holder.issued_at, wanted)
        if row is None:  # a newer token has been seen meanwhile
            return found["role"], False
        if row["before"] != row["role"]:
            log.info(
                "oidc.role_changed",
                user_id=str(found["user_id"]),
                issuer=holder.issuer,
                before=row["before"],
                role=row["role"],
            )
        return row["role"], row["before"] != row["role"]

    async def _make(self, holder: Holder) -> None:
        """Make the user, or find the one whom they are to be. Of several first requests, one does.

        Raises NotInvited.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with self._db.system() as session:
                    await self._make_within(session, holder, with_email=attempt < ATTEMPTS)
            except IntegrityError:  # their e-mail address was given to somebody else meanwhile
                if attempt == ATTEMPTS:
                    raise
            else:
                return

    async def _make_within(self, session: AsyncSession, holder: Holder, *, with_email: bool) -> None:
        await session.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:who, 0))"),
            {"who": f"baatcheet identity {holder.issuer} {holder.subject}"},
        )
        there = select(Identity.id).where(
            Identity.issuer == holder.issuer, Identity.subject == holder.subject
        )
        if (await session.scalars(there)).one_or_none() is not None:
            return
        email = holder.email if with_email else None
        namesake = await _with_email(session, email) if email is not None else None
        linked = namesake is not None and holder.link_by_email
        if namesake is not None and linked:
            user_id = namesake
        else:
            if not holder.sign_up:
                raise NotInvited("Nobody is let in here whom an administrator has not added before.")
            user = User(
                id=new_id(),
                name=holder.name,
                email=email if namesake is None else None,
                role="admin" if holder.role == "admin" else "user",
            )
            session.add(user)
            await session.flush()
            user_id = user.id
        session.add(
            Identity(
                id=new_id(),
                user_id=user_id,
                issuer=holder.issuer,
                subject=holder.subject,
                # Whoever was there before has the role that they had, until it is compared.
                claims_at=None if linked or holder.role is None else holder.issued_at,
            )
        )
        await session.flush()
        log.info("oidc.user_seen_first", user_id=str(user_id), issuer=holder.issuer, linked=linked)


_NO_ROLE = "Ask whoever runs this server's identity provider for a role that lets you in."


async def _with_email(session: AsyncSession, email: str) -> UUID | None:
    query = select(User.id).where(func.lower(User.email) == func.lower(email))
    return (await session.scalars(query)).one_or_none()
