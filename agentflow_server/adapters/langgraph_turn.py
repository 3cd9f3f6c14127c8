"""Turns what a LangGraph graph streams into events."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.messages.utils import convert_to_messages

from agentflow_server.adapters.shapes import as_json, checked_message, checked_text, tool_call
from agentflow_server.interfaces import (
    AgentEvent,
    CustomEvent,
    MessageCompleted,
    TextDelta,
    ToolCompleted,
    ToolStarted,
)
from agentflow_server.models import Content, JsonObject


class Turn:
    """Turns what LangGraph streams into events; knows the messages that were told before."""

    def __init__(self, told: Sequence[Any] | None = None) -> None:
        """`told` are the messages of an earlier state; without, those the run starts with."""
        self.stopped = False
        self._told = told
        self._seen: set[str | int] | None = None
        self._writer: tuple[int, str] = (-1, "")

    def read(self, mode: str, chunk: Any) -> Iterator[AgentEvent]:
        match mode:
            case "messages":
                yield from self._read_delta(*chunk)
            case "custom":
                yield CustomEvent(as_json(chunk))
            case "values":
                yield from self._read_state(chunk["messages"])
        if mode in {"values", "updates"} and "__interrupt__" in chunk:
            self.stopped = True

    def _read_delta(
        self, message: BaseMessage, metadata: Mapping[str, Any]
    ) -> Iterator[AgentEvent]:
        """Of nodes that write at the same time the first is heard: deltas make one message."""
        if not isinstance(message, AIMessageChunk) or not message.text:
            return
        writer = (metadata["langgraph_step"], metadata["langgraph_checkpoint_ns"])
        if writer[0] != self._writer[0]:
            self._writer = writer
        if writer == self._writer:
            yield TextDelta(checked_text(message.text))

    def _read_state(self, messages: Sequence[Any]) -> Iterator[AgentEvent]:
        """The first state is the one the run starts with, or goes on with."""
        if self._seen is None:
            told = messages if self._told is None else self._told
            # A message without an id is known by its place alone.
            placed = [m for m in messages[: len(told)] if isinstance(identity(m), int)]
            self._seen = {identity(message) for message in [*told, *placed]}
        for message in messages:
            if identity(message) not in self._seen:
                self._seen.add(identity(message))
                yield from _read_message(*convert_to_messages([message]))


def _read_message(message: BaseMessage) -> Iterator[AgentEvent]:
    match message:
        case AIMessage():
            calls = [
                tool_call(call["name"], call["id"] or "", call["args"])
                for call in message.tool_calls
            ]
            metadata = {"tool_calls": calls} if calls else {}
            yield MessageCompleted(
                checked_message("assistant", _content_of(message), _with_name(message, metadata))
            )
            for call in message.tool_calls:
                yield ToolStarted(call["name"], call["id"] or "", as_json(call["args"]))
        case ToolMessage():
            content = _content_of(message)
            yield ToolCompleted(message.name or "", message.tool_call_id, content)
            metadata = _with_name(message, {"tool_call_id": message.tool_call_id})
            yield MessageCompleted(checked_message("tool", content, metadata))


def _content_of(message: BaseMessage) -> Content:
    if isinstance(message.content, str):
        return message.content
    return [
        {"type": "text", "text": part} if isinstance(part, str) else as_json(part)
        for part in message.content
    ]


def _with_name(message: BaseMessage, metadata: JsonObject) -> JsonObject:
    return {**metadata, "name": message.name} if message.name else metadata


def identity(message: Any) -> str | int:
    """Messages have ids, unless the state's reducer is not LangGraph's `add_messages`."""
    given = message.get("id") if isinstance(message, dict) else message.id
    return given or id(message)
