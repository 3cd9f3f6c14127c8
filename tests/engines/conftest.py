"""Real stores, real engines, functions as agents."""

from collections.abc import Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from agentflow_server.adapters.function import FunctionAgent
from agentflow_server.engines.embedded import EmbeddedEngine
from agentflow_server.events.local import LocalEventBus
from agentflow_server.runs.naming import Namer
from agentflow_server.runs.worker import RunRules, Worker
from agentflow_server.stores.sqlite import SqliteStore
from agentflow_server.stores.sqlite_neighbours import SqliteNeighbours
from agentflow_server.testing.engine_data import OpenReplica, Replica

LEASE = 5.0
"""Seconds: a loaded machine stalls for one now and then."""
POLL = 0.05


@asynccontextmanager
async def open_worker(
    store: Any, bus: Any, function: Any, *, limited: bool, retry: bool, **rules: Any
) -> Any:
    agent = function if hasattr(function, "stream") else FunctionAgent(function, name="agent")
    async with Namer(store) as namer:
        chosen = RunRules(takes_turns=limited, retry=retry, **rules)
        yield Worker(store, bus, {"agent": agent}, namer, chosen)


@pytest.fixture
def open_embedded(tmp_path) -> OpenReplica:
    @asynccontextmanager
    async def opened(
        function,
        *,
        grace=30.0,
        concurrency=None,
        per_owner=None,
        retry=False,
        make_store=SqliteStore,
    ):
        limited = concurrency is not None or per_owner is not None
        async with AsyncExitStack() as stack:
            store = make_store(tmp_path / "a.db", runs_per_owner=per_owner)
            await stack.enter_async_context(store)
            bus = LocalEventBus()
            worker = await stack.enter_async_context(
                open_worker(store, bus, function, limited=limited, retry=retry)
            )
            engine = EmbeddedEngine(
                store,
                worker,
                grace=grace,
                concurrency=concurrency,
                takes_turns=limited,
                neighbours=SqliteNeighbours(store),
                wake_readers=bus.wake_all,
            )
            yield Replica(store, bus, await stack.enter_async_context(engine))

    return opened


@pytest.fixture
def open_distributed(postgres_url) -> OpenReplica:
    return distributed(postgres_url)


@pytest.fixture
def distributed_at() -> Callable[[str], OpenReplica]:
    return distributed


def distributed(url: str) -> OpenReplica:
    from agentflow_server.engines.postgres import PostgresEngine
    from agentflow_server.events.postgres import PostgresEventBus
    from agentflow_server.stores.postgres import PostgresStore

    @asynccontextmanager
    async def opened(
        function,
        *,
        grace=30.0,
        concurrency=None,
        per_owner=None,
        retry=False,
        lease=LEASE,
        poll=POLL,
        make_store=PostgresStore,
        **rules,
    ):
        limited = concurrency is not None or per_owner is not None
        async with AsyncExitStack() as stack:
            store = make_store(url, runs_per_owner=per_owner)
            await stack.enter_async_context(store)
            bus = await stack.enter_async_context(PostgresEventBus(url, poll=POLL))
            worker = await stack.enter_async_context(
                open_worker(store, bus, function, limited=limited, retry=retry, **rules)
            )
            engine = PostgresEngine(
                store,
                worker,
                database=store,
                signals=bus,
                grace=grace,
                concurrency=concurrency,
                takes_turns=limited,
                lease=lease,
                poll=poll,
            )
            yield Replica(store, bus, await stack.enter_async_context(engine))

    return opened
