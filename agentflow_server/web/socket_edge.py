"""What happens to every WebSocket: an id, safe headers, no query, one line in the access log."""

import asyncio
import logging
import time

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentflow_server.web.errors import OUR_FAULT, problem

log = logging.getLogger(__name__)
access_log = logging.getLogger("agentflow_server.access")

REFUSED = 1008
BROKEN = 1011
_HANDSHAKE = (b"connection", b"content-", b"sec-websocket-", b"transfer-encoding", b"upgrade")
_OURS = frozenset({b"cache-control", b"x-content-type-options", b"x-request-id"})


class SocketExchange:
    """One connection from its handshake to its end."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._begun = time.perf_counter()
        self._code: int | None = None
        self._can_answer = "websocket.http.response" in scope.get("extensions", {})
        self.status = 0
        self.request_id = scope["agentflow.request_id"] = request_id

    async def serve(self, app: ASGIApp, refusal: Response | None) -> None:
        # uvicorn logs the address with its query, where a token is as good as published.
        query, self._scope["query_string"] = self._scope.get("query_string"), b""
        if query and refusal is None:
            refusal = problem(422, "invalid_request", "A WebSocket's address has no parameters")
        try:
            await (refusal or app)(self._scope, self.receive, self.send)
        except Exception:  # a bug of ours: it has a traceback, and ends nothing else
            log.exception("websocket %s failed", self.request_id)
            await self._give_up()
        finally:
            self._write_log()

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "websocket.disconnect" and self._code is None:
            self._code = message.get("code")
        return message

    async def send(self, message: Message) -> None:
        match message["type"]:
            case "websocket.accept":
                self.status = 101
                message = {**message, "headers": self._headers(message)}
            case "websocket.close":
                self.status = self.status or 403
                self._code = message.get("code")
            case "websocket.http.response.start":
                self.status = message["status"]
                if not self._can_answer:
                    message = {"type": "websocket.close", "code": REFUSED}
                else:
                    message = {**message, "headers": self._headers(message)}
            case "websocket.http.response.body" if not self._can_answer:
                return
        await self._send(message)
        if message["type"] == "websocket.http.response.body":
            # Until uvicorn has closed the connection, it logs a refusal as an error.
            await asyncio.sleep(0)

    def _headers(self, message: Message) -> list[tuple[bytes, bytes]]:
        return [
            *message.get("headers", ()),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            (b"x-request-id", self.request_id.encode()),
            *(
                (name, value)
                for name, value in self._scope.get("agentflow.headers", ())
                if name not in _OURS and not name.startswith(_HANDSHAKE)
            ),
        ]

    async def _give_up(self) -> None:
        if self.status == 0:
            await problem(500, "internal_error", OUR_FAULT)(self._scope, self.receive, self.send)
        elif self.status == 101 and self._code is None:
            await self.send({"type": "websocket.close", "code": BROKEN, "reason": OUR_FAULT})

    def _write_log(self) -> None:
        if not access_log.isEnabledFor(logging.INFO):
            return
        client = self._scope.get("client") or ("-", 0)
        fields = {
            "method": "WEBSOCKET",
            "path": self._scope["path"],
            "status": self.status,
            "close_code": self._code,
            "duration_ms": round((time.perf_counter() - self._begun) * 1000, 2),
            "request_id": self.request_id,
            "client": client[0],
        }
        access_log.info(
            "%(method)s %(path)s %(status)s %(close_code)s %(duration_ms)s ms %(client)s",
            fields,
            extra=fields,
        )
