"""Metrics (Prometheus) and the seam of traces (OpenTelemetry).

Several API processes behind one port share their numbers through files: the supervisor makes a fresh folder
and starts each process with PROMETHEUS_MULTIPROC_DIR set to it (`prometheus_client` reads that variable when
it is imported, so it must be there before the process starts); `/metrics` of any process then tells the sum.
When one of them ends, the supervisor calls `forget_process`.

Traces are off unless a collector is named; then `connect_tracer` imports OpenTelemetry, and not before.
No prompt, reply or key is ever a label or an attribute.
"""

import asyncio
import contextlib
import importlib
import os
import platform
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.values import MutexValue, ValueClass

from baatcheet import __version__
from baatcheet.platform.database import PoolUse

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
SAMPLE_EVERY: Final = 0.1  # seconds between two looks at the event loop's lag
SAMPLES: Final = 600  # of the lag: the last minute's
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_LATENCY: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_FIRST_TOKEN: Final = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)
_JOB = (0.01, 0.05, 0.25, 1, 5, 15, 60, 300, 1800)

# Headers that an adapter adds to what it sends a provider; empty unless traces are on.
trace_headers: ContextVar[Mapping[str, str]] = ContextVar("trace_headers", default=MappingProxyType({}))


class Metrics:
    """Every number that `/metrics` tells. One per process."""

    def __init__(self) -> None:
        self._shared = ValueClass is not MutexValue
        self._told_jobs: set[tuple[str, str]] = set()
        self._told_keys: dict[str, dict[str, int]] = {}
        # With shared files each metric lives in them, and a registry of its own would tell it twice.
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "baatcheet_http_requests",
            "Requests answered.",
            ["method", "route", "status"],
            registry=registry,
        )
        self._latency = Histogram(
            "baatcheet_http_request_seconds",
            "Seconds from a request's head to its answer's last byte.",
            ["route"],
            buckets=_LATENCY,
            registry=registry,
        )
        self._turns = Counter("baatcheet_turns", "Turns that ended.", ["status"], registry=registry)
        self._running = Gauge(
            "baatcheet_turns_running", "Turns under way.", registry=registry, multiprocess_mode="livesum"
        )
        self._tokens = Counter("baatcheet_tokens", "Model tokens.", ["kind"], registry=registry)
        self._attempts = Counter(
            "baatcheet_provider_attempts",
            "Calls to a provider.",
            ["provider", "outcome"],
            registry=registry,
        )
        self._keys = Gauge(
            "baatcheet_provider_keys",
            "Keys of a provider: usable, resting, quarantined, exhausted (until midnight UTC), failing.",
            ["provider", "state"],
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self._oldest_key = Gauge(
            "baatcheet_provider_key_oldest_days",
            "Days since the oldest key of a provider was first seen.",
            ["provider"],
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self._key_failures = Counter(
            "baatcheet_provider_key_failures",
            "Requests that failed with one key, whether or not another answered.",
            ["provider", "kind"],
            registry=registry,
        )
        self._first_token = Histogram(
            "baatcheet_first_token_seconds",
            "Seconds from a turn's start to its first token.",
            ["provider"],
            buckets=_FIRST_TOKEN,
            registry=registry,
        )
        self._pool = Gauge(
            "baatcheet_db_pool_connections",
            "Database connections: allowed (size), lent out (in_use), open and not (idle); callers waiting (waiting).",
            ["state"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._refused = Counter(
            "baatcheet_db_refusals", "Callers who got no database connection in time.", registry=registry
        )
        self._slow = Counter(
            "baatcheet_db_slow_statements", "Statements that took long (see the log).", registry=registry
        )
        self._told_pool = (0, 0)  # refusals and slow statements that are counted already
        self._lag = Gauge(
            "baatcheet_event_loop_lag_seconds",
            "How late the event loop ran, 99th percentile of the last minute.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        # Made when it is first told: the shared minimum would count the 0 of a process that never looks at the cache.
        self._cache_up: Gauge | None = None
        self._relayed = Counter("baatcheet_events_relayed", "Events relayed.", registry=registry)
        self._relay_lag = Gauge(
            "baatcheet_event_relay_lag_seconds",
            "Age of the oldest event that waited to be relayed when a relay last looked.",
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self._followers = Gauge(
            "baatcheet_event_followers",
            "Open streams of events.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._jobs = Counter(
            "baatcheet_jobs", "Runs of jobs that ended.", ["kind", "outcome"], registry=registry
        )
        self._unfinished = Gauge(
            "baatcheet_jobs_unfinished",
            "Jobs of the whole deployment that have not ended.",
            ["queue", "status"],
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self._oldest = Gauge(
            "baatcheet_jobs_oldest_seconds",
            "Seconds that the oldest queued job has waited.",
            ["queue"],
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self._job_seconds = Histogram(
            "baatcheet_job_seconds",
            "Seconds that a run of a job took.",
            ["kind"],
            buckets=_JOB,
            registry=registry,
        )
        Gauge(
            "baatcheet_build_info",
            "This version.",
            ["version", "python"],
            registry=registry,
            multiprocess_mode="livemax",
        ).labels(__version__, platform.python_version()).set(1)
        if not self._shared:
            ProcessCollector(registry=registry)
        self._request_children: dict[tuple[str, str, int], Counter] = {}
        self._latency_children: dict[str, Histogram] = {}

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request was answered. `route` is the template of its path, never the path."""
        key = (method, route, status)
        counter = self._request_children.get(key)
        if counter is None:
            label = method if method in _METHODS else "other"
            counter = self._requests.labels(label, route, str(status))
            if method in _METHODS:
                self._request_children[key] = counter
        counter.inc()
        histogram = self._latency_children.get(route)
        if histogram is None:
            histogram = self._latency_children[route] = self._latency.labels(route)
        histogram.observe(seconds)

    def turn_started(self) -> None:
        self._running.inc()

    def turn_ended(self, status: str) -> None:
        """`status` as in the turn's row: complete, failed, cancelled, interrupted."""
        self._running.dec()
        self._turns.labels(status).inc()

    def tokens(self, prompt: int, completion: int) -> None:
        self._tokens.labels("prompt").inc(prompt)
        self._tokens.labels("completion").inc(completion)

    def attempt(self, provider: str, outcome: str) -> None:
        """`outcome` is `ok` or a `FailureKind`."""
        self._attempts.labels(provider, outcome).inc()

    def provider_keys(self, provider: str, states: Mapping[str, int], oldest_days: float) -> None:
        """How many keys of a provider are in each state (usable, resting …), and how old the oldest is."""
        told = self._told_keys.setdefault(provider, {})
        told.update(dict.fromkeys(told, 0) | dict(states))
        for state, count in told.items():
            self._keys.labels(provider, state).set(count)
        self._oldest_key.labels(provider).set(oldest_days)

    def key_failures(self, provider: str, kind: str, count: int = 1) -> None:
        """Requests that failed with one key. `kind`: a `FailureKind`."""
        self._key_failures.labels(provider, kind).inc(count)

    def first_token(self, provider: str, seconds: float) -> None:
        self._first_token.labels(provider).observe(seconds)

    def events_relayed(self, count: int) -> None:
        self._relayed.inc(count)

    def relay_lag(self, seconds: float) -> None:
        self._relay_lag.set(seconds)

    def event_followers(self, count: int) -> None:
        self._followers.set(count)

    def job_ended(self, kind: str, outcome: str, seconds: float) -> None:
        self._jobs.labels(kind, outcome).inc()
        self._job_seconds.labels(kind).observe(seconds)

    def jobs(self, counts: Mapping[tuple[str, str], int], oldest: Mapping[str, float]) -> None:
        """Jobs by queue and status, and how long the oldest queued one of a queue has waited."""
        told = dict.fromkeys(self._told_jobs, 0) | dict(counts)
        self._told_jobs = set(told)
        for (queue, status), count in told.items():
            self._unfinished.labels(queue, status).set(count)
            if status == "queued":
                self._oldest.labels(queue).set(oldest.get(queue, 0.0))

    def pool(self, use: PoolUse) -> None:
        """How the pool is now; what it counts since its start is added by what is new."""
        gauges = {"size": use.size, "in_use": use.in_use, "idle": use.idle, "waiting": use.waiting}
        for state, value in gauges.items():
            self._pool.labels(state).set(value)
        refused, slow = self._told_pool
        self._refused.inc(max(0, use.refused - refused))
        self._slow.inc(max(0, use.slow_statements - slow))
        self._told_pool = (use.refused, use.slow_statements)

    def event_loop_lag(self, seconds: float) -> None:
        self._lag.set(seconds)

    def cache_available(self, available: bool) -> None:
        if self._cache_up is None:
            self._cache_up = Gauge(
                "baatcheet_cache_available",
                "Whether the cache answers.",
                registry=self._registry,
                multiprocess_mode="livemin",
            )
        self._cache_up.set(available)

    def render(self) -> bytes:
        """All of it, in Prometheus' text format (`CONTENT_TYPE`)."""
        registry = self._registry
        if self._shared:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


def sharing_environment(folder: Path) -> dict[str, str]:
    """What to add to the environment of processes that share their numbers in `folder`, which is emptied."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for stale in folder.glob("*.db"):
        stale.unlink(missing_ok=True)
    return {"PROMETHEUS_MULTIPROC_DIR": str(folder)}


def forget_process(pid: int, folder: Path) -> None:
    """Take the gauges of a process that has ended out of the sums; what it counted stays."""
    mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]


class Sampler:
    """Looks at the event loop's lag ten times a second, and hands the gauges over once a second."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        pool: Callable[[], PoolUse] | None = None,
        cache_available: Callable[[], bool] | None = None,
    ) -> None:
        self._metrics = metrics
        self._pool = pool
        self._cache_available = cache_available
        self._lags: deque[float] = deque(maxlen=SAMPLES)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="telemetry-sampler")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        ticks = 0
        while True:
            due = loop.time() + SAMPLE_EVERY
            await asyncio.sleep(SAMPLE_EVERY)
            self._lags.append(max(0.0, loop.time() - due))
            ticks += 1
            if ticks % round(1 / SAMPLE_EVERY) == 0:
                self.publish()

    def publish(self) -> None:
        """Hand the gauges over now."""
        if self._lags:
            ordered = sorted(self._lags)
            self._metrics.event_loop_lag(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))])
        if self._pool is not None:
            self._metrics.pool(self._pool())
        if self._cache_available is not None:
            self._metrics.cache_available(self._cache_available())


class RequestSpan(Protocol):
    """One request's span, the parent of what is done for it until `end`."""

    def end(self, *, route: str, status: int, request_id: str) -> None: ...


class CallSpan(Protocol):
    """One provider call's span. `headers` go to the provider (W3C trace context)."""

    @property
    def headers(self) -> Mapping[str, str]: ...

    def end(self, outcome: str, *, status: int | None = None, tokens: tuple[int, int] | None = None) -> None:
        """`outcome` is `ok` or a `FailureKind`; `tokens` are the prompt's and the completion's."""
        ...


class Tracer(Protocol):
    """Where spans are made."""

    def request(
        self, method: str, *, traceparent: str | None = None, tracestate: str | None = None
    ) -> RequestSpan: ...

    def call(self, provider: str, model: str, *, operation: str = "chat") -> CallSpan: ...

    def close(self) -> None:
        """Send what is left, three seconds at most. Blocks: call it in a thread."""
        ...


def connect_tracer(otlp_endpoint: str | None) -> Tracer | None:
    """A tracer that sends to the collector at `otlp_endpoint` (OTLP over HTTP); None when there is none.

    Nothing waits for the collector: spans are sent in batches by a thread, and dropped while it is down.
    """
    if otlp_endpoint is None:
        return None
    # The one import that waits: OpenTelemetry costs 0.2 s and 25 MB, which only those who trace shall pay.
    tracing = importlib.import_module("baatcheet.platform.tracing")
    tracer: Tracer = tracing.OtlpTracer(otlp_endpoint, process=str(os.getpid()))
    return tracer


class Telemetry(NamedTuple):
    """What the rest of the house is given: numbers always, spans when there is a collector."""

    metrics: Metrics
    tracer: Tracer | None = None
