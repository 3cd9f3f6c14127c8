"""A real server over real HTTP: uvicorn on a free port of 127.0.0.1, a SQLite file in tmp_path."""

import asyncio
import json
import socket
import textwrap
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest
import uvicorn

from agentflow_server import AgentflowApp, create_app
from agentflow_server.models import UserSecrets
from agentflow_server.users.making import make_user
from agentflow_server.users.passwords import Passwords
from agentflow_server.users.totp import make_code

SECRET = "Zk3vJ9qXw2LrT8sYbN5mHc7Pd1Gf4Ae6"

ECHO = """
def app(messages, config):
    return "echo: " + str(messages[-1]["content"])
"""


@dataclass
class Project:
    """A user's folder: an agent, an auth class maybe, and an agentflow.json."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch

    def module(self, source: str) -> str:
        """Write a module of a name nobody else has; returns the name."""
        name = f"user_{uuid.uuid4().hex}"
        (self.folder / f"{name}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        return name

    def app(self, source: str = ECHO, **config: Any) -> AgentflowApp:
        """An application for the agent `app` in `source`; mode none unless `auth` is given."""
        settings = {"agent": f"{self.module(source)}:app", "auth": None, **config}
        settings = {key: value for key, value in settings.items() if value is not ...}
        if settings.get("auth") == "jwt":
            self.monkeypatch.setenv("JWT_SECRET_KEY", SECRET)
        path = self.folder / "agentflow.json"
        path.write_text(json.dumps(settings), encoding="utf-8")
        return create_app(path)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.syspath_prepend(str(tmp_path))
    return Project(tmp_path, monkeypatch)


def make_token(user_id: str = "alice", **claims: Any) -> str:
    return jwt.encode({"user_id": user_id, "exp": time.time() + 600, **claims}, SECRET, "HS256")


def bearer(user_id: str = "alice", **claims: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {make_token(user_id, **claims)}"}


@pytest.fixture
def token() -> Callable[..., str]:
    return make_token


@pytest.fixture
def as_user() -> Callable[..., dict[str, str]]:
    return bearer


@asynccontextmanager
async def running(app: AgentflowApp) -> AsyncIterator[str]:
    """The base URL of `app` while it is served."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="on",
            timeout_graceful_shutdown=5,
            proxy_headers=False,
        )
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            if task.done():
                task.result()
                raise RuntimeError("the server did not start")
            await asyncio.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


Serve = Callable[..., Awaitable[httpx2.AsyncClient]]


@pytest.fixture
async def serve(project: Project) -> AsyncIterator[Serve]:
    """`client = await serve(source, **config)`: a client of a running server."""
    async with AsyncExitStack() as stack:

        async def start(source: str = ECHO, **config: Any) -> httpx2.AsyncClient:
            # What is left running when a test is done is nobody's concern.
            runs = {"shutdown_grace": 0, **config.pop("runs", {})}
            app = project.app(source, runs=runs, **config)
            base_url = await stack.enter_async_context(running(app))
            client = httpx2.AsyncClient(base_url=base_url, timeout=15)
            return await stack.enter_async_context(client)

        yield start


@pytest.fixture
def run_app() -> Callable[[AgentflowApp], Any]:
    return running


PASSWORD = "tea kettle sings at noon"
TOTP = b"twenty bytes of bob!"
JOB_SECRET = "q8Zr2Lk5Vw9Xc3Bn7Tm1Hd6Gf4Js0PaYe"
TOKEN_SERVER = {
    "password_grant": True,
    "clients": {
        "job": {"secret": "${JOB_SECRET}", "grants": ["client_credentials"]},
        "app": {"redirect_uris": ["https://app.example.com/callback"], "name": "The <app>"},
    },
}


@pytest.fixture
def job_secret() -> str:
    """Of the client `job`."""
    return JOB_SECRET


@pytest.fixture
def totp_of_bob() -> Callable[[], str]:
    """The code of his second factor that is good now."""
    return lambda: make_code(TOTP, int(time.time()) // 30)


@pytest.fixture
def serve_tokens(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., AbstractAsyncContextManager[httpx2.AsyncClient]]:
    """`async with serve_tokens(**config) as client`: a server that knows alice, and bob with a
    second factor; `client.app` is its application."""
    monkeypatch.setenv("JOB_SECRET", JOB_SECRET)

    @asynccontextmanager
    async def start(path: str = "", **config: Any) -> AsyncIterator[httpx2.AsyncClient]:
        own = {
            "token_server": TOKEN_SERVER,
            "auth": ...,
            "public_url": f"http://127.0.0.1:8000{path}",
            "database": f"sqlite:///{uuid.uuid4().hex}.db",
        }
        app = project.app(**own | config)
        hashed = await Passwords().hash(PASSWORD)
        users = [
            make_user(
                name, roles=["reader"], scopes=["threads:read"], claims={"team": "sales"},
                created_at=datetime.now(UTC), has_password=True,
            )
            for name in ("alice", "bob")
        ]  # fmt: skip
        secrets = [UserSecrets(hashed), UserSecrets(hashed, TOTP)]
        async with running(app) as url, httpx2.AsyncClient(base_url=url, timeout=30) as client:
            await app.state.users.add_users(list(zip(users, secrets, strict=True)))
            client.app = app  # type: ignore[attr-defined]
            yield client

    return start


@pytest.fixture
def new_thread() -> Callable[..., Awaitable[str]]:
    async def create(client: httpx2.AsyncClient, **kwargs: Any) -> str:
        answer = await client.post("/threads", **kwargs)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["thread_id"])

    return create


@pytest.fixture
def exchange() -> Callable[..., Awaitable[bytes]]:
    """Send raw bytes, read what comes back until the server closes or `seconds` have passed."""

    async def send(client: httpx2.AsyncClient, data: bytes, *, seconds: float = 5) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
        received = b""
        try:
            writer.write(data)
            async with asyncio.timeout(seconds):
                while chunk := await reader.read(65536):
                    received += chunk
        except (TimeoutError, ConnectionError):
            pass
        finally:
            writer.close()
        return received

    return send
