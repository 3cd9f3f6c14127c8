"""Who is calling, what he may do, how often, and who writes it down."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from fastapi import Response
from fastapi.requests import HTTPConnection
from fastapi.security import HTTPAuthorizationCredentials

from agentflow_server.models import AuditEvent, Principal, Quota


class BaseAuth(ABC):
    """Your own authentication: `"auth": {"method": "custom", "path": "auth.custom:MyAuth"}`.

    The class is constructed once, at start-up, with `auth.options` as keyword arguments.
    `authenticate` may be `async`; a synchronous one runs in a worker thread, several at a time.
    It may also take three arguments: `(request, res, credential)`.

    A class may have two more methods. `recognises(self, credential: str) -> bool`, never `async`
    and quick: among several methods, whether this credential is its own to judge; False lets the
    next method be asked, and a class that is not the last one needs it. `close(self)`, `async` or
    not: called once, when the server stops.
    """

    credential_required: ClassVar[bool] = True
    """False: `authenticate` is also called without an Authorization header, with None."""

    @abstractmethod
    def authenticate(
        self, res: Response, credential: HTTPAuthorizationCredentials
    ) -> dict[str, Any] | None:
        """Say who the caller is.

        Returns a dict with `user_id` (every key reaches the agent's config), or `{}` for "no
        authentication required": an anonymous caller. `None` is a 401. Raise
        `fastapi.HTTPException` to answer in your own words; any other exception is a 503.
        Headers and cookies set on `res` reach the client.
        """
        raise NotImplementedError


class Authenticator(ABC):
    """One way to turn a credential into a principal; chosen by `auth` in agentflow.json."""

    credential_required: bool = True
    """False: called with `credential=None` when the request has no Authorization header."""

    name: ClassVar[str] = "custom"
    """How the method is called in agentflow.json."""

    security_scheme: Mapping[str, Any] | None = None
    """The OpenAPI security scheme object; None when nobody is asked for a credential."""

    @property
    def security_schemes(self) -> Mapping[str, Mapping[str, Any]]:
        """All ways to send a credential, by name; empty when nobody is asked for one."""
        return {} if self.security_scheme is None else {self.name: self.security_scheme}

    def recognises(self, credential: HTTPAuthorizationCredentials) -> bool:
        """Whether this method is responsible for the credential, judged by its form alone.

        Of several methods the first that recognises a credential decides; its "no" is final.
        """
        return True

    async def open(self) -> None:
        """Called once, on the server's event loop, before the first request."""

    async def close(self) -> None:
        """Called once, after the last request."""

    def problems(self) -> Sequence[str]:
        """What keeps it from working right now, such as an issuer whose keys cannot be had."""
        return ()

    @abstractmethod
    async def authenticate(
        self,
        request: HTTPConnection,
        response: Response,
        credential: HTTPAuthorizationCredentials | None,
    ) -> Principal:
        """Raises NotAuthenticated, AuthUnavailable, or a custom backend's own HTTPException."""


class Authorizer(ABC):
    """Decides what an authenticated caller may do."""

    @abstractmethod
    async def authorize(self, principal: Principal, action: str, resource: str | None) -> bool:
        """Whether `principal` may do `action` (`threads:read`, `runs:create`, …).

        `resource` is the id of the thread in the path, if there is one. Anything raised means no.
        """


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of a quota after a hit; `reset_after` in seconds."""

    allowed: bool
    quota: Quota
    remaining: int
    reset_after: int


class RateLimiter(ABC):
    """Counts hits. Bounded in memory, whatever keys it is asked about."""

    @abstractmethod
    async def hit(self, key: str, quota: Quota) -> Allowance:
        """Count one hit of `key`. Never raises: a limiter that cannot count allows, and logs."""

    @abstractmethod
    async def peek(self, key: str, quota: Quota) -> Allowance:
        """What is left, without counting."""

    async def open(self) -> None:
        """Called once, on the server's event loop."""

    async def close(self) -> None:
        """Called once, at the end."""


class AuditLog(ABC):
    """Writes down security decisions, each tied to the one before it."""

    @abstractmethod
    def record(self, event: AuditEvent) -> None:
        """Take note. Never blocks and never raises: a log that cannot be written is reported in
        the server's own log, and requests go on."""

    async def open(self) -> None:
        """Called once, on the server's event loop."""

    async def close(self) -> None:
        """Called once; everything recorded is written."""
