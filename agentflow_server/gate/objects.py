"""Objects behind the gate: graphs, which stay what they are, and any other."""

import copy
import inspect
import types
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from agentflow_server.gate.calls import gate_async_stream, gate_call
from agentflow_server.gate.card import AuthCard

T = TypeVar("T")

RUNS = frozenset(
    {"__call__", "invoke", "ainvoke", "stream", "astream", "run", "arun", "acall"}
    | {"batch", "abatch", "batch_as_completed", "abatch_as_completed", "transform", "atransform"}
    | {"realtime", "arealtime"}
)
"""All ways into an agent of a framework; the frameworks' other methods go through one of these."""


def gate_methods(agent: T, card: AuthCard, *, async_streams: frozenset[str] = frozenset()) -> T:
    """A twin whose class is derived from the agent's: frameworks and adapters know it by that, and
    copies that the framework makes of it are behind the gate, too.

    `async_streams` are methods that return one, however they are written.
    """
    base: Any = type(agent)
    known = {name for cls in base.__mro__ for name in vars(cls)}
    gated = {
        name: (gate_async_stream if name in async_streams else gate_call)(getattr(base, name), card)
        for name in RUNS & known
    }
    names = {"__module__": base.__module__, "__qualname__": base.__qualname__, "__slots__": ()}
    derived = types.new_class(base.__name__, (base,), {}, lambda body: body.update(names | gated))
    twin = copy.copy(agent)
    twin.__class__ = derived
    for name in RUNS & vars(twin).keys():  # these would come before the methods
        vars(twin)[name] = gate_call(vars(twin)[name], card)
    return twin


def gate_object(agent: Any, card: AuthCard) -> Any:
    return (_GatedCallable if callable(agent) else _GatedObject)(agent, card)


class _GatedObject:
    """Shows the card before any of the object's methods is called; its data is simply there."""

    __slots__ = ("_gated_agent", "_gated_card")

    def __init__(self, agent: Any, card: AuthCard) -> None:
        self._gated_agent = agent
        self._gated_card = card

    def __repr__(self) -> str:
        return f"{self._gated_agent!r} behind {self._gated_card!r}"

    def __dir__(self) -> list[str]:
        return dir(self._gated_agent)

    def __getattr__(self, name: str) -> Any:
        if name in _GatedObject.__slots__:  # while it is being copied
            raise AttributeError(name)
        found = getattr(self._gated_agent, name)
        return _gate_found(self, found) if callable(found) and not inspect.isclass(found) else found

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _GatedObject.__slots__:
            object.__setattr__(self, name, value)
        else:
            setattr(self._gated_agent, name, value)


class _GatedCallable(_GatedObject):
    __slots__ = ()

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._gated_agent)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _gate_found(self, self._gated_agent)(*args, **kwargs)


def _gate_found(gate: _GatedObject, call: Callable[..., Any]) -> Any:
    agent, card = gate._gated_agent, gate._gated_card  # noqa: SLF001 – of this module
    return gate_call(call, card, keep=partial(_keep_gated, gate, type(agent), card))


def _keep_gated(gate: _GatedObject, kind: type, card: AuthCard, found: Any) -> Any:
    """What builds on an agent, such as `agent.with_tools(…)`, returns it, or another one."""
    if found is gate._gated_agent:  # noqa: SLF001 – of this module
        return gate
    return gate_object(found, card) if isinstance(found, kind) else found
