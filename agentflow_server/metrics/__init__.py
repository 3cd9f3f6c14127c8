"""What the server counts and traces: for Prometheus and OpenTelemetry, or not at all."""

from agentflow_server.errors import ConfigError
from agentflow_server.metrics.counting import CountedMetrics, Metrics
from agentflow_server.metrics.listener import MetricsListener
from agentflow_server.metrics.tracing import NO_SPAN, Span, Tracing


def open_metrics() -> CountedMetrics:
    """Metrics in a registry of their own. Raises ConfigError."""
    try:
        # Imported here because it is an extra.
        from agentflow_server.metrics.prometheus import PrometheusMetrics  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        raise ConfigError(
            "observability.metrics: pip install 'agentflow-server[prometheus]'"
        ) from exc
    return PrometheusMetrics()


def open_tracing(*, endpoint: str | None = None, trust_parent: bool = True) -> Tracing:
    """Traces that go to an OTLP collector; nothing is sent before it is entered.

    `endpoint` is the collector's base URL, by default what OTEL_EXPORTER_OTLP_ENDPOINT says. A
    request's `traceparent` becomes the parent of its span, or, not trusted, a mere link. Raises
    ConfigError, as does entering it.
    """
    try:
        # Imported here because it is an extra, and not a light one.
        from agentflow_server.metrics.otel import OtelTracing, otlp_processor  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        raise ConfigError("observability.traces: pip install 'agentflow-server[otel]'") from exc
    return OtelTracing(lambda: otlp_processor(endpoint), trust_parent=trust_parent)


__all__ = [
    "NO_SPAN",
    "CountedMetrics",
    "Metrics",
    "MetricsListener",
    "Span",
    "Tracing",
    "open_metrics",
    "open_tracing",
]
