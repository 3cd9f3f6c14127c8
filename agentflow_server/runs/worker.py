"""Executes one claimed run: the agent's turn, from its context to its stored end."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext, suppress
from dataclasses import dataclass

from agentflow_server.adapters.asking import Asked
from agentflow_server.engines.embedded import STOPPED
from agentflow_server.errors import AgentflowError, LeaseLost, NotApproved, StoreUnavailable
from agentflow_server.interfaces import Agent, AgentAsked, EventBus, Store
from agentflow_server.interfaces.leases import holding, lease_after
from agentflow_server.log_context import bind
from agentflow_server.metrics import Metrics, Tracing
from agentflow_server.models import ActiveRun, Message, RunError, RunOutcome, Stop
from agentflow_server.runs.context import build_context
from agentflow_server.runs.naming import Namer
from agentflow_server.runs.recorder import Recorder

log = logging.getLogger(__name__)

SUCCESS = RunOutcome("success")
AGENT_FAILED = RunError(code="agent_failed", detail="The agent could not finish this turn")
NOT_APPROVED = RunError(code="not_approved", detail="What the agent wanted to do was not approved")
AGENT_GONE = RunError(code="agent_unknown", detail="This server no longer has the thread's agent")
STORE_FAILED = RunError(code="store_unavailable", detail="What the agent said could not be stored")
TIMED_OUT = RunError(code="run_timeout", detail="The agent took longer than the server allows")
RESTARTED = RunError(code="server_restarted", detail="The server stopped before the run had ended")

STOPPED_BY: Mapping[Stop, RunOutcome] = {
    "cancel": RunOutcome("cancelled"),
    "rollback": RunOutcome("cancelled", forget=True),
}
MAX_RETRY_SECONDS = 30.0
STOPPING_RETRY_SECONDS = 1.0
PATIENCE_SECONDS = 30.0
"""How long an agent that was told to stop may take; then its run ends without it."""


@dataclass(frozen=True, slots=True)
class RunRules:
    """`timeout` in seconds. After a crash a run is tried `max_attempts` times in all: with
    `retry` every one, else only those whose framework can go on from where it was. With
    `takes_turns` a thread's next run is not claimed when one has ended. `shared`: when a run has
    ended here, other processes may begin the next one of its thread at once."""

    history_limit: int | None = None
    timeout: float | None = None
    retry: bool = False
    max_attempts: int = 3
    takes_turns: bool = False
    shared: bool = False


@dataclass(slots=True)
class _Turn:
    """A run while its agent is at work; `told` is set when it has to end otherwise."""

    agent: asyncio.Task[RunOutcome]
    told: asyncio.Future[RunOutcome]

    def tell(self, outcome: RunOutcome) -> None:
        """The first word counts, but a rollback beats it for as long as the agent is at work."""
        if self.told.done() and outcome.forget:
            self.told = self.told.get_loop().create_future()
        if not self.told.done():
            self.told.set_result(outcome)


class Worker:
    """Knows the agents, and how to drive them. One instance serves all runs."""

    def __init__(
        self,
        store: Store,
        bus: EventBus,
        agents: Mapping[str, Agent],
        namer: Namer,
        rules: RunRules | None = None,
        *,
        metrics: Metrics | None = None,
        tracing: Tracing | None = None,
        wake_sender: Callable[[], None] | None = None,
        lend: Callable[[str], AbstractContextManager[None]] | None = None,
    ) -> None:
        """`wake_sender` is called when a run with a webhook has ended. While a run is executed,
        what its tools may use is `lend`ed to it by its id."""
        self._lend = lend or (lambda run_id: nullcontext())
        self._wake_sender = wake_sender
        self._metrics = metrics or Metrics()
        self._tracing = tracing or Tracing()
        self._store = store
        self._bus = bus
        self._agents = agents
        self._namer = namer
        self._rules = rules or RunRules()
        self._stopping = False
        self._turns: dict[str, _Turn] = {}
        # What runs were told while no agent of theirs was at work.
        self._told: dict[str, RunOutcome] = {}

    async def execute(self, active: ActiveRun) -> ActiveRun | None:
        """Run it to its end. Returns the thread's next run, already claimed.

        Never raises anything but CancelledError, when the server stops; the end of the run is
        stored then, too, unless the database refuses it for a while.
        """
        run, origin = active.run, active.origin
        with (
            bind(request=origin.request_id, thread=run.thread_id, run=run.run_id),
            holding(run.run_id, active.lease),
            self._lend(run.run_id),
            self._tracing.run_span(
                origin.traceparent,
                run_id=run.run_id,
                thread_id=run.thread_id,
                agent=run.agent,
                attempt=run.attempt,
            ) as span,
        ):
            recorder = Recorder(self._store, self._bus, active)
            begun = time.perf_counter()
            self._metrics.run_started()
            outcome = RunOutcome("error", STOPPED)
            try:
                outcome = await self._take_turn(active, recorder)
                return await self._finish(recorder, active, outcome)
            except asyncio.CancelledError:
                self._stopping = True
                outcome = self._told.get(run.run_id, outcome)
                await self._finish(recorder, active, outcome)
                raise
            finally:
                self._told.pop(run.run_id, None)
                self._metrics.run_ended(outcome.status, time.perf_counter() - begun)
                span.ended(outcome.status, None if outcome.error is None else outcome.error.code)
                if active.turn == 1 and not outcome.forget:
                    self._namer.name_later(active)

    def stop(self, run_id: str, how: Stop) -> None:
        """End a run that is being executed, or is about to be."""
        if turn := self._turns.get(run_id):
            turn.tell(STOPPED_BY[how])
        elif how == "rollback" or run_id not in self._told:
            self._told[run_id] = STOPPED_BY[how]

    def stop_claiming(self) -> None:
        """From now on, what waits in line stays there for the next start."""
        self._stopping = True

    async def recover(self, active: ActiveRun, *, claim: bool = True) -> ActiveRun | None:
        """What becomes of a run whose worker died: it is ended, or returned to be executed again;
        without `claim` it is put back in line instead.

        Raises StoreUnavailable, LeaseLost.
        """
        run = active.run
        if active.stopping:
            await self._end_without_agent(active, STOPPED_BY[active.stopping])
            return None
        agent = self._agents.get(run.agent)
        may_retry = agent is not None and (self._rules.retry or agent.resumable)
        if may_retry and run.attempt < self._rules.max_attempts:
            log.warning("run %s goes on after its server died", run.run_id)
            if claim:
                return await self._store.take_over(active)
            await self._store.put_back(active)
            return None
        log.warning("run %s was running when its server died: marked error", run.run_id)
        await self._end_without_agent(active, RunOutcome("error", RESTARTED))
        return None

    async def abandon(self, active: ActiveRun, error: RunError) -> None:
        """End a run that nobody executes any more; its event log goes on where it stopped.

        Raises StoreUnavailable, LeaseLost.
        """
        outcome = RunOutcome("error", error)
        if active.stopping:
            outcome = STOPPED_BY[active.stopping]
        await self._end_without_agent(active, outcome)

    async def _end_without_agent(self, active: ActiveRun, outcome: RunOutcome) -> None:
        recorder = Recorder(self._store, self._bus, active)
        if active.last_seq == 0:
            recorder.start()
        if outcome.forget:
            with holding(active.run.run_id, active.lease):
                await self._undo(active)
        await self._store_end(recorder, active, outcome, keep=False, claim_next=False)

    async def _take_turn(self, active: ActiveRun, recorder: Recorder) -> RunOutcome:
        """The agent's outcome, or the one that somebody told it. A task of its own drives it: an
        agent may refuse to be cancelled."""
        run_id = active.run.run_id
        if active.stopping is not None:  # while it waited in line
            return STOPPED_BY[active.stopping]
        loop = asyncio.get_running_loop()
        driving = asyncio.create_task(self._drive(active, recorder), name=f"run-{run_id}")
        turn = self._turns[run_id] = _Turn(driving, loop.create_future())
        if early := self._told.pop(run_id, None):
            turn.tell(early)
        timeout = self._rules.timeout
        timed_out = RunOutcome("timeout", TIMED_OUT)
        timer = None if timeout is None else loop.call_later(timeout, turn.tell, timed_out)
        try:
            await asyncio.wait({driving, turn.told}, return_when=asyncio.FIRST_COMPLETED)
            if driving.done():
                return driving.result()
            await self._halt(active, driving)
            return turn.told.result()
        except asyncio.CancelledError:
            driving.cancel()
            await asyncio.wait({driving})
            if self._rules.shared and (agent := self._agents.get(active.run.agent)):
                await agent.settle(run_id)
            if turn.told.done():
                self._told[run_id] = turn.told.result()
            raise
        finally:
            del self._turns[run_id]
            if timer is not None:
                timer.cancel()

    async def _halt(self, active: ActiveRun, driving: asyncio.Task[RunOutcome]) -> None:
        """Cancel the agent and wait until nothing of it goes on, but not for ever."""
        driving.cancel()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.wait({driving})
                if agent := self._agents.get(active.run.agent):
                    await agent.settle(active.run.run_id)
        except TimeoutError:
            log.error(  # noqa: TRY400 – where we waited tells nobody anything
                "run %s does not stop: its agent is left alone", active.run.run_id
            )

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
                    if isinstance(event, AgentAsked):
                        return RunOutcome("interrupted", interrupts=event.interrupts)
                    await recorder.record(event)
        except (StoreUnavailable, LeaseLost) as exc:
            log.error(  # noqa: TRY400 – the store has written down why
                "run %s: its events cannot be stored: %s", active.run.run_id, exc
            )
            return RunOutcome("error", STORE_FAILED)
        except BaseException as exc:
            # The user's agent may raise anything, also SystemExit, or CancelledError when nobody
            # has cancelled us. Its text stays in the log.
            if self._was_told(active.run.run_id, exc):
                raise asyncio.CancelledError from exc
            if _is_refusal(exc):
                log.info("run %s: what its agent wanted to do was refused", active.run.run_id)
                return RunOutcome("error", NOT_APPROVED)
            log.exception("run %s: agent %r failed", active.run.run_id, active.run.agent)
            return RunOutcome("error", AGENT_FAILED)
        return SUCCESS

    def _was_told(self, run_id: str, error: BaseException) -> bool:
        """Whether the agent ended because we cancelled it. A task group whose own task has failed
        leaves `cancelling()` above 0 before Python 3.13: alone it says nothing."""
        turn, task = self._turns.get(run_id), asyncio.current_task()
        if turn is not None and turn.told.done():
            return True
        is_cancelled = isinstance(error, asyncio.CancelledError)
        return is_cancelled and task is not None and task.cancelling() > 0

    async def _messages(self, agent: Agent, active: ActiveRun) -> Sequence[Message]:
        if agent.remembers or active.turn == 1:
            return [active.message]
        return await self._store.history(active, limit=self._rules.history_limit)

    async def _undo(self, active: ActiveRun) -> None:
        agent = self._agents.get(active.run.agent)
        if agent is None:
            return
        try:
            await agent.undo(active.run.thread_id, active.run.run_id)
        except Exception:  # the user's checkpointer may raise anything
            log.exception("run %s: what its agent remembers stays", active.run.run_id)

    def _keeps(self, active: ActiveRun, outcome: RunOutcome) -> bool:
        """Whether the thread keeps what was said. A function that asked starts again from its
        beginning, and says it again."""
        if outcome.status == "interrupted":
            return self._agents[active.run.agent].remembers
        return outcome.status in {"success", "cancelled", "timeout"} and not outcome.forget

    async def _finish(
        self, recorder: Recorder, active: ActiveRun, outcome: RunOutcome
    ) -> ActiveRun | None:
        """Store the end, as often as it takes: a run must not stay `running` while we live.

        When the server stops, it is not tried for long: the next start marks the run.
        """
        if outcome.forget:
            await self._undo(active)
        delay = 0.1
        is_unsure = False
        while True:
            claim_next = not (self._stopping or self._rules.takes_turns)
            try:
                keep = self._keeps(active, outcome)
                return await self._store_end(
                    recorder, active, outcome, keep=keep, claim_next=claim_next
                )
            except LeaseLost:
                if not is_unsure:
                    log.warning("run %s was ended elsewhere", active.run.run_id)
                    return None
                with suppress(StoreUnavailable):
                    # It may have been us; then what the end has claimed waits for us.
                    return await self._store.find_running(lease_after(active.lease))
            except AgentflowError as exc:
                is_unsure = True
                # Why a database cannot be used, the store has written down.
                is_known = isinstance(exc, StoreUnavailable)  # the store has written down why
                log.error(  # noqa: TRY400 – with a trace only where it tells more
                    "run %s: its end cannot be stored: %s",
                    active.run.run_id,
                    exc,
                    exc_info=not is_known,
                )
            except Exception:  # what an agent of the user's said is no message we can store
                log.exception("run %s: what it said cannot be stored", active.run.run_id)
                recorder.discard()
                outcome = RunOutcome("error", AGENT_FAILED)
            if self._stopping and delay > STOPPING_RETRY_SECONDS:
                return None
            await asyncio.sleep(delay)
            delay = min(2 * delay, MAX_RETRY_SECONDS)

    async def _store_end(
        self,
        recorder: Recorder,
        active: ActiveRun,
        outcome: RunOutcome,
        *,
        keep: bool,
        claim_next: bool,
    ) -> ActiveRun | None:
        following = await recorder.finish(outcome, keep=keep, claim_next=claim_next)
        if active.run.webhook is not None and self._wake_sender is not None:
            self._wake_sender()
        return following


def _is_refusal(error: BaseException | None) -> bool:
    """Also when a framework has wrapped it, or a task group, in which others still asked."""
    for _ in range(8):  # an error may be its own cause
        if error is None or isinstance(error, NotApproved):
            break
        if isinstance(error, BaseExceptionGroup):
            return error.split((NotApproved, Asked))[1] is None
        error = error.__cause__
    return isinstance(error, NotApproved)
