"""What an agent's framework knows of a thread, for agents that keep states."""

from collections.abc import Mapping

from agentflow_server.errors import NotFound
from agentflow_server.interfaces import Agent, HasState, Store
from agentflow_server.models import JsonObject, Page, Principal


class States:
    """The states of threads; a thread has those of the agent that it belongs to."""

    def __init__(self, store: Store, agents: Mapping[str, Agent]) -> None:
        self._store = store
        self._agents = agents

    async def get(self, caller: Principal, thread_id: str) -> JsonObject:
        """The newest state. Raises NotFound, also for an agent that keeps none."""
        agent = await self._find_agent(caller, thread_id)
        return await agent.get_state(thread_id)

    async def list_history(
        self, caller: Principal, thread_id: str, *, limit: int, cursor: str | None
    ) -> Page[JsonObject]:
        """Newest first. Raises NotFound."""
        agent = await self._find_agent(caller, thread_id)
        found = await agent.list_history(thread_id, limit=limit + 1, before=cursor)
        page = found[:limit]
        return Page(
            data=page, next_cursor=page[-1]["checkpoint_id"] if len(found) > limit else None
        )

    async def _find_agent(self, caller: Principal, thread_id: str) -> HasState:
        runs = await self._store.list_runs(caller.id, thread_id, limit=1)
        agent = self._agents.get(runs.data[0].agent) if runs.data else None
        if not (agent is not None and agent.remembers and isinstance(agent, HasState)):
            raise NotFound("The thread has no state")
        return agent
