"""What an authenticated caller may do: everything with his own, by scopes, or as you decide."""

import asyncio
import inspect
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any

from agentflow_server.daemon_threads import DaemonThreads
from agentflow_server.errors import ConfigError
from agentflow_server.importing import count_positional, is_async_callable, load
from agentflow_server.interfaces import Authorizer
from agentflow_server.models import Principal

log = logging.getLogger(__name__)

ADMIN = "admin"
ANSWER_ANY = "interrupts:answer:any"
"""To answer what the runs of others ask: nobody has it whom the configuration or his credential does
not name, neither an administrator nor whom a function says yes to."""

DECISION_SECONDS = 5.0
DECISION_THREADS = 40


class OwnerAuthorizer(Authorizer):
    """Nothing is configured: a caller may do everything with what is his own, and nothing else."""

    async def authorize(self, principal: Principal, action: str, resource: str | None) -> bool:
        return action not in {ADMIN, ANSWER_ANY}


class ScopeAuthorizer(Authorizer):
    """By scopes: those of the token, those of the caller's roles, and those everybody has.

    `admin` grants all of them but `interrupts:answer:any`.
    """

    def __init__(
        self, roles: Mapping[str, Collection[str]], default_scopes: Collection[str] = ()
    ) -> None:
        self._roles = {role: frozenset(scopes) for role, scopes in roles.items()}
        self._default = frozenset(default_scopes)

    async def authorize(self, principal: Principal, action: str, resource: str | None) -> bool:
        scopes = principal.scopes.union(
            self._default, *(self._roles.get(role, ()) for role in principal.roles)
        )
        return action in scopes or (ADMIN in scopes and action != ANSWER_ANY)


class CustomAuthorizer(Authorizer):
    """A function of the user's, `authorize(principal, action, resource) -> bool`.

    It may be async; a synchronous one runs in a worker thread. Whatever it raises, whatever it
    returns but True, and whatever takes longer than DECISION_SECONDS is a no.
    """

    def __init__(self, decide: Callable[[Principal, str, str | None], Any]) -> None:
        self._decide = decide
        self._is_async = is_async_callable(decide)
        self._threads = DaemonThreads(DECISION_THREADS)

    async def authorize(self, principal: Principal, action: str, resource: str | None) -> bool:
        if action == ANSWER_ANY:
            return False  # whoever says yes to what he does not know has not thought of this
        try:
            async with asyncio.timeout(DECISION_SECONDS):
                answer = await self._ask(principal, action, resource)
        except (Exception, SystemExit, asyncio.CancelledError) as exc:  # a doubt is a no
            task = asyncio.current_task()
            if isinstance(exc, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            log.exception("authorization: the configured function failed; refused")
            return False
        if not isinstance(answer, bool):
            kind = type(answer).__name__
            log.error("authorization: expected True or False, found %s; refused", kind)
            return False
        return answer

    async def _ask(self, principal: Principal, action: str, resource: str | None) -> Any:
        if self._is_async:
            return await self._decide(principal, action, resource)
        return await self._threads.run(lambda: self._decide(principal, action, resource))


def load_authorizer(path: str) -> CustomAuthorizer:
    """Raises ConfigError."""
    decide = load(path, setting="authorization")
    if inspect.isclass(decide):
        decide = decide()
    if hasattr(decide, "authorize"):
        decide = decide.authorize
    if not callable(decide) or count_positional(decide) not in {3, -1}:
        raise ConfigError(
            "authorization: expected a callable of three arguments (principal, action, resource), "
            f"{path!r} is a {type(decide).__name__}"
        )
    return CustomAuthorizer(decide)
