"""Small real servers to count and to trace."""

import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter, FastAPI
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from agentflow_server.metrics.counting import CountedMetrics
from agentflow_server.metrics.otel import OtelTracing
from agentflow_server.metrics.prometheus import PrometheusMetrics

Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Reading:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        families = list(text_string_to_metric_families(text))
        self.names = {family.name for family in families}
        self.samples = [
            sample
            for family in families
            for sample in family.samples
            if not sample.name.endswith("_created")
        ]

    def __call__(self, name: str, **labels: str) -> float:
        """The one value of this name that has these labels."""
        (value,) = [s.value for s in self.samples if s.name == name and s.labels == labels]
        return value

    def labels(self, name: str) -> list[dict[str, str]]:
        return [sample.labels for sample in self.samples if sample.name == name]


@pytest.fixture
def metrics() -> PrometheusMetrics:
    return PrometheusMetrics()


@pytest.fixture
def read() -> Callable[[CountedMetrics], Reading]:
    return lambda metrics: Reading(metrics.expose("")[0].decode())


@pytest.fixture
def parse() -> Callable[[str], Reading]:
    return Reading


def make_api() -> FastAPI:
    api, router = (
        FastAPI(telemetry={"tracing": False, "metrics": False, "logs": False}),
        APIRouter(),
    )

    @router.api_route("/threads/{thread_id}", methods=["GET", "POST"])
    async def show(thread_id: str) -> str:
        if thread_id == "broken":
            raise ValueError("the password is swordfish")
        return thread_id

    @router.get("/ping")
    async def ping() -> str:
        return "ok"

    api.include_router(router)
    return api


@pytest.fixture
async def over() -> AsyncIterator[Callable[..., httpx2.AsyncClient]]:
    """A client of a small API around which `wrap(api)` has been put."""
    clients = []

    def over(wrap: Callable[[Any], Any]) -> httpx2.AsyncClient:
        transport = httpx2.ASGITransport(wrap(make_api()), raise_app_exceptions=False)
        clients.append(httpx2.AsyncClient(transport=transport, base_url="http://test"))
        return clients[-1]

    yield over
    for client in clients:
        await client.aclose()


@pytest.fixture
def exported() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def make_tracing(exported: InMemorySpanExporter) -> Callable[..., OtelTracing]:
    return lambda **options: OtelTracing(lambda: SimpleSpanProcessor(exported), **options)


class Collector:
    """Receives OTLP over HTTP, as soon as it is `ready`."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.service: str = ""
        self.path = ""
        self.ready = threading.Event()
        self.ready.set()
        self.arrived = threading.Event()
        collector = self

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.arrived.set()
                collector.ready.wait(30)
                collector.take(self.path, body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def take(self, path: str, body: bytes) -> None:
        self.path = path
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {a.key: a.value.string_value for a in resource.resource.attributes}
            self.service = names["service.name"]
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever)
    thread.start()
    yield collector
    collector.ready.set()
    collector.server.shutdown()
    collector.server.server_close()
    thread.join()


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Make a library look as if it were not installed, to the module that imports it."""

    def without(library: str, module: str) -> None:
        monkeypatch.setitem(sys.modules, library, None)
        monkeypatch.delitem(sys.modules, module, raising=False)

    return without
