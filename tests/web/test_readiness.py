"""`/health/ready` says what keeps a server from doing its work."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import psycopg
import pytest

from agentflow_server.engines import postgres as engine
from agentflow_server.stores import postgres_opening
from agentflow_server.web.errors import STORE_IS_DOWN

Serve = Callable[..., Awaitable[httpx2.AsyncClient]]
NewThread = Callable[..., Awaitable[str]]
PATIENCE = 30


async def become(client: httpx2.AsyncClient, status: int, code: str | None = None) -> Any:
    """The answer of /health/ready when it has this status and code."""
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = await client.get("/health/ready")
            told = answer.json()
            if (answer.status_code, told.get("code")) == (status, code):
                return told
            await asyncio.sleep(0.02)


@asynccontextmanager
async def served(project: Any, run_app: Any, **config: Any) -> AsyncIterator[Any]:
    app = project.app(**config)
    async with run_app(app) as url, httpx2.AsyncClient(base_url=url, timeout=PATIENCE) as client:
        yield app, client


async def test_a_server_that_works_is_ready(serve: Serve) -> None:
    answer = await (await serve()).get("/health/ready")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert "connection" not in answer.headers


async def test_one_that_is_about_to_stop_is_not_and_answers_everything_nevertheless(
    project: Any, run_app: Any, new_thread: NewThread
) -> None:
    async with served(project, run_app) as (app, client):
        app.retire()
        refused = await client.get("/health/ready")
        assert (refused.status_code, refused.json()["code"]) == (503, "server_stopping")
        thread_id = await new_thread(client)
        turn = await client.post(f"/threads/{thread_id}/messages", json={"content": "Hello"})
        assert turn.json()["message"]["content"] == "echo: Hello"
        live = await client.get("/health/live")
        assert live.status_code == 200
        for answer in (refused, turn, live):
            assert answer.headers["connection"] == "close"


async def test_one_without_its_database_is_not_until_it_is_back(
    project: Any, run_app: Any, own_postgres_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whoever asks is told sooner than a request is.
    monkeypatch.setattr(postgres_opening, "_WAIT_FOR_CONNECTION", 2.0 * PATIENCE)
    async with served(project, run_app, database=own_postgres_server.url()) as (_, client):
        await become(client, 200)
        own_postgres_server.stop()
        told = await become(client, 503, "store_unavailable")
        assert told["detail"] == STORE_IS_DOWN
        assert (await client.get("/health/live")).status_code == 200
        own_postgres_server.start()
        await become(client, 200)


async def test_one_whose_worker_cannot_look_for_runs_is_not_until_it_can(
    project: Any, run_app: Any, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "SILENT_SECONDS", 0.0)
    async with served(project, run_app, database=postgres_url) as (_, client):
        await become(client, 200)
        async with await psycopg.AsyncConnection.connect(postgres_url) as somebody:
            await somebody.execute("LOCK TABLE agentflow.runs IN ACCESS EXCLUSIVE MODE")
            told = await become(client, 503, "worker_unavailable")
            assert told["detail"].startswith("the worker has not reached the database for ")
            await somebody.rollback()
        await become(client, 200)
