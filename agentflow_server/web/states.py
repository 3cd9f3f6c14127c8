"""The states of a thread, where its agent's framework keeps any."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel
from pydantic_core import to_json

from agentflow_server.models import JsonObject, Page
from agentflow_server.runs.states import States
from agentflow_server.web.parameters import Limit, ThreadId
from agentflow_server.web.secured import Caller, SecuredRoute

router = APIRouter(prefix="/threads/{thread_id}", tags=["states"], route_class=SecuredRoute)

Before = Annotated[
    str | None,
    Query(alias="cursor", max_length=512, description="Only states that are older than this one."),
]


class State(BaseModel):
    """A checkpoint: the values of the graph's state, and what comes next."""

    values: Any
    next: list[str]
    interrupts: list[Any]
    checkpoint_id: str | None
    parent_checkpoint_id: str | None
    created_at: str | None
    metadata: JsonObject


@router.get("/state", response_model=State, summary="Get the newest state")
async def get_state(request: Request, caller: Caller, thread_id: ThreadId) -> Response:
    state = await _states(request).get(caller, thread_id)
    return Response(to_json(state), media_type="application/json")


@router.get("/history", response_model=Page[State], summary="List the states, newest first")
async def list_history(
    request: Request,
    caller: Caller,
    thread_id: ThreadId,
    limit: Limit = 20,
    cursor: Before = None,
) -> Response:
    page = await _states(request).list_history(caller, thread_id, limit=limit, cursor=cursor)
    return Response(page.model_dump_json(), media_type="application/json")


def _states(request: Request) -> States:
    states: States = request.app.state.states
    return states
