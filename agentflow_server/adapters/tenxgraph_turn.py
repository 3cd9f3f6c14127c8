"""Turns what a graph of 10xgraph streams into events."""

from collections.abc import Iterator
from typing import Any

from agentflow_server.adapters.shapes import as_json, checked_message, checked_text
from agentflow_server.interfaces import (
    AgentEvent,
    CustomEvent,
    MessageCompleted,
    TextDelta,
    ToolCompleted,
    ToolStarted,
)
from agentflow_server.models import Content


class Turn:
    """Turns what 10xgraph streams into events; knows the messages it has passed on."""

    def __init__(self) -> None:
        self.stopped = False
        self._seen: set[str | int] = set()

    def read(self, chunk: Any) -> Iterator[AgentEvent]:
        data = chunk.data or {}
        match str(chunk.event), data.get("status"):
            case "message", _ if chunk.message is None:
                yield CustomEvent(as_json(data))
            case "message", _:
                yield from self._read_message(chunk.message, data.get("tool_name", ""))
            case "updates", "invoking_tool":
                yield ToolStarted(data["tool_name"], data["tool_call_id"], as_json(data["args"]))
            case "updates", status if status == "interrupted" or data.get("is_interrupted"):
                self.stopped = True
            case "error", "tool_failed" if "error" in data:
                yield from _tool_completed(data["tool_name"], data["tool_call_id"], data["error"])
            case "error", "tool_failed":
                yield CustomEvent(as_json(data))

    def _read_message(self, message: Any, tool_name: str) -> Iterator[AgentEvent]:
        if message.delta:
            if text := message.text():
                yield TextDelta(checked_text(text))
            return
        if message.message_id in self._seen or message.role == "user":
            return  # the question is echoed
        self._seen.add(message.message_id)
        if message.role == "tool":
            call_id = next(iter(call_ids(message)), "")
            yield from _tool_completed(tool_name, call_id, message.text())
        else:
            metadata = {"tool_calls": message.tools_calls} if message.tools_calls else {}
            yield MessageCompleted(checked_message(message.role, _content_of(message), metadata))


def _tool_completed(name: str, call_id: str, result: str) -> Iterator[AgentEvent]:
    yield ToolCompleted(name, call_id, result)
    metadata = {"tool_call_id": call_id, **({"name": name} if name else {})}
    yield MessageCompleted(checked_message("tool", result, metadata))


def call_ids(message: Any) -> list[str]:
    return [block.call_id for block in message.content if block.type == "tool_result"]


def _content_of(message: Any) -> Content:
    """Text where there is nothing else; what the model thought is not part of its answer."""
    blocks = [
        block
        for block in message.content
        if block.type not in {"reasoning", "tool_call", "remote_tool_call"}
    ]
    if all(block.type == "text" for block in blocks):
        return "".join(block.text for block in blocks)
    return [block.model_dump(mode="json", exclude_none=True) for block in blocks]
