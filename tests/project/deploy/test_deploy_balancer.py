"""What the balancer makes of requests, and of servers that fail."""

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx2
import pytest

SOMEBODY = "203.0.113.7"


class Visit(BaseHTTPRequestHandler):
    """One connection. Is always ready; the rest is up to the server that it belongs to."""

    server: "Upstream"

    def do_GET(self) -> None:
        if self.path != "/health/ready":
            self.server.visits.append((self.command, self.headers))
            if self.server.drops:
                return  # the connection is closed
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


class Upstream(ThreadingHTTPServer):
    """Remembers who came; `drops`: and takes every request without a word."""

    def __init__(self, *, drops: bool) -> None:
        super().__init__(("127.0.0.1", 0), Visit)
        self.drops = drops
        self.visits: list[tuple[str, Any]] = []
        self._thread = Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


@pytest.fixture
def upstreams() -> Iterator[Callable[..., list[Upstream]]]:
    started: list[Upstream] = []

    def upstreams(*, drop: bool) -> list[Upstream]:
        started.extend(Upstream(drops=drop) for _ in range(2))
        return started

    yield upstreams
    for upstream in started:
        upstream.close()


def _ports(upstreams: list[Upstream]) -> list[int]:
    return [int(upstream.server_address[1]) for upstream in upstreams]


def _visits(upstreams: list[Upstream]) -> list[tuple[str, Any]]:
    return [visit for upstream in upstreams for visit in upstream.visits]


def test_what_may_have_been_executed_is_not_sent_again(upstreams: Any, start_balancer: Any) -> None:
    servers = upstreams(drop=True)
    balancer = start_balancer(*_ports(servers))
    answer = httpx2.post(f"{balancer.url}/threads", json={})
    assert answer.status_code == 502
    assert len(_visits(servers)) == 1


@pytest.mark.parametrize(
    ("method", "headers"), [("GET", {}), ("POST", {"Idempotency-Key": "a1"})], ids=["read", "keyed"]
)
def test_what_does_no_harm_twice_is_sent_again(
    upstreams: Any, start_balancer: Any, method: str, headers: dict[str, str]
) -> None:
    servers = upstreams(drop=True)
    balancer = start_balancer(*_ports(servers))
    assert httpx2.request(method, f"{balancer.url}/threads", headers=headers).status_code == 502
    assert len(_visits(servers)) > 1


def test_a_clients_own_word_about_its_address_is_not_passed_on(
    upstreams: Any, start_balancer: Any
) -> None:
    servers = upstreams(drop=False)
    balancer = start_balancer(*_ports(servers), front="10.0.0.0/8")
    httpx2.get(f"{balancer.url}/threads", headers={"X-Forwarded-For": SOMEBODY})
    ((_, headers),) = _visits(servers)
    assert headers.get_all("X-Forwarded-For") == ["127.0.0.1"]


def test_what_a_proxy_in_front_says_about_an_address_is_passed_on(
    upstreams: Any, start_balancer: Any
) -> None:
    servers = upstreams(drop=False)
    balancer = start_balancer(*_ports(servers), front="127.0.0.0/8")
    httpx2.get(f"{balancer.url}/threads", headers={"X-Forwarded-For": SOMEBODY})
    ((_, headers),) = _visits(servers)
    assert headers.get_all("X-Forwarded-For") == [SOMEBODY, "127.0.0.1"]


def test_a_connection_to_a_server_carries_one_request(upstreams: Any, start_balancer: Any) -> None:
    servers = upstreams(drop=False)
    balancer = start_balancer(*_ports(servers))
    with httpx2.Client(base_url=balancer.url) as http:
        for _ in range(4):
            assert http.get("/threads").status_code == 200
    assert {headers["Connection"] for _, headers in _visits(servers)} == {"close"}


def test_the_balancers_own_errors_look_like_the_servers(
    start_balancer: Any, upstreams: Any
) -> None:
    servers = upstreams(drop=False)
    ports = _ports(servers)
    balancer = start_balancer(*ports)
    for upstream in servers:
        upstream.close()
    for name in ("replica-1", "replica-2"):
        balancer.process.wait_for(f"Server replicas/{name} is DOWN")
    answer = httpx2.get(f"{balancer.url}/threads")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = json.loads(answer.text)
    assert set(problem) == {"type", "title", "status", "detail", "code"}
    assert httpx2.get(f"{balancer.url}/health/balancer").status_code == 503
