"""Ctrl-C while something is awaited: it cancels, as often as it comes."""

import asyncio
import signal
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


def run_interruptible(runner: asyncio.Runner, doing: Coroutine[Any, Any, T]) -> T:
    """Raises KeyboardInterrupt when `doing` lets itself be cancelled."""
    return runner.run(_cancelled_by_ctrl_c(doing))


async def _cancelled_by_ctrl_c(doing: Coroutine[Any, Any, T]) -> T:
    # The runner's own handler raises the second time, in the midst of whatever is being done: that
    # leaves the HTTP client's cancel scopes in disorder.
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(doing)
    with suppress(NotImplementedError):  # Windows has only that one
        loop.add_signal_handler(signal.SIGINT, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        with suppress(NotImplementedError):
            loop.remove_signal_handler(signal.SIGINT)
