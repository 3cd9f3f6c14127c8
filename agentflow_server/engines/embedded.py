"""Executes runs as tasks of the server's own process, over the `runs` table."""

import asyncio
import logging
from typing import Protocol, Self

from agentflow_server.interfaces import Engine, Store
from agentflow_server.models import ActiveRun, RunError

log = logging.getLogger(__name__)

RESTARTED = RunError(code="server_restarted", detail="The server stopped before the run had ended")


class Worker(Protocol):
    """Executes one run; never raises anything but CancelledError."""

    async def execute(self, active: ActiveRun) -> ActiveRun | None:
        """Run it to its end. Returns the thread's next run, already claimed."""

    async def abandon(self, active: ActiveRun, error: RunError) -> None:
        """End a run that nobody executes any more; claims nothing."""


class EmbeddedEngine(Engine):
    """One task per busy thread, which drains the thread's queue."""

    def __init__(self, store: Store, worker: Worker, *, grace: float) -> None:
        self._store = store
        self._worker = worker
        self._grace = grace
        self._tasks: set[asyncio.Task[None]] = set()
        self._deadline: float | None = None

    async def __aenter__(self) -> Self:
        for active in await self._store.interrupted_runs():
            log.warning(
                "run %s was running when the server stopped: marked error", active.run.run_id
            )
            await self._worker.abandon(active, RESTARTED)
        for thread_id in await self._store.waiting_threads():
            if waiting := await self._store.claim_run(thread_id):
                await self.dispatch(waiting)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.drain()

    async def drain(self) -> None:
        """Let running runs finish for the grace period, which begins with the first call, then
        stop them."""
        clock = asyncio.get_running_loop().time
        if self._deadline is None:
            self._deadline = clock() + self._grace
        if self._tasks:
            left = max(0.0, self._deadline - clock())
            log.info("waiting up to %.0f s for %d running runs", left, len(self._tasks))
            _, late = await asyncio.wait(self._tasks, timeout=left)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def dispatch(self, active: ActiveRun) -> None:
        task = asyncio.create_task(self._drain(active), name=f"thread-{active.run.thread_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drain(self, active: ActiveRun) -> None:
        following: ActiveRun | None = active
        while following is not None:
            following = await self._worker.execute(following)
