"""Copies a thread: what we store of it, and what the framework of its agent does.

The copy is hidden until it is complete. What a crash leaves of it is deleted like any hidden thread.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from agentflow_server.errors import Conflict, NotFound, ThreadBusy
from agentflow_server.interfaces import Agent, HasState, Store
from agentflow_server.models import CopyPoint, Idempotency, JsonObject, Thread, ThreadCopy
from agentflow_server.runs.purging import purge_thread


@dataclass(frozen=True, slots=True)
class CopyRequest:
    """What was asked for, checked at the edge; `thread_id` is that of the copy."""

    thread_id: str
    checkpoint_id: str | None
    metadata: JsonObject


async def copy_thread(
    store: Store,
    agents: Mapping[str, Agent],
    owner: str,
    source_id: str,
    request: CopyRequest,
    *,
    idempotency: Idempotency | None,
) -> Thread:
    """Raises NotFound, Conflict; what the user's checkpointer raises passes through."""
    copy = await store.begin_copy(
        owner, source_id, request.thread_id, metadata=request.metadata, idempotency=idempotency
    )
    if copy.replayed:
        return await store.get_thread(owner, copy.thread_id)
    thread = None
    try:
        agent = _find_agent(agents, copy)
        point = await _copy_states(agent, copy, request.checkpoint_id)
        thread = await store.finish_copy(
            owner, copy, point=point, unchanged=agent is not None, idempotency=idempotency
        )
    finally:
        if thread is None or thread.thread_id != copy.thread_id:
            await purge_thread(store, agents, copy.thread_id, copy.agent)
    return thread


def _find_agent(agents: Mapping[str, Agent], copy: ThreadCopy) -> HasState | None:
    """The one whose states have to be copied. Raises Conflict when that is impossible."""
    if copy.agent is None:
        return None
    agent = agents.get(copy.agent)
    if agent is None:
        raise Conflict("This server no longer has the thread's agent")
    if not agent.remembers:
        return None
    if not isinstance(agent, HasState):
        raise Conflict("What the thread's agent remembers cannot be copied")
    if copy.busy:
        raise ThreadBusy("The thread has a run that has not ended")
    return agent


async def _copy_states(
    agent: HasState | None, copy: ThreadCopy, checkpoint_id: str | None
) -> CopyPoint | None:
    """Raises NotFound."""
    if agent is not None:
        await agent.copy(copy.source_id, copy.thread_id, copy.runs)
    if checkpoint_id is None:
        return None
    point = None if agent is None else await agent.fork(copy.thread_id, checkpoint_id)
    if point is None:
        raise NotFound("There is no such checkpoint")
    return point
