"""Agents that say when and where they said it, on the clock that all processes here share."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from typing import Any

STAMPS = 20


async def stamping(messages: list[dict[str, Any]]) -> AsyncIterator[str]:
    """The pauses leave time to come and read, and no two stamps in one batch."""
    for _ in range(STAMPS):
        await asyncio.sleep(0.1)
        yield stamp()


async def endless(messages: list[dict[str, Any]]) -> AsyncIterator[str]:
    yield stamp()
    await asyncio.Event().wait()


def stamp() -> str:
    """As `reading.STAMP` reads it."""
    return f"{os.getpid()}@{time.monotonic_ns()}"
