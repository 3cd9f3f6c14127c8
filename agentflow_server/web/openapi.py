"""The OpenAPI document: what FastAPI finds, plus security schemes and error answers."""

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from agentflow_server.models import JsonObject
from agentflow_server.web.examples import EXAMPLES
from agentflow_server.web.scopes import find_scope

LOGIN = "login"
"""The security scheme of the token server: its dialog logs in."""

_PROBLEM = {
    "type": "object",
    "description": "RFC 9457 problem details; `code` is stable.",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string", "examples": ["urn:agentflow:not_found"]},
        "title": {"type": "string", "examples": ["Not Found"]},
        "status": {"type": "integer", "examples": [404]},
        "detail": {"type": "string", "examples": ["There is no such thread"]},
        "code": {"type": "string", "examples": ["not_found"]},
    },
}
_OWNER = {
    "name": "owner",
    "in": "query",
    "schema": {"type": "string"},
    "description": "For administrators: read what belongs to this user.",
}
_ANSWERS = {
    "401": "Nobody we know",
    "403": "The caller lacks the scope",
    "404": "No such thing, or not yours",
    "409": "The current state does not allow it",
    "413": "The body is too large",
    "415": "The body is not declared to be JSON",
    "422": "The request is not valid",
    "429": "Too many requests",
    "500": "The agent could not finish this turn",
    "503": "Authentication or the database is not available",
}


def build_openapi(
    app: FastAPI,
    *,
    secured: Iterable[APIRouter],
    security_schemes: Mapping[str, Mapping[str, Any]],
    public_url: str | None,
) -> JsonObject:
    """`secured` are the routers whose routes want a credential."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        servers=[{"url": public_url}] if public_url else None,
    )
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas["Problem"] = _PROBLEM
    for name, example in EXAMPLES.items():
        schemas[name]["examples"] = [example]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    if security_schemes:
        components["securitySchemes"] = {name: dict(s) for name, s in security_schemes.items()}
    security: list[JsonObject] = [{name: []} for name in security_schemes]
    secured_paths = {
        route.path for router in secured for route in router.routes if isinstance(route, APIRoute)
    }
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if path in secured_paths:
                _complete(operation, path, method, security)
    return document


def make_login_scheme(root: str, *, password_grant: bool) -> JsonObject:
    """For the Authorize dialog, with our paths below `root`. A token has all scopes of its user."""
    urls = {"tokenUrl": f"{root}/token", "refreshUrl": f"{root}/token", "scopes": {}}
    if password_grant:
        return {"type": "oauth2", "flows": {"password": urls}}
    flow = {"authorizationUrl": f"{root}/authorize", **urls}
    return {"type": "oauth2", "flows": {"authorizationCode": flow}}


def move_below(document: JsonObject, root: str) -> JsonObject:
    """The same for clients that find our paths below `root`."""
    moved = {**document, "servers": [{"url": root}]}
    components = document.get("components", {})
    schemes = components.get("securitySchemes", {})
    if LOGIN in schemes:
        ((kind, flow),) = schemes[LOGIN]["flows"].items()
        flow = {name: f"{root}{url}" if name.endswith("Url") else url for name, url in flow.items()}
        schemes = {**schemes, LOGIN: {**schemes[LOGIN], "flows": {kind: flow}}}
        moved["components"] = {**components, "securitySchemes": schemes}
    return moved


def _complete(operation: JsonObject, path: str, method: str, security: list[JsonObject]) -> None:
    scope = find_scope(method.upper(), path)
    if security:
        operation["security"] = security
        if scope is not None:
            operation["description"] = f"Scope: `{scope}`"
    if method == "get" and scope is not None:
        operation.setdefault("parameters", []).append(_OWNER)
    for status in _possible_answers(path, method, with_security=bool(security)):
        operation["responses"][status] = {
            "description": _ANSWERS[status],
            "content": {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
            },
        }


def _possible_answers(path: str, method: str, *, with_security: bool) -> list[str]:
    statuses = ["422", "503"]
    if with_security:
        statuses += ["401", "403", "429"]
    if "{" in path:
        statuses.append("404")
    if method in {"post", "patch"}:
        statuses += ["413", "415"]
    if method in {"post", "delete"}:
        statuses.append("409")
    if path.endswith(("/messages", "/resume")) and method == "post":
        statuses.append("500")
    return sorted(statuses)
