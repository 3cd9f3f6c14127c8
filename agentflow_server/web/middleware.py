"""What happens to every request: an id, safe headers, one line in the access log. Pure ASGI."""

import asyncio
import logging
import math
import re
import time

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid4

from agentflow_server.log_context import bind
from agentflow_server.metrics import Metrics, Tracing
from agentflow_server.web.errors import OUR_FAULT, problem
from agentflow_server.web.socket_edge import SocketExchange

log = logging.getLogger(__name__)
access_log = logging.getLogger("agentflow_server.access")

LINGER_SECONDS = 1.0
HEALTH = frozenset({"/health/live", "/health/ready"})
ALWAYS_ANSWERED = HEALTH | {"/ping"}
"""A busy server is alive; who watches it must not be told otherwise. A load balancer that took it for
dead would make the others busy, one after the other."""
OUR_HEADERS = frozenset(
    {b"cache-control", b"x-content-type-options", b"x-request-id", b"connection", b"content-length",
     b"transfer-encoding"}
)  # fmt: skip
"""What a backend sets on its response never takes the place of these."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Edge:
    """The outermost layer of the application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_header_bytes: int,
        concurrent_requests: int | None,
        metrics: Metrics,
        tracing: Tracing,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._tracing = tracing
        self._max_header_bytes = max_header_bytes
        self._free = math.inf if concurrent_requests is None else concurrent_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._serve_socket(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        with (
            bind(request=exchange.request_id),
            self._tracing.request_span(scope) as span,
        ):
            await self._exchange(scope, exchange)
            span.answered(exchange.status)
        if self._metrics.is_on:
            self._metrics.request(scope, exchange.status, exchange.age)

    async def _serve_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A socket stays for hours: it takes nobody's place, and finds none on a busy server."""
        request_id = _request_id(dict(scope["headers"]).get(b"x-request-id", b""))
        exchange = SocketExchange(scope, receive, send, request_id)
        with bind(request=request_id):
            await exchange.serve(self._app, self._refusal(scope, is_busy=self._free <= 0))

    async def _exchange(self, scope: Scope, exchange: "_Exchange") -> None:
        self._free -= 1
        try:
            handle = self._refusal(scope, is_busy=self._free < 0) or self._app
            await handle(scope, exchange.receive, exchange.send)
        except Exception:  # a bug of ours: it has an answer and a traceback, and ends nothing else
            log.exception("request %s failed", exchange.request_id)
            if not exchange.has_begun:
                answer = problem(500, "internal_error", OUR_FAULT)
                await answer(scope, exchange.receive, exchange.send)
        finally:
            self._free += 1
            exchange.write_log()

    def _refusal(self, scope: Scope, *, is_busy: bool) -> Response | None:
        if is_busy and scope["path"] not in ALWAYS_ANSWERED:
            headers = {"Retry-After": "1"}
            return problem(503, "overloaded", "The server is busy", headers=headers)
        size = sum(len(name) + len(value) for name, value in scope["headers"])
        if size > self._max_header_bytes:
            return problem(431, "headers_too_large", "The headers are too large")
        return None


class _Exchange:
    """One request and its response."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._begun = time.perf_counter()
        self.status = 0
        headers = dict(scope["headers"])
        self._body_unread = (
            headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
        )
        self.request_id = _request_id(headers.get(b"x-request-id", b""))
        scope["agentflow.request_id"] = self.request_id

    @property
    def age(self) -> float:
        """Seconds."""
        return time.perf_counter() - self._begun

    @property
    def has_begun(self) -> bool:
        return self.status != 0

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            self._body_unread = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            headers.setdefault("Cache-Control", "no-store")
            headers["X-Content-Type-Options"] = "nosniff"
            headers["X-Request-Id"] = self.request_id
            if self._body_unread or self._scope["app"].state.is_retiring:
                # Nobody will read the rest: whoever sends it slowly must not keep the connection.
                # Nor will anybody read the next request of a client that keeps it until we end.
                headers["Connection"] = "close"
            message["headers"] = headers.raw + [
                (name, value)
                for name, value in self._scope.get("agentflow.headers", ())
                if name not in OUR_HEADERS
            ]
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
        # Whoever watches us comes every second, and what is well is no news.
        is_news = self._scope["path"] not in HEALTH or self.status >= 400
        level = logging.INFO if is_news else logging.DEBUG
        if not access_log.isEnabledFor(level):
            return
        client = self._scope.get("client") or ("-", 0)
        fields = {
            "method": self._scope["method"],
            "path": self._scope["path"],
            "status": self.status,
            "duration_ms": round(self.age * 1000, 2),
            "request_id": self.request_id,
            "client": client[0],
        }
        access_log.log(
            level,
            "%(method)s %(path)s %(status)s %(duration_ms)s ms %(client)s",
            fields,
            extra=fields,
        )


def _request_id(sent: bytes) -> str:
    text = sent.decode("latin-1")
    return text if _REQUEST_ID.fullmatch(text) else uuid4().hex
