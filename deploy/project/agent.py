"""What the example deployment serves until you put your own agent here."""

from typing import Any


def app(messages: list[dict[str, Any]], config: dict[str, Any]) -> str:
    return f"{config['user_id']}, you said: {messages[-1]['content']}"
