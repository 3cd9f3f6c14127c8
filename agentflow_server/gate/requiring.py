"""`require_auth(agent, card)`: the same agent, behind a gate."""

import functools
import inspect
import sys
from typing import Any, TypeVar, cast

from agentflow_server.gate.calls import gate_call
from agentflow_server.gate.card import AuthCard
from agentflow_server.gate.objects import gate_methods, gate_object
from agentflow_server.importing import find_extra

T = TypeVar("T")

_OURS = "agentflow_server.interfaces.agents"
_LANGCHAIN = "langchain_core.runnables.base"


def require_auth(agent: T, card: AuthCard) -> T:
    """`agent`, which now runs only when the card's token verifies; whatever runs it raises
    CardExpired, CardRefused or CardUnverified otherwise, before it does anything.

    A function, a graph of LangGraph or 10xgraph, an Agent, or any object with methods; the given
    one itself is not changed. A stream is refused when it is first read. Raises TypeError.
    """
    if not isinstance(card, AuthCard):
        raise TypeError(f"expected an AuthCard, found {type(card).__name__}")
    if inspect.isclass(agent) or _makes_agents(agent):
        raise TypeError(
            f"{getattr(agent, '__name__', agent)!r} takes no messages, so it is no agent: "
            "gate what it returns"
        )
    if inspect.isroutine(agent) or isinstance(agent, functools.partial):
        return cast("T", gate_call(agent, card))
    if _is_a(agent, _OURS, "Agent"):
        return gate_methods(agent, card, async_streams=frozenset({"stream"}))
    if _is_a(agent, _LANGCHAIN, "RunnableSequence"):
        # As a part of another sequence it would be taken apart, and its gate be lost.
        return cast("T", gate_methods(sys.modules[_LANGCHAIN].RunnableBinding(bound=agent), card))
    if _is_a(agent, _LANGCHAIN, "Runnable") or _is_of_tenxgraph(agent):
        return gate_methods(agent, card)
    return cast("T", gate_object(agent, card))


def _makes_agents(agent: Any) -> bool:
    """The server would call it when it starts, and serve what it returns."""
    if not (inspect.isfunction(agent) or inspect.ismethod(agent)):
        return False
    parameters = inspect.signature(agent).parameters.values()
    return not any(
        p.name == "messages"
        or p.kind is p.VAR_POSITIONAL
        or (p.default is p.empty and p.kind is not p.VAR_KEYWORD)
        for p in parameters
    )


def _is_of_tenxgraph(agent: Any) -> bool:
    return any(
        base.__name__ == "CompiledGraph" and find_extra(base.__module__) == "tenxgraph"
        for base in type(agent).__mro__
    )


def _is_a(agent: Any, module: str, name: str) -> bool:
    """Without importing what the user has not imported."""
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(agent, kind)
