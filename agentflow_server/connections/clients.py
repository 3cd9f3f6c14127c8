"""HTTP clients that present a credential to the connection's own API, and to nobody else.

It is added below the client: its requests, answers, redirects and log lines are without it.
"""

import functools
import ssl
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx2

from agentflow_server.config import is_loopback
from agentflow_server.connections.presenting import Origin, Presentation, origin_of
from agentflow_server.connections.sources import Source


@dataclass(frozen=True, slots=True)
class Connection:
    """One of the configured APIs."""

    name: str
    type: str
    base_url: str
    origins: frozenset[Origin]
    timeout: float
    presentation: Presentation
    source: Source

    def is_own(self, request: httpx2.Request) -> bool:
        return origin_of(request.url) in self.origins

    def may_retry(self, request: httpx2.Request, response: httpx2.Response, used: str) -> bool:
        """Whether another credential may help; a body that is read but once is not sent again."""
        return (
            response.status_code == 401
            and self.source.drop(used)
            and isinstance(request.stream, httpx2.ByteStream)
        )


def make_async_client(connection: Connection, scopes: Sequence[str] | None) -> httpx2.AsyncClient:
    inner = httpx2.AsyncHTTPTransport(
        verify=_certificates(), proxy=_find_proxy(connection.base_url)
    )
    return httpx2.AsyncClient(
        base_url=connection.base_url,
        timeout=connection.timeout,
        transport=_AsyncPresenting(connection, scopes, inner),
    )


def make_client(connection: Connection, scopes: Sequence[str] | None) -> httpx2.Client:
    inner = httpx2.HTTPTransport(verify=_certificates(), proxy=_find_proxy(connection.base_url))
    return httpx2.Client(
        base_url=connection.base_url,
        timeout=connection.timeout,
        transport=_Presenting(connection, scopes, inner),
    )


class _AsyncPresenting(httpx2.AsyncBaseTransport):
    def __init__(
        self,
        connection: Connection,
        scopes: Sequence[str] | None,
        inner: httpx2.AsyncBaseTransport,
    ) -> None:
        self._connection = connection
        self._scopes = scopes
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        connection, source = self._connection, self._connection.source
        if not connection.is_own(request):
            return await self._inner.handle_async_request(request)
        present = connection.presentation.present
        used = await source.get(self._scopes)
        response = await self._inner.handle_async_request(present(request, used))
        if connection.may_retry(request, response, used):
            await response.aclose()
            used = await source.get(self._scopes)
            response = await self._inner.handle_async_request(present(request, used))
        connection.presentation.conceal(response, used)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Presenting(httpx2.BaseTransport):
    def __init__(
        self, connection: Connection, scopes: Sequence[str] | None, inner: httpx2.BaseTransport
    ) -> None:
        self._connection = connection
        self._scopes = scopes
        self._inner = inner

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        connection, source = self._connection, self._connection.source
        if not connection.is_own(request):
            return self._inner.handle_request(request)
        present = connection.presentation.present
        used = source.get_sync(self._scopes)
        response = self._inner.handle_request(present(request, used))
        if connection.may_retry(request, response, used):
            response.close()
            used = source.get_sync(self._scopes)
            response = self._inner.handle_request(present(request, used))
        connection.presentation.conceal(response, used)
        return response

    def close(self) -> None:
        self._inner.close()


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Reading them takes longer than many a request, and tools make a client for each."""
    return httpx2.create_ssl_context()


def _find_proxy(url: str) -> str | None:
    """As the environment has it; httpx2 looks there only for transports of its own."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host) or urllib.request.proxy_bypass(host):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")
