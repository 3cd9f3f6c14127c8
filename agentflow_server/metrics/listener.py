"""`GET /metrics` on a port of its own, so that it is never on the public one."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Self

from anyio import to_thread

from agentflow_server.errors import AgentflowError, ConfigError
from agentflow_server.metrics.counting import CountedMetrics
from agentflow_server.models import QueueState

log = logging.getLogger(__name__)

MAX_HEADER_BYTES = 16_384
MAX_CONNECTIONS = 32
SCRAPE_SECONDS = 10.0
QUEUE_SECONDS = 3.0

ReadQueue = Callable[[], Awaitable[QueueState]]


class MetricsListener:
    """One request a connection, and nothing but this one: no framework is needed for it.

    `read_queue` is asked at each scrape how many runs wait.
    """

    def __init__(
        self,
        metrics: CountedMetrics,
        host: str,
        port: int,
        *,
        read_queue: ReadQueue | None = None,
    ) -> None:
        self._metrics = metrics
        self._host = host.strip("[]")
        self._port = port
        self._read_queue = read_queue
        self._queue_is_known = True
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The real one, where it was opened with port 0."""
        if self._server is None:
            return self._port
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> Self:
        """Raises ConfigError when the port cannot be had."""
        try:
            self._server = await asyncio.start_server(
                self._accept, self._host, self._port, limit=MAX_HEADER_BYTES
            )
        except OSError as exc:
            raise ConfigError(
                f"observability.metrics: cannot listen on {self._host}, port {self._port}: "
                f"{_reason(exc)}"
            ) from exc
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            writer.close()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # All is written when `drain` returns, so that nothing is left to be closed gracefully.
        writer.transport.set_write_buffer_limits(high=0)
        try:
            async with asyncio.timeout(SCRAPE_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self._answer(head.decode("latin-1")))
                await writer.drain()
        except (OSError, EOFError, asyncio.LimitOverrunError):
            # Gone, too slow (TimeoutError is an OSError) or too long: nobody to tell.
            log.debug("a connection to the metrics ended early")
        except Exception:  # the top of a background task: the next scrape may do better
            log.exception("a scrape failed")
        finally:
            writer.transport.abort()

    async def _answer(self, head: str) -> bytes:
        request, *lines = head.split("\r\n")
        match request.split(" "):
            case ["GET" | "HEAD" as method, target, "HTTP/1.1" | "HTTP/1.0"]:
                if target.partition("?")[0] != "/metrics":
                    return _response("404 Not Found", b"There is only /metrics here\n")
                await self._refresh_queue()
                # Writing thousands of series takes milliseconds, which a run should not wait for.
                body, kind = await to_thread.run_sync(self._metrics.expose, _accepted(lines))
                return _response("200 OK", body, kind, send_body=method == "GET")
            case [_, _, "HTTP/1.1" | "HTTP/1.0"]:
                return _response("405 Method Not Allowed", b"GET is what works here\n")
        return _response("400 Bad Request", b"This is not HTTP\n")

    async def _refresh_queue(self) -> None:
        if self._read_queue is None:
            return
        state = None
        try:
            async with asyncio.timeout(QUEUE_SECONDS):
                state = await self._read_queue()
        except (AgentflowError, TimeoutError) as exc:
            if self._queue_is_known:
                log.warning("metrics: the queue cannot be read: %r", exc)
        self._queue_is_known = state is not None
        self._metrics.queue(state)


def _accepted(lines: list[str]) -> str:
    fields = (line.partition(":") for line in lines)
    return ",".join(value.strip() for name, _, value in fields if name.lower() == "accept")


def _response(
    status: str, body: bytes, kind: str = "text/plain; charset=utf-8", *, send_body: bool = True
) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\n"
        f"Content-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (body if send_body else b"")


def _reason(error: OSError) -> str:
    """Without the address, which asyncio repeats in its text."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error)
