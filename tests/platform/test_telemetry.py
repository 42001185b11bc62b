"""Metrics as a scraper reads them, and spans as a collector receives them."""

import asyncio
import io
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.parser import text_string_to_metric_families

from baatcheet.platform import logging as logs
from baatcheet.platform import telemetry
from baatcheet.platform.database import PoolUse
from baatcheet.platform.settings import TelemetrySettings
from baatcheet.platform.telemetry import Metrics, Sampler, connect_tracer


def samples(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_a_scraper_reads_what_was_counted() -> None:
    metrics = Metrics()
    metrics.request("GET", "/api/v1/conversations/{id}", 200, 0.02)
    metrics.request("GET", "/api/v1/conversations/{id}", 200, 0.02)
    metrics.request("BREW", "/x", 405, 0.001)
    metrics.turn_started()
    metrics.turn_started()
    metrics.turn_ended("complete")
    metrics.tokens(10, 20)
    metrics.attempt("groq", "rate_limited")
    metrics.first_token("groq", 0.3)
    metrics.pool(PoolUse(size=10, in_use=3, waiting=1))
    told = samples(metrics.render())
    route = "/api/v1/conversations/{id}"
    assert (
        told["baatcheet_http_requests_total", (("method", "GET"), ("route", route), ("status", "200"))] == 2
    )
    assert (
        told["baatcheet_http_requests_total", (("method", "other"), ("route", "/x"), ("status", "405"))] == 1
    )
    assert told["baatcheet_http_request_seconds_count", (("route", route),)] == 2
    assert told["baatcheet_turns_running", ()] == 1
    assert told["baatcheet_turns_total", (("status", "complete"),)] == 1
    assert told["baatcheet_tokens_total", (("kind", "completion"),)] == 20
    assert told["baatcheet_provider_attempts_total", (("outcome", "rate_limited"), ("provider", "groq"))] == 1
    assert told["baatcheet_db_pool_connections", (("state", "waiting"),)] == 1
    assert any(name == "baatcheet_build_info" for name, _ in told)


def test_what_a_pool_counts_since_its_start_is_counted_once() -> None:
    metrics = Metrics()
    for refused, slow in ((0, 0), (2, 1), (2, 1), (3, 5)):
        metrics.pool(PoolUse(10, 3, 1, idle=4, refused=refused, slow_statements=slow))
    told = samples(metrics.render())
    assert told["baatcheet_db_pool_connections", (("state", "idle"),)] == 4
    assert told["baatcheet_db_refusals_total", ()] == 3
    assert told["baatcheet_db_slow_statements_total", ()] == 5


async def test_a_blocked_event_loop_shows_in_the_lag() -> None:
    metrics = Metrics()
    sampler = Sampler(metrics, pool=lambda: PoolUse(4, 2, 0), cache_available=lambda: True)
    sampler.start()
    await asyncio.sleep(0.05)
    time.sleep(0.4)
    await asyncio.sleep(0.05)
    sampler.publish()
    await sampler.close()
    told = samples(metrics.render())
    assert told["baatcheet_event_loop_lag_seconds", ()] > 0.2
    assert told["baatcheet_db_pool_connections", (("state", "size"),)] == 4
    assert told["baatcheet_cache_available", ()] == 1


CHILD = """
import sys
from baatcheet.platform.database import PoolUse
from baatcheet.platform.telemetry import Metrics
metrics = Metrics()
metrics.request("GET", "/x", 200, 0.01)
metrics.turn_started()
metrics.pool(PoolUse(5, 1, 0))
print("ready", flush=True)
sys.stdin.readline()
sys.stdout.buffer.write(metrics.render())
"""


def test_one_process_tells_the_numbers_of_all(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    environment = os.environ | telemetry.sharing_environment(folder)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        for _ in range(2)
    ]
    try:
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
        told = samples(children[0].communicate(b"\n", timeout=20)[0])
        labels = (("method", "GET"), ("route", "/x"), ("status", "200"))
        requests = ("baatcheet_http_requests_total", labels)
        assert told[requests] == 2
        assert told["baatcheet_turns_running", ()] == 2
        assert told["baatcheet_db_pool_connections", (("state", "size"),)] == 10
        telemetry.forget_process(children[0].pid, folder)
        told = samples(children[1].communicate(b"\n", timeout=20)[0])
        assert told[requests] == 2
        assert told["baatcheet_turns_running", ()] == 1
    finally:
        for child in children:
            child.kill()
            child.wait(timeout=10)


def test_a_process_that_does_not_look_at_the_cache_says_nothing_of_it() -> None:
    metrics = Metrics()
    available = ("baatcheet_cache_available", ())
    assert available not in samples(metrics.render())
    metrics.cache_available(available=False)
    assert samples(metrics.render())[available] == 0
    metrics.cache_available(available=True)
    assert samples(metrics.render())[available] == 1


def test_opentelemetry_is_not_imported_while_traces_are_off() -> None:
    code = (
        "import sys; from baatcheet.platform.telemetry import connect_tracer;"
        "assert connect_tracer(None) is None;"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 0


class Collector:
    """A collector on a real socket that keeps what it is sent."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                request = ExportTraceServiceRequest.FromString(body)
                collector.spans += [
                    span for r in request.resource_spans for scope in r.scope_spans for span in scope.spans
                ]
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(timeout=5)
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


def test_a_request_and_its_provider_call_are_one_trace(collector: Collector) -> None:
    tracer = connect_tracer(collector.url)
    assert tracer is not None
    trace = "0af7651916cd43dd8448eb211c80319c"
    request = tracer.request("POST", traceparent=f"00-{trace}-b7ad6b7169203331-01")
    call = tracer.call("groq", "llama")
    sent_on = call.headers["traceparent"]
    call.end("rate_limited", status=429, tokens=(3, 4))
    request.end(route="/v1/chat/completions", status=503, request_id="r1")
    tracer.close()
    spans = {span.name: span for span in collector.spans}
    server, client = spans["POST /v1/chat/completions"], spans["chat llama"]
    assert server.trace_id.hex() == client.trace_id.hex() == trace
    assert server.parent_span_id.hex() == "b7ad6b7169203331"
    assert client.parent_span_id == server.span_id
    assert sent_on == f"00-{trace}-{client.span_id.hex()}-01"
    told = {a.key: a.value for a in client.attributes}
    assert told["error.type"].string_value == "rate_limited"
    assert told["gen_ai.usage.output_tokens"].int_value == 4
    assert server.status.code == 2


def test_a_malformed_traceparent_starts_a_new_trace(collector: Collector) -> None:
    tracer = connect_tracer(collector.url)
    assert tracer is not None
    tracer.request("GET", traceparent="nonsense").end(route="/x", status=200, request_id="r")
    tracer.close()
    (span,) = collector.spans
    assert not span.parent_span_id


def test_a_collector_that_is_down_costs_nothing_and_is_told_once() -> None:
    root = logging.getLogger()
    kept, level, hooks = root.handlers[:], root.level, (sys.excepthook, threading.excepthook)
    out = io.StringIO()
    logs.configure(TelemetrySettings.model_validate({}), stream=out)
    tracer = connect_tracer("http://127.0.0.1:9")
    assert tracer is not None
    try:
        started = time.perf_counter()
        for _ in range(5_000):
            tracer.request("GET").end(route="/x", status=200, request_id="r")
        each = (time.perf_counter() - started) / 5_000
        assert each < 0.001
        time.sleep(1.5)
        tracer.request("GET").end(route="/x", status=200, request_id="r")
    finally:
        started = time.perf_counter()
        tracer.close()
        took = time.perf_counter() - started
        root.handlers[:] = kept
        root.setLevel(level)
        sys.excepthook, threading.excepthook = hooks
        logging.captureWarnings(capture=False)
    assert took < 10
    events = [json.loads(line)["event"] for line in out.getvalue().splitlines()]
    assert events == ["traces.lost"]
