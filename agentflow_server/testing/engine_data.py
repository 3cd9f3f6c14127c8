"""A server without its HTTP, and agents that do as they are told, for the tests of an Engine."""
# ruff: noqa: S101 - asserting is what a suite is for

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from agentflow_server.interfaces import Engine, EventBus, Store
from agentflow_server.models import ActiveRun, Answer, Event, JsonObject, Run, Stop
from agentflow_server.testing.store_data import ALICE, asking, make_thread, new_run

PATIENCE = 30.0
"""Seconds after which a test gives up. No engine takes so long."""

LOOK_SECONDS = 0.05

Function = Callable[[list[JsonObject], JsonObject], Any]


@dataclass(frozen=True)
class Replica:
    """One process of a server: it starts and stops runs as requests would make it."""

    store: Store
    bus: EventBus
    engine: Engine

    async def thread(self, owner: str = ALICE) -> str:
        return (await make_thread(self.store, owner)).thread_id

    async def start(
        self, thread_id: str, content: str = "Hello", owner: str = ALICE, **changes: Any
    ) -> Run:
        """Accept a message; nobody waits for its answer."""
        new = new_run(thread_id, content, agent="agent", **changes)
        claim = self.engine.reserve()
        try:
            started = await self.store.start_run(owner, new, claim=claim)
        finally:
            if claim:
                self.engine.release()
        if started.active is not None:
            await self.engine.dispatch(started.active)
        else:
            self.engine.note_waiting()
        return started.run

    async def ask(self, thread_id: str, content: str = "Hello") -> Run:
        """A run that has ended with a question."""
        active = await self.claim_and_die(thread_id, content)
        run_id = active.run.run_id
        log = [Event(run_id, 1, "run.started", {}), Event(run_id, 2, "interrupt", {})]
        await self.store.finish_run(active, asking("q1"), [], log, claim_next=False)
        return await self.look(active.run)

    async def resume(self, run: Run, value: Any = "yes") -> Run:
        """Accept an answer; nobody waits for what comes of it."""
        answer = Answer(value=value)
        claim = self.engine.reserve()
        try:
            resumed = await self.store.resume_run(
                ALICE, run.thread_id, run.run_id, answer, claim=claim
            )
        finally:
            if claim:
                self.engine.release()
        if resumed.active is not None:
            await self.engine.dispatch(resumed.active)
        else:
            self.engine.note_waiting()
        return resumed.run

    async def claim_and_die(self, thread_id: str, content: str = "Hello") -> ActiveRun:
        """Accept a message as a process that is killed before it has executed it."""
        started = await self.store.start_run(ALICE, new_run(thread_id, content, agent="agent"))
        assert started.active is not None
        return started.active

    async def stop(self, run: Run, how: Stop = "cancel") -> None:
        marked = await self.store.stop_run(ALICE, run.thread_id, run.run_id, how)
        if marked.ended_at is None:
            self.engine.stop(run.run_id, how)

    async def look(self, run: Run, owner: str = ALICE) -> Run:
        return await self.store.get_run(owner, run.thread_id, run.run_id)

    async def ended(self, run: Run, owner: str = ALICE) -> Run:
        """The run when it has ended, whoever executes it."""
        async with asyncio.timeout(PATIENCE), self.bus.subscribe(run.run_id) as subscription:
            while (now := await self.look(run, owner)).ended_at is None:
                await subscription.receive(LOOK_SECONDS)
        return now

    async def statuses(self, runs: Sequence[Run]) -> list[str]:
        return [(await self.look(run)).status for run in runs]

    async def answers(self, run: Run) -> list[Any]:
        """What the thread remembers of it beside the question."""
        return [message.content for message in (await self.store.run_messages(run.run_id))[1:]]


async def list_events(replica: Replica, run_id: str) -> Sequence[Event]:
    return await replica.store.list_events(run_id, after=0, limit=100)


async def echo(messages: list[JsonObject], config: JsonObject) -> Any:
    return messages[-1]["content"]


class OpenReplica(Protocol):
    """Opens one process after the other, or several at once, on one and the same database."""

    def __call__(
        self,
        function: Function,
        *,
        grace: float = PATIENCE,
        concurrency: int | None = None,
        per_owner: int | None = None,
        retry: bool = False,
    ) -> AbstractAsyncContextManager[Replica]:
        """With `function` served as the agent `agent`. `retry`: what a dead process left behind
        is executed again, else it is ended."""


class Gate:
    """An agent whose turns begin at once and end when they are let go."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.busy: set[str] = set()
        self.most = 0
        self.collisions = 0
        self._let_go = asyncio.Semaphore(0)
        self._changed = asyncio.Condition()

    async def __call__(self, messages: list[JsonObject], config: JsonObject) -> str:
        thread_id, text = str(config["thread_id"]), str(messages[-1]["content"])
        self.collisions += thread_id in self.busy
        self.order.append(text)
        self.busy.add(thread_id)
        self.most = max(self.most, len(self.busy))
        await self._tell()
        try:
            await self._let_go.acquire()
        finally:
            self.busy.discard(thread_id)
        return f"done with {text}"

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def open(self, turns: int = 1) -> None:
        for _ in range(turns):
            self._let_go.release()

    async def begun(self, count: int = 1) -> None:
        """Returns when so many turns have begun since it was built."""
        async with asyncio.timeout(PATIENCE), self._changed:
            await self._changed.wait_for(lambda: len(self.order) >= count)
