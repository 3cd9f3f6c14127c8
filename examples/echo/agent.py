"""The smallest agent: it says what you said, and knows who you are."""

from typing import Any


def app(messages: list[dict[str, Any]], config: dict[str, Any]) -> str:
    """Answers the newest of `messages`; `config` holds the caller's claims."""
    name = config.get("username") or config["user_id"] or "stranger"
    return f"{name}, you said: {messages[-1]['content']}"
