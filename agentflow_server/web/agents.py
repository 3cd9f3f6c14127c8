"""What this server serves."""

from fastapi import APIRouter

from agentflow_server.models import Frozen
from agentflow_server.web.parameters import Runs
from agentflow_server.web.secured import Caller, SecuredRoute

router = APIRouter(prefix="/agents", tags=["agents"], route_class=SecuredRoute)


class AgentInfo(Frozen):
    """An agent; `default` is the one that answers when a message names none."""

    name: str
    kind: str
    default: bool


class AgentList(Frozen):
    data: list[AgentInfo]


@router.get("", summary="List the agents")
async def list_agents(_: Caller, runs: Runs) -> AgentList:
    return AgentList(
        data=[
            AgentInfo(name=name, kind=agent.kind, default=position == 0)
            for position, (name, agent) in enumerate(runs.agents.items())
        ]
    )
