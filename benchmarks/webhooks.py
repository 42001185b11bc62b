"""What webhooks cost, and what a dead receiver costs the others: `python -m benchmarks.webhooks [--json] [--quick]`.

1,000 events of 100 users, each with a webhook: from the commit of the events through the relay and a worker to the
receivers, which are real servers in a process of their own. Once without the ten that hang, once with them; of the
others it is counted when each has got all of its own. On a durable PostgreSQL that is started for the run.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

import aiohttp
import uvloop
from sqlalchemy import text

from baatcheet.events.model import Event
from baatcheet.events.relay import Relay
from baatcheet.jobs.worker import Worker
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database, connect
from baatcheet.platform.outbound import OutboundPolicy, guarded_session
from baatcheet.platform.settings import Settings, WebhookSettings
from baatcheet.webhooks.delivering import DeliveryParts
from baatcheet.webhooks.service import Webhooks
from baatcheet.webhooks.signing import new_secret
from benchmarks.context.workplace import services
from benchmarks.processes import first_line, running
from benchmarks.report import Report, options, progress

HEALTHY, HANGING = 90, 10
EACH = 10  # events of each user
ROOM = 100  # deliveries at once, as a worker does by default
POOL = 20
PATIENCE = 120.0  # seconds
SLOWER = 2.0  # times that the healthy may be slowed down by the hanging, at most
WRITTEN = 100.0  # ms for what follows from 1,000 events, at most

_SETTINGS = WebhookSettings(allowed_networks=("127.0.0.1",))
_USER = text("INSERT INTO users (id, name) VALUES (:id, 'benchmark')")
_WEBHOOK = text("INSERT INTO webhooks (id, user_id, url, events) VALUES (:id, :user, :url, '{turn.*}')")
_SECRET = text(
    "INSERT INTO webhook_secrets (id, webhook_id, user_id, secret) VALUES (:id, :webhook, :user, :secret)"
)
_EVENT = text(
    "INSERT INTO outbox (user_id, type, data) SELECT u, 'turn.completed', CAST(:data AS jsonb) "
    "FROM unnest(CAST(:users AS uuid[])) u, generate_series(1, :each)"
)
_ACTIVE = text("UPDATE webhooks SET active = (user_id = ANY(CAST(:users AS uuid[])))")
_DATA = (
    '{"turn_id": "0190f3a2-7c1e-7d4b-9a51-3f0c2b8e6d10", "conversation_id": "0190f3a2-7c1e-7d4b-9a51-3f0c2b8e6d10", '
    '"model": "groq/llama-3.3-70b-versatile", "finish_reason": "stop", "prompt_tokens": 812, "completion_tokens": 211}'
)


@dataclass
class Bench:
    """The parts of a run."""

    db: Database
    url: str
    webhooks: Webhooks
    control: str
    http: aiohttp.ClientSession
    healthy: list[UUID] = field(default_factory=list)
    hanging: list[UUID] = field(default_factory=list)

    async def settle(self, ports: Sequence[int]) -> None:
        """A user with a webhook for each port."""
        async with self.db.system() as session:
            for number, port in enumerate(ports):
                user, webhook = new_id(), new_id()
                url = f"http://127.0.0.1:{port}/hooks"
                await session.execute(_USER, {"id": user})
                await session.execute(_WEBHOOK, {"id": webhook, "user": user, "url": url})
                secret = {"id": new_id(), "webhook": webhook, "user": user, "secret": new_secret()}
                await session.execute(_SECRET, secret)
                (self.healthy if number < HEALTHY else self.hanging).append(user)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """A relay and a worker."""
        async with guarded_session(OutboundPolicy.allowing(_SETTINGS.allowed_networks)) as session:
            parts = DeliveryParts.of(self.db, session, _SETTINGS)
            kinds = [self.webhooks.deliver.bind(parts)]
            worker = Worker(self.db, partial(connect, self.url), kinds, rooms={"webhook": ROOM})
            await worker.start()
            relay = asyncio.create_task(Relay(self.db, {"webhooks": self.webhooks.relayed}).run())
            try:
                yield
            finally:
                relay.cancel()
                await asyncio.wait([relay])
                await worker.stop()

    async def arrived(self, count: int) -> list[float]:
        """When each of `count` requests reached a healthy receiver."""
        seen: list[float] = []
        async with asyncio.timeout(PATIENCE):
            while len(seen) < count:
                await asyncio.sleep(0.01)
                async with self.http.get(self.control) as answer:
                    seen += await answer.json(content_type=None)
        return seen

    async def round(self, *, with_hanging: bool) -> float:
        """Seconds from the commit of the events until the last healthy receiver has all of its own."""
        users = self.healthy + (self.hanging if with_hanging else [])
        async with self.db.system() as session:
            await session.execute(text("TRUNCATE jobs, webhook_deliveries CASCADE"))
            await session.execute(_ACTIVE, {"users": users})
        async with self.working():
            await self._happen(users, EACH)
            began = time.monotonic()
            return max(await self.arrived(len(self.healthy) * EACH)) - began

    async def one_by_one(self, count: int) -> list[float]:
        """Milliseconds from the commit of an event until its receiver has it, nothing else being done."""
        took = []
        async with self.working():
            for number in range(count):
                await self._happen([self.healthy[number % HEALTHY]], 1)
                began = time.monotonic()
                (arrived,) = await self.arrived(1)
                took.append((arrived - began) * 1000)
                await asyncio.sleep(0.02)
        return took

    async def written(self) -> float:
        """Milliseconds in which what follows from 1,000 events of one user is written."""
        user, now = self.healthy[0], datetime.now(UTC)
        data: dict[str, Any] = {"turn_id": str(new_id()), "model": "groq/llama-3.3-70b-versatile"}
        events = [Event(number, new_id(), user, "turn.completed", None, data, now) for number in range(1000)]
        async with self.db.system() as session:
            began = time.monotonic()
            await self.webhooks.relayed(session, events)
            took = time.monotonic() - began
            await session.rollback()
        return took * 1000

    async def _happen(self, users: Sequence[UUID], each: int) -> None:
        async with self.db.system() as session:
            await session.execute(_EVENT, {"users": list(users), "each": each, "data": _DATA})


async def measure(report: Report, settings: Settings, ports: Sequence[int], *, quick: bool) -> None:
    assert settings.database.url is not None
    url = settings.database.url.get_secret_value()
    db = Database(settings.database, pool_size=POOL)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as http:
        bench = Bench(db, url, Webhooks(db, _SETTINGS), f"http://127.0.0.1:{ports[0]}/arrived", http)
        try:
            await bench.settle(ports[1:])
            await bench.round(with_hanging=False)  # to be warm
            rounds = 1 if quick else 5
            without, beside = [], []
            for number in range(rounds):
                progress(f"round {number + 1} of {rounds}")
                without.append(await bench.round(with_hanging=False))
                beside.append(await bench.round(with_hanging=True))
            progress("one by one")
            alone = sorted(await bench.one_by_one(50 if quick else 300))
            written = [await bench.written() for _ in range(3 if quick else 11)]
        finally:
            await db.close()
    baseline, hung = statistics.median(without), statistics.median(beside)
    report.add("90 receivers have their 900", baseline, "s", better="lower")
    report.add("the same beside 10 that hang", hung, "s", better="lower")
    report.add("slowed down by those that hang", hung / baseline, "times", better="lower", target=SLOWER)
    report.add("delivered", HEALTHY * EACH / baseline, "1/s", better="higher")
    report.add("event to receiver, idle, p50", statistics.median(alone), "ms", better="lower")
    report.add("event to receiver, idle, p99", alone[int(len(alone) * 0.99)], "ms", better="lower")
    report.add(
        "deliveries of 1,000 events written", statistics.median(written), "ms", better="lower", target=WRITTEN
    )


def main() -> None:
    asked = options("webhooks", "What webhooks cost, and what a dead receiver costs the others.")
    report = Report("webhooks")
    progress("starting PostgreSQL and the receivers")
    with (
        services() as settings,
        running("-m", "benchmarks.webhook_receivers", str(HEALTHY), str(HANGING)) as receivers,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        ports = [int(port) for port in first_line(receivers).split()]
        runner.run(measure(report, settings, ports, quick=asked.quick))
    report.show(asked)


if __name__ == "__main__":
    main()
