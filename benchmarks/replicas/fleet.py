"""Servers that share a database, each a process with a port of its own."""

import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import jwt

from benchmarks.load import Outcome, build_request, run_clients
from benchmarks.peers.processes import Spent, Tree
from benchmarks.server import Server

LONGEST_LOAD = 60.0
TURNS_PER_THREAD = 10

Plan = Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Fleet:
    """`postgres` is the process of the database, None if that is a file."""

    servers: Sequence[Server]
    secret: str
    postgres: Tree | None

    @property
    def ports(self) -> list[int]:
        return [server.port for server in self.servers]

    def token(self, client: int = 0) -> str:
        claims = {"user_id": f"user-{client}", "roles": ["reader"], "exp": time.time() + 3600}
        return jwt.encode(claims, self.secret, algorithm="HS256")

    def spent(self) -> Spent:
        servers = sum(server.cpu_seconds() for server in self.servers)
        return Spent(servers, self.postgres.cpu_seconds() if self.postgres else 0.0)

    def plan_turns(self, client: int, turns: int) -> Plan:
        """On new threads, so that what they cost does not depend on what was before."""
        token = self.token(client)
        creations = [build_request("POST", "/threads", {}, token)] * (turns // TURNS_PER_THREAD)
        created = run_clients(self.ports, [creations], LONGEST_LOAD)
        thread_ids = [json.loads(body)["thread_id"] for body in created.bodies]
        plans = ([_message(one, token)] * TURNS_PER_THREAD for one in thread_ids)
        return list(chain.from_iterable(plans))

    def run(self, plans: Sequence[Plan]) -> Outcome:
        """Client n always asks the same server, as behind a load balancer with kept connections."""
        return run_clients(self.ports, plans, LONGEST_LOAD)

    def start_run(self, server: Server) -> tuple[str, str]:
        """Its thread and its id. It is executed by the server that accepts it."""
        token = self.token()
        (thread_id,) = self._ask(server, "thread_id", build_request("POST", "/threads", {}, token))
        request = _message(thread_id, token, background=True)
        (run_id,) = self._ask(server, "run_id", request)
        return thread_id, run_id

    def _ask(self, server: Server, field: str, request: bytes) -> list[str]:
        answers = run_clients(server.port, [[request]], LONGEST_LOAD, expected=(200, 201, 202))
        return [json.loads(body)[field] for body in answers.bodies]


@contextmanager
def open_fleet(
    agent: str,
    count: int,
    *,
    url: str | None,
    postgres: Tree | None,
    runs: Mapping[str, Any] | None = None,
) -> Iterator[Fleet]:
    """They answer, and are gone afterwards. Without a `url` it is one on a SQLite file."""
    secret = secrets.token_urlsafe(48)
    # A run that never ends must not hold up the end.
    settings: dict[str, Any] = {"auth": "jwt", "runs": {"shutdown_grace": 0, **(runs or {})}}
    if url is not None:
        settings["database"] = url
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                Server(agent, cores=None, settings=settings, variables={"JWT_SECRET_KEY": secret})
            )
            for _ in range(count)
        ]
        yield Fleet(servers, secret, postgres)


def _message(thread_id: str, token: str, *, background: bool = False) -> bytes:
    body = {"content": "Hello", "background": background}
    return build_request("POST", f"/threads/{thread_id}/messages", body, token)
