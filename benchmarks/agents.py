"""Agents that cost next to nothing, to be served besides `examples.echo`.

Sent "fill N", an echo makes its new thread N messages long in one turn.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

LENGTHS = (0, 100, 1000)
"""Messages that a thread has when its turns are measured."""

TURNS_PER_THREAD = 10
"""Few enough that what they add to the thread does not count."""


def sync_echo(messages: list[dict[str, Any]]) -> list[str]:
    return answers_to(messages[-1]["content"])


async def async_echo(messages: list[dict[str, Any]]) -> list[str]:
    return answers_to(messages[-1]["content"])


async def stamped(_: list[dict[str, Any]]) -> AsyncIterator[str]:
    """Its first delta is the moment it was made, on the clock that all processes here share."""
    await asyncio.sleep(0.03)  # a model thinks before its first token
    yield str(time.monotonic_ns())
    yield "."


def answers_to(content: str) -> list[str]:
    word, _, number = content.partition(" ")
    return [f"answer {n}" for n in range(int(number) - 1)] if word == "fill" else [content]
