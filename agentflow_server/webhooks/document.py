"""What a receiver is told about a run: nothing of its caller, and no more than he can digest."""

from collections.abc import Mapping

from pydantic_core import to_json

from agentflow_server.models import Delivery, JsonObject, RunStatus

MAX_BYTES = 256_000

_TYPES: Mapping[RunStatus, str] = {
    "success": "run.completed",
    "cancelled": "run.cancelled",
    "interrupted": "run.interrupted",
}


def write_document(delivery: Delivery) -> bytes:
    """JSON of at most MAX_BYTES; `omitted` names what had to be left out for that."""
    omitted = [] if delivery.messages is not None else ["messages"]
    text = to_json(_describe(delivery, omitted), inf_nan_mode="null")
    for name in ("messages", "interrupts"):
        if len(text) > MAX_BYTES:
            omitted = sorted({*omitted, name})
            text = to_json(_describe(delivery, omitted), inf_nan_mode="null")
    return text


def _describe(delivery: Delivery, omitted: list[str]) -> JsonObject:
    return {
        "type": _TYPES.get(delivery.status, "run.failed"),
        "timestamp": delivery.ended_at,
        "data": {
            "thread_id": delivery.thread_id,
            "run_id": delivery.run_id,
            "agent": delivery.agent,
            "status": delivery.status,
            "error": delivery.error,
            "interrupts": [] if "interrupts" in omitted else delivery.interrupts,
            "messages": [] if "messages" in omitted else delivery.messages,
            "omitted": omitted,
        },
    }
