"""What is said on a WebSocket: JSON objects with a `type`, one in each text frame."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import WebSocket
from fastapi.exceptions import RequestValidationError
from pydantic import Field, ValidationError
from pydantic_core import to_json

from agentflow_server import strict_json
from agentflow_server.errors import InvalidRequest, ServerStopping
from agentflow_server.models import Event, JsonObject
from agentflow_server.web.errors import BodyTooLarge, SocketTimeout, UnsupportedMediaType
from agentflow_server.web.parameters import ChosenId, RequestBody
from agentflow_server.web.runs import Cancellation, Resumption
from agentflow_server.web.visit import Proof

B = TypeVar("B", bound=RequestBody)

MAX_FRAME_ID = 64
SERVICE_RESTART = 1012


class AuthFrame(RequestBody):
    token: str | None = None
    ticket: str | None = None


class CancelRun(Cancellation):
    run_id: ChosenId


class ResumeRun(Resumption):
    run_id: ChosenId


class FollowRun(RequestBody):
    run_id: ChosenId
    after: int = Field(default=0, ge=0, lt=10**9)


ROUTES: Mapping[str, tuple[str, str]] = {
    "message": ("POST", "/threads/{thread_id}/messages"),
    "cancel": ("POST", "/threads/{thread_id}/runs/{run_id}/cancel"),
    "resume": ("POST", "/threads/{thread_id}/runs/{run_id}/resume"),
    "follow": ("GET", "/threads/{thread_id}/runs/{run_id}/events"),
}
"""Each command and the route that does the same: it wants the same scope and has the same quota."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What a client sent; `id` is echoed in what answers it."""

    type: str
    id: str | None
    body: JsonObject


def read_frame(text: str, *, depth: int) -> Frame:
    """Raises InvalidRequest."""
    try:
        value = strict_json.parse(text.encode(), max_depth=depth)
    except ValueError as exc:
        raise InvalidRequest(f"A frame that is refused: {exc}") from exc
    if not isinstance(value, dict) or not isinstance(kind := value.pop("type", None), str):
        raise InvalidRequest('Expected a JSON object with a string "type"')
    frame_id = value.pop("id", None)
    if frame_id is not None and not _is_frame_id(frame_id):
        raise InvalidRequest(f"id: expected a string of at most {MAX_FRAME_ID} characters")
    return Frame(kind, frame_id, value)


def read_body(model: type[B], frame: Frame) -> B:
    """Raises RequestValidationError."""
    try:
        return model.model_validate(frame.body)
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError(errors) from exc


def read_proof(text: str, *, depth: int) -> Proof:
    """Whatever is not an `auth` frame proves nothing."""
    try:
        frame = read_frame(text, depth=depth)
        sent = read_body(AuthFrame, frame)
    except (InvalidRequest, RequestValidationError):
        return Proof()
    if frame.type != "auth":
        return Proof()
    return Proof(sent.token, () if sent.ticket is None else (sent.ticket,))


async def receive_text(socket: WebSocket, *, within: float, limit: int) -> str | None:
    """The next frame of at most `limit` bytes, None when the client has left.

    Raises SocketTimeout, BodyTooLarge, UnsupportedMediaType, ServerStopping.
    """
    try:
        async with asyncio.timeout(within):
            message = await socket.receive()
    except TimeoutError:
        raise SocketTimeout(f"nothing was sent for {within:g} seconds") from None
    if message["type"] == "websocket.disconnect":
        if message.get("code") == SERVICE_RESTART:
            raise ServerStopping  # uvicorn has closed it already
        return None
    text: str | None = message.get("text")
    if text is None:
        raise UnsupportedMediaType("expected a text frame")
    if len(text) > limit or len(text.encode(errors="replace")) > limit:
        raise BodyTooLarge(f"the frame is longer than {limit} bytes")
    return text


def write_frame(kind: str, frame_id: str | None = None, /, **fields: Any) -> str:
    head = {"type": kind} if frame_id is None else {"type": kind, "id": frame_id}
    return to_json({**head, **fields}, inf_nan_mode="null").decode()


def write_event(event: Event) -> str:
    return write_frame(
        "event", run_id=event.run_id, seq=event.seq, event=event.type, data=event.data
    )


def _is_frame_id(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_FRAME_ID
