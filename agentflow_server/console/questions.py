"""What an agent asks, and the answer as the agent gets it."""

from typing import Any

from pydantic_core import from_json, to_json

from agentflow_server.console.printable import make_printable
from agentflow_server.models import Interrupt
from agentflow_server.models.approvals import is_approval

_TEXTS = ("question", "message", "prompt")
_DECISIONS = {"y": True, "yes": True, "n": False, "no": False}


def describe(question: Interrupt) -> str:
    """The question for people: its text, if it has one, and what it says besides."""
    match question.value:
        case None:
            return f"The agent waits for an answer ({question.interrupt_id})."
        case str(text):
            return make_printable(text)
        case {"action": action, "details": details} if is_approval(question.value):
            lines = [
                f"May this be done? {action}",
                *([_show(details)] if details else []),
                "y or n",
            ]
            return make_printable("\n".join(lines))
        case dict(fields):
            name = next((name for name in _TEXTS if isinstance(fields.get(name), str)), None)
            rest = {key: value for key, value in fields.items() if key != name}
            lines = [fields[name]] if name is not None else []
            lines += [_show(rest)] if rest else []
            return make_printable("\n".join(lines))
    return make_printable(_show(question.value))


def read_answer(question: Interrupt, typed: str) -> Any:
    """JSON as what it says, and anything else as text; `"42"` is how to write the text 42. An
    approval takes `y` and `n`, too."""
    if is_approval(question.value) and typed.lower() in _DECISIONS:
        return _DECISIONS[typed.lower()]
    try:
        return from_json(typed, allow_inf_nan=False)
    except ValueError:
        return typed


def _show(value: Any) -> str:
    return to_json(value, indent=2).decode()
