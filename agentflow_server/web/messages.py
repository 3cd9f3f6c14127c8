"""Messages: send one and wait, send one and stream, read the history."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from fastapi.requests import HTTPConnection
from pydantic import ConfigDict, Field, model_validator

from agentflow_server.config import RunsConfig
from agentflow_server.errors import InvalidRequest
from agentflow_server.models import JsonObject, Message, OnBusy, Origin, Page
from agentflow_server.runs.clock import now
from agentflow_server.runs.runner import TurnRequest
from agentflow_server.web.errors import PLAIN_NAME
from agentflow_server.web.parameters import (
    Cursor,
    IdempotencyKey,
    Limit,
    RequestBody,
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

MAX_DELAY = 366 * 86400.0
"""Seconds."""

router = APIRouter(
    prefix="/threads/{thread_id}/messages", tags=["messages"], route_class=SecuredRoute
)


class ContentPart(RequestBody):
    """A part in OpenAI's shape; `text` parts need `text`, others bring what they need."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(min_length=1, max_length=64, examples=["text"])

    @model_validator(mode="after")
    def _text_parts_have_text(self) -> "ContentPart":
        if self.type == "text" and not isinstance((self.model_extra or {}).get("text"), str):
            raise ValueError('a part of type "text" needs a string "text"')
        return self


class SendMessage(TurnBody):
    content: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[ContentPart], Field(min_length=1, max_length=256)]
    ) = Field(examples=["Hello"])
    agent: str | None = Field(
        default=None, max_length=64, description="By default the thread's, or the first."
    )
    config: JsonObject = Field(
        default_factory=dict, description="Settings for the agent; only keys the server allows."
    )
    metadata: JsonObject = Field(default_factory=dict, description="Stored with the message.")
    on_busy: OnBusy | None = Field(
        default=None,
        description="When the thread has an unfinished run: wait in line, get a 409, or stop what "
        "is unfinished and keep what it said (interrupt) or forget it (rollback).",
    )
    after_seconds: float | None = Field(
        default=None,
        ge=0,
        le=MAX_DELAY,
        allow_inf_nan=False,
        description="Start the run so much later; only with `background`.",
    )

    @model_validator(mode="after")
    def _nobody_waits_for_a_delayed_run(self) -> "SendMessage":
        if self.after_seconds is not None and not self.background:
            raise ValueError("after_seconds needs background: true")
        return self


@router.post(
    "",
    response_model=TurnResult,
    responses=TURN_ANSWERS,
    summary="Send a message and get the agent's answer",
)
async def send_message(
    request: Request,
    caller: Caller,
    runs: Runs,
    thread_id: ThreadId,
    idempotency: IdempotencyKey,
    body: SendMessage,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    wanted = turn_request(body, request, request.app.state.runs_config)
    if body.background:
        run = (await runs.start(caller, thread_id, wanted, idempotency, in_background=True)).run
        run = await runs.store.get_run(caller.id, thread_id, run.run_id)
        return accepted(request, run)
    stops = body.on_disconnect == "cancel"
    if body.wants_stream(accept):
        started = await runs.start(caller, thread_id, wanted, idempotency)
        return stream_response(request, runs, caller, started.run, stop_when_left=stops)
    if not stops:
        return turn_response(await runs.send(caller, thread_id, wanted, idempotency))
    started = await runs.start(caller, thread_id, wanted, idempotency)
    return await wait_response(request, runs, caller, started.run)


@router.get("", response_model=Page[Message], summary="Read the conversation, oldest first")
async def list_messages(
    caller: Caller, runs: Runs, thread_id: ThreadId, limit: Limit = 50, cursor: Cursor = None
) -> Response:
    page = await runs.store.list_messages(caller.id, thread_id, limit=limit, cursor=cursor)
    return json_response(page)


def _find_origin(connection: HTTPConnection) -> Origin:
    scope = connection.scope
    return Origin(scope.get("agentflow.request_id"), scope.get("agentflow.traceparent"))


def turn_request(body: SendMessage, connection: HTTPConnection, rules: RunsConfig) -> TurnRequest:
    """Raises InvalidRequest."""
    content = body.content
    return TurnRequest(
        content=content if isinstance(content, str) else [part.model_dump() for part in content],
        agent=body.agent,
        metadata=body.metadata,
        config=_checked_config(body.config, rules),
        on_busy=body.on_busy or rules.on_busy,
        start_after=now() + timedelta(seconds=body.after_seconds) if body.after_seconds else None,
        origin=_find_origin(connection),
        webhook=find_webhook(connection, body),
    )


def _checked_config(config: Mapping[str, Any], rules: RunsConfig) -> JsonObject:
    """What a client may say about its run. Raises InvalidRequest naming the key."""
    for key, value in config.items():
        if key not in rules.client_config:
            shown = key if PLAIN_NAME.fullmatch(key) else "?"
            raise InvalidRequest(f"config.{shown}: this server does not let clients set it")
        if key == "recursion_limit" and not _is_count(value, rules.recursion_limit):
            raise InvalidRequest(
                f"config.recursion_limit: expected an integer from 1 to {rules.recursion_limit}"
            )
        if key == "tags" and not _is_tags(value):
            raise InvalidRequest(
                "config.tags: expected at most 16 strings of at most 64 characters"
            )
    return dict(config)


def _is_count(value: Any, limit: int) -> bool:
    return type(value) is int and 1 <= value <= limit


def _is_tags(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= 16
        and all(isinstance(tag, str) and len(tag) <= 64 for tag in value)
    )
