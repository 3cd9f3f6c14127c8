"""Traces through OpenTelemetry, with a provider that belongs to one server."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Link,
    NoOpTracer,
    SpanContext,
    SpanKind,
    StatusCode,
    Tracer,
    get_current_span,
    use_span,
)
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from agentflow_server.daemon_threads import DaemonThreads
from agentflow_server.errors import ConfigError
from agentflow_server.metrics.labels import OTHER, find_method, find_route
from agentflow_server.metrics.tracing import NO_SPAN, Span, Tracing
from agentflow_server.models import RunStatus

log = logging.getLogger(__name__)

CLOSING_SECONDS = 5.0
UNTRACED = frozenset({"/ping", "/health/live", "/health/ready"})
"""Asked every few seconds by machines: nobody wants to see these."""
FAILED: frozenset[RunStatus] = frozenset({"error", "timeout"})
_MAX_TRACEPARENT = 128
_PROPAGATOR = TraceContextTextMapPropagator()


def otlp_processor(endpoint: str | None) -> SpanProcessor:
    """Sends spans in batches from a thread of its own. The OTEL_ variables do the fine tuning.

    Raises ConfigError.
    """
    try:
        return BatchSpanProcessor(
            OTLPSpanExporter(endpoint and f"{endpoint.rstrip('/')}/v1/traces")
        )
    except ValueError as exc:  # one of the variables
        raise ConfigError(f"observability.traces: {exc}") from exc


class OtelTracing(Tracing):
    """`make_processor` decides where spans go; it is called when this is entered."""

    def __init__(
        self, make_processor: Callable[[], SpanProcessor], *, trust_parent: bool = True
    ) -> None:
        self._make_processor = make_processor
        self._trust_parent = trust_parent
        self._provider: TracerProvider | None = None
        self._tracer: Tracer = NoOpTracer()

    async def __aenter__(self) -> Self:
        processor = self._make_processor()
        named = Resource.create({"service.name": "agentflow"})
        self._provider = TracerProvider(
            # The variables of OpenTelemetry may say another name.
            resource=named.merge(OTELResourceDetector().detect()),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("agentflow_server")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        provider, self._provider, self._tracer = self._provider, None, NoOpTracer()
        if provider is None:
            return
        try:
            async with asyncio.timeout(CLOSING_SECONDS):
                # It waits for the collector, for half a minute if need be.
                await DaemonThreads(1).run(provider.shutdown)
        except TimeoutError:
            log.warning("traces: the collector does not answer; the last spans are lost")

    @contextmanager
    def request_span(self, scope: MutableMapping[str, Any]) -> Iterator[Span]:
        if scope["path"] in UNTRACED:
            yield NO_SPAN
            return
        origin = _read_origin(scope["headers"])
        method = find_method(scope)
        span = self._tracer.start_span(
            "HTTP" if method == OTHER else method,
            origin[0] if origin and self._trust_parent else None,
            SpanKind.SERVER,
            {"http.request.method": "_OTHER" if method == OTHER else method},
            [Link(origin[1])] if origin and not self._trust_parent else None,
        )
        request = _RequestSpan(span, scope)
        scope["agentflow.traceparent"] = request.traceparent
        with _current(span):
            yield request

    @contextmanager
    def run_span(
        self,
        traceparent: str | None,
        *,
        run_id: str,
        thread_id: str,
        agent: str,
        attempt: int = 1,
    ) -> Iterator[Span]:
        origin = _read_traceparent(traceparent) if traceparent else None
        span = self._tracer.start_span(
            f"run {agent}",
            # Never the current one: a task goes on with the runs of other requests.
            origin[0] if origin else Context(),
            SpanKind.CONSUMER,
            {
                "agentflow.run.id": run_id,
                "agentflow.thread.id": thread_id,
                "agentflow.agent": agent,
                "agentflow.run.attempt": attempt,
            },
        )
        with _current(span):
            yield _RunSpan(span)


class _RequestSpan(Span):
    def __init__(self, span: OtelSpan, scope: Mapping[str, Any]) -> None:
        self._span = span
        self._scope = scope
        self.traceparent = _write_traceparent(span)

    def answered(self, status: int) -> None:
        method, route = find_method(self._scope), find_route(self._scope)
        if route != OTHER:
            self._span.update_name(f"{'HTTP' if method == OTHER else method} {route}")
            self._span.set_attribute("http.route", route)
        if status:
            self._span.set_attribute("http.response.status_code", status)
        if status >= 500:
            _mark_failed(self._span, str(status))


class _RunSpan(Span):
    def __init__(self, span: OtelSpan) -> None:
        self._span = span
        self.traceparent = _write_traceparent(span)

    def ended(self, status: RunStatus, code: str | None = None) -> None:
        self._span.set_attribute("agentflow.run.status", status)
        if status in FAILED:
            _mark_failed(self._span, code or status)


@contextmanager
def _current(span: OtelSpan) -> Iterator[None]:
    """Spans that the user's agent begins inside are its children. Ends it."""
    with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        try:
            yield
        except Exception as exc:
            # Its text may hold anything; the class is enough.
            _mark_failed(span, type(exc).__name__)
            raise


def _mark_failed(span: OtelSpan, error_type: str) -> None:
    span.set_status(StatusCode.ERROR)
    span.set_attribute("error.type", error_type)


def _read_origin(headers: Sequence[tuple[bytes, bytes]]) -> tuple[Context, SpanContext] | None:
    sent = [value for name, value in headers if name == b"traceparent"]
    return _read_traceparent(sent[0].decode("latin-1")) if len(sent) == 1 else None


def _read_traceparent(text: str) -> tuple[Context, SpanContext] | None:
    """None when it is not one. `tracestate` and baggage are for others: neither is read."""
    if len(text) > _MAX_TRACEPARENT:
        return None
    context = _PROPAGATOR.extract({"traceparent": text}, Context())
    found = get_current_span(context).get_span_context()
    return (context, found) if found.is_valid else None


def _write_traceparent(span: OtelSpan) -> str | None:
    found = span.get_span_context()
    if not found.is_valid:
        return None
    return f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"
