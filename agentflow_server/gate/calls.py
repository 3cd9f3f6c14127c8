"""Functions behind the gate, in all the forms that agents have."""

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing
from typing import Any

from agentflow_server.gate.card import AuthCard
from agentflow_server.importing import is_async_callable

_COROUTINES = frozenset({"ainvoke", "abatch", "arun", "acall"})
_ASYNC_STREAMS = frozenset({"astream", "atransform"})
"""What these are is known by their names, where the function does not show it."""

Keep = Callable[[Any], Any]


def gate_call(call: Callable[..., Any], card: AuthCard, *, keep: Keep = lambda found: found) -> Any:
    """The same function, which shows the card before it does anything.

    `keep` is applied to what a synchronous one returns.
    """
    name = getattr(call, "__name__", None)
    if is_async_callable(call) or name in _COROUTINES:
        return _gate_coroutine(call, card)
    if _has_form(inspect.isasyncgenfunction, call) or name in _ASYNC_STREAMS:
        return gate_async_stream(call, card)
    if _has_form(inspect.isgeneratorfunction, call):
        return _gate_stream(call, card)

    @functools.wraps(call)
    def gated(*args: Any, **kwargs: Any) -> Any:
        card.check()
        return keep(call(*args, **kwargs))

    return gated


def gate_async_stream(call: Callable[..., Any], card: AuthCard) -> Any:
    @functools.wraps(call)
    async def gated(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        await card.acheck()
        items = call(*args, **kwargs)
        if not hasattr(items, "aclose"):
            async for item in items:
                yield item
            return
        async with aclosing(items):
            async for item in items:
                yield item

    return gated


def _gate_coroutine(call: Callable[..., Any], card: AuthCard) -> Any:
    @functools.wraps(call)
    async def gated(*args: Any, **kwargs: Any) -> Any:
        await card.acheck()
        found = call(*args, **kwargs)
        return await found if inspect.isawaitable(found) else found

    return gated


def _gate_stream(call: Callable[..., Any], card: AuthCard) -> Any:
    @functools.wraps(call)
    def gated(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        card.check()
        return (yield from call(*args, **kwargs))

    return gated


def _has_form(is_form: Callable[[Any], bool], call: Any) -> bool:
    return is_form(call) or is_form(type(call).__call__)
