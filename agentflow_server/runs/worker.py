"""Executes one claimed run: the agent's turn, from its context to its stored end."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import aclosing

from agentflow_server.adapters import AgentInterrupted
from agentflow_server.engines.embedded import STOPPED
from agentflow_server.errors import AgentflowError, LeaseLost, StoreUnavailable
from agentflow_server.interfaces import Agent, EventBus, Store
from agentflow_server.models import ActiveRun, Message, RunError, RunOutcome
from agentflow_server.runs.context import build_context
from agentflow_server.runs.naming import Namer
from agentflow_server.runs.recorder import Recorder

log = logging.getLogger(__name__)

SUCCESS = RunOutcome("success")
AGENT_FAILED = RunError(code="agent_failed", detail="The agent could not finish this turn")
AGENT_ASKED = RunError(
    code="agent_interrupted", detail="The agent stopped to ask something, which has no way back yet"
)
AGENT_GONE = RunError(code="agent_unknown", detail="This server no longer has the thread's agent")
STORE_FAILED = RunError(code="store_unavailable", detail="What the agent said could not be stored")

MAX_RETRY_SECONDS = 30.0
STOPPING_RETRY_SECONDS = 1.0


class Worker:
    """Knows the agents, and how to drive them. One instance serves all runs."""

    def __init__(
        self,
        store: Store,
        bus: EventBus,
        agents: Mapping[str, Agent],
        namer: Namer,
        *,
        history_limit: int | None = None,
    ) -> None:
        self._store = store
        self._bus = bus
        self._agents = agents
        self._namer = namer
        self._history_limit = history_limit
        self._stopping = False

    async def execute(self, active: ActiveRun) -> ActiveRun | None:
        """Run it to its end. Returns the thread's next run, already claimed.

        Never raises anything but CancelledError, when the server stops; the end of the run is
        stored then, too, unless the database refuses it for a while.
        """
        recorder = Recorder(self._store, self._bus, active)
        try:
            outcome = await self._drive(active, recorder)
        except asyncio.CancelledError:
            self._stopping = True
            await self._finish(recorder, active, RunOutcome("error", STOPPED))
            raise
        following = await self._finish(recorder, active, outcome)
        if active.turn == 1:
            self._namer.name_later(active)
        return following

    def stop_claiming(self) -> None:
        """From now on, what waits in line stays there for the next start."""
        self._stopping = True

    async def abandon(self, active: ActiveRun, error: RunError) -> None:
        """End a run that nobody executes any more; its event log goes on where it stopped.

        Raises StoreUnavailable, LeaseLost.
        """
        recorder = Recorder(self._store, self._bus, active)
        if active.last_seq == 0:
            recorder.start()
        await recorder.finish(RunOutcome("error", error), claim_next=False)

    async def _drive(self, active: ActiveRun, recorder: Recorder) -> RunOutcome:
        agent = self._agents.get(active.run.agent)
        if agent is None:
            log.error(
                "run %s wants agent %r, which is not served", active.run.run_id, active.run.agent
            )
            return RunOutcome("error", AGENT_GONE)
        try:
            recorder.start()
            context = build_context(active, reserved=agent.reserved)
            stream = agent.stream(context, await self._messages(agent, active))
            async with aclosing(stream) as events:
                async for event in events:
                    await recorder.record(event)
        except (StoreUnavailable, LeaseLost):
            log.exception("run %s: its events cannot be stored", active.run.run_id)
            return RunOutcome("error", STORE_FAILED)
        except AgentInterrupted:
            log.warning("run %s: agent %r asked a question", active.run.run_id, active.run.agent)
            return RunOutcome("error", AGENT_ASKED)
        except BaseException:
            # The user's agent may raise anything, also SystemExit, or CancelledError when nobody
            # has cancelled us. Its text stays in the log.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            log.exception("run %s: agent %r failed", active.run.run_id, active.run.agent)
            return RunOutcome("error", AGENT_FAILED)
        return SUCCESS

    async def _messages(self, agent: Agent, active: ActiveRun) -> Sequence[Message]:
        if agent.remembers or active.turn == 1:
            return [active.message]
        return await self._store.history(active, limit=self._history_limit)

    async def _finish(
        self, recorder: Recorder, active: ActiveRun, outcome: RunOutcome
    ) -> ActiveRun | None:
        """Store the end, as often as it takes: a run must not stay `running` while we live.

        When the server stops, it is not tried for long: the next start marks the run.
        """
        delay = 0.1
        while True:
            try:
                return await recorder.finish(outcome, claim_next=not self._stopping)
            except LeaseLost:
                log.warning("run %s was ended elsewhere", active.run.run_id)
                return None
            except AgentflowError:
                log.exception("run %s: its end cannot be stored", active.run.run_id)
            except Exception:  # what an agent of the user's said is no message we can store
                log.exception("run %s: what it said cannot be stored", active.run.run_id)
                recorder.discard()
                outcome = RunOutcome("error", AGENT_FAILED)
            if self._stopping and delay > STOPPING_RETRY_SECONDS:
                return None
            await asyncio.sleep(delay)
            delay = min(2 * delay, MAX_RETRY_SECONDS)
