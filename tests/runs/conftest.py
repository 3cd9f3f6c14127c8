"""A real store, the real engine, three-line agents."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from uuid_utils import uuid7

from agentflow_server.adapters.function import FunctionAgent
from agentflow_server.engines.embedded import EmbeddedEngine
from agentflow_server.events.local import LocalEventBus
from agentflow_server.models import Principal, Run
from agentflow_server.runs.naming import Namer
from agentflow_server.runs.runner import Runner, TurnRequest
from agentflow_server.runs.worker import RunRules, Worker
from agentflow_server.stores.sqlite import SqliteStore

ALICE = Principal("alice", {"user_id": "alice"})


@dataclass
class House:
    """Everything below the web, on one SQLite file."""

    store: SqliteStore
    bus: LocalEventBus
    runner: Runner
    worker: Worker

    async def thread(self) -> str:
        thread = await self.store.create_thread("alice", str(uuid7()), metadata={})
        return thread.thread_id

    async def run(self, thread_id: str, run_id: str) -> Run:
        return await self.store.get_run("alice", thread_id, run_id)

    async def events(self, run: Run, after: int = 0) -> list[Any]:
        found = self.runner.follow("alice", run, after=after)
        return [event async for event in found if event is not None]


@pytest.fixture
def open_house(tmp_path: Path) -> Callable[..., Any]:
    @asynccontextmanager
    async def opened(
        function: Any,
        *,
        grace: float = 5,
        name: str = "a.db",
        rules: RunRules | None = None,
        concurrency: int | None = None,
        per_owner: int | None = None,
    ) -> AsyncIterator[House]:
        agent = function if hasattr(function, "stream") else FunctionAgent(function, name="agent")
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(
                SqliteStore(tmp_path / name, runs_per_owner=per_owner)
            )
            bus = LocalEventBus()
            namer = await stack.enter_async_context(Namer(store))
            if concurrency is not None or per_owner is not None:
                rules = RunRules(takes_turns=True)
            worker = Worker(store, bus, {"agent": agent}, namer, rules)
            limited = concurrency is not None or per_owner is not None
            engine = EmbeddedEngine(
                store, worker, grace=grace, concurrency=concurrency, takes_turns=limited
            )
            runner = Runner(store, bus, engine, {"agent": agent})
            await stack.enter_async_context(engine)
            yield House(store, bus, runner, worker)

    return opened


@pytest.fixture
def request_for() -> Callable[..., TurnRequest]:
    def make(text: str, **kwargs: Any) -> TurnRequest:
        return TurnRequest(
            **{"content": text, "agent": None, "metadata": {}, "config": {}} | kwargs
        )

    return make


@pytest.fixture
def alice() -> Principal:
    return ALICE
