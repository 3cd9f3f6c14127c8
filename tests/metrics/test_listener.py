"""The port of the metrics, over real connections."""

import asyncio
import logging
import math
import socket
from contextlib import suppress

import httpx2
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from agentflow_server.errors import ConfigError, StoreUnavailable
from agentflow_server.metrics import MetricsListener
from agentflow_server.metrics import listener as listening
from agentflow_server.metrics.counting import CountedMetrics
from agentflow_server.models import QueueState

HOST = "127.0.0.1"
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request):
    """`agentflow serve` runs on uvloop."""
    return "asyncio", {"use_uvloop": request.param}


def url(listener, path="/metrics"):
    return f"http://{HOST}:{listener.port}{path}"


async def scrape(listener, path="/metrics", method="GET", **headers):
    async with httpx2.AsyncClient(trust_env=False) as client:
        return await client.request(method, url(listener, path), headers=headers)


async def exchange(listener, sent):
    """What comes back for these bytes, to the end of the connection."""
    reader, writer = await asyncio.open_connection(HOST, listener.port)
    try:
        async with asyncio.timeout(10):
            writer.write(sent)
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_a_scrape_tells_what_was_counted(metrics, parse):
    metrics.database("read", 0.001)
    async with MetricsListener(metrics, HOST, 0) as listener:
        answer = await scrape(listener, accept="text/plain")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert parse(answer.text)("agentflow_database_seconds_count", operation="read") == 1


async def test_prometheus_gets_openmetrics(metrics):
    metrics.authenticated("jwt", "success")
    async with MetricsListener(metrics, HOST, 0) as listener:
        answer = await scrape(listener, accept=PROMETHEUS)
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")
    families = {family.name: family for family in parse_openmetrics(answer.text)}
    assert families["agentflow_auth"].samples[0].value == 1


@pytest.mark.parametrize(
    "accept", ["", "*/*", "application/openmetrics-text;version=one.two", "image/png", ";;=,,"]
)
async def test_whoever_asks_for_something_odd_gets_the_plain_text(metrics, parse, accept):
    async with MetricsListener(metrics, HOST, 0) as listener:
        answer = await scrape(listener, accept=accept)
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert parse(answer.text)("agentflow_runs_executing") == 0


async def test_there_is_nothing_else_on_the_port(metrics):
    async with MetricsListener(metrics, HOST, 0) as listener:
        assert (await scrape(listener, "/")).status_code == 404
        assert (await scrape(listener, "/metrics/x")).status_code == 404
        assert (await scrape(listener, "/metrics?name=x")).status_code == 200
        assert (await scrape(listener, method="DELETE")).status_code == 405
        head = await scrape(listener, method="HEAD")
        assert head.status_code == 200
        assert int(head.headers["content-length"]) > 1000
        assert head.content == b""


async def test_what_is_not_http_is_refused(metrics):
    async with MetricsListener(metrics, HOST, 0) as listener:
        assert (await exchange(listener, b"hello\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
        assert (await exchange(listener, b"GET /metrics HTTP/2\r\n\r\n")).startswith(
            b"HTTP/1.1 400 "
        )
        assert await exchange(listener, b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 40_000) == b""
        assert (await scrape(listener)).status_code == 200


async def test_a_port_that_is_in_use_is_told_in_one_line(metrics):
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError) as refused:
            await MetricsListener(metrics, HOST, port).__aenter__()
    assert refused.value.problems == (
        f"observability.metrics: cannot listen on {HOST}, port {port}: Address already in use",
    )


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host.invalid"])
async def test_a_host_that_is_not_ours_is_told_in_one_line(metrics, host):
    listener = MetricsListener(metrics, host, 9464)
    with pytest.raises(ConfigError) as refused:
        await listener.__aenter__()
    (problem,) = refused.value.problems
    assert problem.startswith(f"observability.metrics: cannot listen on {host}, port 9464: ")
    assert "\n" not in problem
    assert listener.port == 9464
    await listener.__aexit__()


async def test_the_port_is_free_again_afterwards(metrics):
    async with MetricsListener(metrics, HOST, 0) as first:
        port = first.port
        await scrape(first)
    with pytest.raises(httpx2.ConnectError):
        async with httpx2.AsyncClient(trust_env=False) as client:
            await client.get(f"http://{HOST}:{port}/metrics")
    async with MetricsListener(metrics, HOST, port) as second:
        assert (await scrape(second)).status_code == 200


async def test_a_client_that_says_nothing_does_not_keep_it_open(metrics):
    async with asyncio.timeout(5):
        async with MetricsListener(metrics, HOST, 0) as listener:
            reader, writer = await asyncio.open_connection(HOST, listener.port)
            await scrape(listener)
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()


class Large(CountedMetrics):
    """More than the buffers of a connection hold."""

    def expose(self, accept):
        return b"x" * 5_000_000, "text/plain"


async def test_a_large_answer_arrives_and_who_does_not_read_it_does_not_keep_it_open(caplog):
    async with asyncio.timeout(10):
        async with MetricsListener(Large(), HOST, 0) as listener:
            _, stuck = await asyncio.open_connection(HOST, listener.port)
            stuck.transport.pause_reading()
            stuck.write(b"GET /metrics HTTP/1.1\r\n\r\n")
            for _ in range(3):
                assert len((await scrape(listener)).content) == 5_000_000
    stuck.transport.abort()
    assert caplog.records == []


async def test_a_client_that_is_too_slow_is_sent_away(metrics, monkeypatch):
    monkeypatch.setattr(listening, "SCRAPE_SECONDS", 0.05)
    async with MetricsListener(metrics, HOST, 0) as listener:
        assert await exchange(listener, b"GET /metrics") == b""


async def test_connections_are_bounded(metrics, monkeypatch):
    monkeypatch.setattr(listening, "MAX_CONNECTIONS", 2)
    async with MetricsListener(metrics, HOST, 0) as listener:
        held = [await asyncio.open_connection(HOST, listener.port) for _ in range(2)]
        assert await exchange(listener, b"GET /metrics HTTP/1.1\r\n\r\n") == b""
        for _, writer in held:
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert [(await reader.read())[:12] for reader, _ in held] == [b"HTTP/1.1 404"] * 2
        for _, writer in held:
            writer.close()


async def test_many_scrape_while_others_count(metrics, parse):
    async def count():
        for _ in range(200):
            metrics.event_delivered(0.001)
            await asyncio.sleep(0)

    async with MetricsListener(metrics, HOST, 0) as listener:
        *answers, _ = await asyncio.gather(*(scrape(listener) for _ in range(20)), count())
        last = await scrape(listener)
    assert {answer.status_code for answer in answers} == {200}
    assert parse(last.text)("agentflow_event_lag_seconds_count") == 200


async def test_the_queue_is_asked_for_at_each_scrape(metrics, parse):
    states = iter([QueueState(1, 4, 2, 7.0), QueueState(0, 0, 0, 0.0)])

    async def read_queue():
        return next(states)

    async with MetricsListener(metrics, HOST, 0, read_queue=read_queue) as listener:
        first, second = [parse((await scrape(listener)).text) for _ in range(2)]
    assert first("agentflow_queue_oldest_seconds") == 7
    assert first("agentflow_runs", status="pending") == 4
    assert second("agentflow_queue_depth") == 0


async def test_a_database_that_is_away_makes_the_queue_unknown_and_nothing_else(
    metrics, parse, caplog, monkeypatch
):
    monkeypatch.setattr(listening, "QUEUE_SECONDS", 0.05)
    answers = iter(["fails", "hangs", QueueState(1, 1, 1, 1.0), "fails"])

    async def read_queue():
        answer = next(answers)
        if answer == "fails":
            raise StoreUnavailable("the database is away")
        if answer == "hangs":
            await asyncio.Event().wait()
        return answer

    metrics.queue(QueueState(9, 9, 9, 9.0))
    async with MetricsListener(metrics, HOST, 0, read_queue=read_queue) as listener:
        depths = []
        for _ in range(4):
            answer = await scrape(listener)
            assert answer.status_code == 200
            depths.append(parse(answer.text)("agentflow_queue_depth"))
    assert [math.isnan(depth) for depth in depths] == [True, True, False, True]
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 2
    assert warnings[0].startswith("metrics: the queue cannot be read: StoreUnavailable")


async def test_a_scrape_that_fails_has_a_traceback_and_ends_nothing_else(metrics, caplog):
    broken = iter([True, False])

    async def read_queue():
        if next(broken):
            raise ZeroDivisionError
        return QueueState(0, 0, 0, 0.0)

    async with MetricsListener(metrics, HOST, 0, read_queue=read_queue) as listener:
        assert await exchange(listener, b"GET /metrics HTTP/1.1\r\n\r\n") == b""
        assert (await scrape(listener)).status_code == 200
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert record.exc_info[0] is ZeroDivisionError
