"""Executes runs in any number of processes, over the `runs` table of one PostgreSQL database."""

import asyncio
import logging
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Self

from agentflow_server.engines.background import undisturbed
from agentflow_server.engines.embedded import EmbeddedEngine, Worker
from agentflow_server.engines.postgres_leases import Database, Leases, Watch
from agentflow_server.errors import LeaseLost
from agentflow_server.interfaces import EventBus, Store
from agentflow_server.models import ActiveRun, Stop

log = logging.getLogger(__name__)

LEASE_SECONDS = 15.0
"""A run whose lease nobody renews for so long has lost its worker."""
BEATS_PER_LEASE = 5

POLL_SECONDS = 1.5
"""How often an idle worker looks for what nobody told it."""
DELAYED_POLL_SECONDS = 5.0
DELAY_PRECISION_SECONDS = 0.25
CLEANING_SECONDS = 60.0
SILENT_SECONDS = 10.0
CLAIMING_SECONDS = 5.0

WAITING = "waiting"
STOP = "stop"


class PostgresEngine(EmbeddedEngine):
    """What this process claims it executes like the embedded engine; beside that it takes up runs
    that others have no room for, and those of processes that died.

    The queue is the `runs` table itself: a claim is an update of the run, every write carries the
    lease, and the index of running runs keeps two of them off one thread. Signals only save time.
    """

    def __init__(
        self,
        store: Store,
        worker: Worker,
        *,
        database: Database,
        signals: EventBus,
        grace: float,
        concurrency: int | None = None,
        takes_turns: bool = False,
        lease: float = LEASE_SECONDS,
        poll: float = POLL_SECONDS,
    ) -> None:
        """`concurrency=0`: execute nothing, leave it to other processes. `lease` and `poll` in
        seconds."""
        super().__init__(
            store, worker, grace=grace, concurrency=concurrency, takes_turns=takes_turns
        )
        self._leases = Leases(database)
        self._signals = signals
        self._watch = Watch(lease)
        self._pause = lease / BEATS_PER_LEASE
        self._poll = poll
        self._looked_at: float | None = None
        self._next_delayed = self._released_at = float("-inf")
        self._next_cleaning = float("-inf")
        self._beat_now = asyncio.Event()
        self._closing = asyncio.Event()
        self._heart: asyncio.Task[None] | None = None
        self._guard: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._concurrency != 0:
            self._looked_at = asyncio.get_running_loop().time()
            self._signals.listen(WAITING, lambda _: self._look())
            self._signals.listen(STOP, self._hear_stop)
            self._heart = asyncio.create_task(self._beat(), name="heartbeat")
            self._guard = asyncio.create_task(self._watch_others(), name="watch")
            self._waiter = asyncio.create_task(self._serve_line(), name="runs-in-line")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.drain()
        if self._heart is not None:
            self._heart.cancel()
            await asyncio.wait({self._heart})

    async def drain(self) -> int:
        self._worker.stop_claiming()
        self._closing.set()
        self._changed.set()
        loops = {loop for loop in (self._waiter, self._guard) if loop is not None}
        if loops:
            # Not cancelled if that can be avoided: what they are claiming now is ours to execute.
            _, late = await asyncio.wait(loops, timeout=CLAIMING_SECONDS)
            for loop in late:
                loop.cancel()
        unstoppable = await super().drain()
        self._signals.tell(WAITING)
        return unstoppable

    def problems(self) -> Sequence[str]:
        """What keeps this process from executing runs right now."""
        if self._looked_at is None:
            return ()
        silent = asyncio.get_running_loop().time() - self._looked_at
        if silent < SILENT_SECONDS + 2 * self._poll:
            return ()
        return (f"the worker has not reached the database for {silent:.0f} s",)

    # What waits

    def _take_place(self) -> bool:
        return not self._closing.is_set() and super()._take_place()

    def note_waiting(self) -> None:
        self._mark_line()
        self._look()
        self._signals.tell(WAITING)

    def _look(self) -> None:
        self._next_delayed = min(self._next_delayed, self._released_at + DELAY_PRECISION_SECONDS)
        self._changed.set()

    async def _serve_line(self) -> None:
        """Start what waits for its time or for room; whoever is first takes it."""
        while not self._closing.is_set():
            self._changed.clear()
            wait = self._poll * random.uniform(0.8, 1.2)  # noqa: S311 – replicas take turns
            async with undisturbed("looking for runs"):
                wait = min(wait, await self._release_delayed())
                await self._fill()
                self._looked_at = asyncio.get_running_loop().time()
            await _wait(self._changed, wait)

    async def _release_delayed(self) -> float:
        """Seconds until the next time to do so."""
        clock = asyncio.get_running_loop().time
        if clock() >= self._next_delayed:
            now = datetime.now(UTC)
            _, next_due = await self._store.release_delayed(now)
            wait = DELAYED_POLL_SECONDS
            if next_due is not None:
                wait = min(wait, max(0.0, (next_due - now).total_seconds()))
            self._released_at = clock()
            self._next_delayed = self._released_at + wait
        return self._next_delayed - clock()

    # What is executed here

    def stop(self, run_id: str, how: Stop) -> None:
        if self._executes(run_id):
            self._worker.stop(run_id, how)
        else:
            self._signals.tell(STOP, run_id)

    def _hear_stop(self, run_id: str) -> None:
        if self._executes(run_id):
            self._beat_now.set()  # it asks the store, which knows

    def _executes(self, run_id: str) -> bool:
        return any(active.run.run_id == run_id for active in self._tasks.values())

    async def _beat(self) -> None:
        while True:
            self._beat_now.clear()
            async with undisturbed("renewing leases"):
                await self._renew()
            await _wait(self._beat_now, self._pause)

    async def _renew(self) -> None:
        """Keep the runs that are executed here, and stop those that are marked or taken away."""
        held = {active.lease: active.run.run_id for active in self._tasks.values()}
        if not held:
            return
        ours = await self._leases.renew(held)
        still_here = {active.lease for active in self._tasks.values()}
        for lease, run_id in held.items():
            if lease not in still_here:
                continue
            if lease not in ours:
                # It may also be ending just now. Nothing that its agent does would be stored.
                self._worker.stop(run_id, "cancel")
            elif how := ours[lease]:
                self._worker.stop(run_id, how)

    # What others execute

    async def _watch_others(self) -> None:
        while not self._closing.is_set():
            async with undisturbed("watching other workers"):
                await self._recover_lost()
            await _wait(self._closing, self._pause)

    async def _recover_lost(self) -> None:
        beats = dict(await self._leases.list_beats())
        for active in self._tasks.values():
            beats.pop(active.lease, None)
        moment = asyncio.get_running_loop().time()
        dead = self._watch.find_dead(beats, moment)
        for active in await self._store.interrupted_runs() if dead else ():
            if active.lease in dead:
                await self._recover(active)
        if moment > self._next_cleaning:
            self._next_cleaning = moment + CLEANING_SECONDS
            await self._leases.forget_ended()

    async def _recover(self, active: ActiveRun) -> None:
        if not self._take_place():
            return
        try:
            recovered = await self._worker.recover(active)
        except LeaseLost:
            return  # another process was faster, or its worker is alive after all
        finally:
            self.release()
        if recovered is not None:
            await self.dispatch(recovered)
        self._look()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
