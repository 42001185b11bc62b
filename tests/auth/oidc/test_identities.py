"""Users who come by way of a provider: made once, known again, and never more than they are now."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy import text

from baatcheet.auth import repository
from baatcheet.auth.identities import Identities, NotInvited
from baatcheet.auth.oidc.claims import NoRole, TokenExpired
from baatcheet.auth.oidc.key_sets import IdentityProviderAway
from baatcheet.auth.oidc.verifying import Verifier, providers_of
from baatcheet.auth.principal import Principal
from baatcheet.auth.rate_limits import RateLimits
from baatcheet.auth.service import Authenticator, Tokens, Users
from baatcheet.console.sessions import Sessions
from baatcheet.events.reading import Events
from baatcheet.kit.ids import new_id
from baatcheet.platform.cache import Cache
from baatcheet.platform.database import Database
from baatcheet.platform.errors import RateLimited, Unauthenticated
from baatcheet.platform.http import client_session
from baatcheet.platform.settings import AuthSettings, CacheSettings, load
from tests.auth.oidc.fake_provider import AUDIENCE, FakeProvider
from tests.conftest import database_on
from tests.servers import at

ROLES = {"role_claim": "roles", "admin_roles": ["boss"]}


class CountingDatabase(Database):
    """The real one; `asked` is how often a connection was lent."""

    asked = 0

    @asynccontextmanager
    async def hot(self, *, limit: float | None = None) -> AsyncIterator[Any]:
        self.asked += 1
        async with super().hot(limit=limit) as connection:
            yield connection


@pytest.fixture
def fake() -> Iterator[FakeProvider]:
    with FakeProvider() as provider:
        yield provider


@pytest.fixture(scope="module")
def own_services(services: Mapping[str, str], template: str) -> Iterator[Mapping[str, str]]:
    """As `services`, with a database whose administrators are these tests' alone."""
    with database_on(services["DATABASE_URL"], template) as url:
        yield at(services, url)


@pytest_asyncio.fixture
async def db(own_services: Mapping[str, str]) -> AsyncIterator[CountingDatabase]:
    opened = CountingDatabase(load(own_services, dotenv=None).database, pool_size=6)
    yield opened
    await opened.close()


Make = Callable[..., Authenticator]


@pytest_asyncio.fixture
async def authenticator_for(db: CountingDatabase) -> AsyncIterator[Make]:
    """Makes what another process would have."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(client_session())

        def make(*providers: FakeProvider, **fields: Any) -> Authenticator:
            described = [{"issuer": one.issuer, "audiences": [AUDIENCE], **fields} for one in providers]
            settings = load({"BAATCHEET_OIDC_PROVIDERS": json.dumps(described)}, dotenv=None).auth
            return Authenticator(db, Identities(db, Verifier(providers_of(settings), session)))

        yield make


async def enter(authenticator: Authenticator, token: str) -> Principal:
    return await authenticator.authenticate(f"Bearer {token}")


async def rows(db: Database, query: str, **values: Any) -> list[Any]:
    async with db.system() as session:
        return list((await session.execute(text(query), values)).all())


async def run(db: Database, statement: str, **values: Any) -> None:
    async with db.system() as session:
        await session.execute(text(statement), values)


async def user_of(db: Database, who: Principal) -> Any:
    [row] = await rows(db, "SELECT name, email, role, active FROM users WHERE id = :id", id=who.user_id)
    return row


def address() -> str:
    return f"{secrets.token_hex(6)}@example.com"


async def test_a_user_is_made_when_they_are_first_seen_and_known_again(
    fake: FakeProvider, authenticator_for: Make, db: CountingDatabase
) -> None:
    email = address()
    authenticator = authenticator_for(fake)
    first = await enter(authenticator, fake.token(name="Zoya", email=email, email_verified=True))
    assert (first.name, first.role, first.kind) == ("Zoya", "user", "identity")
    assert first.scopes == {"read", "write", "chat"}
    assert tuple(await user_of(db, first)) == ("Zoya", email, "user", True)
    again = await enter(authenticator_for(fake), fake.token(jti="another", name="Zoya B."))
    assert (again.user_id, again.token_id, again.name) == (first.user_id, first.token_id, "Zoya")


async def test_many_first_requests_at_once_make_one_user(
    fake: FakeProvider, authenticator_for: Make, db: CountingDatabase
) -> None:
    email = address()
    processes = [authenticator_for(fake) for _ in range(3)]
    tokens = [fake.token(jti=str(number), email=email, email_verified=True) for number in range(12)]
    found = await asyncio.gather(
        *(enter(process, token) for process in processes for token in tokens),
    )
    assert len({who.user_id for who in found}) == 1
    assert len({who.token_id for who in found}) == 1
    assert len(await rows(db, "SELECT id FROM users WHERE email = :email", email=email)) == 1


async def test_the_same_subject_at_another_issuer_is_somebody_else(
    fake: FakeProvider, authenticator_for: Make
) -> None:
    with FakeProvider() as other:
        authenticator = authenticator_for(fake, other)
        here, there = await enter(authenticator, fake.token()), await enter(authenticator, other.token())
        assert here.user_id != there.user_id
        assert here.token_id != there.token_id


async def test_subjects_are_compared_letter_by_letter(fake: FakeProvider, authenticator_for: Make) -> None:
    authenticator = authenticator_for(fake)
    subjects = ["u", "U", "u ", "ü", "u\u0308", "'; DROP TABLE users; --", "u%"]
    found = [await enter(authenticator, fake.token(sub=subject)) for subject in subjects]
    assert len({who.user_id for who in found}) == len(subjects)


async def made_user(db: Database, email: str, role: str = "user") -> UUID:
    user_id = new_id()
    await run(
        db,
        "INSERT INTO users (id, name, email, role) VALUES (:id, 'There before', :email, :role)",
        id=user_id,
        email=email,
        role=role,
    )
    return user_id


async def test_somebody_elses_address_does_not_make_one_them(
    fake: FakeProvider, authenticator_for: Make, db: CountingDatabase
) -> None:
    email = address()
    there = await made_user(db, email)
    who = await enter(authenticator_for(fake), fake.token(email=email.upper(), email_verified=True))
    assert who.user_id != there
    assert (await user_of(db, who)).email is None


async def test_only_a_verified_address_joins_an_identity_to_a_user_and_only_where_it_is_allowed(
    fake: FakeProvider, authenticator_for: Make, db: CountingDatabase
) -> None:
    email = address()
    there = await made_user(db, email)
    authenticator = authenticator_for(fake, link_by_email=True)
    stranger = await enter(authenticator, fake.token(sub="x", email=email, email_verified=False))
    assert stranger.user_id != there
    joined = await enter(authenticator, fake.token(sub="y", email=email.upper(), email_verified=True))
    assert joined.user_id == there
    assert joined.name == "There before"


async def test_whoever_is_joined_to_an_administrator_is_what_their_provider_says(
    fake: FakeProvider, authenticator_for: Make, db: CountingDatabase
) -> None:
    email = address()
    there = await made_user(db, email, "admin")
    await made_user(db, address(), "admin")
    authenticator = authenticator_for(fake, link_by_email=True, **ROLES)
    joined = await enter(authenticator, fake.token(email=email, email_verified=True))
    assert joined.user_id == there
    assert "admin" not in joined.scopes
    assert (await user_of(db, joined)).role == "user"


async def test_the_last_active_administrator_stays_one_whatever_their_provider_says(
    fake: FakeProvider, authenticator_for: Make, db: CountingDatabase
) -> None:
    async with db.system() as session:
        await session.execute(text("UPDATE users SET active = false WHERE role = 'admin'"))
    email = address()
    await made_user(db, email, "admin")
    authenticator = authenticator_for(fake, link_by_email=True, **ROLES)
    joined = await enter(authenticator, fake.token(email=email, email_verified=True))
    assert (await user_of(db, joined)).role == "admin"
    assert "admin" not in joined.scopes, "this token is no administrator's; their API tokens are"


async def test_an_older_token_that_another_process_is_late_with_gives_no_role_back(
    fake: FakeProvider, authenticator_for: Make, db: CountingDatabase
) -> None:
    await made_user(db, address(), "admin")
    who = await enter(authenticator_for(fake, **ROLES), fake.token(sub="late"))
    now = datetime.now(UTC)

    async def apply(at: datetime, role: str) -> Any:
        async with db.hot() as connection:
            return await connection.fetchrow(repository.APPLY_ROLE, who.token_id, at, role)

    assert (await apply(now + timedelta(seconds=2), "user")) is not None
    assert (await apply(now + timedelta(seconds=1), "admin")) is None
    assert (await user_of(db, who)).role == "user"
    assert (await apply(now + timedelta(seconds=3), "admin"))["role"] == "admin"
    assert (await user_of(db, who)).role == "admin"


async def test_two_newcomers_with_one_address_are_two_users(
    fake: FakeProvider, authenticator_for: Make
) -> None:
    email = address()
    processes = [authenticator_for(fake) for _ in range(2)]
    found = await asyncio.gather(
        *(
            enter(process, fake.token(sub=f"s{number}", email=email, email_verified=True))
            for number, process in enumerate(processes)
        )
    )
    assert len({who.user_id for who in found}) == 2


async def test_where_nobody_may_sign_up_only_those_who_were_added_come_in(
    fake: FakeProvider, authenticator_for: Make, db: CountingDatabase
) -> None:
    email = address()
    authenticator = authenticator_for(fake, sign_up=False, link_by_email=True)
    with pytest.raises(NotInvited):
        await enter(authenticator, fake.token(email=email, email_verified=True))
    there = await made_user(db, email)
    again = fake.token(jti="again", email=email, email_verified=True)
    assert (await enter(authenticator, again)).user_id == there


async def test_a_role_is_given_and_taken_by_the_newest_token(
    fake: FakeProvider, authenticator_for: Make, db: CountingDatabase
) -> None:
    now = int(time.time())
    first, boss, after = (
        fake.token(iat=now - 30),
        fake.token(iat=now - 20, roles=["boss"]),
        fake.token(iat=now - 10, roles=["clerk"]),
    )
    here = authenticator_for(fake, **ROLES)
    assert "admin" not in (await enter(here, first)).scopes
    assert "admin" in (await enter(here, boss)).scopes
    # The older one has not become more than it says.
    assert "admin" not in (await enter(authenticator_for(fake, **ROLES), first)).scopes
    who = await enter(here, after)
    assert "admin" not in who.scopes
    assert (await user_of(db, who)).role == "user"
    # And the older ones do not bring it back, here or elsewhere.
    for process in (here, authenticator_for(fake, **ROLES)):
        known = await enter(process, boss)
        assert "admin" not in known.scopes
        assert known.role == "user"
    assert (await user_of(db, who)).role == "user"


async def test_a_role_that_is_taken_is_taken_from_their_api_tokens_too(
    fake: FakeProvider, authenticator_for: Make, db: CountingDatabase
) -> None:
    now = int(time.time())
    authenticator = authenticator_for(fake, **ROLES)
    boss = await enter(authenticator, fake.token(iat=now - 20, roles=["boss"]))
    async with db.system() as session:
        _, token = await Tokens(db, authenticator).create(session, boss, name="mine")
    assert "admin" in (await enter(authenticator, token)).scopes
    await enter(authenticator, fake.token(iat=now - 10))
    assert "admin" not in (await enter(authenticator, token)).scopes


async def test_where_the_provider_says_nothing_of_roles_they_are_given_here(
    fake: FakeProvider, authenticator_for: Make, db: CountingDatabase
) -> None:
    authenticator = authenticator_for(fake)
    token = fake.token(roles=["boss"])
    who = await enter(authenticator, token)
    assert "admin" not in who.scopes
    await Users(db, authenticator).update(who.user_id, {"role": "admin"})
    assert "admin" in (await enter(authenticator, token)).scopes
    assert "admin" in (await enter(authenticator, fake.token(jti="new"))).scopes


async def test_whoever_has_no_role_that_lets_in_stays_out_and_is_not_made(
    fake: FakeProvider, authenticator_for: Make, db: CountingDatabase
) -> None:
    authenticator = authenticator_for(fake, user_roles=["staff"], **ROLES)
    for _ in range(2):  # the second time from memory
        with pytest.raises(NoRole) as refused:
            await enter(authenticator, fake.token(roles=["visitor"]))
        assert refused.value.status == 403
    found = await rows(db, "SELECT id FROM user_identities WHERE issuer = :issuer", issuer=fake.issuer)
    assert found == []


async def test_whoever_had_a_role_and_lost_it_stays_out_and_is_no_administrator(
    fake: FakeProvider, authenticator_for: Make, db: CountingDatabase
) -> None:
    now = int(time.time())
    authenticator = authenticator_for(fake, user_roles=["staff"], **ROLES)
    boss = await enter(authenticator, fake.token(iat=now - 20, roles=["boss"]))
    with pytest.raises(NoRole):
        await enter(authenticator, fake.token(iat=now - 10, roles=[]))
    assert (await user_of(db, boss)).role == "user"


async def test_a_deactivated_user_is_refused_at_once_here_and_soon_elsewhere(
    fake: FakeProvider, authenticator_for: Make, db: CountingDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = authenticator_for(fake), authenticator_for(fake)
    token = fake.token()
    who = await enter(here, token)
    monkeypatch.setattr("baatcheet.auth.service.KNOWN_FOR", 0.2)
    await enter(there, token)
    await Users(db, here).update(who.user_id, {"active": False})
    with pytest.raises(Unauthenticated, match="not active"):
        await enter(here, token)
    with pytest.raises(Unauthenticated, match="not active"):
        await enter(here, fake.token(jti="new"))
    async with asyncio.timeout(5):
        while True:
            try:
                await enter(there, token)
            except Unauthenticated:
                break
            await asyncio.sleep(0.05)


async def test_a_deleted_user_comes_back_as_a_new_one(
    fake: FakeProvider, authenticator_for: Make, db: CountingDatabase
) -> None:
    who = await enter(authenticator_for(fake), fake.token())
    await run(db, "DELETE FROM users WHERE id = :id", id=who.user_id)
    again = await enter(authenticator_for(fake), fake.token())
    assert again.user_id != who.user_id


async def test_a_token_that_is_known_asks_neither_the_database_nor_the_provider(
    fake: FakeProvider, authenticator_for: Make, db: CountingDatabase
) -> None:
    authenticator = authenticator_for(fake)
    token = fake.token()
    await asyncio.gather(*(enter(authenticator, token) for _ in range(50)))
    asked, provider_asked = db.asked, fake.asked.total()
    assert asked <= 3
    for _ in range(50):
        await enter(authenticator, token)
    assert (db.asked, fake.asked.total()) == (asked, provider_asked)


async def test_a_token_that_is_known_ends_when_it_says(
    fake: FakeProvider, authenticator_for: Make, db: CountingDatabase
) -> None:
    authenticator = authenticator_for(fake, leeway=0)
    end = time.time() + 0.7
    token = fake.token(exp=end)
    await enter(authenticator, token)
    await asyncio.sleep(end + 0.05 - time.time())
    asked = db.asked
    with pytest.raises(TokenExpired) as expired:
        await enter(authenticator, token)
    assert db.asked == asked
    assert "invalid_token" in expired.value.headers["www-authenticate"]


async def test_while_the_provider_is_away_our_own_tokens_and_those_of_known_keys_let_in(
    fake: FakeProvider, authenticator_for: Make, db: CountingDatabase
) -> None:
    authenticator = authenticator_for(fake)
    who = await enter(authenticator, fake.token())
    async with db.system() as session:
        _, ours = await Tokens(db, authenticator).create(session, who, name="mine")
    fake.status = 500
    assert (await enter(authenticator, fake.token(jti="new"))).user_id == who.user_id
    assert (await enter(authenticator, ours)).user_id == who.user_id
    cold = authenticator_for(fake)
    assert (await enter(cold, ours)).user_id == who.user_id
    for _ in range(2):  # an outage is not remembered as a refusal
        with pytest.raises(IdentityProviderAway):
            await enter(cold, fake.token())


async def test_uses_are_written_down_for_tokens_and_identities_alike(
    fake: FakeProvider, authenticator_for: Make, db: CountingDatabase
) -> None:
    authenticator = authenticator_for(fake)
    who = await enter(authenticator, fake.token())
    async with db.system() as session:
        row, ours = await Tokens(db, authenticator).create(session, who, name="mine")
    await enter(authenticator, ours)
    await authenticator.flush()
    used = "SELECT last_used_at FROM {} WHERE id = :id AND last_used_at > now() - interval '10 seconds'"
    assert await rows(db, used.format("user_identities"), id=who.token_id)
    assert await rows(db, used.format("api_tokens"), id=row.id)


async def test_a_fresh_token_does_not_bring_fresh_limits(fake: FakeProvider, authenticator_for: Make) -> None:
    settings = AuthSettings.model_validate({"requests_per_minute": 3})
    limits = RateLimits(settings, Cache(CacheSettings.model_validate({})))
    authenticator = authenticator_for(fake)
    for number in range(3):
        await limits.check((await enter(authenticator, fake.token(jti=str(number)))).token_id)
    with pytest.raises(RateLimited):
        await limits.check((await enter(authenticator, fake.token(jti="more"))).token_id)


async def test_the_console_is_not_opened_with_a_providers_token(
    fake: FakeProvider, authenticator_for: Make, db: CountingDatabase
) -> None:
    authenticator = authenticator_for(fake)
    sessions = Sessions(db, authenticator, idle=timedelta(hours=1))
    limits = RateLimits(AuthSettings.model_validate({}), Cache(CacheSettings.model_validate({})))
    with pytest.raises(Unauthenticated, match="API token"):
        await sessions.begin(fake.token(), limits)


async def test_a_stream_of_events_goes_on_while_its_user_is_there(
    fake: FakeProvider, authenticator_for: Make, db: CountingDatabase
) -> None:
    who = await enter(authenticator_for(fake), fake.token())
    events = Events(db)
    assert await events.good_tokens([who.token_id, new_id()]) == {who.token_id: who.scopes}
    await run(db, "UPDATE users SET active = false WHERE id = :id", id=who.user_id)
    assert await events.good_tokens([who.token_id]) == {}


async def test_a_tenant_sees_its_own_identities_only_and_changes_none(
    fake: FakeProvider, authenticator_for: Make, db: CountingDatabase
) -> None:
    who = await enter(authenticator_for(fake), fake.token())
    other = await enter(authenticator_for(fake), fake.token(sub="somebody-else"))
    async with db.tenant(who.user_id) as session:
        seen = set(await session.scalars(text("SELECT user_id FROM user_identities")))
    assert seen == {who.user_id} != {other.user_id}
    with pytest.raises(Exception, match="permission denied"):
        async with db.tenant(who.user_id) as session:
            await session.execute(text("UPDATE user_identities SET subject = 'me'"))


async def test_without_a_provider_a_token_of_one_is_not_known(fake: FakeProvider, db: Database) -> None:
    for token in (fake.token(), fake.token(groups=["g" * 100] * 20)):
        with pytest.raises(Unauthenticated, match="not known"):
            await enter(Authenticator(db), token)


async def test_a_long_text_that_is_no_providers_token_is_not_looked_up(
    fake: FakeProvider, authenticator_for: Make, db: CountingDatabase
) -> None:
    authenticator = authenticator_for(fake)
    for odd in ("x" * 600, "a.b." + "x" * 600, "x" * 20_000):
        with pytest.raises(Unauthenticated):
            await enter(authenticator, odd)
    assert db.asked == 0
