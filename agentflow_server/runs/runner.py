"""Starts turns, waits for them and follows them: what every protocol is a translation of."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from uuid_utils import uuid7

from agentflow_server.errors import NotFound, RequestInProgress, RunFailed
from agentflow_server.interfaces import Agent, Engine, EventBus, Store
from agentflow_server.models import (
    TERMINAL_EVENTS,
    Content,
    Event,
    Idempotency,
    JsonObject,
    Message,
    NewRun,
    Principal,
    Run,
    RunError,
    StartedRun,
)

HEARTBEAT_SECONDS = 15.0
EVENTS_PER_READ = 500
_FAILED = RunError(code="agent_failed", detail="The agent could not finish this turn")


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """A message to an agent, checked at the edge."""

    content: Content
    agent: str | None
    metadata: JsonObject
    config: JsonObject
    reject_if_busy: bool = False


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
        started = await self.store.start_run(
            caller.id, self._new_run(caller, thread_id, request, run_id), idempotency=idempotency
        )
        if started.replayed and started.run.ended_at is None:
            raise RequestInProgress("The first request with this Idempotency-Key has not ended")
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
        """Start a turn and wait for its end. Also raises RunFailed."""
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
                    events = await self.store.list_events(
                        run_id, after=after, limit=EVENTS_PER_READ
                    )
                for event in events:
                    after = event.seq
                    if event.type == "message.completed":
                        messages.append(event.data)
                    elif event.type in TERMINAL_EVENTS:
                        return _turn(started.run, event, messages)

    async def follow(self, run_id: str, *, after: int = 0) -> AsyncIterator[Event | None]:
        """The run's events with `seq > after`, to its end, without gap or repeat.

        None is a sign of life when nothing happened for HEARTBEAT_SECONDS. The caller has made
        sure that the run is his.
        """
        async with self._bus.subscribe(run_id) as subscription:
            events = await self.store.list_events(run_id, after=after, limit=EVENTS_PER_READ)
            while True:
                for event in events:
                    if event.seq <= after:
                        continue
                    if event.seq > after + 1:
                        break  # the bus dropped something: the store has it
                    after = event.seq
                    yield event
                    if event.type in TERMINAL_EVENTS:
                        return
                else:
                    if len(events) < EVENTS_PER_READ:
                        events = await subscription.receive(HEARTBEAT_SECONDS)
                        if events:
                            continue
                        yield None
                events = await self.store.list_events(run_id, after=after, limit=EVENTS_PER_READ)

    async def delete_thread(self, caller: Principal, thread_id: str) -> None:
        """Delete a thread and everything of it, also what the agent's framework keeps.

        Raises NotFound, ThreadBusy. A deletion cut short is finished at the next start.
        """
        agent = await self.store.hide_thread(caller.id, thread_id)
        await self._purge(thread_id, agent)

    async def finish_deletions(self) -> None:
        """Complete what a crash interrupted."""
        for thread_id, agent in await self.store.list_hidden_threads():
            await self._purge(thread_id, agent)

    async def _purge(self, thread_id: str, agent: str | None) -> None:
        if agent is not None and agent in self.agents:
            await self.agents[agent].forget(thread_id)
        await self.store.purge_thread(thread_id)

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
            reject_if_busy=request.reject_if_busy,
        )

    async def _replay(self, run: Run) -> Turn:
        if run.status != "success":
            raise _failure(run, run.error or _FAILED)
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
