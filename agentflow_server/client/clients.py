"""The two clients: the same methods, one of them for `async` code."""

from typing import Any, Self, Unpack

import httpx2

from agentflow_server.client.credentials import (
    Credentials,
    FunctionToken,
    StaticToken,
    TokenFunction,
)
from agentflow_server.client.drivers import AsyncDriver, SyncDriver
from agentflow_server.client.exchange import Call
from agentflow_server.client.operation import Asynchronous, Operation, Synchronous
from agentflow_server.client.server import Patience, Server
from agentflow_server.client.steps import Steps, load
from agentflow_server.client.threads import ThreadOperations
from agentflow_server.client.turns import TurnOperations

Auth = str | Credentials | TokenFunction | None
"""A token, a login, a function that gives a token; None where the server wants none."""


class _Operations(ThreadOperations, TurnOperations):
    """What both clients can do."""

    _server: Server

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._server.origin)!r})"

    def is_token_valid(self) -> bool:
        """There is a token, and it is not about to expire; asks nobody."""
        return self._server.keeper is not None and self._server.keeper.is_valid()

    @Operation
    def get_authenticated_headers(self) -> Steps[dict[str, str]]:
        """With a fresh token, for another library's requests to the same server."""
        return self._server.exchange.get_headers()

    @Operation
    def make_authenticated_request(
        self, url: str, method: str = "GET", *, json: Any = None
    ) -> Steps[httpx2.Response]:
        """Any URL of the same server; one of any other is refused. An error raises."""
        path = self._server.origin.find_own(url)
        call = Call(
            method, path, json, headers={"Accept": "*/*"}, repeatable=method in {"GET", "DELETE"}
        )
        return self._server.exchange.ask(call, _load)


class AgentflowClient(_Operations, Synchronous):
    """A client of an agentflow server; threads may share it.

    with AgentflowClient("http://127.0.0.1:8000", auth="TOKEN") as client:
        thread = client.create_thread()
        for event in client.stream(thread.thread_id, "Hello"):
            print(event.type, event.data)
    """

    def __init__(
        self,
        url: str,
        auth: Auth = None,
        *,
        http: httpx2.Client | None = None,
        **patience: Unpack[Patience],
    ) -> None:
        """`http` is for certificates and proxies of your own. Raises ValueError."""
        self._server = Server(url, _login(auth), **patience)
        self.driver = SyncDriver(http)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.driver.close()


class AsyncAgentflowClient(_Operations, Asynchronous):
    """The same for `async` code, on asyncio; tasks may share it.

    async with AsyncAgentflowClient("http://127.0.0.1:8000", auth="TOKEN") as client:
        thread = await client.create_thread()
        async for event in client.stream(thread.thread_id, "Hello"):
            print(event.type, event.data)
    """

    def __init__(
        self,
        url: str,
        auth: Auth = None,
        *,
        http: httpx2.AsyncClient | None = None,
        **patience: Unpack[Patience],
    ) -> None:
        """`http` is for certificates and proxies of your own. Raises ValueError."""
        self._server = Server(url, _login(auth), **patience)
        self.driver = AsyncDriver(http)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self.driver.close()


def _login(auth: Auth) -> Credentials | None:
    match auth:
        case None | Credentials():
            return auth
        case str():
            return StaticToken(auth)
    return FunctionToken(auth)


def _load(response: httpx2.Response) -> Steps[httpx2.Response]:
    yield from load()
    return response
