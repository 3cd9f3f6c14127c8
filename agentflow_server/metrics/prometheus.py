"""Metrics in Prometheus' format, in a registry that belongs to one server."""

import math
from collections.abc import Mapping
from typing import Any, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

from agentflow_server.metrics.counting import (
    AuthResult,
    CountedMetrics,
    Operation,
    WebhookResult,
)
from agentflow_server.metrics.labels import auth_method, auth_reason, find_method, find_route
from agentflow_server.models import QueueState, RunStatus

# A turn is a request, too, and may take minutes.
REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
RUN_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 15)
DATABASE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


class PrometheusMetrics(CountedMetrics):
    """Remembers the child of each combination of labels: finding it costs more than counting."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=registry)
        self._add_requests(registry)
        self._add_runs(registry)
        self._event_lag = Histogram(
            "agentflow_event_lag_seconds",
            "From an event's storing to its delivery to a reader.",
            buckets=LAG_BUCKETS,
            registry=registry,
        )
        self._auth = Counter(
            "agentflow_auth",
            "Credentials that were judged.",
            ("method", "result", "reason"),
            registry=registry,
        )
        database = Histogram(
            "agentflow_database_seconds",
            "Time of database operations.",
            ("operation",),
            buckets=DATABASE_BUCKETS,
            registry=registry,
        )
        self._database = {name: database.labels(name) for name in get_args(Operation)}
        self._auth_children: dict[tuple[str, str, str], Counter] = {}
        webhooks = Counter(
            "agentflow_webhooks",
            "Attempts to deliver a webhook, by what came of them.",
            ("result",),
            registry=registry,
        )
        self._webhooks = {result: webhooks.labels(result) for result in get_args(WebhookResult)}

    def _add_requests(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "agentflow_http_requests",
            "HTTP requests that ended.",
            ("method", "route", "status"),
            registry=registry,
        )
        self._request_seconds = Histogram(
            "agentflow_http_request_duration_seconds",
            "Time of HTTP requests, streams to their end.",
            ("method", "route"),
            buckets=REQUEST_BUCKETS,
            registry=registry,
        )
        self._request_children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def _add_runs(self, registry: CollectorRegistry) -> None:
        ended = Histogram(
            "agentflow_run_duration_seconds",
            "Execution time of runs that ended, by their last status.",
            ("status",),
            buckets=RUN_BUCKETS,
            registry=registry,
        )
        # All of them from the start: a rate needs a zero to begin with.
        self._run_seconds = {
            status: ended.labels(status)
            for status in get_args(RunStatus)
            if status not in ("pending", "running")
        }
        self._executing = Gauge(
            "agentflow_runs_executing", "Runs that this process executes.", registry=registry
        )
        stored = Gauge(
            "agentflow_runs",
            "Runs in the database that have not ended, of all replicas.",
            ("status",),
            registry=registry,
        )
        self._running, self._pending = stored.labels("running"), stored.labels("pending")
        self._ready = Gauge(
            "agentflow_queue_depth", "Pending runs that could start now.", registry=registry
        )
        self._oldest = Gauge(
            "agentflow_queue_oldest_seconds",
            "How long the oldest run that could start now has been waiting.",
            registry=registry,
        )
        self.queue(None)

    def request(self, scope: Mapping[str, Any], status: int, seconds: float) -> None:
        key = (find_method(scope), find_route(scope), status if 100 <= status <= 599 else 0)
        children = self._request_children.get(key) or self._find_request(key)
        children[0].inc()
        children[1].observe(seconds)

    def _find_request(self, key: tuple[str, str, int]) -> tuple[Counter, Histogram]:
        method, route, status = key
        children = self._request_children[key] = (
            self._requests.labels(method, route, status or "none"),
            self._request_seconds.labels(method, route),
        )
        return children

    def run_started(self) -> None:
        self._executing.inc()

    def run_ended(self, status: RunStatus, seconds: float) -> None:
        self._executing.dec()
        # A run that another worker took over has not ended.
        if ended := self._run_seconds.get(status):
            ended.observe(seconds)

    def event_delivered(self, seconds: float) -> None:
        # The clock of the replica that stored it may be ahead of ours.
        self._event_lag.observe(max(0.0, seconds))

    def authenticated(
        self, method: str | None, result: AuthResult, reason: str | None = None
    ) -> None:
        key = (auth_method(method), result, auth_reason(reason))
        child = self._auth_children.get(key)
        if child is None:
            child = self._auth_children[key] = self._auth.labels(*key)
        child.inc()

    def database(self, operation: Operation, seconds: float) -> None:
        self._database[operation].observe(seconds)

    def webhook(self, result: WebhookResult) -> None:
        self._webhooks[result].inc()

    def queue(self, state: QueueState | None) -> None:
        self._running.set(math.nan if state is None else state.running)
        self._pending.set(math.nan if state is None else state.pending)
        self._ready.set(math.nan if state is None else state.ready)
        self._oldest.set(math.nan if state is None else state.oldest_seconds)

    def expose(self, accept: str) -> tuple[bytes, str]:
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # of a version that is no number
            encode, content_type = choose_encoder("")
        return encode(self._registry), content_type
