"""What an agent said in a run that was started before, here or elsewhere."""

from pydantic import Field

from agentflow_server.client.answers import Turn
from agentflow_server.client.errors import RunFailed
from agentflow_server.client.exchange import Call, parse, path_of
from agentflow_server.client.following import PAUSES
from agentflow_server.client.server import Server
from agentflow_server.client.steps import Steps, gather
from agentflow_server.models import Frozen, Interrupt, Message, Page, RunError, RunStatus

_BEGINNINGS = frozenset({"run.started", "run.resumed"})
_TOLD = PAUSES | _BEGINNINGS | {"message.completed"}


class RunEnd(Frozen):
    """How a run ended, as its last event and the run itself say it."""

    thread_id: str
    run_id: str
    status: RunStatus
    error: RunError | None = None
    interrupts: list[Interrupt] = Field(default=[])


def wait_for_turn(
    server: Server, thread_id: str, run_id: str, timeout: float | None
) -> Steps[Turn]:
    """Raises RunFailed, TimedOut."""
    follower = server.follower(thread_id, run_id, timeout=timeout)
    events = yield from gather(follower.follow(), lambda event: event.type in _TOLD)
    if not events or events[-1].type not in PAUSES or events[-1].type == "run.cancelled":
        # Copies have no events, and of what was cancelled not everything is kept.
        return (yield from _recall_turn(server, thread_id, run_id))
    said: list[Message] = []
    for event in events:
        if event.type in _BEGINNINGS:
            said.clear()  # what was said before a crash, or before the question
        elif event.type == "message.completed":
            said.append(parse(Message, event.data))
    return _turn(parse(RunEnd, events[-1].data), said)


def _recall_turn(server: Server, thread_id: str, run_id: str) -> Steps[Turn]:
    """From the history. Raises RunFailed."""
    call = Call("GET", path_of("threads", thread_id, "runs", run_id), repeatable=True)
    end = yield from server.exchange.fetch(call, RunEnd)
    messages = yield from gather(
        server.list_items(path_of("threads", thread_id, "messages"), Page[Message], limit="200"),
        lambda message: message.run_id == run_id and message.role != "user",
    )
    return _turn(end, messages)


def _turn(end: RunEnd, messages: list[Message]) -> Turn:
    """Raises RunFailed."""
    if end.error is not None:
        ids = {"thread_id": end.thread_id, "run_id": end.run_id}
        raise RunFailed(end.error.detail, code=end.error.code, document=ids)
    said = [message for message in messages if message.role == "assistant"]
    return Turn(
        thread_id=end.thread_id,
        run_id=end.run_id,
        status=end.status,
        message=said[-1] if said else None,
        messages=messages,
        interrupts=end.interrupts,
    )
