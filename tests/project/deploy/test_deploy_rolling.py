"""Replicas are stopped and killed behind the balancer, and nobody who asks it notices."""

import json
import signal
import threading
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from websockets.sync.client import connect

pytestmark = pytest.mark.slow

CLIENTS = 6
PATIENCE = 60.0
REPLICAS = ("replica-1", "replica-2")


class Service:
    """Two replicas behind a balancer."""

    def __init__(self, deployment: Any, start_balancer: Callable[..., Any]) -> None:
        self._deployment = deployment
        self._replicas = {name: deployment.start(name) for name in REPLICAS}
        for replica in self._replicas.values():
            replica.wait_for("serving on")
        made = self._replicas["replica-1"].run(["agentflow", "token", "--user-id", "alice"])
        self.headers = {"Authorization": f"Bearer {made.stdout.strip()}"}
        self._balancer = start_balancer(*(deployment.ports[name] for name in REPLICAS))
        self.url = self._balancer.url

    def client(self) -> httpx2.Client:
        # A client that tries again would hide what the balancer lets fail.
        transport = httpx2.HTTPTransport(retries=0)
        return httpx2.Client(
            base_url=self.url, headers=self.headers, transport=transport, timeout=PATIENCE
        )

    def replace(self, name: str, how: signal.Signals) -> None:
        """Returns when the balancer sends requests to the new one."""
        seen = len(self._balancer.process.lines)
        self._replicas[name].send(how)
        self._replicas[name].wait()
        self._balancer.process.wait_for(f"Server replicas/{name} is DOWN", after=seen)
        self._replicas[name] = self._deployment.start(name)
        self._balancer.process.wait_for(f"Server replicas/{name} is UP", after=seen)


@pytest.fixture
def service(deployment: Any, start_balancer: Callable[..., Any]) -> Service:
    return Service(deployment, start_balancer)


class Load:
    """Clients that do one thing again and again until they are told to stop."""

    def __init__(self, service: Service, visit: Callable[[httpx2.Client], None]) -> None:
        self._service = service
        self._visit = visit
        self._enough = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]
        self.visits = 0
        self.failures: list[str] = []

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        with self._service.client() as http:
            while not self._enough.is_set():
                try:
                    self._visit(http)
                except (httpx2.HTTPError, AssertionError) as exc:
                    self.failures.append(repr(exc))
                self.visits += 1


def _accept(answer: httpx2.Response) -> Any:
    assert answer.is_success, f"{answer.request.method} {answer.request.url}: {answer.text}"
    return answer.json()


def _talk(http: httpx2.Client) -> None:
    """Whatever a client does; nothing of it may be sent twice by the balancer."""
    thread = _accept(http.post("/threads"))["thread_id"]
    path = f"/threads/{thread}/messages"
    _accept(http.post(path, json={"content": "hello"}))
    with http.stream("POST", path, json={"content": "again", "stream": True}) as stream:
        assert stream.is_success, stream.read()
        events = [line for line in stream.iter_lines() if line.startswith("event: ")]
    assert events[-1:] == ["event: run.completed"]
    assert len(_accept(http.get(path))["data"]) == 4


def _talk_with_keys(http: httpx2.Client) -> None:
    """What may be sent again: it only reads, or it has a key."""
    key = {"Idempotency-Key": str(uuid4())}
    thread = _accept(http.post("/threads", headers=key))["thread_id"]
    assert _accept(http.get(f"/threads/{thread}"))["thread_id"] == thread


def test_a_rolling_restart_fails_no_request(service: Service) -> None:
    with Load(service, _talk) as load:
        for name in REPLICAS:
            service.replace(name, signal.SIGTERM)
    assert load.visits > CLIENTS
    assert load.failures == []


def test_a_killed_replica_fails_no_request_that_may_be_sent_again(service: Service) -> None:
    with Load(service, _talk_with_keys) as load:
        for name in REPLICAS:
            service.replace(name, signal.SIGKILL)
    assert load.visits > CLIENTS
    assert load.failures == []


def test_a_stream_is_not_held_back(service: Service) -> None:
    with service.client() as http:
        thread = _accept(http.post("/threads"))["thread_id"]
        later = {"content": "hello", "after_seconds": 3600, "background": True}
        run = _accept(http.post(f"/threads/{thread}/messages", json=later))["run_id"]
        path = f"/threads/{thread}/runs/{run}"
        with http.stream("GET", f"{path}/events") as stream:
            assert stream.status_code == 200
            _accept(http.post(f"{path}/cancel"))
            assert "event: run.cancelled" in list(stream.iter_lines())


def test_a_websocket_passes_the_balancer(service: Service) -> None:
    with service.client() as http:
        thread = _accept(http.post("/threads"))["thread_id"]
    address = service.url.replace("http:", "ws:")
    with connect(f"{address}/threads/{thread}/ws", additional_headers=service.headers) as socket:
        socket.send('{"type": "ping"}')
        frames = [json.loads(socket.recv(timeout=PATIENCE)) for _ in range(2)]
    assert [frame["type"] for frame in frames] == ["ready", "pong"]
