"""A turn of an agent, without the server around it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agentflow_server.interfaces import Agent, AgentEvent, TextDelta
from agentflow_server.stores.sqlite import SqliteStore
from agentflow_server.testing.agents import HOSTILE_CLAIMS, Conversation, asked_in, completed


class Talk(Conversation):
    """On thread `t1` unless another is named."""

    def permits(self, key: str) -> bool:
        """Harder than the server: an adapter has to stand every claim at the top level."""
        return True

    def context(self, thread_id: str = "t1", **caller: Any) -> Any:
        return super().context(thread_id, **caller)

    def message(self, content: Any, thread_id: str = "t1", **about: Any) -> Any:
        return super().message(content, thread_id, **about)

    def stream(self, content: Any, thread_id: str = "t1", **caller: Any) -> Any:
        return super().stream(content, thread_id, **caller)

    async def say(self, content: Any, thread_id: str = "t1", **caller: Any) -> Any:
        return await super().say(content, thread_id, **caller)

    async def ask(self, content: Any, thread_id: str = "t1", **caller: Any) -> Any:
        return completed(await self.say(content, thread_id, **caller))[-1].content

    async def answer(self, *values: Any) -> Any:
        return await super().answer("t1", *values)

    async def retry(self) -> Any:
        return await super().retry("t1")

    async def undo(self) -> None:
        await self.agent.undo("t1", self.run_id("t1"))

    @staticmethod
    def asked(events: list[AgentEvent]) -> list[Any]:
        return [question.value for question in asked_in(events)]

    @staticmethod
    def texts(events: list[AgentEvent]) -> list[Any]:
        return [message.content for message in completed(events)]

    @staticmethod
    def completed(events: list[AgentEvent]) -> list[Any]:
        return completed(events)

    @staticmethod
    def text(events: list[AgentEvent]) -> list[str]:
        return [event.text for event in events if isinstance(event, TextDelta)]


@pytest.fixture
def talk() -> Callable[[Agent], Talk]:
    return Talk


@pytest.fixture(params=["sqlite", "postgres"])
def open_database(request: Any, tmp_path: Path) -> Callable[[], Any]:
    """Makes a store of a database that is the same each time."""
    if request.param == "sqlite":
        return lambda: SqliteStore(tmp_path / "agentflow.db")
    url = request.getfixturevalue("postgres_url")
    from agentflow_server.stores.postgres import PostgresStore  # its driver is an extra

    return lambda: PostgresStore(url)


@pytest.fixture
async def database(open_database: Callable[[], Any]) -> AsyncIterator[Any]:
    async with open_database() as store:
        yield store


@pytest.fixture
def open_graph(database: Any, tmp_path: Path, talk: Any) -> Any:
    from agentflow_server.adapters.langgraph import LangGraphAgent  # an extra, too

    async def open_graph(graph: Any, **settings: Any) -> Talk:
        # One with a memory of its own does not even look at the database.
        own = graph.checkpointer or settings.get("checkpointer")
        where = SqliteStore(tmp_path / "unused.db") if own else database
        agent = LangGraphAgent(graph, name="main", database=where, **settings)
        await agent.open()
        return talk(agent)

    return open_graph


@pytest.fixture
def saved_rows() -> Callable[[Any], Awaitable[list[tuple[Any, ...]]]]:
    """Everything that our checkpointer has stored; the thread is what a row begins with."""

    async def read(database: Any) -> list[tuple[Any, ...]]:
        if isinstance(database, SqliteStore):
            tables = ("checkpoints", "writes")
            return await database.read(
                lambda at: [
                    tuple(row) for name in tables for row in at.execute(f"SELECT * FROM {name}")
                ]
            )

        async def select(connection: Any) -> list[tuple[Any, ...]]:
            names = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")
            found = [await connection.execute(f"SELECT * FROM agentflow.{name}") for name in names]
            return [row for cursor in found for row in await cursor.fetchall()]

        return await database.read(select)

    return read


@pytest.fixture
def hostile_claims() -> dict[str, Any]:
    return {**HOSTILE_CLAIMS, "roles": ["reader"]}


@pytest.fixture
def in_background() -> Any:
    """Consume a stream in a task that is gone at the end, one way or the other."""

    @asynccontextmanager
    async def consume(stream: Any) -> AsyncIterator[asyncio.Task[None]]:
        async def drain() -> None:
            async with aclosing(stream) as events:
                async for _ in events:
                    pass

        task = asyncio.create_task(drain())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    return consume
