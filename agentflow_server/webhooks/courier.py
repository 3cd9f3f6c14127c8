"""One request to a receiver: to an address that was checked, in bounded time, without redirects."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address

import httpx2
from anyio import to_thread

from agentflow_server.daemon_threads import DaemonThreads
from agentflow_server.webhooks.addresses import find_refusal, is_private

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""(host, port) → addresses. Raises OSError."""

_ADDRESSES = 4
"""How many of a host are tried."""

_LOOKUPS = 16
"""At a time: they cannot be stopped, and a slow name server must not hold up the others."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    retry_after: str | None


class PostFailed(Exception):
    """Why there is no answer; with `is_final` it will not be otherwise another time."""

    def __init__(self, why: str, *, is_final: bool = False) -> None:
        super().__init__(why)
        self.is_final = is_final


class Courier:
    """Resolves a host itself, and connects to what it has found and checked: a name that resolves
    to something else a moment later gains nothing by it."""

    def __init__(
        self,
        *,
        timeout: float,
        allow_private: bool,
        resolve: Resolve | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._timeout = timeout
        self._allow_private = allow_private
        self._resolve = resolve or self._ask_system
        self._lookups = DaemonThreads(_LOOKUPS)
        self._transport = transport

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Raises PostFailed. What is answered beside the headers is not read."""
        try:
            # Around everything: a receiver that sends a byte now and then must not last for ever.
            async with asyncio.timeout(self._timeout):
                return await self._post(httpx2.URL(url), headers, body)
        except TimeoutError:
            raise PostFailed(f"no answer within {self._timeout:g} s") from None
        except (httpx2.HTTPError, OSError, UnicodeError) as exc:
            raise PostFailed(f"{type(exc).__name__}: {exc}") from exc

    async def close(self) -> None:
        if self._transport is not None:
            await self._transport.aclose()
            self._transport = None

    async def _post(self, url: httpx2.URL, headers: Mapping[str, str], body: bytes) -> Answer:
        addresses = await self._find_addresses(url)
        transport = await self._open()
        for n, address in enumerate(addresses, 1):
            request = self._make_request(url, address, headers, body, len(addresses))
            try:
                response = await transport.handle_async_request(request)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                if n == len(addresses):
                    raise
            else:
                await response.aclose()
                return Answer(response.status_code, response.headers.get("retry-after"))
        raise PostFailed("its host has no address")

    async def _find_addresses(self, url: httpx2.URL) -> Sequence[str]:
        """Raises PostFailed when one of them may not be reached: the others are not better."""
        port = url.port or (443 if url.scheme == "https" else 80)
        found = await self._resolve(url.raw_host.decode(), port)
        for address in found:
            if why := find_refusal(address, allow_private=self._allow_private):
                raise PostFailed(f"its host is {why}", is_final=True)
            if url.scheme == "http" and not is_private(ip_address(address)):
                raise PostFailed("its host is public, and asks for http", is_final=True)
        return found[:_ADDRESSES]

    def _make_request(
        self,
        url: httpx2.URL,
        address: str,
        headers: Mapping[str, str],
        body: bytes,
        attempts: int,
    ) -> httpx2.Request:
        timeouts = httpx2.Timeout(self._timeout, connect=self._timeout / attempts)
        return httpx2.Request(
            "POST",
            url.copy_with(host=address),
            headers={
                **headers,
                "Host": url.netloc.decode(),
                "Connection": "close",
                "Content-Type": "application/json",
                "User-Agent": "agentflow-server",
            },
            content=body,
            # The certificate is checked for the name, whatever the address.
            extensions={"sni_hostname": url.raw_host.decode(), "timeout": timeouts.as_dict()},
        )

    async def _open(self) -> httpx2.AsyncBaseTransport:
        """At the first use, and in a thread: reading the system's certificates takes a while.

        A bare transport has no proxies, no redirects and no cookies, and logs no URLs. Nor is a
        connection kept: the next one to that address may be for another name.
        """
        if self._transport is None:
            limits = httpx2.Limits(max_keepalive_connections=0)
            self._transport = await to_thread.run_sync(
                partial(httpx2.AsyncHTTPTransport, limits=limits)
            )
        return self._transport

    async def _ask_system(self, host: str, port: int) -> Sequence[str]:
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await self._lookups.run(look_up)
        return list(dict.fromkeys(str(address[0]) for *_, address in found))
