"""A real server in this process, and clients that talk to it over WebSockets."""

import asyncio
import json
import socket
import sys
import textwrap
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx2
import jwt
import pytest
import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from agentflow_server import AgentflowApp, create_app

SECRET = "Zk3vJ9qXw2LrT8sYbN5mHc7Pd1Gf4Ae6"
DEADLINE = 15.0

AGENT = """
import asyncio
from agentflow_server import ask

gate = asyncio.Event()
stopped = []

async def app(messages, config):
    said = messages[-1]["content"]
    if said == "wait":
        yield "first "
        try:
            await gate.wait()
        except asyncio.CancelledError:
            stopped.append(said)
            raise
        yield "second"
    elif said == "ask":
        yield "you said " + str(await ask(config, {"sure": True}))
    elif said == "flood":
        for _ in range(400):
            yield "x" * 50_000
    else:
        yield f"{config.get('user_id')}: {said}"
"""


class Line:
    """One WebSocket; every wait has an end."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def say(self, kind: str, **fields: Any) -> None:
        await self.connection.send(json.dumps({"type": kind, **fields}))

    async def hear(self) -> dict[str, Any]:
        async with asyncio.timeout(DEADLINE):
            frame: dict[str, Any] = json.loads(await self.connection.recv())
            return frame

    async def ask(self, kind: str, **fields: Any) -> dict[str, Any]:
        """What answers a command."""
        await self.say(kind, **fields)
        while (frame := await self.hear())["type"] == "event":
            pass
        return frame

    async def events(self, until: str) -> list[dict[str, Any]]:
        """Events up to the first one of this name."""
        found = []
        while not found or found[-1]["event"] != until:
            frame = await self.hear()
            assert frame["type"] == "event", frame
            found.append(frame)
        return found

    async def closing(self) -> tuple[int, str]:
        """How the server closes it; what came before is thrown away."""
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(self._hear_on(), DEADLINE)
        assert closed.value.rcvd, "no close frame came"
        return closed.value.rcvd.code, closed.value.rcvd.reason

    async def _hear_on(self) -> None:
        while True:
            await self.connection.recv()


@dataclass
class Server:
    app: AgentflowApp
    agent: ModuleType
    url: str
    http: httpx2.AsyncClient
    stop: Callable[[], Awaitable[None]]
    lines: AsyncExitStack

    async def new_thread(self, user: str | None = "alice", **claims: Any) -> str:
        headers = bearer(user, **claims) if user else {}
        answer = await self.http.post("/threads", headers=headers)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["thread_id"])

    async def new_ticket(self, user: str = "alice", **claims: Any) -> str:
        answer = await self.http.post("/tickets", headers=bearer(user, **claims))
        assert answer.status_code == 200, answer.text
        return str(answer.json()["ticket"])

    def rule(self, **rules: Any) -> None:
        """Change how sockets are treated from now on."""
        self.app.state.socket_rules = replace(self.app.state.socket_rules, **rules)

    async def dial(self, thread_id: str, user: str | None = None, **options: Any) -> Line:
        """A connection; with `user`, his token is in its headers."""
        query = options.pop("query", "")
        claims = options.pop("claims", {})
        if user:
            options["additional_headers"] = bearer(user, **claims)
        url = f"{self.url.replace('http', 'ws', 1)}/threads/{thread_id}/ws{query}"
        connecting = connect(url, max_size=None, proxy=None, open_timeout=DEADLINE, **options)
        return Line(await self.lines.enter_async_context(connecting))

    async def enter(self, thread_id: str, user: str = "alice", **options: Any) -> Line:
        """A connection that is ready."""
        line = await self.dial(thread_id, user, **options)
        assert await line.hear() == {"type": "ready", "thread_id": thread_id}
        return line

    async def refusal(self, thread_id: str, user: str | None = None, **options: Any) -> Any:
        """The HTTP answer to a handshake that fails."""
        with pytest.raises(InvalidStatus) as refused:
            await self.dial(thread_id, user, **options)
        return refused.value.response


def make_token(user: str, **claims: Any) -> str:
    return jwt.encode({"user_id": user, "exp": time.time() + 600, **claims}, SECRET, "HS256")


def bearer(user: str, **claims: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {make_token(user, **claims)}"}


@pytest.fixture
def token() -> Callable[..., str]:
    return make_token


@pytest.fixture
def as_user() -> Callable[..., dict[str, str]]:
    return bearer


@pytest.fixture
def make_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., AgentflowApp]:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("JWT_SECRET_KEY", SECRET)

    def make_app(source: str = AGENT, **config: Any) -> AgentflowApp:
        name = f"user_{uuid.uuid4().hex}"
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        settings = {
            "agent": f"{name}:app",
            "auth": "jwt",
            "runs": {"shutdown_grace": 0.2},
            **config,
        }
        path = tmp_path / "agentflow.json"
        path.write_text(json.dumps(settings), encoding="utf-8")
        return create_app(path)

    return make_app


@asynccontextmanager
async def running(app: AgentflowApp) -> AsyncIterator[tuple[str, Callable[[], Awaitable[None]]]]:
    """Where `app` is served, and what stops it as the command does."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=5
        )
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            assert not task.done(), task.result()
            await asyncio.sleep(0.005)

        async def stop() -> None:
            server.should_exit = True
            await task

        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", stop
        finally:
            await stop()


@pytest.fixture
async def serve(make_app: Callable[..., AgentflowApp]) -> AsyncIterator[Callable[..., Any]]:
    """`server = await serve(source, **config)`; the method is `jwt` unless `auth` says otherwise."""
    async with AsyncExitStack() as stack:

        async def serve(source: str = AGENT, **config: Any) -> Server:
            app = make_app(source, **config)
            agent = sys.modules[app.config.agents[next(iter(app.config.agents))].partition(":")[0]]
            url, stop = await stack.enter_async_context(running(app))
            client = httpx2.AsyncClient(base_url=url, timeout=DEADLINE)
            http = await stack.enter_async_context(client)
            lines = await stack.enter_async_context(AsyncExitStack())
            return Server(app, agent, url, http, stop, lines)

        yield serve


@pytest.fixture
def until() -> Callable[..., Awaitable[None]]:
    async def until(condition: Callable[[], Any]) -> None:
        """Look again and again, as long as a test may take."""
        async with asyncio.timeout(DEADLINE):
            while True:
                found = condition()
                if await found if asyncio.iscoroutine(found) else found:
                    return
                await asyncio.sleep(0.01)

    return until
