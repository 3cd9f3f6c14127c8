"""HTTP/1.1 whose headers have a bound in size and time: httptools has none of its own."""

import asyncio
import logging

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = logging.getLogger(__name__)

MAX_HEAD_BYTES = 65_536
HEAD_SECONDS = 10.0


class BoundedHttp(HttpToolsProtocol):
    """Closes connections whose request line and headers are too large or too slow.

    A connection without a request, and one that is kept alive and starts its next request, have
    HEAD_SECONDS to send the whole of it.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # narrower, as uvicorn's own
        super().connection_made(transport)
        self._head_bytes = 0
        self._patience: asyncio.TimerHandle | None = None
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_complete()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._patience is not None:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._patience is not None and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse("too large")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._patience is None:
            self._wait_for_head()

    def on_headers_complete(self) -> None:
        self._head_is_complete()
        super().on_headers_complete()

    def _wait_for_head(self) -> None:
        self._head_bytes = 0
        self._patience = self.loop.call_later(HEAD_SECONDS, self._refuse, "too slow")

    def _head_is_complete(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _refuse(self, why: str) -> None:
        log.info("closed a connection: the headers of its request are %s", why)
        self._head_is_complete()
        if not self.transport.is_closing():
            self.transport.close()
