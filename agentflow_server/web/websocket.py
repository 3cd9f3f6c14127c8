"""WebSockets: a thread's commands and events on one connection, for authenticated callers only."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import urlsplit

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from starlette.exceptions import HTTPException
from starlette.websockets import WebSocketState

from agentflow_server.errors import AgentflowError, Forbidden
from agentflow_server.models import Principal
from agentflow_server.web.conversation import Conversation
from agentflow_server.web.door import Door
from agentflow_server.web.errors import OUR_FAULT, SocketTimeout, close_code_of
from agentflow_server.web.parameters import known_id
from agentflow_server.web.scopes import SOCKET_ROUTE, SOCKET_SCOPE
from agentflow_server.web.socket_frames import read_proof, receive_text
from agentflow_server.web.sockets import SocketRules, Sockets
from agentflow_server.web.visit import Proof

router = APIRouter()

SUBPROTOCOL = "agentflow"
TICKET = "ticket."
"""A subprotocol that begins so is a ticket: the only place where a page can put one."""

CLOSE_SECONDS = 1.0
MAX_REASON_BYTES = 123

_DEFAULT_PORTS = {"http": 80, "https": 443}
_PAGE_SCHEMES = {"ws": "http", "wss": "https"}


@router.websocket(SOCKET_ROUTE[1])
async def talk(socket: WebSocket, thread_id: str) -> None:
    """What is refused before the handshake is answered as over HTTP, later with a close code."""
    refuse_foreign_page(socket, socket.app.state.socket_rules)
    try:
        proof = await _find_proof(socket)
        principal = await _admit(socket, proof)
        await _converse(socket, thread_id, principal)
    except WebSocketDisconnect:
        return
    except (AgentflowError, HTTPException) as error:
        if socket.application_state is WebSocketState.CONNECTING:
            raise
        await _close(socket, error)


async def _find_proof(socket: WebSocket) -> Proof | None:
    """A ticket of the handshake, else None for the headers; where they say nothing, the first frame
    does. Raises WebSocketDisconnect, SocketTimeout, BodyTooLarge, UnsupportedMediaType."""
    tickets = [name.removeprefix(TICKET) for name in _offered(socket) if name.startswith(TICKET)]
    if tickets:
        return Proof(tickets=tickets)
    door: Door = socket.app.state.door
    if not door.expects_proof(socket):
        return None
    rules: SocketRules = socket.app.state.socket_rules
    sockets: Sockets = socket.app.state.sockets
    waiting = f"waiting {door.identify(socket, None)}"
    with sockets.place(waiting, rules.unauthenticated):
        await _accept(socket)
        try:
            text = await receive_text(
                socket, within=rules.authenticate_within, limit=rules.max_auth_bytes
            )
        except SocketTimeout:
            raise SocketTimeout("not authenticated in time") from None
    if text is None:
        raise WebSocketDisconnect
    return read_proof(text, depth=rules.json_depth)


async def _admit(socket: WebSocket, proof: Proof | None) -> Principal:
    door: Door = socket.app.state.door
    return await door.admit(socket, action=SOCKET_SCOPE, route=" ".join(SOCKET_ROUTE), proof=proof)


async def _converse(socket: WebSocket, thread_id: str, principal: Principal) -> None:
    state = socket.app.state
    who = state.door.identify(socket, principal)
    with state.sockets.place(who, state.socket_rules.per_caller) as end:
        thread = await state.runner.store.get_thread(principal.id, known_id(thread_id))
        if socket.application_state is WebSocketState.CONNECTING:
            await _accept(socket)
        await Conversation(socket, thread.thread_id, principal, end).hold()


async def _accept(socket: WebSocket) -> None:
    # Never the ticket: whatever is chosen here is repeated in the answer.
    chosen = SUBPROTOCOL if SUBPROTOCOL in _offered(socket) else None
    await socket.accept(subprotocol=chosen)


async def _close(socket: WebSocket, error: AgentflowError | HTTPException) -> None:
    if socket.client_state is not WebSocketState.CONNECTED:
        return
    reason = OUR_FAULT if _is_ours(error) else _say(error)
    with suppress(WebSocketDisconnect, TimeoutError):
        # A client that reads nothing does not read this either.
        async with asyncio.timeout(CLOSE_SECONDS):
            await socket.close(close_code_of(error), reason)


def _is_ours(error: AgentflowError | HTTPException) -> bool:
    return close_code_of(error) == 1011


def _say(error: AgentflowError | HTTPException) -> str:
    text = str(error.detail) if isinstance(error, HTTPException) else str(error)
    return text.encode()[:MAX_REASON_BYTES].decode(errors="ignore")


def _offered(socket: WebSocket) -> Sequence[str]:
    offered: Sequence[str] = socket.scope.get("subprotocols") or ()
    return offered


def refuse_foreign_page(socket: WebSocket, rules: SocketRules) -> None:
    """Browsers let any page connect anywhere and send its visitor's cookies: only the server knows
    which pages may. Whoever sends no Origin is no browser. Raises Forbidden."""
    origins = socket.headers.getlist("origin")
    if not origins:
        return
    if len(origins) == 1 and (origins[0] in rules.origins or _is_own(origins[0], socket, rules)):
        return
    if len(origins) == 1 and "*" in rules.origins:
        # As with CORS: every page may come, but none with the cookies of its visitor. In place: the
        # connection has its own list of headers already.
        headers = socket.scope["headers"]
        headers[:] = [item for item in headers if item[0] != b"cookie"]
        return
    raise Forbidden("This origin is not allowed")


def _is_own(origin: str, socket: WebSocket, rules: SocketRules) -> bool:
    own = rules.public_url
    if own is None:
        scheme = _PAGE_SCHEMES.get(socket.scope["scheme"], "http")
        own = f"{scheme}://{socket.headers.get('host', '')}"
    place = _place(own)
    return place is not None and _place(origin) == place


def _place(url: str) -> tuple[str, str, int] | None:
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
    except (ValueError, KeyError):
        return None
    return (parts.scheme, parts.hostname, port) if parts.hostname else None
