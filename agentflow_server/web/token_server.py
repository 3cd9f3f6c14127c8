"""The token server over HTTP: RFC 6749, 7009 and 8414. Where there is none, these are 404."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response
from pydantic_core import to_json

from agentflow_server.errors import AgentflowError, InvalidRequest, NotFound, TooManyRequests
from agentflow_server.models import Frozen
from agentflow_server.token_server import OAuthError, TokenServer
from agentflow_server.web.door import Door
from agentflow_server.web.errors import BodyIncomplete, BodyTimeout, BodyTooLarge, status_of
from agentflow_server.web.forms import invalid_request, read_client, read_form
from agentflow_server.web.secured import Caller, SecuredRoute
from agentflow_server.web.visit import Visit

router = APIRouter(tags=["tokens"])
userinfo = APIRouter(prefix="/userinfo", tags=["tokens"], route_class=SecuredRoute)

PUBLISHED_SECONDS = 300
"""How long others may keep our keys and what we say of ourselves."""
GRANTS = frozenset({"password", "refresh_token", "authorization_code", "client_credentials"})

_UNREADABLE = (BodyIncomplete, BodyTimeout, BodyTooLarge, InvalidRequest)
_TEXT = {"type": "string"}
_CLIENT = {"client_id": _TEXT, "client_secret": {"type": "string", "format": "password"}}


def _form(required: list[str], **fields: Any) -> dict[str, Any]:
    schema = {"type": "object", "required": required, "properties": {**fields, **_CLIENT}}
    content = {"application/x-www-form-urlencoded": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}


_TOKEN_FORM = _form(
    ["grant_type"],
    grant_type={"type": "string", "enum": sorted(GRANTS)},
    username=_TEXT,
    password={"type": "string", "format": "password"},
    totp={"type": "string", "description": "The code of the second factor of a user who has one."},
    refresh_token=_TEXT,
    code=_TEXT,
    redirect_uri=_TEXT,
    code_verifier=_TEXT,
    scope={"type": "string", "description": "Scopes, separated by spaces; absent: all of his."},
)
_REVOKE_FORM = _form(["token"], token=_TEXT, token_type_hint=_TEXT)
_ERRORS: dict[int | str, dict[str, Any]] = {
    "400": {"description": "`error` is a code of RFC 6749 section 5.2"},
    "401": {"description": "The client is unknown, or its secret is wrong"},
    "429": {"description": "Too many attempts"},
}


class IssuedToken(Frozen):
    """RFC 6749 section 5.1."""

    access_token: str
    token_type: Literal["Bearer"]
    expires_in: int
    scope: str
    refresh_token: str | None = None


@router.post(
    "/token",
    summary="Get a token",
    response_model=IssuedToken,
    responses=_ERRORS,
    openapi_extra=_TOKEN_FORM,
)
async def issue_token(request: Request) -> Response:
    door = _door(request)
    how: str | None = None
    visit: Visit | None = None
    try:
        visit = await door.receive(request, route="POST /token")
        form = await _read_form(request)
        how = form.get("grant_type")
        how = how if how in GRANTS else None
        client = read_client(request, form)
        answer = await _server(request).grant(form, client, address=visit.address)
    except (OAuthError, TooManyRequests, *_UNREADABLE) as exc:
        error = _as_oauth_error(exc)
        if visit is not None:
            door.scribe.turned_away(visit, "token.refused", how=how, reason=error.reason)
        return _refusal(error)
    door.scribe.let_in(
        visit,
        "token.issued",
        how=how or "",
        user_id=answer.user_id,
        token_id=answer.token_id,
        client_id=answer.client_id,
    )
    return _json(answer.body)


@router.post(
    "/revoke",
    summary="Give a token up",
    responses={200: {"description": "It is good for nothing, or never was"}, **_ERRORS},
    openapi_extra=_REVOKE_FORM,
)
async def revoke_token(request: Request) -> Response:
    door = _door(request)
    try:
        visit = await door.receive(request, route="POST /revoke")
        form = await _read_form(request)
        client = read_client(request, form)
        if "token" not in form:
            raise invalid_request("The token is missing")
        hint = form.get("token_type_hint")
        is_revoked = await _server(request).revoke(form["token"], hint, client)
    except (OAuthError, TooManyRequests, *_UNREADABLE) as exc:
        return _refusal(_as_oauth_error(exc))
    if is_revoked:
        door.scribe.token_revoked(visit)
    return Response(headers={"Pragma": "no-cache"})


@userinfo.get("", summary="Whose token is this?")
async def show_userinfo(request: Request, caller: Caller) -> dict[str, Any]:
    return await _server(request).userinfo(caller)


@userinfo.post("", summary="Whose token is this?")
async def show_posted_userinfo(request: Request, caller: Caller) -> dict[str, Any]:
    return await _server(request).userinfo(caller)


@router.get("/.well-known/oauth-authorization-server{path:path}", include_in_schema=False)
async def show_metadata(request: Request, path: str) -> Response:
    """RFC 8414 puts the issuer's path behind; who finds us below that path need not."""
    server = _server(request)
    if path not in {"", urlsplit(server.issuer).path.rstrip("/")}:
        raise NotFound("There is no such thing here")
    return _published(server.metadata())


@router.get("/.well-known/jwks.json", include_in_schema=False)
async def show_keys(request: Request) -> Response:
    return _published(await _server(request).jwks())


async def _read_form(request: Request) -> dict[str, str]:
    if request.scope["query_string"]:
        # Queries are written down in logs on the way.
        raise invalid_request("Parameters belong into the body")
    return await read_form(request)


def _as_oauth_error(error: OAuthError | AgentflowError) -> OAuthError:
    if isinstance(error, OAuthError):
        return error
    if isinstance(error, TooManyRequests):
        return OAuthError.too_many(error.retry_after)
    status = status_of(error)
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        status = HTTPStatus.BAD_REQUEST
    return OAuthError("invalid_request", str(error), reason=error.code, status=status)


def _refusal(error: OAuthError) -> Response:
    headers: dict[str, str] = {}
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Basic realm="token", charset="UTF-8"'
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    body = {"error": error.code, "error_description": error.description}
    return _json(body, error.status, headers)


def _json(
    body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    found = {"Cache-Control": "no-store", "Pragma": "no-cache", **(headers or {})}
    return Response(to_json(body), status, found, "application/json")


def _published(document: Mapping[str, Any]) -> Response:
    headers = {"Cache-Control": f"public, max-age={PUBLISHED_SECONDS}"}
    return Response(to_json(document), headers=headers, media_type="application/json")


def _server(request: Request) -> TokenServer:
    server: TokenServer = request.app.state.token_server
    return server


def _door(request: Request) -> Door:
    door: Door = request.app.state.door
    return door
