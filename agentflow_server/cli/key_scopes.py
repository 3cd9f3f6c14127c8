"""The scopes of an API key: one that is almost one of ours is a slip, and would grant nothing."""

import difflib
from collections.abc import Sequence

from agentflow_server.auth.authorization import ADMIN
from agentflow_server.config import Config
from agentflow_server.errors import ConfigError
from agentflow_server.web.scopes import SCOPES

_SIMILAR = 0.8


def refuse_misspelt(scopes: Sequence[str], config: Config) -> None:
    """Raises ConfigError. Others may be meant for the agent; with an authorizer of his own, the
    user alone knows which there are."""
    if isinstance(config.authorization, str):
        return
    known = {*SCOPES.values(), ADMIN}
    problems = []
    for scope in scopes:
        close = difflib.get_close_matches(scope.lower(), known, n=1, cutoff=_SIMILAR)
        if close and scope not in known:
            problems.append(f"--scope: there is no {scope!r} – did you mean {close[0]!r}?")
    if problems:
        raise ConfigError(*problems)
