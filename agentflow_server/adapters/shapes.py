"""Messages in OpenAI's shape, and the checks that keep a thread readable."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from pydantic_core import to_jsonable_python

from agentflow_server.models import Content, JsonObject, Message, NewMessage, Role

TOOL_FIELDS = ("tool_calls", "tool_call_id", "name")
_ROLES = ("assistant", "tool", "system")


def to_openai(message: Message) -> JsonObject:
    """A private copy of a stored message; a user's metadata stays out of it."""
    shaped: JsonObject = {"role": message.role, "content": json_copy(message.content, "content")}
    if message.role != "user":
        for field in TOOL_FIELDS:
            if field in message.metadata:
                shaped[field] = json_copy(message.metadata[field], field)
    return shaped


def tool_call(name: str, call_id: str, arguments: Any) -> JsonObject:
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": json.dumps(arguments, default=str)},
    }


def checked_message(role: object, content: object, metadata: Mapping[str, Any]) -> NewMessage:
    """Raises TypeError for whatever would make its thread unreadable."""
    if role not in _ROLES:
        raise TypeError(
            f"expected a message with the role {', '.join(_ROLES)}, found {role!r}: an agent "
            "returns only what is new"
        )
    return NewMessage(
        role=cast("Role", role),
        content=_checked_content(content),
        metadata=_checked_metadata(metadata),
    )


def checked_text(text: str) -> str:
    """Raises TypeError for text that UTF-8 cannot hold."""
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise TypeError("expected text, found a lone surrogate in it") from exc
    return str(text)


def json_copy(value: Any, what: str) -> Any:
    """A deep copy that is JSON. Raises TypeError."""
    if isinstance(value, str):
        return checked_text(value)
    try:
        return json.loads(json.dumps(value, allow_nan=False, ensure_ascii=False).encode())
    except (TypeError, ValueError, RecursionError) as exc:
        raise TypeError(f"expected JSON in {what!r}: {exc}") from exc


def digest(value: Any) -> str:
    """The same for the same JSON, and nobody finds two that share one."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


def as_json(value: Any, *, bytes_mode: Literal["utf8", "base64"] = "utf8") -> Any:
    """JSON for something that is only shown: what JSON cannot say becomes its type's name."""
    return to_jsonable_python(
        value,
        bytes_mode=bytes_mode,
        inf_nan_mode="null",
        fallback=lambda other: f"<{type(other).__name__}>",
    )


def _checked_content(content: object) -> Content:
    if isinstance(content, str):
        return checked_text(content)
    if isinstance(content, Sequence) and all(isinstance(part, Mapping) for part in content):
        return cast("Content", json_copy([dict(part) for part in content], "content"))
    raise TypeError(
        f"expected content that is a string or a list of parts, found {type(content).__name__}"
    )


def _checked_metadata(metadata: Mapping[str, Any]) -> JsonObject:
    copied: JsonObject = json_copy(dict(metadata), "metadata")
    if not isinstance(copied.get("tool_calls", []), list):
        raise TypeError('expected a list in "tool_calls"')
    for field in ("tool_call_id", "name"):
        if not isinstance(copied.get(field, ""), str):
            raise TypeError(f'expected a string in "{field}"')
    return copied
