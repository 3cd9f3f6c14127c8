"""Approvals: questions that nothing but an explicit yes answers with a yes."""

from collections.abc import Mapping
from typing import Any

from pydantic import StrictBool, StrictStr, ValidationError

from agentflow_server.models.frozen import Frozen, JsonObject

_TYPE = "approval_required"

EXPECTED = 'expected true, false, or {"approved": true or false, "comment": "…"}'


class Decision(Frozen):
    """What a human says to an approval."""

    approved: StrictBool
    comment: StrictStr | None = None


def make_approval(action: str, details: Mapping[str, Any]) -> JsonObject:
    """The question, as everybody is shown it."""
    return {"type": _TYPE, "action": action, "details": dict(details)}


def is_approval(question: Any) -> bool:
    """Whether it has exactly this form, whoever asks it."""
    match question:
        case {"type": str(kind), "action": str(), "details": dict(), **rest}:
            return kind == _TYPE and not rest
    return False


def find_decision(answer: Any) -> Decision | None:
    """None for whatever is neither a yes nor a no: "yes", 1 and null are neither."""
    if isinstance(answer, bool):
        return Decision(approved=answer)
    try:
        return Decision.model_validate(answer)
    except ValidationError:
        return None
