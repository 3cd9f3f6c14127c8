"""Starts turns, waits for them and follows them: what every protocol is a translation of."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from uuid_utils import uuid7

from agentflow_server.errors import NotFound, RequestInProgress, RunFailed, ServerStopping
from agentflow_server.interfaces import Agent, Engine, EventBus, Store
from agentflow_server.models import (
    TERMINAL_EVENTS,
    Content,
    Event,
    Idempotency,
    JsonObject,
    Message,
    NewRun,
    OnBusy,
    Principal,
    Run,
    RunError,
    StartedRun,
)
from agentflow_server.runs.worker import AGENT_FAILED

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 15.0
EVENTS_PER_READ = 64


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """A message to an agent, checked at the edge."""

    content: Content
    agent: str | None
    metadata: JsonObject
    config: JsonObject
    on_busy: OnBusy = "enqueue"
    start_after: datetime | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn that succeeded: `messages` is what the agent said, as JSON objects, in order."""

    thread_id: str
    run_id: str
    messages: list[JsonObject]


class Runner:
    """The door to everything that happens on threads."""

    def __init__(
        self, store: Store, bus: EventBus, engine: Engine, agents: Mapping[str, Agent]
    ) -> None:
        self.store = store
        self.agents = agents
        self._bus = bus
        self._engine = engine
        self._default_agent = next(iter(agents))
        self._starting: set[asyncio.Task[StartedRun]] = set()

    async def start(
        self,
        caller: Principal,
        thread_id: str,
        request: TurnRequest,
        idempotency: Idempotency | None = None,
        *,
        run_id: str | None = None,
    ) -> StartedRun:
        """Store the message and its run, and see to it that the run is executed.

        Raises NotFound, Conflict, and RequestInProgress while an earlier request with the same
        idempotency key has not ended.
        """
        new = self._new_run(caller, thread_id, request, run_id)
        # A task of ours: a caller who is cancelled between the two would leave a run that is
        # stored as running and that nobody executes.
        task = asyncio.create_task(self._store_and_dispatch(caller.id, new, idempotency))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)
        started = await asyncio.shield(task)
        if started.replayed and started.run.ended_at is None:
            raise RequestInProgress("The first request with this Idempotency-Key has not ended")
        return started

    async def _store_and_dispatch(
        self, owner: str, new: NewRun, idempotency: Idempotency | None
    ) -> StartedRun:
        started = await self.store.start_run(owner, new, idempotency=idempotency)
        if started.active is not None:
            await self._engine.dispatch(started.active)
        return started

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
                return await self._replay(started.run)
            messages: list[JsonObject] = []
            after = 0
            while True:
                events = await subscription.receive(HEARTBEAT_SECONDS)
                if not events or events[0].seq != after + 1:
                    events = await self._read_events(run_id, after)
                for event in events:
                    after = event.seq
                    if event.type == "message.completed":
                        messages.append(event.data)
                    elif event.type in TERMINAL_EVENTS:
                        return _turn(started.run, event, messages)

    async def follow(
        self, owner: str, run: Run, *, after: int = 0
    ) -> AsyncGenerator[Event | None, None]:
        """The run's events with `seq > after`, to its end, without gap or repeat.

        None is a sign of life when nothing happened for HEARTBEAT_SECONDS. It also ends when the
        server stops: whoever follows comes back with the number of the event he saw last.
        """
        try:
            async for event in self._follow(owner, run, after):
                yield event
        except ServerStopping:
            return

    async def _follow(self, owner: str, run: Run, after: int) -> AsyncGenerator[Event | None, None]:
        idle = False
        async with self._bus.subscribe(run.run_id) as subscription:
            while True:
                stored = await self._read_events(run.run_id, after)
                for event in stored:
                    after = event.seq
                    yield event
                    if event.type in TERMINAL_EVENTS:
                        return
                if len(stored) == EVENTS_PER_READ:
                    continue
                if not stored and (
                    run.ended_at or (idle and await self._is_over(owner, run, after))
                ):
                    return
                # As long as the bus hands on what comes next, the store need not be asked.
                while events := await subscription.receive(HEARTBEAT_SECONDS):
                    fresh = [event for event in events if event.seq > after]
                    if fresh and fresh[0].seq != after + 1:
                        break  # the bus dropped something: the store has it
                    for event in fresh:
                        after = event.seq
                        yield event
                        if event.type in TERMINAL_EVENTS:
                            return
                else:
                    idle = True
                    yield None

    async def _read_events(self, run_id: str, after: int) -> Sequence[Event]:
        return await self.store.list_events(run_id, after=after, limit=EVENTS_PER_READ)

    async def _is_over(self, owner: str, run: Run, after: int) -> bool:
        """Nothing more will be stored: the run has ended, or its thread is deleted."""
        try:
            now = await self.store.get_run(owner, run.thread_id, run.run_id)
        except NotFound:
            return True
        return now.ended_at is not None and not await self._read_events(run.run_id, after)

    async def delete_thread(self, caller: Principal, thread_id: str) -> None:
        """Delete a thread and everything of it, also what the agent's framework keeps.

        Raises NotFound, ThreadBusy. From then on nobody finds the thread; what of it cannot be
        deleted now is deleted at the next start, and until then its id stays taken.
        """
        agent = await self.store.hide_thread(caller.id, thread_id)
        await self._purge(thread_id, agent)

    async def finish_deletions(self) -> None:
        """Complete what was cut short."""
        for thread_id, agent in await self.store.list_hidden_threads():
            await self._purge(thread_id, agent)

    async def _purge(self, thread_id: str, agent: str | None) -> None:
        try:
            if agent is not None and agent in self.agents:
                await self.agents[agent].forget(thread_id)
            await self.store.purge_thread(thread_id)
        except Exception:  # the user's checkpointer may raise anything; the thread stays hidden
            log.exception("thread %s is not wholly deleted: the next start tries again", thread_id)

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
        )

    async def _replay(self, run: Run) -> Turn:
        if run.status != "success":
            raise _failure(run, run.error or AGENT_FAILED)
        messages = await self.store.run_messages(run.run_id)
        return Turn(run.thread_id, run.run_id, [_json(message) for message in messages[1:]])


def _turn(run: Run, ended: Event, messages: list[JsonObject]) -> Turn:
    if ended.type != "run.completed":
        raise _failure(run, RunError(**ended.data["error"]))
    return Turn(run.thread_id, run.run_id, messages)


def _failure(run: Run, error: RunError) -> RunFailed:
    return RunFailed(
        error.detail, code=error.code, details={"thread_id": run.thread_id, "run_id": run.run_id}
    )


def _json(message: Message) -> JsonObject:
    return message.model_dump(mode="json")
