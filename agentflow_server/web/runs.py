"""Runs: list them, get one, follow its events."""

from typing import Annotated

from fastapi import APIRouter, Header, Response
from fastapi.responses import StreamingResponse

from agentflow_server.errors import InvalidRequest
from agentflow_server.models import Page, Run
from agentflow_server.web.parameters import Cursor, Limit, RunId, Runs, ThreadId, json_response
from agentflow_server.web.secured import Caller, SecuredRoute
from agentflow_server.web.sse import EventStream

router = APIRouter(prefix="/threads/{thread_id}/runs", tags=["runs"], route_class=SecuredRoute)


@router.get("", response_model=Page[Run], summary="List a thread's runs, newest first")
async def list_runs(
    caller: Caller, runs: Runs, thread_id: ThreadId, limit: Limit = 20, cursor: Cursor = None
) -> Response:
    page = await runs.store.list_runs(caller.id, thread_id, limit=limit, cursor=cursor)
    return json_response(page)


@router.get("/{run_id}", response_model=Run, summary="Get a run")
async def get_run(caller: Caller, runs: Runs, thread_id: ThreadId, run_id: RunId) -> Response:
    return json_response(await runs.store.get_run(caller.id, thread_id, run_id))


@router.get(
    "/{run_id}/events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    summary="Follow a run's events; `Last-Event-ID` resumes after the one you saw last",
)
async def follow_run(
    caller: Caller,
    runs: Runs,
    thread_id: ThreadId,
    run_id: RunId,
    last_event_id: Annotated[str, Header()] = "0",
) -> Response:
    if not (last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 10):
        raise InvalidRequest("Last-Event-ID: expected the id of an event of this run")
    after = int(last_event_id)
    run = await runs.store.get_run(caller.id, thread_id, run_id)
    if run.ended_at and not await runs.store.list_events(run_id, after=after, limit=1):
        return Response(status_code=204)  # tells an EventSource not to come back
    return EventStream(runs.follow(caller.id, run, after=after))
