"""Starts turns, waits for them and follows them: what every protocol is a translation of."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from uuid_utils import uuid7

from agentflow_server.errors import (
    AgentflowError,
    NotFound,
    RequestInProgress,
    RunEnded,
    ServerStopping,
)
from agentflow_server.interfaces import Agent, Engine, EventBus, Store
from agentflow_server.metrics import Metrics
from agentflow_server.models import (
    UNKNOWN_ORIGIN,
    Answer,
    Content,
    Event,
    Idempotency,
    JsonObject,
    NewRun,
    OnBusy,
    Origin,
    Principal,
    ResumedRun,
    Run,
    StartedRun,
    Stop,
    Thread,
)
from agentflow_server.runs.copying import CopyRequest, copy_thread
from agentflow_server.runs.following import EVENTS_PER_READ, Reader, Turn
from agentflow_server.runs.purging import purge_thread

T = TypeVar("T")

log = logging.getLogger(__name__)

STOP_SECONDS = 5.0
"""How long a request to stop a run waits for its end."""


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """A message to an agent, checked at the edge."""

    content: Content
    agent: str | None
    metadata: JsonObject
    config: JsonObject
    on_busy: OnBusy = "enqueue"
    start_after: datetime | None = None
    origin: Origin = UNKNOWN_ORIGIN
    webhook: str | None = None


class Runner:
    """The door to everything that happens on threads."""

    def __init__(
        self,
        store: Store,
        bus: EventBus,
        engine: Engine,
        agents: Mapping[str, Agent],
        *,
        metrics: Metrics | None = None,
        wake_sender: Callable[[], None] | None = None,
    ) -> None:
        """`wake_sender` is called when a run that nobody was executing has ended: it may have a webhook."""
        self.store = store
        self._wake_sender = wake_sender
        self.agents = agents
        self._bus = bus
        self._engine = engine
        self._reader = Reader(store, bus, metrics or Metrics())
        self._default_agent = next(iter(agents))
        self._unfinished: set[asyncio.Task[Any]] = set()

    async def start(
        self,
        caller: Principal,
        thread_id: str,
        request: TurnRequest,
        idempotency: Idempotency | None = None,
        *,
        run_id: str | None = None,
        in_background: bool = False,
    ) -> StartedRun:
        """Store the message and its run, and see to it that the run is executed.

        Raises NotFound, Conflict, and, unless `in_background`, RequestInProgress while the run of
        an earlier request with the same idempotency key has not ended.
        """
        new = self._new_run(caller, thread_id, request, run_id)
        # A task of ours: a caller who is cancelled between the two would leave a run that is
        # stored as running and that nobody executes.
        started = await self._finish(self._store_and_dispatch(caller.id, new, idempotency))
        if started.replayed and started.run.ended_at is None and not in_background:
            raise RequestInProgress("The first request with this Idempotency-Key has not ended")
        return started

    async def _store_and_dispatch(
        self, owner: str, new: NewRun, idempotency: Idempotency | None
    ) -> StartedRun:
        claim = self._engine.reserve()
        try:
            started = await self.store.start_run(owner, new, idempotency=idempotency, claim=claim)
        finally:
            if claim:
                self._engine.release()
        if started.active is not None:
            await self._engine.dispatch(started.active)
        elif new.start_after is not None or not claim:
            self._engine.note_waiting()
        if started.stopping is not None:
            self._engine.stop(
                started.stopping, "rollback" if new.on_busy == "rollback" else "cancel"
            )
        for run_id in started.cancelled:
            await self._tell_end(run_id)
        return started

    async def _finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Its result; whoever waits for it may be cancelled, the work may not."""
        return await asyncio.shield(self._begin(work))

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._unfinished.add(task)
        task.add_done_callback(self._unfinished.discard)
        return task

    async def resume(
        self, caller: Principal, thread_id: str, run_id: str, answer: Answer
    ) -> ResumedRun:
        """Give an interrupted run its answer, and see to it that it goes on.

        Raises NotFound, NotInterrupted, InvalidRequest.
        """
        return await self._finish(self._resume(caller.id, thread_id, run_id, answer))

    async def _resume(self, owner: str, thread_id: str, run_id: str, answer: Answer) -> ResumedRun:
        claim = self._engine.reserve()
        try:
            resumed = await self.store.resume_run(owner, thread_id, run_id, answer, claim=claim)
        finally:
            if claim:
                self._engine.release()
        if resumed.active is not None:
            await self._engine.dispatch(resumed.active)
        else:
            self._engine.note_waiting()
        return resumed

    async def stop(self, caller: Principal, thread_id: str, run_id: str, how: Stop) -> Run:
        """Stop a run and wait a little for its end; the run as it is then.

        Raises NotFound, RunEnded.
        """
        async with self._bus.subscribe(run_id) as subscription:
            run = await self._finish(self._stop(caller.id, thread_id, run_id, how))
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    while run.ended_at is None:
                        await subscription.receive(STOP_SECONDS)
                        run = await self.store.get_run(caller.id, thread_id, run_id)
            except TimeoutError:
                pass
        if how == "rollback" and run.status == "cancelled":
            await self._check_forgotten(run)
        return run

    async def _check_forgotten(self, run: Run) -> None:
        """Raises RunEnded when another one's cancel was being stored already."""
        if await self.store.run_messages(run.run_id):
            raise RunEnded("The run has ended")

    def stop_later(self, caller: Principal, run: Run) -> None:
        """Stop a run that nobody waits for any more, if it has not ended."""
        self._begin(self._stop_quietly(caller.id, run))

    async def _stop_quietly(self, owner: str, run: Run) -> None:
        try:
            await self._stop(owner, run.thread_id, run.run_id, "cancel")
        except (NotFound, RunEnded):
            pass
        except AgentflowError:
            log.exception("run %s, whose client has gone, cannot be stopped", run.run_id)

    async def _stop(self, owner: str, thread_id: str, run_id: str, how: Stop) -> Run:
        run = await self.store.stop_run(owner, thread_id, run_id, how)
        if run.ended_at is None:
            self._engine.stop(run_id, how)
        else:
            await self._tell_end(run_id)
        return run

    async def _tell_end(self, run_id: str) -> None:
        """Of a run that nobody was executing."""
        if self._wake_sender is not None:
            self._wake_sender()
        last: Sequence[Event] = ()
        while stored := await self.store.list_events(
            run_id, after=last[0].seq if last else 0, limit=EVENTS_PER_READ
        ):
            last = stored[-1:]
        self._bus.publish(last)

    async def send(
        self,
        caller: Principal,
        thread_id: str,
        request: TurnRequest,
        idempotency: Idempotency | None = None,
    ) -> Turn:
        """Start a turn and wait for its end. Also raises RunFailed, ServerStopping."""
        run_id = str(uuid7())
        async with self._bus.subscribe(run_id) as subscription:
            started = await self.start(caller, thread_id, request, idempotency, run_id=run_id)
            if started.replayed:
                return await self._reader.replay(started.run)
            return await self._reader.wait(started.run, subscription, 0)

    async def send_answer(
        self, caller: Principal, thread_id: str, run_id: str, answer: Answer
    ) -> Turn:
        """Resume a run and wait for its end. Also raises RunFailed, ServerStopping."""
        async with self._bus.subscribe(run_id) as subscription:
            resumed = await self.resume(caller, thread_id, run_id, answer)
            return await self._reader.wait(resumed.run, subscription, resumed.last_seq)

    async def wait(self, caller: Principal, run: Run) -> Turn:
        """The turn of a run, when it has ended. Raises RunFailed, ServerStopping, NotFound."""
        async for _ in self.follow(caller.id, run):
            pass
        now = await self.store.get_run(caller.id, run.thread_id, run.run_id)
        if now.ended_at is None:
            raise ServerStopping
        return await self._reader.replay(now)

    def follow(self, owner: str, run: Run, *, after: int = 0) -> AsyncGenerator[Event | None, None]:
        """The run's events as `Reader.follow` has them."""
        return self._reader.follow(owner, run, after)

    async def delete_thread(self, caller: Principal, thread_id: str) -> None:
        """Delete a thread and everything of it, also what the agent's framework keeps.

        Raises NotFound, ThreadBusy. From then on nobody finds the thread; what of it cannot be
        deleted now is deleted later, and until then its id stays taken.
        """
        agent = await self.store.hide_thread(caller.id, thread_id)
        await purge_thread(self.store, self.agents, thread_id, agent)

    async def finish_deletions(self, *, older_than: float = 0.0) -> None:
        """Complete what was cut short so many seconds ago. Raises StoreUnavailable."""
        for thread_id, agent in await self.store.list_hidden_threads(older_than=older_than):
            await purge_thread(self.store, self.agents, thread_id, agent)

    async def copy_thread(
        self,
        caller: Principal,
        thread_id: str,
        request: CopyRequest,
        idempotency: Idempotency | None = None,
    ) -> Thread:
        """A new thread of the same caller with the conversation so far.

        Raises NotFound, Conflict.
        """
        copying = copy_thread(
            self.store, self.agents, caller.id, thread_id, request, idempotency=idempotency
        )
        return await self._finish(copying)

    def _new_run(
        self, caller: Principal, thread_id: str, request: TurnRequest, run_id: str | None
    ) -> NewRun:
        agent = request.agent
        if agent is not None and agent not in self.agents:
            raise NotFound("There is no such agent")
        return NewRun(
            run_id=run_id or str(uuid7()),
            thread_id=thread_id,
            agent=agent or self._default_agent,
            agent_is_default=agent is None,
            message_id=str(uuid7()),
            content=request.content,
            metadata=request.metadata,
            claims=dict(caller.claims),
            config=request.config,
            on_busy=request.on_busy,
            start_after=request.start_after,
            origin=request.origin,
            webhook=request.webhook,
        )
