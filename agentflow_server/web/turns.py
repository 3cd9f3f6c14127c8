"""How the answer to a message reaches its sender: as JSON, as a stream, or later."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, Literal

from fastapi import Request, Response
from fastapi.requests import HTTPConnection
from pydantic import Field, model_validator
from pydantic_core import to_json

from agentflow_server.config import WebhooksConfig
from agentflow_server.errors import InvalidRequest
from agentflow_server.models import Event, Interrupt, JsonObject, Message, Principal, Run
from agentflow_server.runs.following import Turn
from agentflow_server.runs.runner import Runner
from agentflow_server.web.parameters import RequestBody, json_response, mounted_at
from agentflow_server.web.sse import EventStream
from agentflow_server.web.watching import while_admitted
from agentflow_server.webhooks import MAX_LENGTH, check_url


class TurnBody(RequestBody):
    """What every body that starts a turn may say about the answer."""

    stream: bool = Field(default=False, description="Answer with server-sent events.")
    background: bool = Field(
        default=False, description="Answer at once, with a 202 and the run; ask for its end later."
    )
    on_disconnect: Literal["continue", "cancel"] = Field(
        default="continue", description="What becomes of the run when whoever waits for it leaves."
    )
    webhook: str | None = Field(
        default=None,
        max_length=MAX_LENGTH,
        description="An https URL that is told when the run has ended.",
        examples=["https://hooks.example.com/runs"],
    )

    @model_validator(mode="after")
    def _background_waits_for_nobody(self) -> "TurnBody":
        if self.background and self.stream:
            raise ValueError("background and stream exclude each other")
        if self.background and self.on_disconnect == "cancel":
            raise ValueError("background and on_disconnect: cancel exclude each other")
        return self

    def wants_stream(self, accept: str) -> bool:
        return self.stream or ("text/event-stream" in accept and not self.background)


def find_webhook(connection: HTTPConnection, body: TurnBody) -> str | None:
    """Raises InvalidRequest."""
    if body.webhook is None:
        return None
    config: WebhooksConfig | None = connection.app.state.webhooks
    if config is None:
        raise InvalidRequest("webhook: this server has no webhooks configured")
    return check_url(body.webhook, config)


class TurnResult(RequestBody):
    """What the agent answered. `message` is the last message of the assistant, `interrupts` what
    an `interrupted` run waits for; a `cancelled` one was stopped by somebody."""

    thread_id: str
    run_id: str
    status: Literal["success", "interrupted", "cancelled"]
    message: Message | None
    messages: list[Message]
    interrupts: list[Interrupt] = Field(default_factory=list)


TURN_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": TurnResult,
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    202: {"model": Run, "description": "With `background`: the run, which has not ended"},
}


def accepted(request: Request, run: Run) -> Response:
    response = json_response(run, 202)
    response.headers["Location"] = (
        f"{mounted_at(request)}/threads/{run.thread_id}/runs/{run.run_id}"
    )
    return response


def turn_response(turn: Turn) -> Response:
    final = next((m for m in reversed(turn.messages) if m["role"] == "assistant"), None)
    body: JsonObject = {
        "thread_id": turn.thread_id,
        "run_id": turn.run_id,
        "status": turn.status,
        "message": final,
        "messages": turn.messages,
        "interrupts": turn.interrupts,
    }
    return Response(to_json(body), media_type="application/json")


def stream_response(
    request: Request,
    runner: Runner,
    caller: Principal,
    run: Run,
    *,
    after: int = 0,
    stop_when_left: bool = False,
) -> Response:
    events = while_admitted(runner.follow(caller.id, run, after=after), request, caller)
    return EventStream(_watched(events, runner, caller, run) if stop_when_left else events)


async def _watched(
    events: AsyncGenerator[Event | None, None], runner: Runner, caller: Principal, run: Run
) -> AsyncGenerator[Event | None, None]:
    """Stops the run when its reader leaves before the last event."""
    finished = False
    try:
        async with aclosing(events):
            async for event in events:
                yield event
        finished = True
    finally:
        if not finished:
            runner.stop_later(caller, run)


async def wait_response(request: Request, runner: Runner, caller: Principal, run: Run) -> Response:
    """The turn when it has ended; a client that goes away before stops the run."""
    turn = await _until_left(request, runner.wait(caller, run))
    if turn is None:
        runner.stop_later(caller, run)
        return Response(status_code=204)  # nobody reads it
    return turn_response(turn)


async def _until_left(request: Request, work: Coroutine[Any, Any, Turn]) -> Turn | None:
    """What `work` returns; None when the client went away first."""
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_wait_for_leaving(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _wait_for_leaving(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
