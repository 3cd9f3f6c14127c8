"""Runs: list them, get one, follow its events, stop it, answer what it asks."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field, model_validator

from agentflow_server.errors import InvalidRequest, NotFound
from agentflow_server.models import (
    Answer,
    JsonObject,
    OwnedInterrupt,
    Page,
    PendingInterrupt,
    Principal,
    Run,
)
from agentflow_server.runs.runner import Runner
from agentflow_server.web.parameters import (
    Cursor,
    Limit,
    RequestBody,
    RunId,
    Runs,
    ThreadId,
    json_response,
)
from agentflow_server.web.secured import Caller, SecuredRoute
from agentflow_server.web.turns import (
    TURN_ANSWERS,
    TurnBody,
    TurnResult,
    accepted,
    find_webhook,
    stream_response,
    turn_response,
    wait_response,
)

interrupts = APIRouter(prefix="/interrupts", tags=["runs"], route_class=SecuredRoute)
router = APIRouter(prefix="/threads/{thread_id}/runs", tags=["runs"], route_class=SecuredRoute)


class Cancellation(RequestBody):
    action: Literal["cancel", "rollback"] = Field(
        default="cancel", description="Keep what the run has said, or forget its whole turn."
    )


class Resumption(TurnBody):
    """Either `value`, or `answers` when the run asks several questions at once."""

    value: Any = Field(default=None, description="The answer to the run's only question.")
    answers: JsonObject | None = Field(default=None, description="interrupt_id → answer.")

    @model_validator(mode="after")
    def _one_form(self) -> "Resumption":
        if ("value" in self.model_fields_set) is (self.answers is not None):
            raise ValueError("expected either value or answers")
        return self


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
    request: Request,
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
    if after and not await runs.store.list_events(run_id, after=after - 1, limit=1):
        raise InvalidRequest("Last-Event-ID: this run has no such event")
    if run.ended_at and not await runs.store.list_events(run_id, after=after, limit=1):
        return Response(status_code=204)  # tells an EventSource not to come back
    return stream_response(request, runs, caller, run, after=after)


@router.post(
    "/{run_id}/cancel",
    response_model=Run,
    responses={202: {"model": Run, "description": "The agent has not ended yet"}},
    summary="Stop a run",
)
async def cancel_run(
    caller: Caller,
    runs: Runs,
    thread_id: ThreadId,
    run_id: RunId,
    body: Cancellation | None = None,
) -> Response:
    run = await runs.stop(caller, thread_id, run_id, (body or Cancellation()).action)
    return json_response(run, 202 if run.ended_at is None else 200)


@router.post(
    "/{run_id}/resume",
    response_model=TurnResult,
    responses=TURN_ANSWERS,
    summary="Answer what an interrupted run asks, and get what it says next",
)
async def resume_run(
    request: Request,
    caller: Caller,
    runs: Runs,
    thread_id: ThreadId,
    run_id: RunId,
    body: Resumption,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    answer = Answer(body.value, body.answers, find_webhook(request, body))
    try:
        return await _answer(request, caller, runs, thread_id, run_id, answer, body, accept=accept)
    except NotFound:
        if not await request.app.state.door.may_answer_others(request):
            raise
        return await _answer_for_owner(request, caller, runs, thread_id, run_id, answer, body)


async def _answer(
    request: Request,
    caller: Principal,
    runs: Runner,
    thread_id: str,
    run_id: str,
    answer: Answer,
    body: Resumption,
    *,
    accept: str,
) -> Response:
    stops = body.on_disconnect == "cancel"
    if not (stops or body.background or body.wants_stream(accept)):
        return turn_response(await runs.send_answer(caller, thread_id, run_id, answer))
    resumed = await runs.resume(caller, thread_id, run_id, answer)
    if body.background:
        return accepted(request, resumed.run)
    if body.wants_stream(accept):
        return stream_response(
            request, runs, caller, resumed.run, after=resumed.last_seq, stop_when_left=stops
        )
    return await wait_response(request, runs, caller, resumed.run)


async def _answer_for_owner(
    request: Request,
    caller: Principal,
    runs: Runner,
    thread_id: str,
    run_id: str,
    answer: Answer,
    body: Resumption,
) -> Response:
    """What comes of it is the owner's: whoever answers sees nothing of it, and sends it nowhere.

    Raises NotFound, NotInterrupted, InvalidRequest.
    """
    owner = await runs.store.find_asker(thread_id, run_id)
    if owner is None:
        raise NotFound("There is no such run")
    if not body.background or answer.webhook is not None:
        raise InvalidRequest("a run of somebody else's: expected background true, and no webhook")
    resumed = await runs.resume(replace(caller, id=owner), thread_id, run_id, answer)
    request.app.state.door.note_answer(request, owner, run_id)
    return accepted(request, resumed.run.model_copy(update={"webhook": None}))


@interrupts.get(
    "/all",
    response_model=Page[OwnedInterrupt],
    summary="List what the agents of all users wait for, newest first",
)
async def list_all_interrupts(
    caller: Caller, runs: Runs, limit: Limit = 20, cursor: Cursor = None
) -> Response:
    return json_response(await runs.store.list_all_interrupts(limit=limit, cursor=cursor))


@interrupts.get(
    "", response_model=Page[PendingInterrupt], summary="List what agents wait for, newest first"
)
async def list_interrupts(
    caller: Caller, runs: Runs, limit: Limit = 20, cursor: Cursor = None
) -> Response:
    return json_response(await runs.store.list_interrupts(caller.id, limit=limit, cursor=cursor))
