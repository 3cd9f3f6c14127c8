"""What a client knows of its server, and what all it asks has in common."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypedDict, TypeVar
from uuid import uuid4

from agentflow_server.client.credentials import Credentials
from agentflow_server.client.errors import UnexpectedAnswer
from agentflow_server.client.exchange import Call, Exchange
from agentflow_server.client.following import Follower
from agentflow_server.client.keeper import TokenKeeper
from agentflow_server.client.origin import Origin
from agentflow_server.client.steps import Emit, Items
from agentflow_server.models import JsonObject, Page

T = TypeVar("T")


class Patience(TypedDict, total=False):
    """All in seconds but `retries`, the number of attempts after the first."""

    leeway: float
    """How long before its end a token is renewed."""
    timeout: float
    """For the server to say something."""
    turn_timeout: float
    """For an agent's answer."""
    retries: int
    reconnect_seconds: float
    """For a stream that broke off to be had again."""


class Server:
    """A server, the login with it, and how much patience there is with both."""

    def __init__(
        self,
        url: str,
        credentials: Credentials | None,
        *,
        leeway: float = 30.0,
        timeout: float = 10.0,
        turn_timeout: float = 600.0,
        retries: int = 3,
        reconnect_seconds: float = 60.0,
    ) -> None:
        """Raises ValueError."""
        self.origin = Origin(url)
        self.keeper = TokenKeeper(credentials, leeway) if credentials is not None else None
        self.turn_timeout = turn_timeout
        self._reconnect_seconds = reconnect_seconds
        self.exchange = Exchange(
            self.origin, self.keeper, timeout=timeout, patience=turn_timeout, retries=retries
        )

    def follower(
        self, thread_id: str, run_id: str, *, after: int | None = 0, timeout: float | None = None
    ) -> Follower:
        return Follower(
            self.exchange,
            thread_id,
            run_id,
            after=after,
            patience=self._reconnect_seconds,
            timeout=timeout,
        )

    def list_items(self, path: str, kind: type[Page[T]], **params: str | None) -> Items[T]:
        """Every item of a list, page by page as they are wanted. Raises AgentflowClientError."""
        call = Call("GET", path, params=present(**params), repeatable=True)
        cursor = None
        while True:
            page = yield from self.exchange.fetch(call, kind)
            for item in page.data:
                yield Emit(item)
            if page.next_cursor is None:
                return
            if page.next_cursor == cursor:
                raise UnexpectedAnswer("the list goes round in circles")
            cursor = page.next_cursor
            call = replace(call, params={**call.params, "cursor": cursor})


def present(**fields: Any) -> dict[str, Any]:
    """Those that are given."""
    return {name: value for name, value in fields.items() if value is not None}


def creation(
    path: str,
    body: JsonObject,
    idempotency_key: str | None,
    *,
    read_timeout: float | None = None,
) -> Call:
    """A POST that does nothing twice, and therefore may be repeated."""
    headers: Mapping[str, str] = {"Idempotency-Key": idempotency_key or uuid4().hex}
    return Call("POST", path, body, headers=headers, read_timeout=read_timeout, repeatable=True)
