"""Conversations and what is said in them."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from agentflow_server.models.frozen import Frozen, JsonObject

ThreadStatus = Literal["idle", "busy", "interrupted", "error"]
Role = Literal["user", "assistant", "system", "tool"]


Content = str | list[JsonObject]
"""Text, or parts in OpenAI's shape: `[{"type": "text", "text": "Hello"}]`."""


class Interrupt(Frozen):
    """A question the agent waits for; `value` is whatever it wants to be shown."""

    interrupt_id: str
    value: Any


class Thread(Frozen):
    """A conversation with one agent; `interrupts` are the questions it waits for."""

    thread_id: str
    name: str | None = Field(description="A readable name; null until one was found or given.")
    status: ThreadStatus
    metadata: JsonObject
    created_at: datetime
    updated_at: datetime
    interrupts: list[Interrupt] = Field(default=[])


class Message(Frozen):
    """One utterance in a thread.

    `metadata` holds what the client sent with a user's message; for messages of an agent it holds
    `tool_calls`, `tool_call_id` and `name` where there are any.
    """

    message_id: str
    thread_id: str
    run_id: str
    role: Role
    content: Content
    created_at: datetime
    metadata: JsonObject


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message as an agent produces it, before it has a place in a thread."""

    role: Role
    content: Content
    metadata: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A client's `Idempotency-Key`, the route it was sent to, and a digest of the request."""

    key: str
    route: str
    digest: str
