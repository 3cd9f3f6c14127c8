"""What an agent gets to see of its caller."""

from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json, to_json

from agentflow_server.interfaces import RunContext
from agentflow_server.models import ActiveRun, JsonObject, Principal

SERVER_KEYS = frozenset({"thread_id", "run_id", "agent", "user", "user_id"})
"""Set by the server alone: neither a claim nor a client replaces one."""


def build_context(active: ActiveRun, *, reserved: frozenset[str]) -> RunContext:
    """`config = {**allowed client config, **claims, **server keys}`, deep-copied.

    A claim that bears the name of a server key, of a key the framework reserves, or that starts
    with an underscore stays out of the top level. All claims are under `config["user"]`.
    """
    claims = _copy(active.claims)
    config = {
        **_copy(active.config),
        **{key: value for key, value in claims.items() if _may_be_top_level(key, reserved)},
        "thread_id": active.run.thread_id,
        "run_id": active.run.run_id,
        "agent": active.run.agent,
        "user": _copy(active.claims),
        "user_id": active.owner or None,
    }
    return RunContext(
        thread_id=active.run.thread_id,
        run_id=active.run.run_id,
        agent=active.run.agent,
        principal=Principal(id=active.owner, claims=claims),
        config=config,
        client_config=_copy(active.config),
        answers=[_copy(answers) for answers in active.answers],
        attempt=active.run.attempt,
    )


def _may_be_top_level(key: str, reserved: frozenset[str]) -> bool:
    return key not in SERVER_KEYS and key not in reserved and not key.startswith("_")


def _copy(value: Mapping[str, Any]) -> JsonObject:
    """A deep copy; faster than `copy.deepcopy`, and what is not JSON cannot get through."""
    if not value:
        return {}
    copied: JsonObject = from_json(to_json(value))
    return copied
