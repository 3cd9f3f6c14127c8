"""What is counted, and under which labels."""

import math
import re
import threading
from pathlib import Path

import pytest

from agentflow_server.errors import ConfigError
from agentflow_server.metrics import Metrics, open_metrics
from agentflow_server.metrics.labels import AUTH_REASONS
from agentflow_server.models import QueueState

AUDIT_PAGE = Path(__file__).parents[2] / "docs" / "audit.md"


def counting(metrics):
    """Middleware that counts as the server does."""

    def wrap(api):
        async def app(scope, receive, send):
            answered = 0

            async def count(message):
                nonlocal answered
                answered = message.get("status", answered)
                await send(message)

            try:
                await api(scope, receive, count)
            finally:
                metrics.request(scope, answered, 0.02)

        return app

    return wrap


async def test_requests_are_counted_under_the_template_of_their_route(metrics, over, read):
    client = over(counting(metrics))
    for thread_id in ("one", "two", "three"):
        await client.get(f"/threads/{thread_id}")
    await client.post("/threads/one")
    await client.get("/threads/broken")
    await client.put("/threads/one")
    seen, route = read(metrics), "/threads/{thread_id}"
    total = "agentflow_http_requests_total"
    assert seen(total, method="GET", route=route, status="200") == 3
    assert seen(total, method="POST", route=route, status="200") == 1
    assert seen(total, method="GET", route=route, status="500") == 1
    assert seen(total, method="PUT", route=route, status="405") == 1
    duration = "agentflow_http_request_duration_seconds"
    assert seen(f"{duration}_count", method="GET", route=route) == 4
    assert seen(f"{duration}_sum", method="GET", route=route) == pytest.approx(0.08)
    assert seen(f"{duration}_bucket", method="GET", route=route, le="0.01") == 0
    assert seen(f"{duration}_bucket", method="GET", route=route, le="0.025") == 4


async def test_whatever_a_client_invents_is_other(metrics, over, read):
    client = over(counting(metrics))
    for number in range(200):
        await client.request(f"M{number}", f"/secret-{number}")
    await client.get("/threads/one/nothing")
    seen = read(metrics)
    total = "agentflow_http_requests_total"
    assert seen.labels(total) == [
        {"method": "other", "route": "other", "status": "404"},
        {"method": "GET", "route": "other", "status": "404"},
    ]
    assert "secret" not in metrics.expose("")[0].decode()


@pytest.mark.parametrize("status", [0, 7, 99, 600, 1000])
def test_a_request_that_got_no_answer_is_counted_as_such(metrics, read, status):
    metrics.request({"method": "GET"}, status, 0.1)
    total = "agentflow_http_requests_total"
    assert read(metrics)(total, method="GET", route="other", status="none") == 1


def test_runs_are_counted_by_their_end_and_by_what_goes_on(metrics, read):
    for _ in range(3):
        metrics.run_started()
    metrics.run_ended("success", 0.2)
    metrics.run_ended("timeout", 30)
    seen = read(metrics)
    assert seen("agentflow_runs_executing") == 1
    assert seen("agentflow_run_duration_seconds_count", status="success") == 1
    assert seen("agentflow_run_duration_seconds_sum", status="timeout") == 30
    ended = {labels["status"] for labels in seen.labels("agentflow_run_duration_seconds_count")}
    assert ended == {"success", "error", "interrupted", "cancelled", "timeout"}


def test_a_run_that_was_taken_over_has_not_ended(metrics, read):
    metrics.run_started()
    metrics.run_ended("running", 1)
    seen = read(metrics)
    assert seen("agentflow_runs_executing") == 0
    assert sum(seen(s.name, **s.labels) for s in seen.samples if s.name.endswith("s_count")) == 0


def test_the_queue_is_unknown_until_somebody_tells(metrics, read):
    assert math.isnan(read(metrics)("agentflow_queue_depth"))
    metrics.queue(QueueState(running=2, pending=5, ready=1, oldest_seconds=3.5))
    seen = read(metrics)
    assert seen("agentflow_runs", status="running") == 2
    assert seen("agentflow_runs", status="pending") == 5
    assert seen("agentflow_queue_depth") == 1
    assert seen("agentflow_queue_oldest_seconds") == 3.5
    metrics.queue(None)
    assert math.isnan(read(metrics)("agentflow_queue_oldest_seconds"))


def test_events_and_the_database_have_their_times(metrics, read):
    metrics.event_delivered(0.003)
    metrics.event_delivered(-0.5)
    metrics.database("write", 0.002)
    seen = read(metrics)
    assert seen("agentflow_event_lag_seconds_count") == 2
    assert seen("agentflow_event_lag_seconds_sum") == pytest.approx(0.003)
    assert seen("agentflow_database_seconds_count", operation="write") == 1
    assert seen("agentflow_database_seconds_count", operation="read") == 0


def test_credentials_are_counted_with_the_words_of_the_audit_log(metrics, read):
    metrics.authenticated("jwt", "success")
    metrics.authenticated("jwt", "success")
    metrics.authenticated(None, "failure", "bad_signature")
    for number in range(100):
        metrics.authenticated(f"mine-{number}", "error", f"alice's password {number}")
    total = "agentflow_auth_total"
    seen = read(metrics)
    assert seen(total, method="jwt", result="success", reason="") == 2
    assert seen(total, method="unknown", result="failure", reason="bad_signature") == 1
    assert seen(total, method="other", result="error", reason="other") == 100
    assert len(seen.labels(total)) == 3


def test_the_reasons_are_those_of_the_page_about_the_audit_log():
    rows = re.findall(
        r"^\| ((?:`\w+`(?:, )?)+)[ …]*\|", AUDIT_PAGE.read_text().split("## Reasons")[1], re.M
    )
    documented = set(re.findall(r"`(\w+)`", " ".join(rows))) - {"queue_full"}
    assert documented == AUTH_REASONS - {"http_403"}


def test_each_server_counts_for_itself(metrics, read):
    other = open_metrics()
    metrics.run_started()
    assert read(other)("agentflow_runs_executing") == 0


def test_nothing_is_lost_when_many_threads_count(metrics, read):
    scope = {"method": "GET"}

    def work():
        for _ in range(2000):
            metrics.request(scope, 200, 0.001)
            metrics.authenticated("jwt", "success")
            metrics.run_started()
            metrics.run_ended("success", 0.1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        read(metrics)
    for thread in threads:
        thread.join()
    seen = read(metrics)
    assert (
        seen("agentflow_http_requests_total", method="GET", route="other", status="200") == 16_000
    )
    assert seen("agentflow_auth_total", method="jwt", result="success", reason="") == 16_000
    assert seen("agentflow_run_duration_seconds_count", status="success") == 16_000
    assert seen("agentflow_runs_executing") == 0


def test_the_process_is_measured_too(metrics, read):
    assert read(metrics)("process_resident_memory_bytes") > 1_000_000


def test_metrics_that_are_off_take_everything_and_keep_nothing():
    off = Metrics()
    off.request({}, 200, 0.1)
    off.run_started()
    off.run_ended("success", 0.1)
    off.event_delivered(0.1)
    off.authenticated("jwt", "success")
    off.database("read", 0.1)
    off.queue(None)
    assert not off.is_on
    assert vars(off) == {}
    assert open_metrics().is_on


def test_a_missing_extra_is_named(without):
    without("prometheus_client", "agentflow_server.metrics.prometheus")
    with pytest.raises(ConfigError) as refused:
        open_metrics()
    assert refused.value.problems == (
        "observability.metrics: pip install 'agentflow-server[prometheus]'",
    )
