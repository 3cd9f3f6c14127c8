"""Servers, and what is before them, that do not behave: there is a clear error, and an end."""

import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import pytest

from agentflow_server import client as clients
from agentflow_server.client import (
    AgentflowClient,
    AgentflowClientError,
    AsyncAgentflowClient,
    RateLimited,
    ServerFailed,
    ServerUnreachable,
    UnexpectedAnswer,
    retries,
)
from agentflow_server.client.errors import read_retry_after

BACKOFF = retries.backoff
"""As it is when no test makes it shorter."""
NOWHERE = "0190d5a2-8c4e-7cc3-9a6f-0d2f5e1b7a11"
HTML = {"Content-Type": "text/html; charset=utf-8"}


async def test_a_redirect_is_not_followed(connect, script):
    other = script(lambda _: (200, {}, b""))
    server = script(lambda asked: (307, {"Location": other.url + "/x"}, b""))
    for method in ("list_agents", "create_thread"):
        with pytest.raises(UnexpectedAnswer, match="redirected") as caught:
            await connect(server.url, "key")(method)
        assert (caught.value.code, caught.value.status) == ("redirected", 307)
    assert len(server.asked) == 2
    assert other.asked == []


async def test_an_endless_redirect_ends_at_once_also_where_the_http_client_follows(script):
    server = script(lambda asked: (302, {"Location": asked.path}, b""))
    async with (
        httpx2.AsyncClient(follow_redirects=True, auth=("bob", "x")) as http,
        AsyncAgentflowClient(server.url, "key", http=http) as client,
    ):
        with pytest.raises(UnexpectedAnswer):
            await client.list_agents()
        await client.close()
        assert not http.is_closed
    with httpx2.Client(follow_redirects=True, auth=("bob", "x")) as own:
        with (
            AgentflowClient(server.url, "key", http=own) as client,
            pytest.raises(UnexpectedAnswer),
        ):
            client.list_agents()
        assert not own.is_closed
    assert [asked.bearer for asked in server.asked] == ["key", "key"]


async def test_html_instead_of_json_says_what_was_found_where(connect, script):
    server = script(lambda _: (200, HTML, b"<html>Welcome</html>"))
    with pytest.raises(UnexpectedAnswer, match=r"text/html.*agentflow server") as caught:
        await connect(server.url, "key")("list_agents")
    assert server.url in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"data": [{"name": 5}]}', b"\xff"])
async def test_json_that_is_something_else_is_refused_without_showing_it(connect, script, body):
    server = script(lambda _: (200, {"Content-Type": "application/json"}, body))
    with pytest.raises(UnexpectedAnswer):
        await connect(server.url)("list_agents")
    assert len(server.asked) == 1


async def test_an_error_page_of_a_proxy_is_an_error_with_its_status(connect, script):
    server = script(lambda _: (418, HTML, b"<html>Tea</html>"))
    with pytest.raises(clients.InvalidRequest) as caught:
        await connect(server.url)("list_agents")
    assert (caught.value.status, caught.value.code) == (418, "http_error")
    assert "text/html" in caught.value.detail


async def test_a_huge_error_is_not_read_to_its_end(connect, script):
    server = script(lambda _: (500, HTML, b"x" * 20_000_000))
    with pytest.raises(ServerFailed) as caught:
        await connect(server.url)("list_agents")
    assert len(str(caught.value)) < 600


async def test_odd_documents_of_errors_are_errors_all_the_same(connect, script, json_answer):
    for document in ([], {"code": 5, "detail": 5}, {"code": "a\nb"}, {"detail": "x" * 9999}, None):
        server = script(lambda _, document=document: json_answer(document, 400))
        with pytest.raises(clients.InvalidRequest) as caught:
            await connect(server.url)("list_agents")
        assert caught.value.code == "http_error"
        assert len(caught.value.detail) <= 500


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, "NotAuthenticated"),
        (403, "Forbidden"),
        (404, "NotFound"),
        (409, "Conflict"),
        (422, "InvalidRequest"),
        (500, "ServerFailed"),
    ],
)
async def test_each_status_has_its_exception(connect, script, json_answer, status, kind):
    document = {"code": "some_code", "detail": "Some detail"}
    server = script(lambda _: json_answer(document, status, **{"X-Request-Id": "r-1"}))
    with pytest.raises(getattr(clients, kind)) as caught:
        await connect(server.url)("list_agents")
    error = caught.value
    assert isinstance(error, AgentflowClientError)
    assert (error.code, error.status, error.detail) == ("some_code", status, "Some detail")
    assert (error.request_id, error.document, error.attempts) == ("r-1", document, 1)
    assert len(server.asked) == 1


async def test_what_is_safe_is_tried_again(connect, script, json_answer):
    answers = [None, json_answer({}, 502), json_answer({}, 503), json_answer({"data": []})]
    server = script(lambda _: answers.pop(0))
    assert await connect(server.url)("list_agents") == []
    assert len(server.asked) == 4


async def test_what_creates_something_is_tried_again_with_the_same_key(
    connect, script, json_answer
):
    server = script(lambda _: json_answer({}, 503))
    with pytest.raises(ServerFailed) as caught:
        await connect(server.url, retries=2)("create_thread")
    assert caught.value.attempts == 3
    keys = [asked.headers["idempotency-key"] for asked in server.asked]
    assert len(keys) == 3
    assert len(set(keys)) == 1
    with pytest.raises(ServerFailed):
        await connect(server.url, retries=0)("create_thread", idempotency_key="mine")
    assert server.asked[-1].headers["idempotency-key"] == "mine"


async def test_what_might_happen_twice_is_tried_once(connect, script):
    server = script(lambda _: None)
    for call in (
        ("update_thread", NOWHERE),
        ("cancel_run", NOWHERE, NOWHERE),
        ("resume", NOWHERE, NOWHERE, "yes"),
        ("make_authenticated_request", "/x", "POST"),
    ):
        before = len(server.asked)
        with pytest.raises(ServerUnreachable):
            await connect(server.url)(*call)
        assert len(server.asked) == before + 1


async def test_a_quota_is_waited_for_but_not_for_long(connect, script, json_answer):
    answers = [json_answer({}, 429, **{"Retry-After": "0"}), json_answer({"data": []})]
    server = script(lambda _: answers.pop(0))
    assert await connect(server.url)("list_agents") == []
    strict = script(lambda _: json_answer({}, 429, **{"Retry-After": "3600"}))
    with pytest.raises(RateLimited) as caught:
        await connect(strict.url)("list_agents")
    assert (caught.value.retry_after, len(strict.asked)) == (3600.0, 1)


async def test_a_request_that_is_under_way_elsewhere_is_not_ours_to_wait_for(
    connect, script, json_answer
):
    server = script(lambda _: json_answer({"code": "request_in_progress"}, 409))
    with pytest.raises(clients.Conflict):
        await connect(server.url)("create_thread", idempotency_key="shared")
    assert len(server.asked) == 1


async def test_a_server_that_is_not_there_is_named(connect):
    client = connect("http://127.0.0.1:9", retries=1)
    with pytest.raises(ServerUnreachable, match=r"http://127\.0\.0\.1:9.*ConnectError") as caught:
        await client("list_agents")
    assert (caught.value.code, caught.value.attempts) == ("unreachable", 2)


async def test_a_list_that_goes_round_in_circles_is_left(connect, script, json_answer):
    server = script(lambda _: json_answer({"data": [], "next_cursor": "again"}))
    with pytest.raises(UnexpectedAnswer, match="circles"):
        await connect(server.url)("list_threads")
    assert len(server.asked) == 2


def test_closing_a_client_wakes_whoever_waits_to_try_again(script, json_answer, monkeypatch):
    monkeypatch.setattr("agentflow_server.client.retries.backoff", lambda number: 50.0)
    client = AgentflowClient("http://127.0.0.1:9")
    closing = threading.Timer(0.05, client.close)
    closing.start()
    with pytest.raises(AgentflowClientError) as caught:
        client.list_agents()
    closing.join()
    assert caught.value.code == "closed"


def test_attempts_are_further_and_further_apart():
    for number, longest in ((1, 0.25), (2, 0.5), (3, 1.0), (6, 8.0), (1000, 8.0)):
        assert longest / 2 <= BACKOFF(number) <= longest


def test_a_time_to_come_back_is_read_by_the_servers_clock():
    now = datetime.now(UTC).replace(microsecond=0)
    for text, date, seconds in (
        ("120", None, 120.0),
        ("", None, None),
        ("soon", None, None),
        ("-5", None, None),
        (
            format_datetime(now + timedelta(hours=2)),
            format_datetime(now + timedelta(hours=1)),
            3600,
        ),
        (format_datetime(now), format_datetime(now + timedelta(hours=1)), 0.0),
        (format_datetime(now.replace(tzinfo=None)), format_datetime(now), 0.0),
    ):
        headers = {"Retry-After": text} | ({"Date": date} if date else {})
        assert read_retry_after(httpx2.Response(503, headers=headers)) == seconds, text
    late = format_datetime(now + timedelta(hours=1))
    found = read_retry_after(httpx2.Response(503, headers={"Retry-After": late}))
    assert found == pytest.approx(3600, abs=60)
