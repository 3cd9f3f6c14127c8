"""Spans of requests and runs, and what is never in one."""

import asyncio
import json

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, get_current_span

from agentflow_server.errors import ConfigError
from agentflow_server.metrics import NO_SPAN, Tracing, open_tracing, otel

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
RUN = {"run_id": "run-1", "thread_id": "thread-1", "agent": "react"}


def tracing_with(tracing, seen):
    """Middleware that traces as the server does."""

    def wrap(api):
        async def app(scope, receive, send):
            with tracing.request_span(scope) as span:
                seen.append(scope.get("agentflow.traceparent"))

                async def answer(message):
                    if message["type"] == "http.response.start":
                        span.answered(message["status"])
                    await send(message)

                await api(scope, receive, answer)

        return app

    return wrap


@pytest.fixture
def spans(exported: InMemorySpanExporter):
    def spans():
        return {span.name: span for span in exported.get_finished_spans()}

    return spans


async def test_a_request_is_a_span_named_after_its_route(make_tracing, over, spans):
    async with make_tracing() as tracing:
        seen = []
        await over(tracing_with(tracing, seen)).get("/threads/one?api_key=sesame")
    (span,) = spans().values()
    assert span.name == "GET /threads/{thread_id}"
    assert span.kind is SpanKind.SERVER
    assert span.parent is None
    assert dict(span.attributes) == {
        "http.request.method": "GET",
        "http.route": "/threads/{thread_id}",
        "http.response.status_code": 200,
    }
    written = f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-{span.context.trace_flags:02x}"
    assert seen == [written]


async def test_a_traceparent_makes_the_request_a_child(make_tracing, over, spans):
    async with make_tracing() as tracing:
        client = over(tracing_with(tracing, []))
        await client.get("/threads/one", headers={"traceparent": TRACEPARENT})
    span = spans()["GET /threads/{thread_id}"]
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == PARENT
    assert span.links == ()


async def test_a_traceparent_that_is_not_trusted_is_only_a_link(make_tracing, over, spans):
    async with make_tracing(trust_parent=False) as tracing:
        client = over(tracing_with(tracing, []))
        await client.get("/threads/one", headers={"traceparent": TRACEPARENT})
    span = spans()["GET /threads/{thread_id}"]
    assert span.parent is None
    assert f"{span.context.trace_id:032x}" != TRACE
    (link,) = span.links
    assert f"{link.context.trace_id:032x}" == TRACE


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "nonsense",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"{TRACEPARENT}-more",
        f"01-{TRACE}-{PARENT}-01-{'x' * 10_000}",
    ],
)
async def test_a_malformed_traceparent_begins_a_new_trace(make_tracing, over, spans, sent, caplog):
    async with make_tracing() as tracing:
        client = over(tracing_with(tracing, []))
        await client.get("/threads/one", headers={"traceparent": sent})
        with tracing.run_span(sent, **RUN):
            pass
    assert [span.parent for span in spans().values()] == [None, None]
    assert caplog.records == []


async def test_two_traceparents_are_none(make_tracing, over, spans):
    async with make_tracing() as tracing:
        client = over(tracing_with(tracing, []))
        await client.get("/threads/one", headers=[("traceparent", TRACEPARENT)] * 2)
    assert spans()["GET /threads/{thread_id}"].parent is None


async def test_a_trace_that_is_not_sampled_stays_so(make_tracing, over, spans):
    async with make_tracing() as tracing:
        seen = []
        client = over(tracing_with(tracing, seen))
        await client.get("/threads/one", headers={"traceparent": TRACEPARENT[:-1] + "0"})
        with tracing.run_span(seen[0], **RUN):
            pass
    assert seen[0].startswith(f"00-{TRACE}-")
    assert seen[0].endswith("-00")
    assert spans() == {}


async def test_whoever_asks_for_health_is_not_traced(make_tracing, over, spans):
    async with make_tracing() as tracing:
        seen = []
        await over(tracing_with(tracing, seen)).get("/ping")
    assert spans() == {}
    assert seen == [None]


async def test_paths_and_methods_of_the_clients_invention_are_not_recorded(
    make_tracing, over, spans
):
    async with make_tracing() as tracing:
        client = over(tracing_with(tracing, []))
        await client.request("STEAL", "/secret")
        await client.get("/secret")
        await client.request("STEAL", "/threads/secret")
    assert set(spans()) == {"HTTP", "GET", "HTTP /threads/{thread_id}"}
    assert spans()["HTTP"].attributes["http.request.method"] == "_OTHER"
    assert "secret" not in "".join(span.to_json() for span in spans().values())


async def test_an_exception_is_known_by_its_class_alone(make_tracing, over, spans):
    async with make_tracing() as tracing:
        client = over(tracing_with(tracing, []))
        headers = {"authorization": "Bearer swordfish", "cookie": "swordfish"}
        assert (await client.get("/threads/broken", headers=headers)).status_code == 500
        with pytest.raises(RuntimeError), tracing.run_span(None, **RUN):
            raise RuntimeError("the password is swordfish")
    request, run = spans()["GET /threads/{thread_id}"], spans()["run react"]
    assert request.status.status_code is StatusCode.ERROR
    assert request.attributes["error.type"] == "ValueError"
    assert run.attributes["error.type"] == "RuntimeError"
    assert run.status.description is None
    assert (request.events, run.events) == ((), ())
    assert "swordfish" not in request.to_json() + run.to_json()


async def test_a_run_is_a_child_of_the_request_that_asked_for_it(make_tracing, over, spans):
    async with make_tracing() as tracing, make_tracing() as elsewhere:
        seen = []
        await over(tracing_with(tracing, seen)).post("/threads/one")
        with elsewhere.run_span(seen[0], **RUN, attempt=2) as span:
            span.ended("success")
    request, run = spans()["POST /threads/{thread_id}"], spans()["run react"]
    assert run.context.trace_id == request.context.trace_id
    assert run.parent.span_id == request.context.span_id
    assert run.parent.is_remote
    assert span.traceparent.split("-")[1] == f"{request.context.trace_id:032x}"
    assert dict(run.attributes) == {
        "agentflow.run.id": "run-1",
        "agentflow.thread.id": "thread-1",
        "agentflow.agent": "react",
        "agentflow.run.attempt": 2,
        "agentflow.run.status": "success",
    }
    assert run.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        ("error", "agent_failed", "agent_failed"),
        ("timeout", None, "timeout"),
        ("cancelled", None, None),
        ("interrupted", None, None),
    ],
)
async def test_only_a_run_that_failed_is_an_error(make_tracing, spans, status, code, error):
    async with make_tracing() as tracing:
        with tracing.run_span(None, **RUN) as span:
            span.ended(status, code)
    run = spans()["run react"]
    assert run.attributes["agentflow.run.status"] == status
    assert run.attributes.get("error.type") == error
    assert (run.status.status_code is StatusCode.ERROR) == (error is not None)


async def test_a_run_belongs_to_no_request_that_happens_to_be_current(make_tracing, spans):
    async with make_tracing() as tracing:
        scope = {"path": "/threads", "method": "POST", "headers": []}
        with tracing.request_span(scope), tracing.run_span(None, **RUN):
            pass
    assert spans()["run react"].parent is None


async def test_what_an_agent_traces_itself_is_part_of_its_run(make_tracing, spans):
    async with make_tracing() as tracing:
        with tracing.run_span(None, **RUN) as span:
            assert get_current_span(Context()).get_span_context().is_valid is False
            current = get_current_span().get_span_context()
    assert span.traceparent.split("-")[2] == f"{current.span_id:016x}"
    assert get_current_span().get_span_context().is_valid is False


async def test_runs_at_the_same_time_keep_their_own_spans(make_tracing, exported):
    async with make_tracing() as tracing:

        async def one(number):
            with tracing.run_span(f"00-{number:032x}-{PARENT}-01", **RUN) as span:
                await asyncio.sleep(0)
                context = get_current_span().get_span_context()
                assert span.traceparent == f"00-{number:032x}-{context.span_id:016x}-01"
                return context.span_id

        ids = await asyncio.gather(*(one(number) for number in range(1, 51)))
    assert len(set(ids)) == 50
    assert {span.context.trace_id for span in exported.get_finished_spans()} == set(range(1, 51))


async def test_a_cancelled_run_has_a_span_that_ends(make_tracing, spans):
    async with make_tracing() as tracing:
        begun = asyncio.Event()

        async def run():
            with tracing.run_span(None, **RUN):
                begun.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(run())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert spans()["run react"].end_time is not None


async def test_a_request_that_nobody_answered_has_no_status(make_tracing, spans):
    async with make_tracing() as tracing:
        with tracing.request_span({"path": "/x", "method": "GET", "headers": []}) as span:
            span.answered(0)
        with tracing.request_span({"path": "/x", "method": "PUT", "headers": []}) as span:
            span.answered(503)
    assert "http.response.status_code" not in spans()["GET"].attributes
    assert spans()["PUT"].attributes["error.type"] == "503"


async def test_spans_reach_a_collector(collector, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=1")
    async with open_tracing(endpoint=f"{collector.url}/") as tracing:
        with tracing.run_span(TRACEPARENT, **RUN) as span:
            span.ended("success")
    assert collector.path == "/v1/traces"
    assert collector.service == "agentflow"
    (span,) = collector.spans
    assert span.name == "run react"
    assert span.trace_id.hex() == TRACE
    assert span.parent_span_id.hex() == PARENT


async def test_the_variables_of_opentelemetry_are_heard(collector, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    async with open_tracing() as tracing:
        with tracing.run_span(None, **RUN):
            pass
    assert collector.service == "shop"
    assert len(collector.spans) == 1


async def test_a_variable_that_is_wrong_stops_the_server(monkeypatch):
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "1")
    with pytest.raises(ConfigError, match=r"^observability\.traces: max_export_batch_size must be"):
        await open_tracing().__aenter__()


async def test_a_collector_that_does_not_answer_does_not_keep_the_server(
    collector, monkeypatch, caplog
):
    monkeypatch.setattr(otel, "CLOSING_SECONDS", 0.1)
    collector.ready.clear()
    async with asyncio.timeout(10):
        async with open_tracing(endpoint=collector.url) as tracing:
            with tracing.run_span(None, **RUN):
                pass
    assert "the last spans are lost" in caplog.text


async def test_before_and_after_it_is_open_nothing_is_traced(make_tracing, spans):
    tracing = make_tracing()
    await tracing.__aexit__()
    for _ in range(2):
        scope = {"path": "/x", "method": "GET", "headers": []}
        with tracing.request_span(scope) as span:
            span.answered(200)
        assert span.traceparent is None
        assert scope["agentflow.traceparent"] is None
        async with tracing:
            pass
    assert spans() == {}


async def test_tracing_that_is_off_leaves_no_trace():
    scope = {"path": "/x", "method": "GET", "headers": [(b"traceparent", TRACEPARENT.encode())]}
    before = json.dumps(sorted(scope))
    async with Tracing() as off:
        with off.request_span(scope) as request, off.run_span(TRACEPARENT, **RUN) as run:
            request.answered(200)
            run.ended("success")
    assert request is run is NO_SPAN
    assert json.dumps(sorted(scope)) == before
    assert run.traceparent is None


def test_a_missing_extra_is_named(without):
    without("opentelemetry.sdk.resources", "agentflow_server.metrics.otel")
    with pytest.raises(ConfigError) as refused:
        open_tracing()
    assert refused.value.problems == ("observability.traces: pip install 'agentflow-server[otel]'",)
