"""Messages: send one and wait, send one and stream, read the history."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Request, Response
from pydantic import ConfigDict, Field, model_validator
from pydantic_core import to_json

from agentflow_server.config import RunsConfig
from agentflow_server.errors import InvalidRequest
from agentflow_server.models import JsonObject, Message, Page
from agentflow_server.runs.runner import Turn, TurnRequest
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
from agentflow_server.web.sse import EventStream

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


class SendMessage(RequestBody):
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
    stream: bool = Field(default=False, description="Answer with server-sent events.")
    on_busy: Literal["enqueue", "reject"] | None = Field(
        default=None, description="When the thread has an unfinished run: wait in line, or 409."
    )


class TurnResult(RequestBody):
    """What the agent answered. `message` is the last message of the assistant."""

    thread_id: str
    run_id: str
    status: Literal["success"]
    message: Message | None
    messages: list[Message]


@router.post(
    "",
    response_model=TurnResult,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
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
    turn_request = _turn_request(body, request.app.state.runs_config)
    if body.stream or "text/event-stream" in accept:
        started = await runs.start(caller, thread_id, turn_request, idempotency)
        return EventStream(runs.follow(caller.id, started.run))
    turn = await runs.send(caller, thread_id, turn_request, idempotency)
    return Response(to_json(_result(turn)), media_type="application/json")


@router.get("", response_model=Page[Message], summary="Read the conversation, oldest first")
async def list_messages(
    caller: Caller, runs: Runs, thread_id: ThreadId, limit: Limit = 50, cursor: Cursor = None
) -> Response:
    page = await runs.store.list_messages(caller.id, thread_id, limit=limit, cursor=cursor)
    return json_response(page)


def _turn_request(body: SendMessage, rules: RunsConfig) -> TurnRequest:
    content = body.content
    return TurnRequest(
        content=content if isinstance(content, str) else [part.model_dump() for part in content],
        agent=body.agent,
        metadata=body.metadata,
        config=_checked_config(body.config, rules),
        on_busy=body.on_busy or rules.on_busy,
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


def _result(turn: Turn) -> JsonObject:
    final = next((m for m in reversed(turn.messages) if m["role"] == "assistant"), None)
    return {
        "thread_id": turn.thread_id,
        "run_id": turn.run_id,
        "status": "success",
        "message": final,
        "messages": turn.messages,
    }
