"""Threads: create, list, get, change, delete, copy."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import Field, StringConstraints
from uuid_utils import uuid7

from agentflow_server import strict_json
from agentflow_server.errors import InvalidRequest
from agentflow_server.models import JsonObject, Page, Thread, ThreadStatus
from agentflow_server.runs.copying import CopyRequest
from agentflow_server.web.parameters import (
    ChosenId,
    Cursor,
    IdempotencyKey,
    Limit,
    RequestBody,
    Runs,
    ThreadId,
    json_response,
)
from agentflow_server.web.secured import Caller, SecuredRoute

router = APIRouter(prefix="/threads", tags=["threads"], route_class=SecuredRoute)

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]


class CreateThread(RequestBody):
    """Everything is optional; so is the body."""

    thread_id: ChosenId | None = Field(
        default=None, description="Your own UUID; by default we make one."
    )
    metadata: JsonObject = Field(default_factory=dict, examples=[{"topic": "billing"}])
    if_exists: Literal["error", "return"] = Field(
        default="error", description="What to do when you already have a thread with this id."
    )


class ChangeThread(RequestBody):
    """What is absent stays as it is."""

    name: Name | None = None
    metadata: JsonObject | None = Field(
        default=None, description="Merged by top-level key; null removes a key."
    )


class CopyThread(RequestBody):
    """Everything is optional; so is the body."""

    thread_id: ChosenId | None = Field(
        default=None, description="Your own UUID; by default we make one."
    )
    checkpoint_id: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,255}$")] | None = Field(
        default=None, description="Only as far as this state of the thread's graph."
    )
    metadata: JsonObject = Field(
        default_factory=dict, description="Merged by top-level key; null removes a key."
    )


@router.post("", response_model=Thread, summary="Create a thread")
async def create_thread(
    caller: Caller, runs: Runs, idempotency: IdempotencyKey, body: CreateThread | None = None
) -> Response:
    body = body or CreateThread()
    thread = await runs.store.create_thread(
        caller.id,
        body.thread_id or str(uuid7()),
        metadata=body.metadata,
        reuse=body.if_exists == "return",
        idempotency=idempotency,
    )
    return json_response(thread)


@router.get("", response_model=Page[Thread], summary="List your threads, newest first")
async def list_threads(
    caller: Caller,
    runs: Runs,
    limit: Limit = 20,
    cursor: Cursor = None,
    status: ThreadStatus | None = None,
    metadata: Annotated[
        str | None,
        Query(max_length=4096, description="JSON; only threads that have these members."),
    ] = None,
) -> Response:
    page = await runs.store.list_threads(
        caller.id, limit=limit, cursor=cursor, status=status, metadata=_metadata_filter(metadata)
    )
    return json_response(page)


@router.get("/{thread_id}", response_model=Thread, summary="Get a thread")
async def get_thread(caller: Caller, runs: Runs, thread_id: ThreadId) -> Response:
    return json_response(await runs.store.get_thread(caller.id, thread_id))


@router.patch("/{thread_id}", response_model=Thread, summary="Rename a thread, change its metadata")
async def change_thread(
    caller: Caller, runs: Runs, thread_id: ThreadId, body: ChangeThread
) -> Response:
    thread = await runs.store.update_thread(
        caller.id, thread_id, name=body.name, metadata=body.metadata
    )
    return json_response(thread)


@router.delete("/{thread_id}", status_code=204, summary="Delete a thread and everything of it")
async def delete_thread(caller: Caller, runs: Runs, thread_id: ThreadId) -> Response:
    await runs.delete_thread(caller, thread_id)
    return Response(status_code=204)


@router.post("/{thread_id}/copy", response_model=Thread, summary="Copy a thread")
async def copy_thread(
    caller: Caller,
    runs: Runs,
    thread_id: ThreadId,
    idempotency: IdempotencyKey,
    body: CopyThread | None = None,
) -> Response:
    body = body or CopyThread()
    request = CopyRequest(body.thread_id or str(uuid7()), body.checkpoint_id, body.metadata)
    return json_response(await runs.copy_thread(caller, thread_id, request, idempotency))


def _metadata_filter(text: str | None) -> JsonObject | None:
    if text is None:
        return None
    try:
        value: Any = strict_json.parse(text.encode(), max_depth=8)
    except ValueError as exc:
        raise InvalidRequest("metadata: expected a JSON object") from exc
    if not isinstance(value, dict):
        raise InvalidRequest("metadata: expected a JSON object")
    return value
