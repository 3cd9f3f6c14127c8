"""What tools call: `await connection(config, "billing")`, `connection_client(config, "billing")`."""

from collections.abc import Mapping, Sequence
from typing import Any

import httpx2

from agentflow_server.connections.clients import Connection, make_async_client, make_client
from agentflow_server.connections.opened import find_lent


async def connection(
    config: Mapping[str, Any], name: str, *, scopes: Sequence[str] | None = None
) -> str:
    """The token or the key of a connection, to be kept by nobody: ask again when it is needed.

    `config` is the one that the agent, node or tool was given; `scopes` replace those of
    agentflow.json. Raises ConnectionUnavailable; TypeError for another config, ValueError for
    what the connection's type does not have.
    """
    return await _find_secret(config, name).source.get(scopes)


def connection_sync(
    config: Mapping[str, Any], name: str, *, scopes: Sequence[str] | None = None
) -> str:
    """The same for `def` tools."""
    return _find_secret(config, name).source.get_sync(scopes)


def connection_client(
    config: Mapping[str, Any], name: str, *, scopes: Sequence[str] | None = None
) -> httpx2.AsyncClient:
    """A client with the connection's `base_url`, whose requests there are authenticated.

    A token that is refused is renewed, and the request sent once more. Nothing is presented to
    another origin, redirects included. Close it. Raises what `connection` raises; so do requests.
    """
    return make_async_client(find_lent(config, name).find(name), scopes)


def connection_client_sync(
    config: Mapping[str, Any], name: str, *, scopes: Sequence[str] | None = None
) -> httpx2.Client:
    """The same for `def` tools."""
    return make_client(find_lent(config, name).find(name), scopes)


def _find_secret(config: Mapping[str, Any], name: str) -> Connection:
    found = find_lent(config, name).find(name)
    if found.type == "basic":
        raise ValueError(f"connection {name!r} is a user name and a password: use its client")
    return found
