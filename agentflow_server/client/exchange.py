"""How a request reaches the server: with a token, once or again, and what the answer means."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar
from urllib.parse import quote

import httpx2
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from agentflow_server.client.errors import (
    AgentflowClientError,
    ServerUnreachable,
    UnexpectedAnswer,
    read_error,
)
from agentflow_server.client.keeper import TokenKeeper
from agentflow_server.client.origin import Origin
from agentflow_server.client.retries import Attempts
from agentflow_server.client.steps import Steps, load, pause, send
from agentflow_server.client.tokens import Token
from agentflow_server.models import JsonObject

T = TypeVar("T")
Reader = Callable[[httpx2.Response], Steps[T]]
"""Reads an answer that is a success."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request to the server. `path` has a leading slash; `read_timeout` in seconds."""

    method: str
    path: str
    body: JsonObject | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    read_timeout: float | None = None
    repeatable: bool = False


def path_of(*parts: str) -> str:
    """`/threads/ID/runs`; a part stays one part, whatever is in it."""
    return "".join(f"/{quote(part, safe='').replace('.', '%2E')}" for part in parts)


class Exchange:
    """Asks one server, on behalf of one login."""

    def __init__(
        self,
        origin: Origin,
        keeper: TokenKeeper | None,
        *,
        timeout: float,
        patience: float,
        retries: int,
    ) -> None:
        """`patience` is how long an earlier attempt of the same request may be under way."""
        self._origin = origin
        self._keeper = keeper
        self._timeout = timeout
        self._patience = patience
        self._retries = retries

    def get_headers(self) -> Steps[dict[str, str]]:
        """Raises LoginFailed."""
        token = (yield from self._keeper.get()) if self._keeper else None
        return _bearer(token)

    def fetch(self, call: Call, kind: type[T]) -> Steps[T]:
        """The answer as `kind`. Raises AgentflowClientError."""
        return self.ask(call, lambda response: _read_json(response, kind))

    def ask(self, call: Call, reader: Reader[T]) -> Steps[T]:
        """What `reader` makes of the answer; asked again where that is safe and may help.

        Raises AgentflowClientError.
        """
        attempts = Attempts(self._retries if call.repeatable else 0, self._patience)
        while True:
            try:
                return (yield from self._attempt(call, reader, attempts))
            except AgentflowClientError as error:
                seconds = attempts.find_pause(error)
                error.attempts = attempts.number
                if seconds is None:
                    raise
            yield from pause(seconds)

    def _attempt(self, call: Call, reader: Reader[T], attempts: Attempts) -> Steps[T]:
        token = (yield from self._keeper.get()) if self._keeper else None
        try:
            response = yield from self._send(call, token)
            if response.status_code == 401 and self._keeper and token and not attempts.has_renewed:
                attempts.has_renewed = True
                refused = yield from read_error(response, token.access_token)
                fresh = yield from self._keeper.replace(token)
                if fresh.access_token == token.access_token:
                    raise refused
                token = fresh
                response = yield from self._send(call, token)
            if not response.is_success:
                raise (yield from read_error(response, token.access_token if token else None))
            return (yield from reader(response))
        except httpx2.RequestError as error:
            raise ServerUnreachable.after(error) from error

    def _send(self, call: Call, token: Token | None) -> Steps[httpx2.Response]:
        read_timeout = call.read_timeout or self._timeout
        headers = {"Accept": "application/json", "User-Agent": "agentflow-client", **call.headers}
        if call.body is not None:
            headers["Content-Type"] = "application/json"
        return send(
            httpx2.Request(
                call.method,
                self._origin.find_url(call.path),
                params=call.params or None,
                content=None if call.body is None else to_json(call.body),
                headers=headers | _bearer(token),
                extensions={"timeout": httpx2.Timeout(self._timeout, read=read_timeout).as_dict()},
            )
        )


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def parse(kind: type[T], value: Any) -> T:
    """`value` is JSON, as text or read already. What a newer server says besides is ignored.

    Raises UnexpectedAnswer, which does not repeat the value.
    """
    any_kind: Any = kind  # mypy does not know that a class can be hashed
    adapter = _adapter(any_kind)
    validate = adapter.validate_json if isinstance(value, bytes) else adapter.validate_python
    try:
        found: T = validate(value, extra="ignore")
    except ValidationError as error:
        places = sorted({".".join(map(str, item["loc"])) for item in error.errors()})
        raise UnexpectedAnswer(
            f"the answer is no {kind.__name__}: {', '.join(places)[:200]}"
        ) from None
    return found


def _read_json(response: httpx2.Response, kind: type[T]) -> Steps[T]:
    expect_content(response, "application/json")
    yield from load()
    return parse(kind, response.content)


def expect_content(response: httpx2.Response, kind: str) -> None:
    """Raises UnexpectedAnswer."""
    found = response.headers.get("content-type", "nothing").partition(";")[0].strip().lower()
    if found != kind:
        place = response.request.url.copy_with(query=None)
        raise UnexpectedAnswer(
            f"expected {kind} from {place}, found {found[:80]}: is that an agentflow server?",
            status=response.status_code,
        )


def _bearer(token: Token | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token.access_token}"} if token else {}
