"""The stream as its clients see it: live, resumable, each their own, and open until there is a reason."""

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from uuid import UUID

import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr
from sqlalchemy import text

from baatcheet.events.relay import Relay
from baatcheet.events.retention import forget_old
from baatcheet.platform.database import Database
from baatcheet.platform.settings import DatabaseSettings, Settings
from tests.events.application import Running, serving
from tests.events.conftest import add_token, add_user, tell, tell_many
from tests.events.listening import Listener, listening


@pytest.fixture
def own_settings(settings: Settings, events_url: str) -> Settings:
    return settings.model_copy(
        update={
            "database": DatabaseSettings(url=SecretStr(events_url)),
            "server": settings.server.model_copy(update={"keep_alive_seconds": 0.4}),
            "events": settings.events.model_copy(update={"streams_per_user": 25}),
        }
    )


@pytest_asyncio.fixture(loop_scope="session")
async def running(own_settings: Settings, db: Database) -> AsyncIterator[Running]:
    async with serving(own_settings, db) as one:
        yield one


async def relayed(db: Database) -> None:
    """Everything that was recorded is relayed."""
    while await Relay(db).relay():
        pass


async def no_streams(running: Running) -> None:
    """Until every stream is closed."""
    async with asyncio.timeout(5):
        while running.feed.streams:
            await asyncio.sleep(0.02)


async def user_with_token(db: Database, *, role: str = "user") -> tuple[UUID, str]:
    user = await add_user(db, role=role)
    return user, await add_token(db, user)


async def test_what_happens_is_told_as_it_happens(running: Running, db: Database) -> None:
    user, token = await user_with_token(db)
    await tell(db, user, 0)
    await relayed(db)
    async with listening(running.url, token) as one:
        await tell(db, user, 1, 2)
        await relayed(db)
        first, second = await one.until(2, seconds=0.9)  # a notice, and not the next look
        assert one.numbers == [1, 2]
        assert first.name == first.data["type"] == "job.updated"
        assert first.id is not None
        assert second.id == first.id + 1
        assert set(first.data) == {"id", "type", "timestamp", "data"}


async def test_a_stream_that_was_broken_off_is_resumed_without_a_gap(running: Running, db: Database) -> None:
    user, token = await user_with_token(db)
    async with listening(running.url, token) as one:
        await tell(db, user, *range(7))
        await relayed(db)
        seen = await one.until(7)
    await tell(db, user, *range(7, 300))
    await relayed(db)
    async with listening(running.url, token, after=seen[4].id) as again:
        await tell(db, user, 300)
        await relayed(db)
        await again.until(296)
        assert again.numbers == list(range(5, 301))


async def test_resuming_again_and_again_while_events_come_loses_none(running: Running, db: Database) -> None:
    user, token = await user_with_token(db)
    other = await add_user(db)
    most = 1_000
    chance = random.Random(7)

    async def write() -> None:
        relay, number = Relay(db), 0
        while number < most:
            count = min(chance.randint(1, 40), most - number)
            await tell_many(db, user, number, count)
            await tell(db, other, number)
            await relay.relay()
            number += count
        while await relay.relay():
            pass

    writing = asyncio.create_task(write())
    got: list[int] = []
    last: int | None = 0
    while len(got) < most:
        async with listening(running.url, token, after=last) as one:
            await asyncio.sleep(chance.random() * 0.1)
        got += one.numbers
        last = one.place if one.place is not None else last
    await writing
    assert got == list(range(most))


async def test_from_number_nought_all_that_is_kept_is_told(running: Running, db: Database) -> None:
    user, token = await user_with_token(db)
    await tell(db, user, *range(250))
    await relayed(db)
    async with listening(running.url, token, seconds=0, query_after=0) as one:
        await one.until_over()
    assert one.numbers == list(range(250))
    # The header goes before the address, which a browser can't change.
    async with listening(running.url, token, after=one.seen[248].id, seconds=0, query_after=0) as one:
        await one.until_over()
    assert one.numbers == [249]


async def test_only_what_is_asked_for_is_told(running: Running, db: Database) -> None:
    user, token = await user_with_token(db)
    async with listening(running.url, token, types="turn.*,job.dead") as one:
        await tell(db, user, 1)
        await tell(db, user, 2, type="turn.completed")
        await tell(db, user, 3, type="message.created")
        await tell(db, user, 4, type="job.dead")
        await tell(db, user, 5)
        await relayed(db)
        await one.until(2)
        assert one.numbers == [2, 4]
        # What was passed over is behind it: a comment says how far.
        comments = one.comments
        await one.until_comment(comments + 1)
        async with listening(running.url, token, after=one.place, seconds=0) as again:
            await again.until_over()
        assert again.numbers == []
    async with listening(running.url, token, after=0, types="turn.*,job.dead", seconds=0) as past:
        await past.until_over()
    assert past.numbers == [2, 4]


async def test_nobody_sees_what_is_anothers(running: Running, db: Database) -> None:
    (alice, her_token), (bob, his_token) = await user_with_token(db), await user_with_token(db)
    async with listening(running.url, her_token) as hers, listening(running.url, his_token) as his:
        await tell(db, alice, 1)
        await tell(db, bob, 2)
        await tell(db, None, 3, type="key.rotated")
        await relayed(db)
        await hers.until(1)
        await his.until(1)
        await his.until_comment(his.comments + 1)
        assert (hers.numbers, his.numbers) == ([1], [2])
    async with listening(running.url, her_token, after=0, seconds=0) as past:
        await past.until_over()
    assert past.numbers == [1]
    with pytest.raises(httpx.HTTPStatusError) as refused:
        async with listening(running.url, her_token, scope="all"):
            pass
    assert refused.value.response.status_code == 403


async def test_an_administrator_may_see_everybodys_and_nobodys(running: Running, db: Database) -> None:
    alice = await add_user(db)
    root, token = await user_with_token(db, role="admin")
    async with listening(running.url, token, scope="all") as one, listening(running.url, token) as own:
        await tell(db, alice, 1)
        await tell(db, None, 2, type="key.rotated")
        await tell(db, root, 3)
        await relayed(db)
        seen = await one.until(3)
        assert one.numbers == [1, 2, 3]
        assert [event.data["user_id"] for event in seen] == [str(alice), None, str(root)]
        await own.until(1)
        assert own.numbers == [3]
    async with listening(running.url, token, scope="all", after=seen[0].id, seconds=0) as past:
        await past.until_over()
    assert past.numbers == [2, 3]


@pytest.mark.parametrize(
    ("query", "headers", "status", "says"),
    [
        ("types=tea.ready", {}, 422, "conversation.created"),
        ("types=tea.*", {}, 422, "turn.*"),
        ("scope=mine", {}, 422, "scope"),
        ("after=-1", {}, 422, "after"),
        ("after=9999999999999999999999", {}, 422, "after"),
        ("seconds=-1", {}, 422, "seconds"),
        ("", {"last-event-id": "nonsense"}, 400, "Last-Event-ID"),
        ("", {"last-event-id": "9" * 40}, 400, "Last-Event-ID"),
        ("", {"authorization": "Bearer bc_nobody_knows_me"}, 401, "token"),
    ],
)
async def test_what_can_not_be_asked_is_refused_in_words(
    running: Running, db: Database, query: str, headers: dict[str, str], status: int, says: str
) -> None:
    _, token = await user_with_token(db)
    async with httpx.AsyncClient(base_url=running.url, trust_env=False) as client:
        answer = await client.get(
            f"/api/v1/events?{query}", headers={"authorization": f"Bearer {token}"} | headers
        )
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert says in answer.json()["detail"]


async def test_a_token_that_may_not_read_follows_nothing(running: Running, db: Database) -> None:
    user = await add_user(db)
    token = await add_token(db, user, scopes=frozenset({"write"}))
    with pytest.raises(httpx.HTTPStatusError) as refused:
        async with listening(running.url, token):
            pass
    assert refused.value.response.status_code == 403


async def test_who_was_away_too_long_is_told_so(running: Running, db: Database) -> None:
    user, token = await user_with_token(db)
    await tell(db, user, *range(5))
    await relayed(db)
    async with listening(running.url, token, after=0, seconds=0) as one:
        await one.until_over()
    old = one.seen
    async with db.system() as session:
        await session.execute(
            text("UPDATE events SET created_at = created_at - interval '4 days' WHERE seq <= :seq"),
            {"seq": old[2].id},
        )
    assert await forget_old(db, timedelta(days=3)) == 3
    assert await forget_old(db, timedelta(days=3)) == 0
    async with listening(running.url, token, after=old[0].id, seconds=0) as late:
        await late.until_over()
    assert late.seen[0].name == "reset"
    assert late.seen[0].data == {"reason": "forgotten", "after": old[0].id, "kept_after": old[2].id}
    assert late.seen[0].id == old[2].id
    assert late.numbers == [3, 4]
    # Who has seen the last that is gone has missed nothing.
    async with listening(running.url, token, after=old[2].id, seconds=0) as in_time:
        await in_time.until_over()
    assert [event.name for event in in_time.seen] == ["job.updated"] * 2


async def test_a_number_of_another_database_is_not_believed(running: Running, db: Database) -> None:
    user, token = await user_with_token(db)
    async with listening(running.url, token, after=10**15) as one:
        (reset,) = await one.until(1)
        assert (reset.name, reset.data["reason"]) == ("reset", "unknown")
        await tell(db, user, 1)
        await relayed(db)
        await one.until(2)
        assert one.numbers == [1]


async def test_silence_is_broken_by_comments(running: Running, db: Database) -> None:
    user, token = await user_with_token(db)
    other = await add_user(db)
    async with listening(running.url, token) as one:
        began = time.monotonic()
        await one.until_comment(4)
        assert 0.8 < time.monotonic() - began < 5
        place = one.place or 0
        await tell(db, other, *range(10))
        await relayed(db)
        async with asyncio.timeout(5):  # it learns how far it has seen, though there was nothing for it
            while (one.place or 0) < place + 10:
                await asyncio.sleep(0.05)
        assert one.seen == []
        await tell(db, user, 1)
        await relayed(db)
        await one.until(1)


async def test_a_revoked_token_ends_its_streams(running: Running, db: Database) -> None:
    user, token = await user_with_token(db)
    kept = await add_token(db, user)
    async with listening(running.url, token) as one, listening(running.url, kept) as other:
        async with httpx.AsyncClient(
            base_url=running.url, headers={"authorization": f"Bearer {kept}"}, trust_env=False
        ) as client:
            tokens = (await client.get("/api/v1/tokens")).json()["data"]
            (mine,) = [row["id"] for row in tokens if token.startswith(row["prefix"])]
            assert (await client.delete(f"/api/v1/tokens/{mine}")).status_code == 204
        await one.until_over(seconds=5)
        assert one.ended
        assert not other.ended
    with pytest.raises(httpx.HTTPStatusError):
        async with listening(running.url, token):
            pass


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE users SET active = false WHERE id = :id",
        "UPDATE users SET role = 'user' WHERE id = :id",
        "DELETE FROM users WHERE id = :id",
        "UPDATE api_tokens SET expires_at = now() WHERE user_id = :id",
    ],
)
async def test_whoever_may_no_longer_follow_is_let_go(running: Running, db: Database, change: str) -> None:
    user, token = await user_with_token(db, role="admin")
    async with listening(running.url, token, scope="all") as one:
        async with db.system() as session:
            await session.execute(text(change), {"id": user})
        await one.until_over(seconds=5)
        assert one.ended


async def test_a_server_that_stops_holds_nobody_up(own_settings: Settings, db: Database) -> None:
    _, token = await user_with_token(db)
    async with AsyncExitStack() as streams:
        async with serving(own_settings, db) as running:
            followers: list[Listener] = [
                await streams.enter_async_context(listening(running.url, token, after=after))
                for after in (None, 0, 3)
                for _ in range(5)
            ]
            began = time.monotonic()
            running.drain()
        assert time.monotonic() - began < 2
        for one in followers:
            await one.until_over(seconds=1)
            assert one.ended


async def test_a_server_that_is_stopping_takes_no_new_stream(running: Running, db: Database) -> None:
    _, token = await user_with_token(db)
    running.feed.drain()
    with pytest.raises(httpx.HTTPStatusError) as refused:
        async with listening(running.url, token):
            pass
    assert refused.value.response.status_code == 503
    assert refused.value.response.json()["type"] == "shutting-down"
    assert "retry-after" in refused.value.response.headers


async def test_a_client_that_does_not_read_is_let_go_and_resumes(running: Running, db: Database) -> None:
    user, token = await user_with_token(db)
    head = f"GET /api/v1/events?after=0 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", int(running.url.rpartition(":")[2])))
        client.setblocking(False)
        await asyncio.get_running_loop().sock_sendall(client, head.encode())
        count = 0
        async with asyncio.timeout(60):
            while not count or running.feed.streams:
                await tell_many(db, user, count, 200, padding=8_000)
                count += 200
                await relayed(db)
                await asyncio.sleep(0.05)
        assert count > 200
    async with listening(running.url, token, after=0, seconds=0) as again:
        await again.until_over(seconds=30)
    assert again.numbers == list(range(count))


async def test_a_user_may_follow_so_often_and_no_more(running: Running, db: Database) -> None:
    _, token = await user_with_token(db)
    _, other = await user_with_token(db)
    async with AsyncExitStack() as streams:
        for _ in range(25):
            await streams.enter_async_context(listening(running.url, token))
        with pytest.raises(httpx.HTTPStatusError) as refused:
            await streams.enter_async_context(listening(running.url, token))
        assert refused.value.response.status_code == 429
        await streams.enter_async_context(listening(running.url, other))
        # No stream holds a connection, and each is counted.
        assert running.app.state.database.pool_use().in_use == 0
        assert "baatcheet_event_followers 26.0" in running.app.state.telemetry.metrics.render().decode()
    await no_streams(running)
    async with listening(running.url, token) as one:
        await one.until_comment(1)


async def test_a_stream_ends_when_its_time_is_up(running: Running, db: Database) -> None:
    _, token = await user_with_token(db)
    async with listening(running.url, token, seconds=0.6) as one:
        began = time.monotonic()
        await one.until_over()
        assert one.ended
        assert 0.3 < time.monotonic() - began < 3


async def test_only_the_head_of_a_stream_is_an_answer_too(running: Running, db: Database) -> None:
    _, token = await user_with_token(db)
    async with httpx.AsyncClient(base_url=running.url, trust_env=False) as client:
        answer = await client.head("/api/v1/events", headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    await no_streams(running)


async def test_without_notices_it_takes_a_second(own_settings: Settings, db: Database) -> None:
    user, token = await user_with_token(db)
    async with serving(own_settings, db, listens=False) as running, listening(running.url, token) as one:
        for number in range(3):
            await tell(db, user, number)
            await relayed(db)
            await one.until(number + 1, seconds=3)
        assert one.numbers == [0, 1, 2]


async def test_a_listener_that_is_cut_off_listens_again(running: Running, db: Database) -> None:
    user, token = await user_with_token(db)
    cut_off = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE (query LIKE 'LISTEN%' OR query = 'SELECT 1') AND pid <> pg_backend_pid()"
    )
    async with listening(running.url, token) as one:
        for number in range(2):
            async with asyncio.timeout(10):
                while not (await _scalar(db, cut_off)):
                    await asyncio.sleep(0.1)
            await tell(db, user, number)
            await relayed(db)
            await one.until(number + 1)
        assert one.numbers == [0, 1]


async def _scalar(db: Database, statement: str) -> int:
    async with db.system() as session:
        return int(await session.scalar(text(statement)) or 0)


async def test_the_past_is_a_list_too(running: Running, db: Database) -> None:
    (alice, token), (bob, _) = await user_with_token(db), await user_with_token(db)
    await tell(db, alice, *range(5))
    await tell(db, bob, 5)
    await tell(db, alice, 6, type="turn.failed")
    await relayed(db)
    async with httpx.AsyncClient(
        base_url=running.url, headers={"authorization": f"Bearer {token}"}, trust_env=False
    ) as client:
        page = (await client.get("/api/v1/events/history", params={"limit": 4})).json()
        assert [row["data"]["number"] for row in page["data"]] == [6, 4, 3, 2]
        rest = (await client.get("/api/v1/events/history", params={"cursor": page["next_cursor"]})).json()
        assert [row["data"]["number"] for row in rest["data"]] == [1, 0]
        assert rest["has_more"] is False
        failed = (await client.get("/api/v1/events/history", params={"types": "turn.*"})).json()["data"]
        assert [row["type"] for row in failed] == ["turn.failed"]
        assert (await client.get("/api/v1/events/history?scope=all")).status_code == 403
        assert (await client.get("/api/v1/events/history?cursor=x")).status_code == 400
    _, root = await user_with_token(db, role="admin")
    async with httpx.AsyncClient(
        base_url=running.url, headers={"authorization": f"Bearer {root}"}, trust_env=False
    ) as client:
        everybodys = (await client.get("/api/v1/events/history?scope=all")).json()["data"]
        assert len(everybodys) == 7
        assert (await client.get("/api/v1/events/history")).json()["data"] == []
