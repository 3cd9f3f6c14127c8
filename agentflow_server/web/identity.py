"""What the caller can learn about himself: whether his token is good, and what is known of him."""

from datetime import UTC, datetime
from typing import Any, Literal

from fastapi import APIRouter, Request, Response

from agentflow_server.errors import NotAuthenticated, NotFound
from agentflow_server.interfaces import UserStore
from agentflow_server.models import Frozen, JsonObject, Principal, User, is_user_id
from agentflow_server.web.parameters import json_response
from agentflow_server.web.secured import Caller, SecuredRoute

tokens = APIRouter(prefix="/verify-token", tags=["identity"], route_class=SecuredRoute)
users = APIRouter(prefix="/users", tags=["identity"], route_class=SecuredRoute)

_NAMES = ("username", "preferred_username")
"""Claims that may say how a user is called."""


class NoLocalUser(NotFound):
    """The caller is somebody, but none of this server's users."""

    code = "no_local_user"


class VerifiedToken(Frozen):
    """Whose the credential is, and what it says of him; what it does not say is null."""

    valid: Literal[True] = True
    user_id: str
    username: str | None
    scopes: list[str]
    issued_at: datetime | None
    expires_at: datetime | None


class LocalUser(Frozen):
    """A user of this server, as he may see himself."""

    user_id: str
    username: str
    roles: list[str]
    scopes: list[str]
    claims: JsonObject
    created_at: datetime
    password_changed_at: datetime | None
    has_totp: bool


@tokens.get("", response_model=VerifiedToken, summary="Is my token good?")
async def verify_token(request: Request, caller: Caller) -> Response:
    return await _verify(request, caller)


@tokens.post("", response_model=VerifiedToken, summary="Is my token good?")
async def verify_posted_token(request: Request, caller: Caller) -> Response:
    return await _verify(request, caller)


@users.get("/me", response_model=LocalUser, summary="Who am I?")
async def show_me(request: Request, caller: Caller) -> Response:
    user = await _find_user(request.app.state.users, caller)
    if user is None:
        raise NoLocalUser("You are not a user of this server's own")
    facts = user.model_dump(include=set(LocalUser.model_fields))
    return json_response(LocalUser(**facts))


async def _verify(request: Request, caller: Principal) -> Response:
    if caller.is_anonymous:
        # Whoever asks wants to know whether a token is good, and nobody has looked at it.
        raise NotAuthenticated(NotAuthenticated.MISSING, reason="missing", token_sent=False)
    user = await _find_user(request.app.state.users, caller)
    found = VerifiedToken(
        user_id=caller.id,
        username=_name_of(caller) if user is None else user.username,
        scopes=sorted(caller.scopes),
        issued_at=_moment(caller.issued_at),
        expires_at=_moment(caller.expires_at),
    )
    return json_response(found)


async def _find_user(users: UserStore, caller: Principal) -> User | None:
    if not is_user_id(caller.id):
        return None
    try:
        return await users.get_user(caller.id)
    except NotFound:
        return None


def _name_of(caller: Principal) -> str | None:
    values: list[Any] = [caller.claims.get(name) for name in _NAMES]
    return next((value for value in values if isinstance(value, str)), None)


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
