"""Events through the API processes themselves: what users do is told, anywhere, and no restart waits for it."""

import asyncio
import signal
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from baatcheet.auth.bootstrap import ensure_admin
from baatcheet.platform.settings import load
from tests.conftest import ADMIN_TOKEN, Caller, RunningServer
from tests.events.listening import listening
from tests.running import api_process, new_user


@pytest.mark.usefixtures("worker")
async def test_what_a_user_does_is_told_as_it_happens(
    server: RunningServer, alice: Caller, bob: Caller
) -> None:
    assert alice.token is not None
    assert bob.token is not None
    mine = "conversation.*,message.*,turn.*"
    async with (
        listening(server.url, alice.token, types=mine) as hers,
        listening(server.url, bob.token, types=mine) as his,
    ):
        turn = (await alice.post("/api/v1/chat/completions", json={"message": "What is a glacier?"})).json()
        await hers.until(4, seconds=60)  # the worker may have to start
        conversation = turn["conversation_id"]
        changed = await alice.patch(f"/api/v1/conversations/{conversation}", json={"title": "Glaciers"})
        assert changed.status_code == 200
        assert (await alice.delete(f"/api/v1/conversations/{conversation}")).status_code == 204
        assert (await alice.post(f"/api/v1/conversations/{conversation}/restore")).status_code == 200
        seen = await hers.until(7)
        assert [event.name for event in seen] == [
            "conversation.created",
            "message.created",
            "turn.completed",
            "message.created",
            "conversation.updated",
            "conversation.deleted",
            "conversation.restored",
        ]
        assert {event.data["data"]["conversation_id"] for event in seen} == {conversation}
        assert seen[2].data["data"]["turn_id"] == turn["turn_id"]
        assert seen[4].data["data"]["title"] == "Glaciers"
        assert his.seen == []


@pytest.fixture
def environment(environment_of_server: Mapping[str, str]) -> dict[str, str]:
    ensure_admin(environment_of_server["DATABASE_URL"], load(environment_of_server, dotenv=None).auth)
    return {
        **environment_of_server,
        "BAATCHEET_GRACE_SECONDS": "20",
        "BAATCHEET_STREAM_KEEP_ALIVE_SECONDS": "1",
    }


@pytest.mark.usefixtures("worker")
async def test_a_rolling_restart_waits_for_no_stream_and_loses_no_event(
    environment: dict[str, str], tmp_path: Path
) -> None:
    with (
        api_process(environment, tmp_path / "a.log") as first,
        api_process(environment, tmp_path / "b.log") as second,
    ):
        token = await asyncio.to_thread(new_user, first.url, ADMIN_TOKEN)
        async with AsyncExitStack() as streams, Caller(second.url, token) as caller:
            followers = [
                await streams.enter_async_context(listening(first.url, token, types="conversation.*"))
                for _ in range(20)
            ]
            await caller.post("/api/v1/conversations", json={"title": "one"})
            for one in followers:
                await one.until(1, seconds=60)
            began = time.monotonic()
            first.signal(signal.SIGTERM)
            assert await asyncio.to_thread(first.wait, 30) == 0
            assert time.monotonic() - began < 12  # and not the grace of running turns
            for one in followers:
                await one.until_over(seconds=1)
                assert one.ended
            await caller.post("/api/v1/conversations", json={"title": "two"})
            again = await streams.enter_async_context(
                listening(second.url, token, types="conversation.*", after=followers[0].place)
            )
            await caller.post("/api/v1/conversations", json={"title": "three"})
            seen = await again.until(2)
            assert [event.data["data"]["title"] for event in seen] == ["two", "three"]
        assert '"level":"error"' not in (tmp_path / "a.log").read_text()
