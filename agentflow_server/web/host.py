"""Where a host application says who is calling: its dependency is asked before anything of ours."""

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response, WebSocket, params
from fastapi.openapi.utils import get_openapi
from fastapi.requests import HTTPConnection
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentflow_server.auth.claims import read_principal
from agentflow_server.errors import ConfigError, Forbidden, NotAuthenticated
from agentflow_server.interfaces import Authenticator
from agentflow_server.models import JsonObject, Principal
from agentflow_server.web.sockets import SocketRules
from agentflow_server.web.websocket import TICKET, refuse_foreign_page

log = logging.getLogger(__name__)

ENTER = "agentflow.enter"
ANSWER = "agentflow.host_answer"
_HTTP_SCHEMES = {"ws": "http", "wss": "https"}


@dataclass(frozen=True, slots=True)
class HostAnswer:
    """Whom the dependency has named, and the headers it wants to send."""

    caller: Principal
    response: Response


class HostQuestion:
    """The host's dependency, asked by FastAPI as that of any other route of the host: its overrides,
    its error answers and its threads count. Raises ConfigError."""

    def __init__(self, host: FastAPI, prefix: str, principal: params.Depends) -> None:
        async def admit(request: Request, response: Response, answer: Any = principal) -> Response:
            return _Entry(partial(request.scope[ENTER], HostAnswer(_find_caller(answer), response)))

        # It belongs to no router: nothing but the gate calls it.
        self._route = APIRoute(f"{prefix}/{{path:path}}", admit, dependency_overrides_provider=host)
        if self._route.body_field is not None:
            raise ConfigError(
                "principal: the dependency wants the body of every request, which is for the agents: "
                "let it take headers, cookies or parameters"
            )

    async def ask(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        enter: Callable[[HostAnswer, Send], Awaitable[None]],
    ) -> None:
        """Await `enter`, or answer with what the dependency raises; with a 401 if it names nobody."""
        await self._route.app({**scope, ENTER: enter}, receive, send)

    def security_schemes(self) -> Mapping[str, JsonObject]:
        """As the host's own OpenAPI document has them, with URLs that are right in ours."""
        document = get_openapi(title="", version="", routes=[self._route])
        found = document.get("components", {}).get("securitySchemes", {})
        up = "../" * (self._route.path.count("/") - 2)
        return {name: _move(scheme, up) for name, scheme in found.items()}


class HostAuth(Authenticator):
    """Believes whom the host's dependency has named, and asks for no credential itself."""

    async def authenticate(
        self,
        request: HTTPConnection,
        response: Response,
        credential: HTTPAuthorizationCredentials | None,
    ) -> Principal:
        answer: HostAnswer | None = request.scope.get(ANSWER)
        if answer is None:
            raise NotAuthenticated(NotAuthenticated.MISSING, reason="missing", token_sent=False)
        response.raw_headers.extend(answer.response.raw_headers)
        return answer.caller


class HostGate:
    """Lets nobody to `app` whom the host does not let in. A WebSocket's handshake is asked about as
    the GET request that it is."""

    def __init__(self, app: ASGIApp, question: HostQuestion, rules: SocketRules) -> None:
        self._app = app
        self._question = question
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._serve_socket(scope, receive, send)
            return
        heard = _Heard(receive)

        async def enter(answer: HostAnswer, send: Send) -> None:
            await self._app(_inner(scope, answer), heard.again, send)

        await self._question.ask(scope, heard.listen, send, enter)

    async def _serve_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._is_judged_inside(WebSocket(scope, receive, send)):
            await self._app(_inner(scope, None), receive, send)
            return

        async def enter(answer: HostAnswer, send: Send) -> None:
            await self._app(_inner(scope, answer), receive, send)

        handshake = _Handshake(scope, send)
        await self._question.ask(handshake.scope, handshake.receive, handshake.send, enter)

    def _is_judged_inside(self, socket: WebSocket) -> bool:
        """A foreign page is refused there, whatever cookies it brings; and whoever has a ticket got it
        from there, after the host was asked."""
        try:
            refuse_foreign_page(socket, self._rules)
        except Forbidden:
            return True
        return any(name.startswith(TICKET) for name in socket.scope.get("subprotocols") or ())


class _Entry(Response):
    """The answer to a caller who may enter: whatever is said behind the gate."""

    def __init__(self, enter: Callable[[Send], Awaitable[None]]) -> None:
        super().__init__()
        self._enter = enter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._enter(send)
        if self.background is not None:
            await self.background()


class _Heard:
    """A dependency may read the body: who comes after it hears it once more."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._kept: deque[Message] = deque()

    async def listen(self) -> Message:
        message = await self._receive()
        self._kept.append(message)
        return message

    async def again(self) -> Message:
        return self._kept.popleft() if self._kept else await self._receive()


class _Handshake:
    """A WebSocket that is not open yet, as an HTTP request."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send = send
        self._can_answer = "websocket.http.response" in scope.get("extensions", {})
        self._is_entered = False
        self.scope = {
            **scope,
            "type": "http",
            "method": "GET",
            "scheme": _HTTP_SCHEMES.get(scope.get("scheme", "ws"), "http"),
            "extensions": {},
        }

    async def receive(self) -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind.startswith("websocket."):
            self._is_entered = True
            await self._send(message)
        elif self._is_entered:
            log.error("a dependency has failed after its WebSocket was answered")
        elif self._can_answer:
            await self._send({**message, "type": f"websocket.{kind}"})
        elif kind == "http.response.start":
            await self._send({"type": "websocket.close", "code": 1008})


def _inner(scope: Scope, answer: HostAnswer | None) -> Scope:
    # A parameter in the prefix is the host's, and none of ours.
    return {**scope, "path_params": {}, ANSWER: answer}


def _find_caller(answer: Any) -> Principal:
    """Raises HTTPException, before anything of ours can be seen, be it public elsewhere."""
    if answer is None:
        raise _nobody(NotAuthenticated.MISSING)
    try:
        return _judge(answer)
    except ValueError as exc:
        log.error("principal: the dependency's answer is of no use: %s", exc)  # noqa: TRY400
        raise _nobody(NotAuthenticated.INVALID) from None


def _nobody(text: str) -> HTTPException:
    return HTTPException(HTTPStatus.UNAUTHORIZED, text, {"WWW-Authenticate": "Bearer"})


def _judge(answer: Any) -> Principal:
    """Raises ValueError."""
    match answer:
        case Principal():
            checked = read_principal({**answer.claims, "user_id": answer.id})
            return replace(answer, id=checked.id, claims=checked.claims, method="custom")
        case Mapping():
            return read_principal(dict(answer))
        case _:
            return read_principal({"user_id": answer})


def _move(scheme: JsonObject, up: str) -> JsonObject:
    """The host's relative URLs, seen from `up` below."""
    for flow in scheme.get("flows", {}).values():
        for name, url in flow.items():
            if name.endswith("Url") and "://" not in url and not url.startswith("/"):
                flow[name] = f"{up}{url}"
    return scheme
