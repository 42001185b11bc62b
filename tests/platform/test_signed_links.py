"""Links that open one address for a while."""

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from baatcheet.platform.database import Database
from baatcheet.platform.settings import DatabaseSettings
from baatcheet.platform.signed_links import LinkNotValid, SignedLinks, deployment_secret
from tests.platform.conftest import Postgres

PATH = "/files/exports/0190f3a2-7c1e-7d4b-9a51-3f0c2b8e6d10"


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
async def db(postgres: Postgres) -> AsyncIterator[Database]:
    opened = Database(DatabaseSettings(url=SecretStr(await postgres.migrated())), pool_size=4)
    yield opened
    await opened.close()


def _query(link: str) -> Mapping[str, str]:
    return dict(parse_qsl(urlsplit(link).query))


async def test_a_link_opens_its_address_until_its_time_is_over(db: Database) -> None:
    clock = Clock()
    links = SignedLinks(db, clock)
    link = await links.sign(PATH, 60)
    assert urlsplit(link).path == PATH
    await links.check(PATH, _query(link))
    clock.now += 59.9
    await links.check(PATH, _query(link))
    clock.now += 0.1
    with pytest.raises(LinkNotValid, match="time is over"):
        await links.check(PATH, _query(link))


async def test_another_process_takes_the_link_and_another_address_does_not(db: Database) -> None:
    link = await SignedLinks(db).sign(PATH, 60)
    other = SignedLinks(db)
    await other.check(PATH, _query(link))
    for path in (PATH[:-1], PATH + "0", PATH.upper(), "/", ""):
        with pytest.raises(LinkNotValid):
            await other.check(path, _query(link))


async def test_a_changed_link_is_refused(db: Database) -> None:
    links = SignedLinks(db)
    query = dict(_query(await links.sign(PATH, 60)))
    later = str(int(query["expires"]) + 1)
    for changed in (
        {},
        query | {"expires": later},
        query | {"expires": "0" + query["expires"]},
        query | {"expires": " " + query["expires"]},
        query | {"expires": "٣" * 10},
        query | {"expires": "9" * 5000},
        query | {"expires": ""},
        query | {"signature": ""},
        query | {"signature": query["signature"][:-1]},
        query | {"signature": query["signature"] + "="},
        query | {"signature": "ü\ud800"},
    ):
        with pytest.raises(LinkNotValid):
            await links.check(PATH, changed)


@given(flip=st.integers(0, 32 * 8 - 1))
def test_every_bit_of_a_signature_counts(flip: int) -> None:
    links = SignedLinks(None)  # type: ignore[arg-type]
    links._secret = b"s" * 32
    query = dict(_query(asyncio.run(links.sign(PATH, 60))))
    raw = bytearray(base64.urlsafe_b64decode(query["signature"] + "="))
    raw[flip // 8] ^= 1 << (flip % 8)
    query["signature"] = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    with pytest.raises(LinkNotValid):
        asyncio.run(links.check(PATH, query))


async def test_an_address_in_urdu_is_escaped_and_opens(db: Database) -> None:
    links = SignedLinks(db)
    link = await links.sign("/files/رپورٹ a&b?.pdf", 60)
    assert link.isascii()
    await links.check("/files/رپورٹ a&b?.pdf", _query(link))


async def test_many_who_ask_at_once_are_given_the_same_secret(db: Database) -> None:
    made = await asyncio.gather(*(deployment_secret(db, "a-new-one") for _ in range(20)))
    assert len(set(made)) == 1
    assert len(made[0]) == 32
    assert await deployment_secret(db, "another") != made[0]


@pytest.mark.parametrize(("path", "seconds"), [("files", 60), ("/files", 0), ("/files", 1e9)])
async def test_a_link_for_nothing_or_for_ever_is_not_signed(db: Database, path: str, seconds: float) -> None:
    with pytest.raises(ValueError, match="signed for"):
        await SignedLinks(db).sign(path, seconds)
