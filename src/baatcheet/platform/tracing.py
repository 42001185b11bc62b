"""OpenTelemetry spans, sent as OTLP over HTTP by a thread of their own. Imported only when traces are on."""

import logging
from collections.abc import Mapping, Sequence
from contextvars import Token
from typing import Final

from opentelemetry.context import Context, attach, detach
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from baatcheet import __version__
from baatcheet.platform.logging import get_logger

log = get_logger(__name__)

EXPORT_TIMEOUT: Final = 5.0  # seconds of the sending thread, not of a request
CLOSE_TIMEOUT: Final = 3.0
_propagator = TraceContextTextMapPropagator()


class OtlpTracer:
    """Makes spans and sends them to the collector at `endpoint` (its base address)."""

    def __init__(self, endpoint: str, *, process: str) -> None:
        # Its own complaints come once per batch and name the library; ours come once.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        resource = Resource(
            {"service.name": "baatcheet", "service.version": __version__, "service.instance.id": process}
        )
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_TIMEOUT)
        self._processor = BatchSpanProcessor(_CalmExporter(exporter, endpoint), schedule_delay_millis=1000)
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("baatcheet", __version__)

    def request(
        self, method: str, *, traceparent: str | None = None, tracestate: str | None = None
    ) -> "OtlpRequestSpan":
        """A span that is current until it ends; the child of the caller's, when the caller sent one."""
        carrier = {
            name: value
            for name, value in (("traceparent", traceparent), ("tracestate", tracestate))
            if value is not None
        }
        parent = _propagator.extract(carrier, context=Context())
        span = self._tracer.start_span(
            method, context=parent, kind=SpanKind.SERVER, attributes={"http.request.method": method}
        )
        return OtlpRequestSpan(span, method)

    def call(self, provider: str, model: str, *, operation: str = "chat") -> "OtlpCallSpan":
        span = self._tracer.start_span(
            f"{operation} {model}",
            kind=SpanKind.CLIENT,
            attributes={
                "gen_ai.operation.name": operation,
                "gen_ai.provider.name": provider,
                "gen_ai.request.model": model,
            },
        )
        return OtlpCallSpan(span)

    def close(self) -> None:
        # The provider's own shutdown would wait half a minute for a collector that is down.
        self._processor._batch_processor.shutdown(timeout_millis=int(CLOSE_TIMEOUT * 1000))  # noqa: SLF001


class OtlpRequestSpan:
    def __init__(self, span: Span, method: str) -> None:
        self._span = span
        self._method = method
        self._token: Token[Context] = attach(set_span_in_context(span))

    def end(self, *, route: str, status: int, request_id: str) -> None:
        self._span.update_name(f"{self._method} {route}")
        self._span.set_attributes(
            {"http.route": route, "http.response.status_code": status, "baatcheet.request_id": request_id}
        )
        if status >= 500:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()
        detach(self._token)


class OtlpCallSpan:
    def __init__(self, span: Span) -> None:
        self._span = span
        self._headers: dict[str, str] = {}
        _propagator.inject(self._headers, context=set_span_in_context(span, Context()))

    @property
    def headers(self) -> Mapping[str, str]:
        return self._headers

    def end(self, outcome: str, *, status: int | None = None, tokens: tuple[int, int] | None = None) -> None:
        if status is not None:
            self._span.set_attribute("http.response.status_code", status)
        if tokens is not None:
            self._span.set_attributes(
                {"gen_ai.usage.input_tokens": tokens[0], "gen_ai.usage.output_tokens": tokens[1]}
            )
        if outcome != "ok":
            # The kind alone: a provider's words may quote the prompt.
            self._span.set_attribute("error.type", outcome)
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


class _CalmExporter(SpanExporter):
    """Says once that the collector does not answer, and once that it does again."""

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        self._exporter = exporter
        self._endpoint = endpoint
        self._down = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception:  # noqa: BLE001 - whatever it was, the spans are lost and nothing else is
            result = SpanExportResult.FAILURE
        down = result is not SpanExportResult.SUCCESS
        if down and not self._down:
            log.warning("traces.lost", collector=self._endpoint, meaning="spans are dropped until it answers")
        elif self._down and not down:
            log.info("traces.back", collector=self._endpoint)
        self._down = down
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()
