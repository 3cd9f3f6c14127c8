"""A route class that authenticates before it reads, and reads strictly.

FastAPI parses the body before it runs dependencies, so a dependency is too late for both.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Coroutine, Set
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from agentflow_server import strict_json
from agentflow_server.errors import InvalidRequest
from agentflow_server.models import Principal
from agentflow_server.web.errors import (
    PLAIN_NAME,
    BodyIncomplete,
    BodyTimeout,
    BodyTooLarge,
    UnsupportedMediaType,
)
from agentflow_server.web.scopes import find_scope

MAX_LENGTH_DIGITS = 18


class SecuredRoute(APIRoute):
    """Every route behind the door uses it: `APIRouter(route_class=SecuredRoute)`.

    It has one method and a line in a table of scopes.py.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        method = next(iter(self.methods or ()))
        action = find_scope(method, self.path)
        route = f"{method} {self.path}"
        known = {field.alias for field in self.dependant.query_params}
        known |= {"owner"} if method == "GET" and action is not None else set()

        async def secured(request: Request) -> Response:
            state = request.app.state
            principal = await state.door.admit(request, action=action, route=route)
            _refuse_unknown_query(request, known)
            request.scope["agentflow.principal"] = principal
            body = await read_body(
                request, limit=state.limits.max_body_bytes, timeout=state.limits.body_timeout
            )
            return await handle(ReadRequest(request, body, state.limits.json_depth))

        return secured


class ReadRequest(Request):
    """A request whose body has been read and, if there is one, is JSON."""

    def __init__(self, request: Request, body: bytes, json_depth: int) -> None:
        super().__init__(request.scope, request.receive)
        self._content = body
        self._value = _parse(request, body, json_depth) if body else None

    async def stream(self) -> AsyncGenerator[bytes, None]:
        yield self._content

    async def body(self) -> bytes:
        return self._content

    async def json(self) -> Any:
        return self._value


async def _get_caller(request: Request) -> Principal:
    principal: Principal = request.scope["agentflow.principal"]
    return principal


Caller = Annotated[Principal, Depends(_get_caller)]
"""The principal that SecuredRoute let in."""


def _refuse_unknown_query(request: Request, known: Set[str]) -> None:
    """A misspelt filter would find everything. Raises InvalidRequest."""
    names = [name for name, _ in request.query_params.multi_items()]
    for name in names:
        if name not in known:
            shown = name if PLAIN_NAME.fullmatch(name) else "?"
            raise InvalidRequest(f"query.{shown}: not a known parameter")
    if len(set(names)) < len(names):
        raise InvalidRequest("a query parameter occurs twice")


async def read_body(request: Request, *, limit: int, timeout: float) -> bytes:  # noqa: ASYNC109
    """The whole body. Raises BodyTooLarge (also for chunked bodies) and BodyTimeout."""
    declared = request.headers.get("content-length")
    if declared is None and "transfer-encoding" not in request.headers:
        return b""
    if declared == "0":
        return b""
    if declared is not None and _read_length(declared) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise _too_large(limit)
                chunks.append(chunk)
    except ClientDisconnect:
        raise BodyIncomplete("The connection was closed before the body had arrived") from None
    except TimeoutError:
        raise BodyTimeout(f"The body did not arrive within {timeout:g} seconds") from None
    return b"".join(chunks)


def _read_length(declared: str) -> float:
    if not (declared.isascii() and declared.isdigit()):
        raise InvalidRequest("Content-Length: expected a number")
    return int(declared) if len(declared) <= MAX_LENGTH_DIGITS else math.inf


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is longer than {limit} bytes")


def _parse(request: Request, body: bytes, depth: int) -> Any:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise UnsupportedMediaType("Expected a body with Content-Type: application/json")
    try:
        return strict_json.parse(body, max_depth=depth)
    except ValueError as exc:
        raise InvalidRequest(
            f"The body is {exc}" if "JSON" in str(exc) else f"The body: {exc}"
        ) from exc
