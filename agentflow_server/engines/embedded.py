"""Executes runs as tasks of the server's own process, over the `runs` table."""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol, Self

from agentflow_server.engines.background import undisturbed
from agentflow_server.errors import AgentflowError
from agentflow_server.interfaces import Engine, Store
from agentflow_server.interfaces.leases import make_lease
from agentflow_server.models import ActiveRun, RunError, Stop

log = logging.getLogger(__name__)

STOPPED = RunError(code="server_stopped", detail="The server was stopped before the run had ended")
RETRY_SECONDS = 5.0
HEED_SECONDS = 1.0
UNWILLING_SECONDS = 5.0
"""How long a cancelled agent may take to clean up before it is left alone."""


class Worker(Protocol):
    """Executes one run; never raises anything but CancelledError."""

    async def execute(self, active: ActiveRun) -> ActiveRun | None:
        """Run it to its end. Returns the thread's next run, already claimed."""

    def stop(self, run_id: str, how: Stop) -> None:
        """End a run that is being executed, or is about to be."""

    async def recover(self, active: ActiveRun, *, claim: bool = True) -> ActiveRun | None:
        """End a run whose worker died, or return it to be executed again; without `claim` it is
        put back in line instead.

        Raises StoreUnavailable, LeaseLost.
        """

    async def abandon(self, active: ActiveRun, error: RunError) -> None:
        """End a run that nobody executes any more. Raises StoreUnavailable, LeaseLost."""

    def stop_claiming(self) -> None:
        """From now on `execute` returns None: what waits stays for the next start."""


class Neighbours(Protocol):
    """Other processes that write into the same database: commands of operators."""

    async def have_written(self) -> bool:
        """Since the last call. Raises StoreUnavailable."""


class EmbeddedEngine(Engine):
    """One task per busy thread, which drains the thread's queue.

    With limits to how many runs are executed at a time, threads do not keep their task: whichever
    waits longest is next.
    """

    def __init__(
        self,
        store: Store,
        worker: Worker,
        *,
        grace: float,
        concurrency: int | None = None,
        takes_turns: bool = False,
        neighbours: Neighbours | None = None,
        wake_readers: Callable[[], None] | None = None,
    ) -> None:
        """`takes_turns`: the worker never claims a thread's next run; with `concurrency` set, it
        must not. `wake_readers` is called when `neighbours` have written, who tell nobody."""
        self._store = store
        self._worker = worker
        self._grace = grace
        self._tasks: dict[asyncio.Task[None], ActiveRun] = {}
        self._deadline: float | None = None
        self._waiter: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._concurrency = concurrency
        self._takes_turns = takes_turns
        self._reserved = 0
        self._has_line = False
        """Whether somebody may wait for room. It is believed until a look shows nobody."""
        self._marks = 0
        self._unstoppable = 0
        self._neighbours = neighbours
        self._wake_readers = wake_readers or (lambda: None)
        self._heeding: asyncio.Task[None] | None = None
        self._is_told = False
        self._sought: str | None = None

    async def __aenter__(self) -> Self:
        if self._neighbours is not None:
            await self._neighbours.have_written()  # what comes after this will be noticed
        for active in await self._store.interrupted_runs():
            await self._recover(active)
        await self._fill()
        self._waiter = asyncio.create_task(self._serve_line(), name="runs-in-line")
        if self._neighbours is not None:
            self._heeding = asyncio.create_task(self._heed(self._neighbours), name="neighbours")
        return self

    async def _recover(self, active: ActiveRun) -> None:
        claim = self._take_place()
        try:
            recovered = await self._worker.recover(active, claim=claim)
        finally:
            if claim:
                self.release()
        if recovered is not None:
            await self.dispatch(recovered)

    async def _heed(self, neighbours: Neighbours) -> None:
        """Do what operators' commands have left to be done."""
        while True:
            pause = RETRY_SECONDS
            async with undisturbed("looking for what commands have written"):
                if await neighbours.have_written():
                    self._wake_readers()
                    for active in await self._store.interrupted_runs():
                        if active.stopping is not None:
                            self.stop(active.run.run_id, active.stopping)
                    self._is_told = True
                    self._changed.set()
                pause = HEED_SECONDS
            await asyncio.sleep(pause)

    async def _fill(self) -> None:
        """Execute what waits, as much as there is room for."""
        while self._take_place():
            marks = self._marks
            try:
                claimed = await self._claim()
            finally:
                self.release()
            if claimed is None:
                # Unless somebody came after the look into the line.
                self._has_line = self._has_line and marks != self._marks
                return
            await self.dispatch(claimed)

    async def _fill_when_told(self) -> None:
        self._is_told = False
        try:
            await self._fill()
        except BaseException:
            self._is_told = True
            raise

    async def _claim(self) -> ActiveRun | None:
        """The next run in line. One that was claimed when the database gave no answer is ours."""
        if self._sought is not None:
            found = await self._store.find_running(self._sought)
            self._sought = None
            if found is not None:
                return found
        self._sought = lease = make_lease()
        claimed = await self._store.claim_next(lease=lease)
        self._sought = None
        return claimed

    async def _serve_line(self) -> None:
        """Start what waits for its time or for room, for as long as the engine is open."""
        while self._deadline is None:
            wait: float | None = RETRY_SECONDS
            async with undisturbed("starting runs in line"):
                threads, next_due = await self._store.release_delayed(datetime.now(UTC))
                if threads or self._takes_turns or self._is_told:
                    await self._fill_when_told()
                wait = None if next_due is None else _seconds_until(next_due)
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()

    def reserve(self) -> bool:
        """Nobody who comes now goes before those in line, however short their way."""
        if self._has_line or not self._take_place():
            self._mark_line()
            return False
        return True

    def _mark_line(self) -> None:
        self._has_line = self._concurrency is not None
        self._marks += 1

    def _take_place(self) -> bool:
        taken = len(self._tasks) + self._reserved
        if self._concurrency is not None and taken >= self._concurrency:
            return False
        self._reserved += 1
        return True

    def release(self) -> None:
        self._reserved -= 1
        if self._has_line:
            self._changed.set()

    def note_waiting(self) -> None:
        self._mark_line()
        self._changed.set()

    def stop(self, run_id: str, how: Stop) -> None:
        if any(active.run.run_id == run_id for active in self._tasks.values()):
            self._worker.stop(run_id, how)

    async def __aexit__(self, *exc_info: object) -> None:
        await self.drain()

    async def drain(self) -> int:
        self._worker.stop_claiming()
        clock = asyncio.get_running_loop().time
        if self._deadline is None:
            self._deadline = clock() + self._grace
        if self._waiter is not None:
            # Not cancelled if that can be avoided: what it is claiming now is ours to execute.
            self._changed.set()
            await asyncio.wait({self._waiter}, timeout=UNWILLING_SECONDS)
            self._waiter.cancel()
            self._waiter = None
        if self._tasks:
            await self._end_tasks(self._deadline)
        if self._heeding is not None:
            # Only now: an operator may cancel what keeps the server from ending.
            self._heeding.cancel()
            await asyncio.wait({self._heeding})
            self._heeding = None
        return self._unstoppable

    async def _end_tasks(self, deadline: float) -> None:
        left = max(0.0, deadline - asyncio.get_running_loop().time())
        log.info("waiting up to %.0f s for %d running runs", left, len(self._tasks))
        _, late = await asyncio.wait(self._tasks, timeout=left)
        for task in late:
            task.cancel()
        if late:
            _, unwilling = await asyncio.wait(late, timeout=UNWILLING_SECONDS)
            self._unstoppable = len(unwilling)
            await self._give_up({self._tasks.pop(task).lease for task in unwilling})

    async def _give_up(self, leases: set[str]) -> None:
        for active in await self._store.interrupted_runs() if leases else ():
            if active.lease in leases:
                log.error("run %s does not stop: left alone, marked error", active.run.run_id)
                try:
                    await self._worker.abandon(active, STOPPED)
                except AgentflowError:
                    log.exception("run %s: its end cannot be stored", active.run.run_id)

    async def dispatch(self, active: ActiveRun) -> None:
        task = asyncio.create_task(self._work(active), name=f"thread-{active.run.thread_id}")
        self._tasks[task] = active
        task.add_done_callback(self._make_room)

    def _make_room(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if self._takes_turns:
            self._changed.set()

    async def _work(self, active: ActiveRun) -> None:
        """Drain the thread's queue."""
        task = asyncio.current_task()
        following: ActiveRun | None = active
        while following is not None:
            if task in self._tasks:
                self._tasks[task] = following
            following = await self._worker.execute(following)


def _seconds_until(moment: datetime) -> float:
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
