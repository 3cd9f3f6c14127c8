"""The OpenAPI document: what FastAPI finds, plus security schemes and error answers."""

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from agentflow_server.models import JsonObject

_SCHEME = "bearer"
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
_ANSWERS = {
    "401": "Nobody we know",
    "404": "No such thing, or not yours",
    "409": "The current state does not allow it",
    "413": "The body is too large",
    "415": "The body is not declared to be JSON",
    "422": "The request is not valid",
    "500": "The agent could not finish this turn",
    "503": "Authentication or the database is not available",
}


def build_openapi(
    app: FastAPI,
    *,
    secured: Iterable[APIRouter],
    security_scheme: Mapping[str, Any] | None,
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
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    if security_scheme is not None:
        components["securitySchemes"] = {_SCHEME: dict(security_scheme)}
    secured_paths = {
        route.path for router in secured for route in router.routes if isinstance(route, APIRoute)
    }
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if path in secured_paths:
                _complete(operation, path, method, with_security=security_scheme is not None)
    return document


def _complete(operation: JsonObject, path: str, method: str, *, with_security: bool) -> None:
    if with_security:
        operation["security"] = [{_SCHEME: []}]
    for status in _possible_answers(path, method, with_security=with_security):
        operation["responses"][status] = {
            "description": _ANSWERS[status],
            "content": {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
            },
        }


def _possible_answers(path: str, method: str, *, with_security: bool) -> list[str]:
    statuses = ["422", "503"]
    if with_security:
        statuses.append("401")
    if "{" in path:
        statuses.append("404")
    if method in {"post", "patch"}:
        statuses += ["413", "415"]
    if method in {"post", "delete"}:
        statuses.append("409")
    if path.endswith("/messages") and method == "post":
        statuses.append("500")
    return sorted(statuses)
