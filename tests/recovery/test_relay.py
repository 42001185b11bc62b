"""What a turn says stays in Redis for its followers as long as it runs, and no longer than they need it."""

import asyncio
from collections.abc import Mapping

import pytest

from baatcheet.chat import relay
from baatcheet.platform.cache import Cache
from baatcheet.platform.settings import load
from tests.recovery.living import living, prepare
from tests.recovery.test_truth import slow


@pytest.fixture
def own_database(migrated_database: str, environment_of_server: Mapping[str, str]) -> str:
    prepare(migrated_database, environment_of_server)
    return migrated_database


async def test_a_turn_longer_than_its_stream_is_kept_has_the_whole_stream_until_its_end(
    own_database: str, environment_of_server: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "KEPT", 2)
    monkeypatch.setattr(relay, "KEPT_ENDED", 1)
    cache = Cache(load(environment_of_server, dotenv=None).cache)
    await cache.start()
    try:
        async with (
            asyncio.timeout(30),
            living(own_database, environment_of_server, redis=True) as one,
        ):
            feed = await one.start(slow("go on and on", 5))
            name = relay.stream_name(feed.identity.id)
            seen: list[tuple[bytes, int]] = []
            while feed.outcome is None:
                first = await cache.execute("XRANGE", name, "-", "+", "COUNT", "1")
                if seen or first:
                    seen.append((first[0][0] if first else b"", await cache.execute("PTTL", name)))
                await asyncio.sleep(0.1)
            assert len(seen) > 30
            assert len({entry for entry, _ in seen}) == 1, "its beginning is there all the time"
            assert all(0 < left <= 2000 for _, left in seen)
            while (left := await cache.execute("PTTL", name)) > 1000:
                await asyncio.sleep(0.05)
            assert left == -2 or 0 < left <= 1000
    finally:
        await cache.close()
