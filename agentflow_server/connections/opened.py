"""All connections of a server, and which run may use them."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from typing import Any

from agentflow_server.config import (
    ApiKeyConnection,
    BasicConnection,
    BearerConnection,
    ClientCredentialsConnection,
    ConnectionConfig,
)
from agentflow_server.connections.clients import Connection
from agentflow_server.connections.presenting import (
    BASIC,
    BEARER,
    Presentation,
    encode_basic,
    origins_of,
)
from agentflow_server.connections.sources import Constant, Source
from agentflow_server.connections.token_endpoint import TokenEndpoint
from agentflow_server.connections.tokens import Tokens
from agentflow_server.errors import ConnectionUnavailable


class Connections:
    """May be opened and closed several times; between, no token is kept."""

    def __init__(
        self,
        config: Mapping[str, ConnectionConfig],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connections = {name: _make(name, one, clock) for name, one in config.items()}
        self._stack = AsyncExitStack()

    async def open(self) -> None:
        for connection in self._connections.values():
            await connection.source.open()
            self._stack.push_async_callback(connection.source.close)

    async def close(self) -> None:
        await self._stack.aclose()

    def find(self, name: str) -> Connection:
        """Raises ConnectionUnavailable, which lists those that there are."""
        try:
            return self._connections[name]
        except KeyError:
            known = ", ".join(sorted(self._connections)) or 'none at all in "connections"'
            raise ConnectionUnavailable(
                str(name), "unknown", hint=f"; there are: {known}"
            ) from None

    @contextmanager
    def lend(self, run_id: str) -> Iterator[None]:
        """Inside, whatever has the config of this run may use them."""
        loan = _Loan(self)
        _loans[run_id] = loan
        try:
            yield
        finally:
            if _loans.get(run_id) is loan:  # unless it was begun once more here
                del _loans[run_id]


class _Loan:
    def __init__(self, connections: Connections) -> None:
        self.connections = connections


# For all servers of the process, since a tool knows nothing but its run; and no context variable,
# since frameworks call tools in threads that have none of ours.
_loans: dict[str, _Loan] = {}


def find_lent(config: Any, name: str) -> Connections:
    """What the run with this config was lent.

    Raises TypeError unless it is one of ours, ConnectionUnavailable when the run has ended.
    """
    match config:
        # The outer one first: there the server alone writes it, and beside it stand claims.
        case {"run_id": str(run_id)} | {"configurable": {"run_id": str(run_id)}}:
            pass
        case _:
            raise TypeError(
                "expected the config that the agent, node or tool was given, found "
                f"{type(config).__name__}"
            )
    loan = _loans.get(run_id)
    if loan is None:
        raise ConnectionUnavailable(name, "no_run")
    return loan.connections


def _make(name: str, config: ConnectionConfig, clock: Callable[[], float]) -> Connection:
    presentation, source = _choose(name, config, clock)
    return Connection(
        name=name,
        type=config.type,
        base_url=config.base_url,
        origins=origins_of([config.base_url, *config.origins]),
        timeout=config.timeout,
        presentation=presentation,
        source=source,
    )


def _choose(
    name: str, config: ConnectionConfig, clock: Callable[[], float]
) -> tuple[Presentation, Source]:
    match config:
        case ApiKeyConnection():
            place = Presentation(config.place, config.name)
            return place, Constant(name, config.value.get_secret_value())
        case BasicConnection():
            pair = encode_basic(config.username, config.password.get_secret_value())
            return BASIC, Constant(name, pair)
        case BearerConnection():
            return BEARER, Constant(name, config.token.get_secret_value())
        case ClientCredentialsConnection():
            endpoint = TokenEndpoint(name, config, clock=clock)
            return BEARER, Tokens(name, endpoint, config.scopes, clock=clock)
