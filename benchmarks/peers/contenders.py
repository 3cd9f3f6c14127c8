"""Who is compared: how each is installed, configured, started, and spoken to."""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from benchmarks.load import HOST, build_request
from benchmarks.peers.environments import Environment

ROOT = Path(__file__).resolve().parents[2]
AGENTS = Path(__file__).with_name("agents")
REPLY = b"You said: "

Auth = Literal["jwt", "none", "typo"]
"""`none`: the section is left out. `typo`: its key is misspelt."""

Storage = Literal["SQLite", "PostgreSQL", "PostgreSQL, Redis", "memory"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where one server runs: its folder and what is around it."""

    environment: Environment
    folder: Path
    port: int
    auth: Auth
    secret: str
    postgres: str = ""
    redis: str = ""


@dataclass(frozen=True, slots=True)
class Launch:
    command: Sequence[str]
    variables: Mapping[str, str]
    first: Sequence[str] = ()
    """What has to be run once before, on an empty database."""


class Contender(ABC):
    """A server with its settings. `agent` is the module that it serves."""

    package: ClassVar[str]
    installed: ClassVar[Sequence[str]]
    local: ClassVar[Sequence[str]] = ()
    """Packages that are installed anew each time, since they are this checkout."""
    ours: ClassVar[bool] = False
    ping: ClassVar[str] = "/ping"
    length_at_creation: ClassVar[int] = 0
    """Messages that a new thread has."""
    settings: ClassVar[str]
    """What the report says about how it is run."""

    def __init__(self, agent: str, storage: Storage) -> None:
        self.agent = agent
        self.storage = storage

    @property
    def loss(self) -> str | None:
        """Why a power cut may lose a turn that was acknowledged."""
        return None

    @property
    def name(self) -> str:
        return f"{self.package}: {self.agent}, {self.storage}"

    @abstractmethod
    def prepare(self, place: Place) -> Launch:
        """Writes the configuration."""

    def creation(self, token: str | None) -> bytes:
        return build_request("POST", "/threads", {}, token)

    def thread_id(self, body: bytes) -> str:
        found: str = json.loads(body)["thread_id"]
        return found

    @abstractmethod
    def turn(
        self, thread_id: str, text: str, token: str | None, *, stream: bool = False
    ) -> bytes: ...

    @abstractmethod
    def history(self, thread_id: str, token: str | None) -> bytes:
        """Asks for all messages of a thread."""


class Agentflow(Contender):
    package = "agentflow-server"
    installed = (f"{ROOT}[langgraph,tenxgraph,postgres]", f"--constraint={ROOT}/constraints.txt")
    local = ("agentflow-server",)
    ours = True
    settings = "`agentflow serve`, defaults"

    def prepare(self, place: Place) -> Launch:
        database = place.postgres or f"sqlite:///{place.folder}/agentflow.db"
        config = {
            "agent": f"{self.agent}_echo:app",
            "database": database,
            **_auth_section(place.auth, "jwt"),
        }
        path = place.folder / "agentflow.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        serve = [place.environment.script("agentflow"), "serve", "--config", str(path)]
        checkpoints = {"CHECKPOINTS_SQLITE": f"{place.folder}/checkpoints.db"}
        return Launch([*serve, "--port", str(place.port)], checkpoints)

    def turn(self, thread_id: str, text: str, token: str | None, *, stream: bool = False) -> bytes:
        path = f"/threads/{thread_id}/messages"
        return build_request("POST", path, {"content": text, "stream": stream}, token)

    def history(self, thread_id: str, token: str | None) -> bytes:
        return build_request("GET", f"/threads/{thread_id}/messages?limit=200", None, token)


class TenxGraph(Contender):
    package = "10xgraph-api"
    installed = (
        "10xgraph-api[jwt]==0.9.0",
        "10xgraph[sqlite_checkpoint,pg_checkpoint]==0.10.3",
        *("gunicorn>=23,<27", "uvicorn-worker>=0.4,<1"),  # as in the image that it generates
    )
    length_at_creation = 2
    settings = "gunicorn with one uvicorn worker as in its Dockerfile, `MODE=production`"

    def prepare(self, place: Place) -> Launch:
        config = {"agent": f"{self.agent}_echo:app", **_auth_section(place.auth, "jwt")}
        (place.folder / "10xgraph.json").write_text(json.dumps(config), encoding="utf-8")
        variables = {
            "MODE": "production",
            "IS_DEBUG": "false",
            "WEB_CONCURRENCY": "1",
            "ORIGINS": f"http://{HOST}",
            "ALLOWED_HOST": HOST,
            "JWT_ALGORITHM": "HS256",
        }
        if place.postgres:
            variables |= {"CHECKPOINTS_POSTGRES": place.postgres, "CHECKPOINTS_REDIS": place.redis}
        else:
            variables["CHECKPOINTS_SQLITE"] = f"{place.folder}/checkpoints.db"
        worker = ["-k", "uvicorn_worker.UvicornWorker", "-b", f"{HOST}:{place.port}"]
        patience = ["--graceful-timeout", "600", "--timeout", "600"]
        serve = [place.environment.script("gunicorn"), *worker, *patience]
        # Nothing of theirs makes the tables in PostgreSQL: without them, every run is a 500.
        make_tables = [place.environment.script("python"), "-m", "tenxgraph_echo"]
        return Launch(
            [*serve, "tenxgraph_api.src.app.main:app"],
            variables,
            first=make_tables if place.postgres else (),
        )

    @property
    def loss(self) -> str | None:
        return "SQLite with `synchronous=NORMAL`" if self.storage == "SQLite" else None

    def creation(self, token: str | None) -> bytes:
        """A thread begins with its first message."""
        return self._run("invoke", "fill 2", None, token)

    def thread_id(self, body: bytes) -> str:
        found: str = json.loads(body)["data"]["meta"]["thread_id"]
        return found

    def turn(self, thread_id: str, text: str, token: str | None, *, stream: bool = False) -> bytes:
        return self._run("stream" if stream else "invoke", text, thread_id, token)

    def _run(self, how: str, text: str, thread_id: str | None, token: str | None) -> bytes:
        message = {"role": "user", "content": [{"type": "text", "text": text}]}
        config = {"thread_id": thread_id} if thread_id else {}
        body = {"messages": [message], "config": config}
        return build_request("POST", f"/v1/graph/{how}", body, token)

    def history(self, thread_id: str, token: str | None) -> bytes:
        return build_request("GET", f"/v1/threads/{thread_id}/state", None, token)


class AgentProtocol(Contender):
    """What `langgraph dev` and Aegra have in common."""

    def turn(self, thread_id: str, text: str, token: str | None, *, stream: bool = False) -> bytes:
        body: dict[str, Any] = {
            "assistant_id": "echo",
            "input": {"messages": [{"role": "user", "content": text}]},
        }
        if stream:
            body["stream_mode"] = ["messages-tuple"]
        how = "stream" if stream else "wait"
        return build_request("POST", f"/threads/{thread_id}/runs/{how}", body, token)

    def history(self, thread_id: str, token: str | None) -> bytes:
        return build_request("GET", f"/threads/{thread_id}/state", None, token)

    def _config(self, place: Place) -> dict[str, Any]:
        section = _auth_section(place.auth, {"path": f"{AGENTS}/token_auth.py:auth"})
        return {"graphs": {"echo": f"{AGENTS}/{self.agent}_echo.py:app"}, **section}


class LangGraphDev(AgentProtocol):
    package = "langgraph dev"
    installed = ("langgraph-cli[inmem]==0.4.40", "langgraph-api==0.16.7", "pyjwt>=2.10")
    ping = "/ok"
    loss = "memory, written out every few seconds"
    settings = "`langgraph dev --no-reload`; its production server needs a licence and Docker"

    def prepare(self, place: Place) -> Launch:
        config = {"dependencies": ["."], **self._config(place)}
        (place.folder / "langgraph.json").write_text(json.dumps(config), encoding="utf-8")
        dev = [place.environment.script("langgraph"), "dev", "--no-reload", "--no-browser"]
        quiet = {"LANGGRAPH_CLI_NO_ANALYTICS": "1", "LANGSMITH_TRACING": "false"}
        return Launch([*dev, "--host", HOST, "--port", str(place.port)], quiet)


class Aegra(AgentProtocol):
    package = "Aegra"
    installed = ("aegra-cli==0.11.0", "aegra-api==0.11.0", "pyjwt>=2.10")
    ping = "/live"
    settings = (
        "`aegra serve`, `ENV_MODE=PRODUCTION`; with Redis: its broker, as it wants in production"
    )

    def prepare(self, place: Place) -> Launch:
        path = place.folder / "aegra.json"
        path.write_text(json.dumps(self._config(place)), encoding="utf-8")
        variables = {"DATABASE_URL": place.postgres, "ENV_MODE": "PRODUCTION"}
        if place.redis:
            variables |= {"REDIS_BROKER_ENABLED": "true", "REDIS_URL": place.redis}
        if place.auth == "jwt":
            variables["AUTH_TYPE"] = "custom"
        serve = [place.environment.script("aegra"), "serve", "--config", str(path)]
        return Launch([*serve, "--host", HOST, "--port", str(place.port)], variables)

    def creation(self, token: str | None) -> bytes:
        return build_request("POST", "/threads", {"metadata": {}}, token)


CONTENDERS: Sequence[Contender] = (
    Agentflow("function", "SQLite"),
    Agentflow("langgraph", "SQLite"),
    Agentflow("tenxgraph", "SQLite"),
    Agentflow("function", "PostgreSQL"),
    Agentflow("langgraph", "PostgreSQL"),
    TenxGraph("tenxgraph", "SQLite"),
    TenxGraph("tenxgraph", "PostgreSQL, Redis"),
    LangGraphDev("langgraph", "memory"),
    Aegra("langgraph", "PostgreSQL"),
    Aegra("langgraph", "PostgreSQL, Redis"),
)


def find_failure(bodies: Sequence[bytes]) -> str | None:
    """An answer that is none, though its status is 200."""
    for body in bodies:
        if REPLY not in body or b'"__error__"' in body or re.search(rb'"status": ?"failed"', body):
            return body[:300].decode(errors="replace")
    return None


def _auth_section(auth: Auth, value: Any) -> dict[str, Any]:
    match auth:
        case "jwt":
            return {"auth": value}
        case "typo":
            return {"auht": value}
    return {}
