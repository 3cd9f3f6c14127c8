"""Lets an agent wait for a yes: `await approve(config, "send 3 emails", details={…})`."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from agentflow_server.adapters.asking import AskingConfig
from agentflow_server.adapters.shapes import digest, json_copy
from agentflow_server.errors import NotApproved
from agentflow_server.models import JsonObject
from agentflow_server.models.approvals import (
    EXPECTED,
    Decision,
    find_decision,
    is_approval,
    make_approval,
)

_SHOWN = "shown"
_TENXGRAPHS = ("tenxgraph.utils.interrupt", "agentflow.utils.interrupt")


@dataclass(frozen=True, slots=True)
class Approval:
    """A yes, and what was said with it."""

    comment: str | None = None


async def approve(
    config: Mapping[str, Any], action: str, *, details: Mapping[str, Any] | None = None
) -> Approval:
    """Go on only when a human has said yes to this `action` with these `details` (JSON).

    The agent stops here as at a question of its framework, and comes here again when there is an
    answer. A yes is good for exactly what was shown: when `action` or `details` are no longer the
    same, it is asked anew.

    Raises NotApproved when the answer was no, and TypeError unless `config` is the one that the
    function, node or tool was given.
    """
    return approve_sync(config, action, details=details)


def approve_sync(
    config: Mapping[str, Any], action: str, *, details: Mapping[str, Any] | None = None
) -> Approval:
    """The same for `def` functions, nodes and tools."""
    if not isinstance(action, str) or not isinstance(details, Mapping | None):
        raise TypeError("expected an action that is text, and details that are a JSON object")
    question = json_copy(make_approval(action, details or {}), "the approval")
    if isinstance(config, AskingConfig):
        decision = _read_decision(config.questions.ask(question))
    else:
        decision = _ask_graph(_find_interrupt(config), question)
    if not decision.approved:
        raise NotApproved(decision.comment)
    return Approval(decision.comment)


def bind_answer(question: Any, answer: Any) -> Any:
    """What a graph is resumed with. An answer to an approval says what was shown: frameworks give
    answers by the order of questions, whatever these are when the graph asks again."""
    if not is_approval(question):
        return answer
    return {**_read_decision(answer).model_dump(), _SHOWN: digest(question)}


def _ask_graph(interrupt: Callable[[Any], Any], question: JsonObject) -> Decision:
    shown = digest(question)
    while True:  # `interrupt` stops the graph when there are no more answers
        answer = interrupt(question)
        if isinstance(answer, Mapping) and answer.get(_SHOWN) == shown:
            decision = {key: value for key, value in answer.items() if key != _SHOWN}
            return _read_decision(decision)


def _read_decision(answer: Any) -> Decision:
    """What is not understood is a no."""
    return find_decision(answer) or Decision(approved=False, comment=f"Not understood: {EXPECTED}")


def _find_interrupt(config: Mapping[str, Any]) -> Callable[[Any], Any]:
    """The one of the framework whose config it is, which is imported already. Raises TypeError."""
    if isinstance(config, Mapping):
        for name in _TENXGRAPHS:
            module: Any = sys.modules.get(name)
            if module is not None and module.SCOPE_CONFIG_KEY in config:
                found: Callable[[Any], Any] = module.interrupt
                return found
        if "configurable" in config:
            ask: Callable[[Any], Any] = import_module("langgraph.types").interrupt
            return ask
    raise TypeError(
        "expected the config that the function, node or tool was given, found "
        f"{type(config).__name__}: pass that object itself"
    )
