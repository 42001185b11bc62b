"""Knowing who is asking, and keeping users and their tokens."""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from baatcheet.auth import repository
from baatcheet.auth.identities import Identities
from baatcheet.auth.models import ApiToken, Identity, User
from baatcheet.auth.oidc.claims import TokenExpired
from baatcheet.auth.oidc.verifying import LONGEST, looks_signed
from baatcheet.auth.principal import DEFAULT_SCOPES, SCOPES, Principal
from baatcheet.auth.secrets import new_token, shown_part, token_hash
from baatcheet.kit.ids import new_id
from baatcheet.kit.pagination import Slice, decode, slice_of
from baatcheet.platform import patience
from baatcheet.platform.database import Database, DatabaseUnavailable
from baatcheet.platform.errors import Conflict, Forbidden, Invalid, NotFound, Problem, Unauthenticated
from baatcheet.platform.logging import get_logger

log = get_logger(__name__)

KNOWN_FOR = 4.0  # seconds that a token's state is believed: a revoked one is refused everywhere within 5
REFUSED_FOR = 1.0
MOST_KNOWN = 10_000
MARK_EVERY = 60.0  # seconds between two notes of one token's use
FLUSH_EVERY = 5.0
LONGEST_TOKEN = 512
CLOSE_PATIENCE = 2.0  # seconds that the uses noted last may take to be written down


class TokenNotFound(NotFound):
    """There is no such token."""

    type = "token-not-found"


class UserNotFound(NotFound):
    """There is no such user."""

    type = "user-not-found"


class EmailTaken(Conflict):
    """Another user has this e-mail address."""

    type = "email-taken"


class LastAdmin(Conflict):
    """This is the last active administrator."""

    type = "last-admin"


@dataclass(frozen=True, slots=True)
class _Known:
    """What the database said about a token. Without a principal, `refusal` says why it is no good."""

    until: float
    principal: Principal | None
    refusal: str = ""
    expires_at: datetime | None = None
    kind: type[Problem] = Unauthenticated  # of the refusal


class Authenticator:
    """Tells who a request's token belongs to.

    An answer is believed for `KNOWN_FOR` seconds, and concurrent questions about one token ask the database
    once. Uses are noted in memory; `run` writes them down. With `identities`, tokens of OpenID providers are taken
    beside our own.
    """

    def __init__(self, db: Database, identities: Identities | None = None) -> None:
        self._db = db
        self._identities = identities
        self._known: dict[bytes, _Known] = {}
        self._asking: dict[bytes, asyncio.Task[_Known]] = {}
        self._marked: dict[UUID, float] = {}
        self._used: dict[UUID, datetime] = {}

    async def authenticate(self, authorization: str | None) -> Principal:
        """The principal of an `Authorization: Bearer …` header.

        Raises Unauthenticated with the reason, DatabaseUnavailable when it can't be told. Of a provider's token also
        TokenExpired, NoRole, NotInvited, IdentityProviderAway.
        """
        token = _bearer(authorization, LONGEST_TOKEN if self._identities is None else LONGEST)
        return await self._recognise(token_hash(token), token)

    async def recognise(self, digest: bytes) -> Principal:
        """The principal of the API token whose hash this is. Raises as `authenticate`."""
        return await self._recognise(digest, None)

    async def _recognise(self, digest: bytes, token: str | None) -> Principal:
        known = self._known.get(digest)
        if known is None or known.until <= time.monotonic():
            known = await self._ask(digest, token)
        if known.principal is None:
            raise known.kind(known.refusal)
        if known.expires_at is not None and known.expires_at <= datetime.now(UTC):
            raise Unauthenticated(_EXPIRED) if known.principal.kind == "token" else TokenExpired(_EXPIRED)
        self._note_use(known.principal.token_id)
        return known.principal

    def forget(self, *, token_id: UUID | None = None, user_id: UUID | None = None) -> None:
        """Ask anew about a token, or about all of a user's, the next time."""
        self._forget_known(token_id=token_id, user_id=user_id)
        # An answer that is on its way may be older than the change.
        self._asking.clear()

    def _forget_known(self, *, token_id: UUID | None = None, user_id: UUID | None = None) -> None:
        for digest, known in list(self._known.items()):
            who = known.principal
            if who is not None and (who.token_id == token_id or who.user_id == user_id):
                del self._known[digest]

    async def _ask(self, digest: bytes, token: str | None) -> _Known:
        task = self._asking.get(digest)
        if task is None:
            identities = self._identities
            if identities is not None and token is not None and looks_signed(token):
                look = functools.partial(self._admit, identities, token)
            elif token is not None and len(token) > LONGEST_TOKEN:
                raise Unauthenticated(_UNKNOWN)
            else:
                look = functools.partial(self._find, digest)
            task = self._asking[digest] = asyncio.create_task(self._look_up(digest, look))
            task.add_done_callback(_heard)
        # A client that leaves must not fail the others that wait for the same answer.
        with patience.counted():
            await asyncio.wait({task}, timeout=patience.left(self._db.timeout))
        if not task.done():
            raise DatabaseUnavailable("It can't be told in time who is asking. Try again in a moment.")
        return task.result()

    async def _look_up(self, digest: bytes, look: Callable[[float], Awaitable[_Known]]) -> _Known:
        mine = asyncio.current_task()
        try:
            with patience.of_nobody():
                known = await look(time.monotonic())
            if self._asking.get(digest) is mine:
                self._remember(digest, known)
            return known
        finally:
            if self._asking.get(digest) is mine:
                del self._asking[digest]

    async def _find(self, digest: bytes, asked: float) -> _Known:
        async with self._db.hot() as connection:
            return _judged(await connection.fetchrow(repository.FIND_BY_HASH, digest), asked)

    async def _admit(self, identities: Identities, token: str, asked: float) -> _Known:
        try:
            found = await identities.admit(token)
        except (Unauthenticated, Forbidden) as refused:
            return _Known(time.monotonic() + REFUSED_FOR, None, refused.detail, kind=type(refused))
        if found.role_changed:
            self._forget_known(user_id=found.principal.user_id)
        return _Known(asked + KNOWN_FOR, found.principal, expires_at=found.expires_at)

    def _remember(self, digest: bytes, known: _Known) -> None:
        if len(self._known) >= MOST_KNOWN:
            now = time.monotonic()
            self._known = {key: one for key, one in self._known.items() if one.until > now}
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
        self._known[digest] = known

    def _note_use(self, token_id: UUID) -> None:
        now = time.monotonic()
        if now - self._marked.get(token_id, -MARK_EVERY) >= MARK_EVERY:
            self._marked[token_id] = now
            self._used[token_id] = datetime.now(UTC)

    async def run(self) -> None:
        """Write down the uses of tokens, all of them at once every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_EVERY)
            try:
                await self.flush()
            except DatabaseUnavailable:
                log.warning("auth.uses_not_saved", waiting=len(self._used))

    async def close(self, *, patience: float = CLOSE_PATIENCE) -> None:
        """Write down what is left, if the database lets us within `patience` seconds."""
        try:
            async with asyncio.timeout(patience):
                await self.flush()
        except (DatabaseUnavailable, TimeoutError):
            log.warning("auth.uses_lost", count=len(self._used))

    async def flush(self) -> None:
        """Write down the uses noted so far. Raises DatabaseUnavailable, having lost none of them."""
        if not self._used:
            return
        used, self._used = self._used, {}
        try:
            async with self._db.hot() as connection:
                await connection.execute(repository.MARK_USED, list(used), list(used.values()))
        except (DatabaseUnavailable, asyncio.CancelledError):
            self._used = used | self._used
            raise
        horizon = time.monotonic() - MARK_EVERY
        self._marked = {token: at for token, at in self._marked.items() if at > horizon}


def _heard(task: asyncio.Task[_Known]) -> None:
    """Whoever asked may have left: an error that nobody waits for is none."""
    if not task.cancelled():
        task.exception()


_EXPIRED = "This token has expired."


def _bearer(authorization: str | None, longest: int) -> str:
    if not authorization:
        raise Unauthenticated("Send a token: Authorization: Bearer bc_…")
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated("The Authorization header must read: Bearer bc_…")
    if len(token) > longest or not token.isascii():
        raise Unauthenticated(_UNKNOWN)
    return token


_UNKNOWN = "This token is not known."


def _judged(row: Any, asked: float) -> _Known:
    refusal = ""
    if row is None:
        refusal = _UNKNOWN
    elif row["revoked_at"] is not None:
        refusal = "This token was revoked."
    elif row["expires_at"] is not None and row["expires_at"] <= datetime.now(UTC):
        refusal = _EXPIRED
    elif not row["active"]:
        refusal = "This token's user is not active."
    if refusal:
        return _Known(asked + REFUSED_FOR, None, refusal)
    # A token outlives a change of its user's role, its powers do not.
    scopes = frozenset(row["scopes"]) & DEFAULT_SCOPES[row["role"]]
    who = Principal(row["user_id"], row["id"], row["role"], scopes, row["name"])
    return _Known(asked + KNOWN_FOR, who, expires_at=row["expires_at"])


class Tokens:
    """A user's API tokens. Whoever has the scope `admin` reaches everybody's."""

    def __init__(self, db: Database, authenticator: Authenticator) -> None:
        self._db = db
        self._authenticator = authenticator

    async def create(
        self,
        session: AsyncSession,
        who: Principal,
        *,
        name: str,
        scopes: Iterable[str] | None = None,
        expires_at: datetime | None = None,
        user_id: UUID | None = None,
    ) -> tuple[ApiToken, str]:
        """A new token and its text, which is kept nowhere.

        `scopes` None: all that its owner's role and its maker's token allow. A token for somebody else needs
        a session that sees their rows. Raises Forbidden, Invalid, UserNotFound.
        """
        if user_id is not None and user_id != who.user_id:
            who.require("admin")
        owner = await repository.user_by_id(session, user_id or who.user_id)
        if owner is None:
            raise UserNotFound("There is no such user.", param="user_id")
        granted = _granted(who, owner, scopes)
        if expires_at is not None and expires_at <= datetime.now(UTC):
            raise Invalid("expires_at is not in the future.", param="expires_at")
        token = new_token()
        row = ApiToken(
            id=new_id(),
            user_id=owner.id,
            name=name,
            prefix=shown_part(token),
            hash=token_hash(token),
            scopes=granted,
            expires_at=expires_at,
        )
        session.add(row)
        await session.flush()
        return row, token

    async def list(
        self, who: Principal, *, user_id: UUID | None, limit: int, cursor: str | None
    ) -> Slice[ApiToken]:
        """One user's tokens, newest first. Raises Forbidden, BadCursor."""
        owner = user_id or who.user_id
        if owner != who.user_id:
            who.require("admin")
        name = f"tokens:{owner}"
        after = decode(name, cursor, UUID) if cursor is not None else None
        async with self._rows(who) as session:
            rows = await repository.tokens_after(session, owner, after, limit + 1)
        return slice_of(name, rows, limit, lambda row: row.id)

    async def get(self, who: Principal, token_id: UUID) -> ApiToken:
        """Raises TokenNotFound."""
        async with self._rows(who) as session:
            row = await repository.token_by_id(session, token_id, _owner_filter(who))
        if row is None:
            raise TokenNotFound(f"There is no token {token_id}.")
        return row

    async def revoke(self, who: Principal, token_id: UUID) -> None:
        """Refused at once in this process, within 5 s in every other. Raises TokenNotFound."""
        async with self._rows(who) as session:
            there = await repository.revoke_token(session, token_id, _owner_filter(who), datetime.now(UTC))
        if not there:
            raise TokenNotFound(f"There is no token {token_id}.")
        self._authenticator.forget(token_id=token_id)

    def _rows(self, who: Principal) -> AbstractAsyncContextManager[AsyncSession]:
        return self._db.system() if "admin" in who.scopes else self._db.tenant(who.user_id)


def _owner_filter(who: Principal) -> UUID | None:
    return None if "admin" in who.scopes else who.user_id


def _granted(who: Principal, owner: User, scopes: Iterable[str] | None) -> list[str]:
    allowed = DEFAULT_SCOPES[owner.role]
    wanted = frozenset(scopes) if scopes is not None else allowed & who.scopes
    if beyond := wanted - who.scopes:
        raise Forbidden(
            f"A token can't be given more than its maker's token has: {', '.join(sorted(beyond))}.",
            param="scopes",
        )
    if beyond := wanted - allowed:
        raise Invalid(f"The user's role does not allow: {', '.join(sorted(beyond))}.", param="scopes")
    return [scope for scope in SCOPES if scope in wanted]


class Users:
    """The people who have tokens. Every method is an administrator's; the endpoints ask for the scope."""

    def __init__(self, db: Database, authenticator: Authenticator) -> None:
        self._db = db
        self._authenticator = authenticator

    async def create(
        self, session: AsyncSession, *, name: str, email: str | None = None, role: str = "user"
    ) -> User:
        """Raises EmailTaken."""
        user = User(id=new_id(), name=name, email=email, role=role)
        session.add(user)
        try:
            await session.flush()
        except IntegrityError as error:
            raise EmailTaken(f"{email} belongs to another user.", param="email") from error
        return user

    async def list(self, *, limit: int, cursor: str | None) -> Slice[User]:
        """Newest first. Raises BadCursor."""
        after = decode("users", cursor, UUID) if cursor is not None else None
        async with self._db.system() as session:
            rows = await repository.users_after(session, after, limit + 1)
        return slice_of("users", rows, limit, lambda row: row.id)

    async def names(self, ids: Collection[UUID]) -> dict[UUID, str]:
        """What those of `ids` that there are call themselves."""
        if not ids:
            return {}
        async with self._db.system() as session:
            return await repository.names_of(session, ids)

    async def get(self, user_id: UUID) -> User:
        """Raises UserNotFound."""
        async with self._db.system() as session:
            user = await repository.user_by_id(session, user_id)
        if user is None:
            raise UserNotFound(f"There is no user {user_id}.")
        return user

    async def identity(self, identity_id: UUID) -> Identity:
        """A user as a provider knows them. Raises UserNotFound."""
        async with self._db.system() as session:
            identity = await session.get(Identity, identity_id)
        if identity is None:
            raise UserNotFound("This user is not there any more.")
        return identity

    async def update(self, user_id: UUID, fields: dict[str, Any]) -> User:
        """Change `name`, `email`, `role`, `active`. Raises UserNotFound, EmailTaken, LastAdmin."""
        if not fields:
            return await self.get(user_id)
        async with self._db.system() as session:
            if fields.get("role") == "user" or fields.get("active") is False:
                # Locked, so that two administrators can't each take away the other.
                admins = await repository.lock_active_admins(session)
                if list(admins) == [user_id]:
                    raise LastAdmin("Make another user an administrator first.")
            try:
                user = await repository.change_user(session, user_id, fields)
            except IntegrityError as error:
                raise EmailTaken(f"{fields.get('email')} belongs to another user.", param="email") from error
        if user is None:
            raise UserNotFound(f"There is no user {user_id}.")
        self._authenticator.forget(user_id=user_id)
        return user
