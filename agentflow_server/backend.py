"""What keeps and executes runs: below the HTTP API of a server, and all there is of a worker."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

from agentflow_server.config import Config, RunsConfig
from agentflow_server.interfaces import Engine, EventBus
from agentflow_server.metrics import CountedMetrics, MetricsListener
from agentflow_server.parts import Parts
from agentflow_server.runs.housekeeping import Housekeeper
from agentflow_server.runs.naming import Namer
from agentflow_server.runs.runner import Runner
from agentflow_server.runs.worker import RunRules, Worker


class Openable(Protocol):
    async def open(self) -> None: ...

    async def close(self) -> None: ...


class Backend:
    """May be opened and closed several times. `executes=False`: other processes execute runs."""

    def __init__(self, config: Config, parts: Parts, *, executes: bool = True) -> None:
        self._config = config
        self._parts = parts
        self._executes = executes
        self._bus: EventBus | None = None
        self._engine: Engine | None = None

    async def verify(self, needed: Sequence[Openable] = ()) -> None:
        """Open the database and the agents and close them again; no run is touched.

        Raises what opening would raise.
        """
        async with AsyncExitStack() as stack:
            await self._open_parts(stack, needed)

    @asynccontextmanager
    async def open(self, needed: Sequence[Openable] = ()) -> AsyncIterator[Runner]:
        """What is opened in this order is closed in reverse.

        `needed` works with the database, and must be there before a run is executed. Raises
        ConfigError, StoreUnavailable.
        """
        parts, database = self._parts, self._parts.database
        async with AsyncExitStack() as stack:
            await self._open_parts(stack, needed)
            self._bus = bus = await stack.enter_async_context(database.make_bus())
            namer = await stack.enter_async_context(Namer(database.store, parts.generate_name))
            wake_sender = None
            if parts.sender is not None:
                wake_sender = (await stack.enter_async_context(parts.sender)).wake
            worker = Worker(
                database.store,
                bus,
                parts.agents,
                namer,
                _run_rules(self._config.runs, shared=self._config.is_distributed),
                metrics=parts.metrics,
                tracing=parts.tracing,
                wake_sender=wake_sender,
                lend=parts.connections.lend,
            )
            engine = database.make_engine(worker, bus, executes=self._executes)
            runner = Runner(
                database.store,
                bus,
                engine,
                parts.agents,
                metrics=parts.metrics,
                wake_sender=wake_sender,
            )
            if not self._config.is_distributed:  # where others may be at it
                await runner.finish_deletions()
            await self._open_metrics(stack)
            self._engine = await stack.enter_async_context(engine)
            retention = self._config.runs.event_retention
            await stack.enter_async_context(
                Housekeeper(
                    database.store,
                    database.webhooks,
                    database.grants,
                    runner,
                    event_retention=retention,
                )
            )
            yield runner

    async def drain(self) -> int:
        """Let running runs finish for `runs.shutdown_grace` seconds, then stop them, and answer
        whoever still waits.

        Returns how many agents go on although they were cancelled.
        """
        if self._engine is None or self._bus is None:
            return 0
        clock = asyncio.get_running_loop().time
        end = clock() + self._config.runs.shutdown_grace
        unstoppable = await self._engine.drain()
        await self._bus.wait_for_readers(end - clock())
        self._bus.close()  # whoever waits for a run in line need not wait any longer
        return unstoppable

    def problems(self) -> Sequence[str]:
        """What keeps runs from being executed right now."""
        return () if self._engine is None else self._engine.problems()

    async def _open_parts(self, stack: AsyncExitStack, needed: Sequence[Openable]) -> None:
        await stack.enter_async_context(self._parts.database.store)
        for part in (*needed, self._parts.connections, *self._parts.agents.values()):
            await part.open()
            stack.push_async_callback(part.close)

    async def _open_metrics(self, stack: AsyncExitStack) -> None:
        await stack.enter_async_context(self._parts.tracing)
        place, metrics = self._config.observability.metrics, self._parts.metrics
        if place is not None and isinstance(metrics, CountedMetrics):
            read_queue = self._parts.database.store.read_queue
            listener = MetricsListener(metrics, place.host, place.port, read_queue=read_queue)
            await stack.enter_async_context(listener)


def _run_rules(config: RunsConfig, *, shared: bool) -> RunRules:
    return RunRules(
        history_limit=config.history_limit,
        timeout=config.timeout,
        retry=config.on_crash == "retry",
        max_attempts=config.max_attempts,
        takes_turns=config.takes_turns,
        shared=shared,
    )
