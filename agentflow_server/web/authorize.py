"""The authorization endpoint (RFC 6749 section 3.1): a login page, and the way back with a code."""

import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import APIRouter, Request, Response

from agentflow_server.token_server import (
    AuthorizationRefused,
    AuthorizationRequest,
    LoginRefused,
    OAuthError,
    TokenServer,
)
from agentflow_server.web.door import Door
from agentflow_server.web.forms import read_form, read_query
from agentflow_server.web.login_page import login_page, refusal_page

log = logging.getLogger(__name__)

router = APIRouter(prefix="/authorize", include_in_schema=False)

COOKIE = "agentflow-login"
COOKIE_SECONDS = 3600
_STALE = "This page was open for too long, or cookies are turned off. Please try again"
_MAX_SHOWN = 128
_COOKIE_VALUE = re.compile(r"[A-Za-z0-9_-]{43}")
_OWN_SITE = frozenset({"same-origin", "none"})


@router.get("")
async def show_login(request: Request) -> Response:
    try:
        wanted = _server(request).check_authorization(read_query(request))
    except OAuthError as error:
        return _refuse(error)
    except AuthorizationRefused as error:
        return _send_back(error)
    return _page(request, wanted)


@router.post("")
async def log_in(request: Request) -> Response:
    door: Door = request.app.state.door
    server = _server(request)
    visit = await door.receive(request, route="POST /authorize")
    try:
        wanted = server.check_authorization(read_query(request))
        form = await read_form(request)
        if not _is_our_form(request, form):
            return _page(request, wanted, message=_STALE, status=HTTPStatus.FORBIDDEN)
        found = await server.log_in(
            wanted,
            form.get("username", ""),
            form.get("password", ""),
            form.get("totp"),
            address=visit.address,
        )
    except OAuthError as error:
        return _refuse(error)
    except AuthorizationRefused as error:
        return _send_back(error)
    except LoginRefused as refused:
        door.scribe.turned_away(visit, "login", how="password", reason=refused.reason)
        return _refused(request, wanted, form.get("username", ""), refused)
    door.scribe.let_in(
        visit, "login", how="password", user_id=found.user_id, client_id=wanted.client_id
    )
    return _go_back(found.redirect_url)


def _refused(
    request: Request, wanted: AuthorizationRequest, username: str, refused: LoginRefused
) -> Response:
    later = refused.retry_after
    return _page(
        request,
        wanted,
        username=username[:_MAX_SHOWN],
        message=str(refused),
        status=HTTPStatus.FORBIDDEN if later is None else HTTPStatus.TOO_MANY_REQUESTS,
        headers=None if later is None else {"Retry-After": str(later)},
    )


def _page(
    request: Request,
    wanted: AuthorizationRequest,
    *,
    username: str = "",
    message: str | None = None,
    status: int = HTTPStatus.OK,
    headers: Mapping[str, str] | None = None,
) -> Response:
    cookie = _find_cookie(request) or secrets.token_urlsafe(32)
    page = login_page(
        client=wanted.client_name,
        redirect_uri=wanted.redirect_uri,
        form_token=_form_token(request, cookie),
        username=username,
        message=message,
        status=status,
        headers=headers,
    )
    page.set_cookie(
        _cookie_name(request),
        cookie,
        max_age=COOKIE_SECONDS,
        secure=_is_secure(request),
        httponly=True,
        samesite="lax",
    )
    return page


def _refuse(error: OAuthError) -> Response:
    log.info("no login: %s", error.reason)
    return refusal_page(error.description, status=error.status)


def _send_back(error: AuthorizationRefused) -> Response:
    log.info("no login: %s", error.reason)
    return _go_back(error.redirect_url)


def _go_back(url: str) -> Response:
    headers = {"Location": url, "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}
    return Response(status_code=HTTPStatus.SEE_OTHER, headers=headers)


def _is_our_form(request: Request, form: Mapping[str, str]) -> bool:
    """Whether it comes from a page that we have shown for this request, in this browser."""
    cookie = _find_cookie(request)
    sent = form.get("form_token", "").encode()
    if cookie is None or request.headers.get("sec-fetch-site", "none") not in _OWN_SITE:
        return False
    return hmac.compare_digest(sent, _form_token(request, cookie).encode())


def _form_token(request: Request, cookie: str) -> str:
    query: bytes = request.scope["query_string"]
    return hmac.new(cookie.encode(), query, hashlib.sha256).hexdigest()


def _find_cookie(request: Request) -> str | None:
    value = request.cookies.get(_cookie_name(request), "")
    return value if _COOKIE_VALUE.fullmatch(value) else None


def _cookie_name(request: Request) -> str:
    """With the prefix, neither a subdomain nor http can set it; but it needs https."""
    return f"__Host-{COOKIE}" if _is_secure(request) else COOKIE


def _is_secure(request: Request) -> bool:
    return _server(request).issuer.startswith("https:")


def _server(request: Request) -> TokenServer:
    server: TokenServer = request.app.state.token_server
    return server
