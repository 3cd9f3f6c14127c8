"""The only routes that answer without a credential. A test lists them."""

import asyncio
from importlib.resources import files
from typing import Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html, get_swagger_ui_oauth2_redirect_html
from pydantic_core import to_json

from agentflow_server.config import OWN_CLIENT
from agentflow_server.errors import NotFound, StoreUnavailable
from agentflow_server.models import Frozen
from agentflow_server.web.errors import STORE_IS_DOWN, problem
from agentflow_server.web.parameters import Runs, mounted_at

router = APIRouter()

PING_SECONDS = 1.0
"""Whoever asks whether we are ready does not wait as long as a request does for the database."""

_ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
_DOCS_POLICY = (
    "default-src 'none'; connect-src 'self'; img-src 'self' data:; "
    "script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
)
_REDIRECT_POLICY = "default-src 'none'; script-src 'unsafe-inline'; frame-ancestors 'none'"


class Status(Frozen):
    status: Literal["ok"] = "ok"


@router.get("/ping", tags=["health"], summary="Is anybody there?")
async def ping() -> Status:
    return Status()


@router.get("/health/live", tags=["health"], summary="Is the process alive?")
async def live() -> Status:
    return Status()


@router.get(
    "/health/ready",
    tags=["health"],
    summary="Can it do its work?",
    response_model=Status,
    responses={
        503: {"description": "The database, the worker or the keys of an issuer cannot be used"}
    },
)
async def ready(request: Request, runs: Runs) -> Response | Status:
    if request.app.state.is_retiring:
        return problem(503, "server_stopping", "This server is about to stop")
    try:
        async with asyncio.timeout(PING_SECONDS):
            await runs.store.ping()
    except (StoreUnavailable, TimeoutError):
        return problem(503, StoreUnavailable.code, STORE_IS_DOWN)
    if problems := request.app.state.authenticator.problems():
        # What is after the colon is for operators, and in the log.
        told = "; ".join(found.partition(": ")[0] for found in problems)
        return problem(503, "auth_unavailable", told)
    if problems := request.app.state.backend.problems():
        return problem(503, "worker_unavailable", "; ".join(problems))
    return Status()


@router.get("/.well-known/oauth-protected-resource{path:path}", include_in_schema=False)
async def protected_resource(request: Request, path: str) -> Response:
    """RFC 9728: where a client of this server gets its tokens. Never from the Host header."""
    metadata = request.app.state.resource_metadata
    if metadata is None or path not in {"", urlsplit(metadata["resource"]).path.rstrip("/")}:
        raise NotFound("There is no such thing here")
    return Response(to_json(metadata), media_type="application/json")


@router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> Response:
    return Response(request.app.openapi_json(mounted_at(request)), media_type="application/json")


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> Response:
    root = mounted_at(request)
    page = get_swagger_ui_html(
        openapi_url=f"{root}/openapi.json",
        title="agentflow-server",
        swagger_js_url=f"{root}/docs/swagger-ui-bundle.js",
        swagger_css_url=f"{root}/docs/swagger-ui.css",
        swagger_favicon_url=f"{root}/docs/favicon-32x32.png",
        oauth2_redirect_url=f"{root}/docs/oauth2-redirect",
        init_oauth={"clientId": OWN_CLIENT, "usePkceWithAuthorizationCodeGrant": True},
        swagger_ui_parameters={"persistAuthorization": False, "tryItOutEnabled": True},
    )
    page.headers["Content-Security-Policy"] = _DOCS_POLICY
    return page


@router.get("/docs/oauth2-redirect", include_in_schema=False)
async def docs_login_ended() -> Response:
    """Where the login page sends the window that the Authorize dialog has opened."""
    page = get_swagger_ui_oauth2_redirect_html()
    page.headers["Content-Security-Policy"] = _REDIRECT_POLICY
    page.headers["Referrer-Policy"] = "no-referrer"  # the URL has the code
    return page


@router.get("/docs/{asset}", include_in_schema=False)
async def docs_asset(asset: str) -> Response:
    if asset not in _ASSETS:
        return problem(404, "not_found", "There is no such thing here")
    content = files("fastapi_swagger.resources").joinpath(asset).read_bytes()
    headers = {"Cache-Control": "public, max-age=3600"}
    return Response(content, media_type=_ASSETS[asset], headers=headers)
