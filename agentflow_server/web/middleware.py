"""What happens to every request: an id, safe headers, one line in the access log. Pure ASGI."""

import asyncio
import logging
import re
import time
from uuid import uuid4

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentflow_server.web.errors import problem

access_log = logging.getLogger("agentflow_server.access")

MAX_HEADER_BYTES = 32_768
LINGER_SECONDS = 1.0
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Edge:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        try:
            if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
                answer = problem(431, "headers_too_large", "The headers are too large")
                await answer(scope, exchange.receive, exchange.send)
            else:
                await self._app(scope, exchange.receive, exchange.send)
        finally:
            exchange.write_log()


class _Exchange:
    """One request and its response."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._begun = time.perf_counter()
        self._status = 0
        headers = dict(scope["headers"])
        self._body_unread = (
            headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
        )
        self.request_id = _request_id(headers.get(b"x-request-id", b""))
        scope["agentflow.request_id"] = self.request_id

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            self._body_unread = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            headers.setdefault("Cache-Control", "no-store")
            headers["X-Content-Type-Options"] = "nosniff"
            headers["X-Request-Id"] = self.request_id
            if self._body_unread:
                # Nobody will read the rest: whoever sends it slowly must not keep the connection.
                headers["Connection"] = "close"
            message["headers"] = headers.raw + self._scope.get("agentflow.headers", [])
        elif self._body_unread and not message.get("more_body"):
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _linger(self) -> None:
        """Take in what the client is still sending, for a moment: closing at once would reset the
        connection and lose the answer it has not read yet."""
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while self._body_unread:
                    if (await self.receive())["type"] == "http.disconnect":
                        return
        except TimeoutError:
            return

    def write_log(self) -> None:
        if not access_log.isEnabledFor(logging.INFO):
            return
        client = self._scope.get("client") or ("-", 0)
        fields = {
            "method": self._scope["method"],
            "path": self._scope["path"],
            "status": self._status,
            "duration_ms": round((time.perf_counter() - self._begun) * 1000, 2),
            "request_id": self.request_id,
            "client": client[0],
        }
        access_log.info(
            "%(method)s %(path)s %(status)s %(duration_ms)s ms %(client)s", fields, extra=fields
        )


def _request_id(sent: bytes) -> str:
    text = sent.decode("latin-1")
    return text if _REQUEST_ID.fullmatch(text) else uuid4().hex
