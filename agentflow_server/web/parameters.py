"""What the routes have in common: ids, pages, idempotency keys, the runner."""

import hashlib
import re
from typing import Annotated
from urllib.parse import quote

from fastapi import Depends, Header, Path, Query, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict

from agentflow_server.errors import NotFound
from agentflow_server.models import Frozen, Idempotency
from agentflow_server.runs.runner import Runner

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class RequestBody(BaseModel):
    """Base of the bodies we read: unknown members are refused, types are not guessed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _is_uuid(value: str) -> str:
    if not _UUID.fullmatch(value):
        raise ValueError("expected a UUID such as 0190d5a2-8c4e-7cc3-9a6f-0d2f5e1b7a11")
    return value.lower()


def known_id(value: str) -> str:
    """An id in a path that cannot exist is simply not found."""
    if not _UUID.fullmatch(value):
        raise NotFound("There is no such thing here")
    return value.lower()


ChosenId = Annotated[str, AfterValidator(_is_uuid)]


async def _get_thread_id(
    thread_id: Annotated[str, Path(json_schema_extra={"format": "uuid"})],
) -> str:
    return known_id(thread_id)


async def _get_run_id(run_id: Annotated[str, Path(json_schema_extra={"format": "uuid"})]) -> str:
    return known_id(run_id)


async def _get_runner(request: Request) -> Runner:
    runner: Runner = request.app.state.runner
    return runner


async def _get_idempotency(
    request: Request,
    key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            min_length=1,
            max_length=255,
            pattern=r"^[\x21-\x7e]+$",
            description="Makes a retry safe: for 24 hours, the same key does nothing twice.",
        ),
    ] = None,
) -> Idempotency | None:
    if key is None:
        return None
    digest = hashlib.sha256(await request.body()).hexdigest()
    # Ids mean the same in capitals, so they must here as well.
    route = f"{request.method} {request.url.path.lower()}"
    return Idempotency(key=key, route=route, digest=digest)


ThreadId = Annotated[str, Depends(_get_thread_id)]
RunId = Annotated[str, Depends(_get_run_id)]
Runs = Annotated[Runner, Depends(_get_runner)]
IdempotencyKey = Annotated[Idempotency | None, Depends(_get_idempotency)]
Limit = Annotated[int, Query(ge=1, le=200, description="How many at most.")]
Cursor = Annotated[
    str | None, Query(max_length=512, description="`next_cursor` of the page before.")
]


def mounted_at(request: Request) -> str:
    """What comes before our paths where another application has us mounted, or a proxy; else ""."""
    root: str = request.scope.get("root_path", "")
    return quote(root.rstrip("/"))


def json_response(value: Frozen, status_code: int = 200) -> Response:
    """Serialised once, by pydantic; FastAPI would do it twice."""
    return Response(value.model_dump_json(), status_code, media_type="application/json")
