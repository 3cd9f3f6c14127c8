"""One request on its way through the door."""

from dataclasses import dataclass, field

from fastapi import Request
from fastapi.security import HTTPAuthorizationCredentials


@dataclass(slots=True)
class Visit:
    """Who comes from where and wants what; `headers` is what the guards tell the client."""

    request: Request
    action: str
    route: str
    address: str
    credential: HTTPAuthorizationCredentials | None = None
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
