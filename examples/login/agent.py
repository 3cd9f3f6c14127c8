"""Greets whoever has logged in, and counts what he has said on this thread."""

from typing import Any


def app(messages: list[dict[str, Any]], config: dict[str, Any]) -> str:
    """`config` holds the claims of the caller's token: nobody else can have set them."""
    said = sum(message["role"] == "user" for message in messages)
    return f"Hello {config['username']}, message {said} of yours is: {messages[-1]['content']}"
