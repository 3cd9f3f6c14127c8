"""Mode custom: the user's BaseAuth, asked at arm's length."""

import asyncio
import inspect
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi import Response
from fastapi.requests import HTTPConnection
from fastapi.security import HTTPAuthorizationCredentials
from starlette.exceptions import HTTPException

from agentflow_server.auth.backend import find_closer, find_recogniser, takes_request
from agentflow_server.auth.claims import read_principal
from agentflow_server.auth.redaction import log_failure, redact
from agentflow_server.daemon_threads import DaemonThreads
from agentflow_server.errors import AuthUnavailable, NotAuthenticated
from agentflow_server.importing import is_async_callable
from agentflow_server.interfaces import Authenticator, BaseAuth
from agentflow_server.models import ANONYMOUS, Principal

log = logging.getLogger(__name__)

# They describe the body, and the body is not the backend's.
_BODY_HEADERS = frozenset({b"content-length", b"content-type", b"transfer-encoding"})


class CustomAuth(Authenticator):
    """Asks `backend`; a failure or silence of `timeout` seconds means 503, never access.

    A synchronous backend runs in threads, at most `threads` at a time, hung ones included; who
    finds them all taken waits, within the same timeout.
    """

    def __init__(
        self,
        backend: BaseAuth,
        *,
        timeout: float = 5.0,
        threads: int = 40,
        reserved: tuple[str, ...] = (),
    ) -> None:
        """`reserved` are beginnings of user ids that belong to another method's issuer.

        Raises ConfigError when the signature of `authenticate` is neither form.
        """
        self.security_scheme = {"type": "http", "scheme": "bearer"}
        # An old package's BaseAuth does not know the attribute.
        self.credential_required = getattr(backend, "credential_required", True)
        self._name = type(backend).__qualname__
        self._call: Callable[..., Any] = backend.authenticate
        self._takes_request = takes_request(backend.authenticate)
        self._is_async = is_async_callable(backend.authenticate)
        self._recognise = find_recogniser(backend)
        self._close = find_closer(backend)
        self._close_is_async = is_async_callable(self._close)
        self._timeout = timeout
        self._threads = DaemonThreads(threads)
        self._reserved = reserved

    def recognises(self, credential: HTTPAuthorizationCredentials) -> bool:
        """Every bearer token, unless the backend has a `recognises(credential)` that says no.

        Raises AuthUnavailable when that fails: the next method must not decide in its place.
        """
        if credential.scheme.lower() != "bearer":
            return False
        if self._recognise is None:
            return True
        sent = credential.credentials
        try:
            return bool(self._recognise(sent))
        except Exception as exc:  # noqa: BLE001 - it is logged and raised below
            # The user's own code, as in `_ask`.
            log_failure(log, "%s.recognises failed", self._name, exc, sent)
            raise AuthUnavailable(reason="backend_failed") from None

    async def close(self) -> None:
        """Lets the backend give back what it holds; its failure does not keep the server up."""
        if self._close is None:
            return
        try:
            async with asyncio.timeout(self._timeout):
                await (self._close() if self._close_is_async else self._threads.run(self._close))
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - it is logged below
            # The user's own code, as in `_ask`; there is nothing left that could depend on it.
            log_failure(log, "%s.close failed", self._name, exc, None)

    async def authenticate(
        self,
        request: HTTPConnection,
        response: Response,
        credential: HTTPAuthorizationCredentials | None,
    ) -> Principal:
        if credential is None and self.credential_required:
            raise NotAuthenticated(NotAuthenticated.MISSING, reason="missing", token_sent=False)
        # An abandoned thread may still write to its response: it gets one of its own.
        private = Response()
        private.raw_headers.clear()
        try:
            answer = await self._ask(request, private, credential)
        except HTTPException:
            _pass_on(private, response)
            raise
        _pass_on(private, response)
        return self._judge(answer, credential)

    async def _ask(
        self,
        request: HTTPConnection,
        response: Response,
        credential: HTTPAuthorizationCredentials | None,
    ) -> Any:
        arguments: tuple[object, ...] = (response, credential)
        if self._takes_request:
            arguments = (request, *arguments)
        call: Callable[[], Any] = partial(self._call, *arguments)
        deadline = asyncio.timeout(self._timeout)
        try:
            async with deadline:
                return await (call() if self._is_async else self._threads.run(call))
        except HTTPException:
            raise
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - it is logged and raised below
            # The user's own code: whatever it raises, nobody gets in until it works again.
            if deadline.expired():
                log.error("%s: no answer within %s s", self._name, self._timeout)  # noqa: TRY400
                raise AuthUnavailable(reason="backend_timeout") from None
            sent = credential.credentials if credential else None
            log_failure(log, "%s failed", self._name, exc, sent)
            raise AuthUnavailable(reason="backend_failed") from None

    def _judge(self, answer: Any, credential: HTTPAuthorizationCredentials | None) -> Principal:
        sent = credential.credentials if credential else None
        match answer:
            case None:
                message = NotAuthenticated.INVALID if sent else NotAuthenticated.MISSING
                raise NotAuthenticated(message, reason="refused", token_sent=bool(sent))
            case dict() if not answer:
                return Principal(ANONYMOUS, method="custom")
            case dict():
                try:
                    principal = read_principal(answer)
                except ValueError as exc:
                    problem = redact(str(exc), sent)
                else:
                    if not principal.id.startswith(self._reserved):
                        return principal
                    problem = "the user id belongs to another method's issuer"
            case _:
                problem = f"expected a dict or None, got {type(answer).__name__}"
        if inspect.iscoroutine(answer):
            answer.close()
        log.error("%s: unusable answer: %s", self._name, problem)
        raise NotAuthenticated(reason="unusable_answer", token_sent=bool(sent))


def _pass_on(private: Response, response: Response) -> None:
    response.raw_headers.extend(
        header for header in private.raw_headers if header[0].lower() not in _BODY_HEADERS
    )
