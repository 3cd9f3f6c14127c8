"""Host applications over real HTTP: uvicorn on a free port of 127.0.0.1, SQLite in tmp_path."""

import asyncio
import json
import socket
import sys
import textwrap
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection, connect

AGENT = """
import json

def app(messages, config):
    told = {key: config[key] for key in ("user_id", "team") if config.get(key)}
    return json.dumps({"said": messages[-1]["content"], **told})
"""

Project = Callable[..., Path]
Serve = Callable[..., Awaitable[httpx2.AsyncClient]]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """`project(auth=…)` writes an agent and returns its agentflow.json."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = list(sys.path)

    def write(source: str = AGENT, **settings: Any) -> Path:
        name = f"hosted_{uuid.uuid4().hex}"
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        file = tmp_path / "agentflow.json"
        file.write_text(json.dumps({"agent": f"{name}:app", **settings}), encoding="utf-8")
        return file

    yield write
    sys.path[:] = before


@asynccontextmanager
async def running(app: FastAPI, **settings: Any) -> AsyncIterator[str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            app, log_config=None, lifespan="on", timeout_graceful_shutdown=5, **settings
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


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """`client = await serve(host)`: a client of the running host application."""
    async with AsyncExitStack() as stack:

        async def start(host: FastAPI, **settings: Any) -> httpx2.AsyncClient:
            url = await stack.enter_async_context(running(host, **settings))
            return await stack.enter_async_context(
                httpx2.AsyncClient(base_url=url, timeout=30, follow_redirects=False)
            )

        yield start


@pytest.fixture
def open_socket() -> Callable[..., connect]:
    """`async with open_socket(client, path, headers) as socket`."""

    def open_socket(
        client: httpx2.AsyncClient, path: str, headers: Any = (), **more: Any
    ) -> connect:
        url = f"ws{str(client.base_url).rstrip('/').removeprefix('http')}{path}"
        return connect(url, additional_headers=headers, open_timeout=30, **more)

    return open_socket


@pytest.fixture
def converse() -> Callable[..., Awaitable[dict[str, Any]]]:
    """Say something on a socket; what the agent answered."""

    async def converse(socket: ClientConnection, text: str) -> dict[str, Any]:
        async with asyncio.timeout(30):
            assert json.loads(await socket.recv())["type"] == "ready"
            await socket.send(json.dumps({"type": "message", "content": text}))
            while True:
                frame = json.loads(await socket.recv())
                assert frame["type"] != "error", frame
                if frame.get("event") == "message.completed":
                    found: dict[str, Any] = json.loads(frame["data"]["content"])
                    return found

    return converse


@pytest.fixture
def say() -> Callable[..., Awaitable[dict[str, Any]]]:
    """Say something in a new thread; what the agent answered."""

    async def say(client: httpx2.AsyncClient, text: str, **request: Any) -> dict[str, Any]:
        thread = await client.post("/agent-api/threads", **request)
        assert thread.status_code == 200, thread.text
        url = f"/agent-api/threads/{thread.json()['thread_id']}/messages"
        answer = await client.post(url, json={"content": text}, **request)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = json.loads(answer.json()["message"]["content"])
        return found

    return say
