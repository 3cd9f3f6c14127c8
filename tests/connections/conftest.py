"""An authorization server and an API, both real and on loopback addresses, and runs that use them."""

import json
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from pydantic import TypeAdapter

from agentflow_server import create_app
from agentflow_server.config.connections import ConnectionSection
from agentflow_server.connections import Connections

SECRET = "canary-Zk3vJ9qXw2LrT8sYbN5mHc7P"

Answer = tuple[int, Mapping[str, str], bytes]


@dataclass(frozen=True)
class Asked:
    """A request as the server got it."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def route(self) -> str:
        return urlsplit(self.path).path

    @property
    def form(self) -> Mapping[str, str]:
        return {name: values[0] for name, values in parse_qs(self.body.decode()).items()}


@dataclass
class Site:
    """Answers each route as it was told, and remembers what it was asked."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    routes: dict[str, Callable[[Asked], Answer]] = field(default_factory=dict)

    def answer(self, request: Asked) -> Answer:
        self.asked.append(request)
        route = self.routes.get(request.route)
        return (404, {}, b"") if route is None else route(request)

    def at(self, route: str) -> Sequence[Asked]:
        return [request for request in self.asked if request.route == route]

    def says(self, route: str, value: Any, *, status: int = 200, **headers: str) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.routes[route] = lambda request: (status, headers, data)

    def grants(self, **members: Any) -> None:
        """`/token` gives token-1, token-2, …"""

        def grant(request: Asked) -> Answer:
            number = len(self.at("/token"))
            token = {"access_token": f"{SECRET}-{number}", "token_type": "Bearer"}
            answer = {**token, "expires_in": 600, **members}
            return 200, {}, json.dumps(answer).encode()

        self.routes["/token"] = grant


class _Requests(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        site: Site = self.server.site  # type: ignore[attr-defined]
        asked = Asked(self.command, self.path, self.headers, self.rfile.read(length))  # type: ignore[arg-type]
        status, headers, body = site.answer(asked)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:  # whoever asked has had enough
            self.close_connection = True

    do_POST = do_CONNECT = do_GET  # noqa: N815 – named by the standard library

    def log_message(self, *args: Any) -> None:
        pass


class _Listening(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are what some tests are about."""


@pytest.fixture
def make_site() -> Iterator[Callable[[], Site]]:
    with ExitStack() as stack:

        def make() -> Site:
            server = stack.enter_context(_Listening(("127.0.0.1", 0), _Requests))
            site = Site(f"http://127.0.0.1:{server.server_port}")
            server.site = site  # type: ignore[attr-defined]
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return site

        yield make


@pytest.fixture
def provider(make_site: Callable[[], Site]) -> Site:
    site = make_site()
    site.grants()
    return site


@pytest.fixture
def api(make_site: Callable[[], Site]) -> Site:
    site = make_site()
    site.says("/v1/invoices", {"invoices": 3})
    return site


@pytest.fixture
def canary() -> str:
    return SECRET


class Clock:
    """Moved on by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def billing(provider: Site, api: Site) -> dict[str, Any]:
    """The configuration of a connection with tokens."""
    return {
        "type": "client_credentials",
        "base_url": f"{api.url}/v1",
        "token_url": f"{provider.url}/token",
        "client_id": "our:id",
        "client_secret": SECRET,
        "scopes": ["invoices:read"],
    }


@pytest.fixture
async def lend(clock: Clock) -> AsyncIterator[Callable[..., Any]]:
    """`config = await lend(billing={…})`: the config of a run that may use these."""
    async with AsyncExitStack() as stack:

        async def start(**connections: Any) -> dict[str, Any]:
            read = TypeAdapter(dict[str, ConnectionSection]).validate_python(connections)
            opened = Connections(read, clock=clock)
            await opened.open()
            stack.push_async_callback(opened.close)
            run_id = str(uuid.uuid4())
            stack.enter_context(opened.lend(run_id))
            return {"run_id": run_id, "thread_id": "t1", "user_id": "alice", "opened": opened}

        yield start


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`async with serve(source, connections) as client`: a server with the agent `app`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("CANARY", SECRET)
    return lambda source, connections: _Served(tmp_path, source, connections)


class _Served:
    def __init__(self, folder: Path, source: str, connections: Mapping[str, Any]) -> None:
        name = f"user_{uuid.uuid4().hex}"
        (folder / f"{name}.py").write_text(source, encoding="utf-8")
        settings = {"agent": f"{name}:app", "auth": None, "connections": connections}
        (folder / "agentflow.json").write_text(json.dumps(settings), encoding="utf-8")
        self._app = create_app(folder / "agentflow.json")
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> httpx2.AsyncClient:
        app = self._app
        await self._stack.enter_async_context(app.router.lifespan_context(app))
        transport = httpx2.ASGITransport(app=app)
        client = httpx2.AsyncClient(transport=transport, base_url="http://test", timeout=30)
        return await self._stack.enter_async_context(client)

    async def __aexit__(self, *exc: Any) -> None:
        await self._stack.aclose()
