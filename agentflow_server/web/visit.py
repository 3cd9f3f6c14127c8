"""One request on its way through the door."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from fastapi.security import HTTPAuthorizationCredentials

from agentflow_server.models import Principal


@dataclass(frozen=True, slots=True)
class Proof:
    """Who somebody is, said elsewhere than in the headers for credentials: browsers cannot set
    those on a WebSocket. Without a token and a ticket it proves nothing."""

    token: str | None = None
    tickets: Sequence[str] = ()


@dataclass(slots=True)
class Visit:
    """Who comes from where and wants what; `headers` is what the guards tell the client.

    An `action` of None needs nobody's permission: it is about the caller himself.

    The request's scope keeps it, so it does not know the request: the two would hold each other,
    and with them everything of every request, until the garbage collector comes.
    """

    action: str | None
    route: str
    address: str
    thread_id: str | None
    request_id: str | None
    credential: HTTPAuthorizationCredentials | None = None
    principal: Principal | None = None
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
