"""`include_agentflow(app, …, principal=Depends(…))`: the host says who is calling."""

import asyncio
import json
import logging
import threading
import time
import uuid
from typing import Annotated

import pytest
from fastapi import (
    BackgroundTasks,
    Depends,
    FastAPI,
    Header,
    HTTPException,
    Request,
    Response,
    Security,
)
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyCookie, OAuth2PasswordBearer, SecurityScopes

from agentflow_server import ConfigError, Principal, include_agentflow
from agentflow_server.config import load_config
from agentflow_server.models import Revocation

ALICE = {"Authorization": "Bearer alice"}
BOB = {"Authorization": "Bearer bob"}
USERS = {"alice", "bob"}

oauth2 = OAuth2PasswordBearer(tokenUrl="token")


def get_user(token: Annotated[str, Depends(oauth2)]) -> str:
    if token not in USERS:
        raise HTTPException(401, "Who is that?", {"WWW-Authenticate": 'Bearer realm="host"'})
    return token


def host_with(file, dependency, **more) -> FastAPI:
    host = FastAPI()
    include_agentflow(host, file, principal=Depends(dependency), **more)
    return host


@pytest.fixture
async def client(project, serve):
    return await serve(host_with(project(), get_user))


async def test_nothing_is_answered_without_the_dependency(client):
    paths = ["", "docs", "docs/swagger-ui.css", "openapi.json", "agents", "threads", "ping",
             "health/ready", "no-such-thing"]  # fmt: skip
    for path in paths:
        for headers in ({}, {"Authorization": "Bearer mallory"}):
            answer = await client.get(f"/agent-api/{path}", headers=headers)
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"].startswith("Bearer")
    assert (await client.get("/agent-api/docs", headers=ALICE)).status_code == 200
    listed = await client.get("/agent-api/agents", headers=ALICE)
    assert [agent["name"] for agent in listed.json()["data"]] == ["agent"]


async def test_what_the_dependency_raises_is_the_answer_as_the_host_wrote_it(client):
    answer = await client.post("/agent-api/threads", headers={"Authorization": "Bearer mallory"})
    assert answer.status_code == 401
    assert answer.json() == {"detail": "Who is that?"}
    assert answer.headers["www-authenticate"] == 'Bearer realm="host"'


async def test_nobody_finds_what_belongs_to_another_user_of_the_host(client, say):
    assert await say(client, "Hi", headers=ALICE) == {"said": "Hi", "user_id": "alice"}
    thread = (await client.post("/agent-api/threads", headers=ALICE)).json()["thread_id"]
    path = f"/agent-api/threads/{thread}"
    message = {"content": "Whose is this?"}
    assert (await client.get(path, headers=BOB)).status_code == 404
    assert (await client.delete(path, headers=BOB)).status_code == 404
    assert (await client.post(f"{path}/messages", headers=BOB, json=message)).status_code == 404
    assert (await client.get(path, headers=ALICE)).status_code == 200
    assert (await client.get("/agent-api/threads", headers=BOB)).json()["data"] == []


async def test_a_body_cannot_say_who_is_calling(client):
    thread = (await client.post("/agent-api/threads", headers=ALICE)).json()["thread_id"]
    for extra in ({"user_id": "bob"}, {"config": {"user_id": "bob"}}):
        answer = await client.post(
            f"/agent-api/threads/{thread}/messages", headers=ALICE, json={"content": "x", **extra}
        )
        assert answer.status_code == 422


async def test_the_openapi_document_names_what_the_host_asks_for(project, serve):
    host = host_with(project(), get_user, prefix="/v1/agents")
    client = await serve(host)
    document = (await client.get("/v1/agents/openapi.json", headers=ALICE)).json()
    schemes = document["components"]["securitySchemes"]
    flow = schemes["OAuth2PasswordBearer"]["flows"]["password"]
    # As seen from the server's URL, /v1/agents, it is the host's /token.
    assert flow["tokenUrl"] == "../token"
    operation = document["paths"]["/threads"]["post"]
    assert operation["security"] == [{"OAuth2PasswordBearer": []}]
    assert "401" in operation["responses"]


def an_id(request: Request) -> str:
    return request.headers["x-user"]


def a_number() -> int:
    return 7


def a_uuid() -> uuid.UUID:
    return uuid.UUID(int=7)


async def claims(request: Request) -> dict[str, object]:
    return {"user_id": request.headers["x-user"], "team": "blue"}


async def a_principal(request: Request) -> Principal:
    return Principal(request.headers["x-user"], {"team": "red", "user_id": "mallory"})


@pytest.mark.parametrize(
    ("dependency", "told"),
    [
        (an_id, {"user_id": "alice"}),
        (a_number, {"user_id": "7"}),
        (a_uuid, {"user_id": str(uuid.UUID(int=7))}),
        (claims, {"user_id": "alice", "team": "blue"}),
        (a_principal, {"user_id": "alice", "team": "red"}),
    ],
)
async def test_every_form_of_an_answer_reaches_the_graph(dependency, told, project, serve, say):
    client = await serve(host_with(project(), dependency))
    assert await say(client, "Hi", headers={"X-User": "alice"}) == {"said": "Hi", **told}


NAMES_NOBODY = [
    "", " ", "a\nb", "x" * 300, True, 1.5, {}, {"name": "alice"}, Principal(""), object(),
    {"user_id": "alice", "made": object()},
]  # fmt: skip


async def test_an_answer_that_names_nobody_lets_nobody_in(project, serve, caplog):
    answer: object = None
    client = await serve(host_with(project(), lambda: answer))
    with caplog.at_level(logging.ERROR, "agentflow_server.web.host"):
        refused = await client.post("/agent-api/threads")
        assert (refused.status_code, refused.json()["detail"]) == (401, "Not authenticated")
        assert not caplog.records
        for count, answer in enumerate(NAMES_NOBODY, 1):
            refused = await client.post("/agent-api/threads")
            told = "Could not validate credentials"
            assert (refused.status_code, refused.json()["detail"]) == (401, told), answer
            assert len(caplog.records) == count
    assert "alice" not in caplog.text


@pytest.mark.parametrize("answer", [None, "", []], ids=repr)
async def test_an_answer_that_names_nobody_opens_nothing_that_is_public_elsewhere(
    answer, project, serve
):
    client = await serve(host_with(project(), lambda: answer))
    for path in ["docs", "docs/swagger-ui.css", "openapi.json", "ping", "health/ready", "no-such"]:
        for method in ("GET", "HEAD", "OPTIONS"):
            refused = await client.request(method, f"/agent-api/{path}")
            assert refused.status_code == 401, (method, path)
            assert refused.headers["www-authenticate"] == "Bearer"


async def test_scopes_and_roles_of_the_host_decide_what_a_caller_may_do(project, serve):
    def reader(request: Request) -> dict[str, object]:
        return {"user_id": "alice", "roles": [request.headers["x-role"]]}

    rules = {"roles": {"reader": ["threads:read"], "writer": ["threads:read", "threads:write"]}}
    client = await serve(host_with(project(authorization=rules), reader))
    roles = {role: {"X-Role": role} for role in rules["roles"]}
    assert (await client.get("/agent-api/threads", headers=roles["reader"])).status_code == 200
    assert (await client.post("/agent-api/threads", headers=roles["reader"])).status_code == 403
    assert (await client.post("/agent-api/threads", headers=roles["writer"])).status_code == 200


async def test_blocking_code_of_the_host_runs_in_a_thread(project, serve):
    seen = []

    def look(token: Annotated[str, Depends(oauth2)]) -> str:
        seen.append(threading.current_thread())
        return token

    client = await serve(host_with(project(), look))
    assert (await client.get("/agent-api/threads", headers=ALICE)).status_code == 200
    assert seen
    assert threading.main_thread() not in seen


async def test_a_dependency_that_yields_is_finished_after_the_answer(project, serve):
    told: list[str] = []
    closed = asyncio.Event()

    async def session(tasks: BackgroundTasks, response: Response):
        tasks.add_task(told.append, "task")
        response.set_cookie("session", "renewed")
        told.append("opened")
        yield "alice"
        told.append("closed")
        closed.set()

    client = await serve(host_with(project(), session))
    answer = await client.post("/agent-api/threads")
    assert answer.status_code == 200
    assert answer.headers["set-cookie"].startswith("session=renewed")
    async with asyncio.timeout(30):
        await closed.wait()
    assert told == ["opened", "task", "closed"]


async def test_error_handlers_and_overrides_of_the_host_count(project, serve):
    class Locked(Exception):
        pass

    def refuse() -> str:
        raise Locked

    host = host_with(project(), refuse)
    host.add_exception_handler(Locked, lambda *_: JSONResponse({"locked": True}, 423))
    client = await serve(host)
    answer = await client.get("/agent-api/threads")
    assert (answer.status_code, answer.json()) == (423, {"locked": True})
    host.dependency_overrides[refuse] = lambda: "alice"
    assert (await client.get("/agent-api/threads")).status_code == 200


async def test_what_a_dependency_asks_for_and_does_not_get_is_the_hosts_422(project, serve):
    def keyed(x_key: Annotated[str, Header()]) -> str:
        return x_key

    client = await serve(host_with(project(), keyed))
    missing = await client.get("/agent-api/threads")
    assert missing.status_code == 422
    assert missing.json()["detail"][0]["loc"] == ["header", "x-key"]
    assert (await client.get("/agent-api/threads", headers={"X-Key": "k"})).status_code == 200


async def test_a_dependency_may_read_the_body(project, serve, say):
    async def signed(request: Request) -> str:
        body = await request.body()
        return "empty" if not body else f"sent {len(json.loads(body))}"

    client = await serve(host_with(project(), signed))
    thread = str(uuid.uuid4())
    created = await client.post("/agent-api/threads", json={"thread_id": thread})
    assert created.json()["thread_id"] == thread
    answer = await client.post(f"/agent-api/threads/{thread}/messages", json={"content": "Hi"})
    assert json.loads(answer.json()["message"]["content"]) == {"said": "Hi", "user_id": "sent 1"}


async def test_a_parameter_in_the_prefix_is_for_the_dependency(project, serve):
    def tenant_user(tenant: str, thread_id: str, token: Annotated[str, Depends(oauth2)]) -> str:
        return f"{tenant}/{thread_id}/{token}"

    where = "/t/{tenant}/{thread_id}/agents"
    client = await serve(host_with(project(), tenant_user, prefix=where))
    made = await client.post("/t/acme/1/agents/threads", headers=ALICE)
    found = f"agents/threads/{made.json()['thread_id']}"
    assert (await client.get(f"/t/acme/1/{found}", headers=ALICE)).status_code == 200
    assert (await client.get(f"/t/other/1/{found}", headers=ALICE)).status_code == 404


async def test_security_scopes_reach_the_dependency(project, serve):
    def scoped(needed: SecurityScopes) -> str:
        return "-".join(needed.scopes)

    host = FastAPI()
    include_agentflow(host, project(), principal=Security(scoped, scopes=["agents"]))
    client = await serve(host)
    thread = (await client.post("/agent-api/threads")).json()["thread_id"]
    answer = await client.post(f"/agent-api/threads/{thread}/messages", json={"content": "x"})
    assert json.loads(answer.json()["message"]["content"])["user_id"] == "agents"


async def test_a_cookie_is_as_good_as_a_header(project, serve, say):
    def from_cookie(session: Annotated[str, Depends(APIKeyCookie(name="session"))]) -> str:
        return session

    client = await serve(host_with(project(), from_cookie))
    assert (await client.get("/agent-api/docs")).status_code == 401
    client.cookies.set("session", "alice")
    assert (await client.get("/agent-api/docs")).status_code == 200
    assert (await say(client, "Hi"))["user_id"] == "alice"


def wants_json(body: dict[str, str]) -> str:
    return body["user_id"]


@pytest.mark.parametrize(
    ("settings", "more", "problem"),
    [
        ({"auth": "jwt"}, {}, "agentflow.json: auth: the application that includes this server"),
        ({"auth": ["jwt", "api_key"]}, {}, "auth: .* remove it, or write null"),
        ({"token_server": {}}, {}, "token_server: the application that includes"),
        ({}, {"prefix": "agents"}, "prefix: expected a path"),
        ({}, {"prefix": "/"}, "prefix: expected a path"),
        ({}, {"principal": get_user}, r"principal: expected Depends\(…\)"),
        ({}, {"principal": Depends(wants_json)}, "wants the body of every request"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(settings, more, problem, project, monkeypatch):
    monkeypatch.setenv("JWT_SECRET_KEY", "Zk3vJ9qXw2LrT8sYbN5mHc7Pd1Gf4Ae6")
    with pytest.raises(ConfigError, match=problem):
        include_agentflow(
            FastAPI(), project(**settings), **{"principal": Depends(get_user), **more}
        )


def test_null_says_that_the_host_decides(project):
    app = include_agentflow(FastAPI(), load_config(project(auth=None)), principal=Depends(get_user))
    assert app.config.auth_written


async def test_a_revoked_user_of_the_host_is_refused(project, serve):
    def look(token: Annotated[str, Depends(oauth2)]) -> Principal:
        return Principal(token, issued_at=1000.0)

    host = FastAPI()
    app = include_agentflow(host, project(), principal=Depends(look))
    file = app.config.path
    async with app.router.lifespan_context(app):
        credentials = app._parts.database.credentials
        await credentials.add_revocation(
            Revocation(at=2000.0, expires_at=time.time() + 600, user_id="alice")
        )
    client = await serve(host_with(file, look))
    assert (await client.get("/agent-api/threads", headers=ALICE)).status_code == 401
    assert (await client.get("/agent-api/threads", headers=BOB)).status_code == 200


async def test_a_database_session_can_be_given_back_before_a_long_answer(project, serve):
    told: list[str] = []

    async def session():
        told.append("opened")
        yield "alice"
        told.append("closed")

    host = FastAPI()
    include_agentflow(host, project(), principal=Depends(session, scope="function"))

    @host.middleware("http")
    async def watch(request, call_next):
        answer = await call_next(request)
        told.append("answered")
        return answer

    client = await serve(host)
    assert (await client.get("/agent-api/threads")).status_code == 200
    assert told == ["opened", "closed", "answered"]
