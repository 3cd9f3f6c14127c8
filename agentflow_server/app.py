"""The composition root: from a config to an ASGI application. Nothing happens at import time."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path

from anyio import to_thread
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from pydantic_core import to_json
from starlette.types import Receive, Scope, Send

from agentflow_server import __version__
from agentflow_server.auth import install_alias
from agentflow_server.backend import Backend, Openable
from agentflow_server.config import Config, load_config, use_folder
from agentflow_server.models import JsonObject
from agentflow_server.parts import Parts, choose_parts, resource_metadata
from agentflow_server.runs.states import States
from agentflow_server.web import (
    agents,
    authorize,
    identity,
    messages,
    public,
    runs,
    states,
    threads,
    tickets,
    token_server,
    websocket,
)
from agentflow_server.web.door import Door
from agentflow_server.web.errors import install_error_answers
from agentflow_server.web.middleware import Edge
from agentflow_server.web.openapi import LOGIN, build_openapi, make_login_scheme, move_below
from agentflow_server.web.portal import Portal
from agentflow_server.web.sockets import SocketRules, Sockets

# Those first that are asked for most: every route that does not match takes its time.
SECURED = (
    messages.router,
    threads.router,
    runs.router,
    runs.interrupts,
    states.router,
    agents.router,
    tickets.router,
    identity.tokens,
    identity.users,
)


class AgentflowApp(FastAPI):
    """The server as an ASGI application. Opens itself where nobody runs its lifespan."""

    def __init__(self, config: Config, parts: Parts, *, executes: bool = True) -> None:
        super().__init__(
            title="agentflow-server",
            version=__version__,
            description="Threads, messages and runs of the agents behind this server.",
            openapi_url=None,
            docs_url=None,
            redoc_url=None,
            lifespan=lambda _: self._lifespan(),
            redirect_slashes=False,
            telemetry={"logs": False, "tracing": False, "metrics": False},
        )
        self.config = config
        self._parts = parts
        self._is_open = False
        self._backend = Backend(config, parts, executes=executes)
        self._portal = Portal(super().__call__, self._open)
        self._set_state()
        install_error_answers(self)
        for router in (*SECURED, public.router, websocket.router):
            self.include_router(router)
        if parts.token_server is not None:
            for router in (token_server.router, token_server.userinfo, authorize.router):
                self.include_router(router)
        if config.cors.allow_origins:
            self.add_middleware(CORSMiddleware, **config.cors.model_dump())
        self.add_middleware(
            Edge,
            max_header_bytes=config.limits.max_header_bytes,
            concurrent_requests=config.limits.concurrent_requests,
            metrics=parts.metrics,
            tracing=parts.tracing,
        )

    def _set_state(self) -> None:
        """What the routes read; the runner comes when the app is opened."""
        metadata_url, metadata = resource_metadata(self.config) or (None, None)
        self.state.tickets = tickets.Tickets(self._parts.database.tickets)
        self.state.door = Door(self._parts.guards, self._parts.door_rules, self.state.tickets)
        self.state.socket_rules = _socket_rules(self.config)
        self.state.authenticator = self._parts.guards.authenticator
        self.state.backend = self._backend
        self.state.is_retiring = False
        self.state.users = self._parts.database.users
        self.state.token_server = self._parts.token_server
        self.state.limits = self.config.limits
        self.state.webhooks = self.config.webhooks
        self.state.runs_config = self.config.runs
        self.state.resource_metadata_url = metadata_url
        self.state.resource_metadata = metadata

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._is_open or scope["type"] == "lifespan":
            await super().__call__(scope, receive, send)
        else:
            await self._portal(scope, receive, send)

    def openapi(self) -> JsonObject:
        schemes = self._parts.guards.authenticator.security_schemes
        if self.config.token_server is not None:
            login = make_login_scheme(
                self.config.public_url or "",
                password_grant=self.config.token_server.password_grant,
            )
            schemes = {LOGIN: login, **schemes}
        return build_openapi(
            self,
            secured=(*SECURED, token_server.userinfo),
            security_schemes=schemes,
            public_url=self.config.public_url,
        )

    def openapi_json(self, mounted_at: str = "") -> bytes:
        """For clients that find our paths below `mounted_at`, unless there is a public URL."""
        document = self._openapi
        if mounted_at and "servers" not in document:
            document = move_below(document, mounted_at)
        return to_json(document)

    @cached_property
    def _openapi(self) -> JsonObject:
        """Built once: it takes tens of milliseconds."""
        return self.openapi()

    async def verify(self) -> None:
        """Open the database and the agents and close them again; no run is touched.

        Raises what serving would raise.
        """
        await self._backend.verify(self._guards())

    async def drain(self) -> int:
        """As `Backend.drain`; WebSockets are closed at once."""
        if self._is_open:
            self.state.sockets.close()  # their clients come back to a server that stays
        return await self._backend.drain()

    def retire(self) -> None:
        """From now on `/health/ready` says that this server is about to stop."""
        self.state.is_retiring = True

    @asynccontextmanager
    async def _lifespan(self) -> AsyncIterator[None]:
        await to_thread.run_sync(self._portal.close)
        async with self._open():
            self._is_open = True
            try:
                yield
            finally:
                self._is_open = False

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[None]:
        async with self._backend.open(self._guards()) as runner:
            self.state.runner = runner
            self.state.states = States(runner.store, runner.agents)
            self.state.sockets = Sockets()
            try:
                yield
            finally:
                self.state.sockets.close()

    def _guards(self) -> Sequence[Openable]:
        guards = self._parts.guards
        found = (
            guards.audit,
            guards.limiter,
            guards.revocations,
            self._parts.token_server,
            guards.authenticator,
        )
        return [guard for guard in found if guard is not None]


def _socket_rules(config: Config) -> SocketRules:
    limits = config.limits
    return SocketRules(
        origins=frozenset(config.cors.allow_origins),
        public_url=config.public_url,
        per_caller=limits.websockets_per_principal,
        idle=limits.websocket_idle,
        max_bytes=limits.max_body_bytes,
        json_depth=limits.json_depth,
        max_auth_bytes=limits.max_header_bytes,
    )


def create_app(
    config: Config | Path | str | None = None, *, executes: bool = True, upgrades: bool = True
) -> AgentflowApp:
    """The server for an agentflow.json; by default the one in the current folder.

    With `executes=False` it leaves its runs to other processes: `agentflow worker`. With
    `upgrades=False` it refuses a database that an older version has made: `agentflow db upgrade`.
    Loads the agents, the authentication and the keys; opens nothing yet. Raises ConfigError with
    every problem there is; what a user's module raises while it is imported passes through.
    """
    if not isinstance(config, Config):
        config = load_config(config)
    use_folder(config)
    install_alias()
    return AgentflowApp(config, choose_parts(config, upgrades=upgrades), executes=executes)
