"""The providers' key APIs, against FAKES of them over real HTTP."""

from collections.abc import AsyncIterator
from uuid import uuid4

import aiohttp
import pytest
import pytest_asyncio

from baatcheet.keys.rotation.provisioners import (
    OpenAIKeys,
    OpenRouterKeys,
    Provisioner,
    ProvisionerError,
    is_of,
    name_of,
)
from baatcheet.keys.secret import SecretKey
from baatcheet.platform.http import client_session
from baatcheet.platform.redaction import redact
from baatcheet.platform.settings import SettingsError
from tests.keys.rotation.fake_providers import ADMIN_KEY, PROJECT, PROVISIONING_KEY, FakeProviders


@pytest_asyncio.fixture
async def fake() -> AsyncIterator[FakeProviders]:
    async with FakeProviders() as running:
        yield running


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with client_session() as opened:
        yield opened


def openrouter(session: aiohttp.ClientSession, fake: FakeProviders) -> OpenRouterKeys:
    return OpenRouterKeys(session, lambda: SecretKey(PROVISIONING_KEY), f"{fake.url}/openrouter")


def openai(session: aiohttp.ClientSession, fake: FakeProviders) -> OpenAIKeys:
    return OpenAIKeys(session, lambda: SecretKey(ADMIN_KEY), PROJECT, f"{fake.url}/openai")


@pytest.fixture(params=[openrouter, openai])
def maker(request: pytest.FixtureRequest, session: aiohttp.ClientSession, fake: FakeProviders) -> Provisioner:
    made: Provisioner = request.param(session, fake)
    return made


async def test_a_key_is_made_listed_and_deleted_and_deleting_it_again_is_no_error(
    maker: Provisioner, fake: FakeProviders
) -> None:
    rotation = uuid4()
    made = [await maker.create(name_of(rotation, number), None) for number in range(1, 6)]
    assert all(fake.works(one.key.reveal()) for one in made)
    listed = await maker.listed()  # in pages of two
    assert [(one.at, one.name) for one in listed] == [
        (one.at, name_of(rotation, number)) for number, one in enumerate(made, 1)
    ]
    assert all(is_of(rotation, one.name) for one in listed)
    assert not any(is_of(uuid4(), one.name) for one in listed)
    for _ in range(2):
        await maker.delete(made[0].at)
    assert not fake.works(made[0].key.reveal())
    assert len(await maker.listed()) == 4


async def test_a_key_is_a_secret_from_the_moment_that_it_is_made(maker: Provisioner) -> None:
    made = await maker.create("baatcheet x 1", None)
    text = made.key.reveal()
    assert text not in redact(f"a line with {text} in it")
    assert text[8:40] not in redact(f"a line with {text[8:40]} in it")


@pytest.mark.parametrize(("status", "passing"), [(401, False), (403, False), (429, True), (503, True)])
async def test_a_refusal_says_whether_it_may_pass_and_holds_no_key(
    maker: Provisioner, fake: FakeProviders, status: int, passing: bool
) -> None:
    fake.failures = [status]
    with pytest.raises(ProvisionerError, match=str(status)) as refused:
        await maker.create("baatcheet x 1", None)
    assert refused.value.passing is passing
    assert PROVISIONING_KEY not in str(refused.value)
    assert ADMIN_KEY not in str(refused.value)


async def test_an_answer_that_is_lost_is_told_and_the_key_is_found_by_its_name(
    maker: Provisioner, fake: FakeProviders
) -> None:
    fake.lose_answers = True
    with pytest.raises(ProvisionerError) as lost:
        await maker.create("baatcheet x 1", None)
    assert lost.value.passing
    assert [one.name for one in await maker.listed()] == ["baatcheet x 1"]


async def test_a_new_key_has_the_limits_of_the_one_that_it_replaces(
    session: aiohttp.ClientSession, fake: FakeProviders
) -> None:
    (old,) = fake.sell(1, limit=25, limit_reset="monthly", include_byok_in_limit=False)
    maker = openrouter(session, fake)
    at = await maker.find(SecretKey(old))
    assert at is not None
    made = await maker.create("baatcheet x 1", at)
    limits = {"limit": 25, "limit_reset": "monthly", "include_byok_in_limit": False}
    assert fake.keys[made.at].limits == limits


async def test_a_key_of_somebody_elses_is_not_found(
    session: aiohttp.ClientSession, fake: FakeProviders
) -> None:
    fake.sell(3)
    assert await openrouter(session, fake).find(SecretKey("sk-or-v1-another")) is None


async def test_without_an_admin_key_or_a_project_there_is_no_way_to_make_keys(
    session: aiohttp.ClientSession,
) -> None:
    assert not OpenRouterKeys(session, lambda: None).available
    assert not OpenAIKeys(session, lambda: SecretKey(ADMIN_KEY), None).available
    with pytest.raises(ProvisionerError, match="no key to ask it with"):
        await OpenRouterKeys(session, lambda: None).listed()


async def test_an_admin_key_is_sent_nowhere_without_tls(session: aiohttp.ClientSession) -> None:
    with pytest.raises(SettingsError, match="BAATCHEET_OPENROUTER_KEYS_URL"):
        OpenRouterKeys(session, lambda: SecretKey(PROVISIONING_KEY), "http://openrouter.example/api/v1")
