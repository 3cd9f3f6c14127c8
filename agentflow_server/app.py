"""The composition root: from a config to an ASGI application. Nothing happens at import time."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from anyio import to_thread
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from pydantic_core import to_json
from starlette.types import Receive, Scope, Send

from agentflow_server import __version__
from agentflow_server.auth import install_alias
from agentflow_server.config import Config, RunsConfig, load_config, use_folder
from agentflow_server.engines.embedded import EmbeddedEngine
from agentflow_server.events.local import LocalEventBus
from agentflow_server.interfaces import Store
from agentflow_server.metrics import CountedMetrics, MetricsListener
from agentflow_server.models import JsonObject
from agentflow_server.parts import Parts, choose_parts, resource_metadata
from agentflow_server.runs.naming import Namer
from agentflow_server.runs.runner import Runner
from agentflow_server.runs.states import States
from agentflow_server.runs.worker import RunRules, Worker
from agentflow_server.web import (
    agents,
    messages,
    public,
    runs,
    states,
    threads,
    tickets,
    websocket,
)
from agentflow_server.web.door import Door
from agentflow_server.web.errors import install_error_answers
from agentflow_server.web.middleware import Edge
from agentflow_server.web.openapi import build_openapi
from agentflow_server.web.portal import Portal
from agentflow_server.web.sockets import SocketRules, Sockets

SECURED = (
    threads.router,
    messages.router,
    runs.router,
    runs.interrupts,
    states.router,
    agents.router,
    tickets.router,
)


class AgentflowApp(FastAPI):
    """The server as an ASGI application. Opens itself where nobody runs its lifespan."""

    def __init__(self, config: Config, parts: Parts) -> None:
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
        self._engine: EmbeddedEngine | None = None
        self._bus = LocalEventBus()
        self._openapi_json: bytes | None = None
        self._portal = Portal(super().__call__, self._open)
        self._set_state()
        install_error_answers(self)
        for router in (public.router, websocket.router, *SECURED):
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
        self.state.tickets = tickets.Tickets(tickets.MemoryTickets())
        self.state.door = Door(self._parts.guards, self._parts.door_rules, self.state.tickets)
        self.state.socket_rules = _socket_rules(self.config)
        self.state.authenticator = self._parts.guards.authenticator
        self.state.limits = self.config.limits
        self.state.runs_config = self.config.runs
        self.state.resource_metadata_url = metadata_url
        self.state.resource_metadata = metadata

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._is_open or scope["type"] == "lifespan":
            await super().__call__(scope, receive, send)
        else:
            await self._portal(scope, receive, send)

    def openapi(self) -> JsonObject:
        return build_openapi(
            self,
            secured=SECURED,
            security_schemes=self._parts.guards.authenticator.security_schemes,
            public_url=self.config.public_url,
        )

    def openapi_json(self) -> bytes:
        """Built once: it takes tens of milliseconds."""
        if self._openapi_json is None:
            self._openapi_json = to_json(self.openapi())
        return self._openapi_json

    async def verify(self) -> None:
        """Open the database and the agents and close them again; no run is touched.

        Raises what serving would raise.
        """
        async with AsyncExitStack() as stack:
            await self._open_parts(stack)

    async def drain(self) -> int:
        """Let running runs finish for `runs.shutdown_grace` seconds, then stop them, and answer
        whoever still waits.

        Returns how many agents go on although they were cancelled.
        """
        if self._engine is None:
            return 0
        self.state.sockets.close()  # their clients come back to a server that stays
        await self._engine.drain()
        self._bus.close()  # whoever waits for a run in line need not wait any longer
        return self._engine.unstoppable

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
        """What is opened in this order is closed in reverse."""
        parts, rules = self._parts, self.config.runs
        async with AsyncExitStack() as stack:
            store = await self._open_parts(stack)
            self._bus = bus = LocalEventBus()
            namer = await stack.enter_async_context(Namer(store, parts.generate_name))
            worker = Worker(
                store,
                bus,
                parts.agents,
                namer,
                _run_rules(rules),
                metrics=parts.metrics,
                tracing=parts.tracing,
            )
            engine = EmbeddedEngine(
                store,
                worker,
                grace=rules.shutdown_grace,
                concurrency=rules.concurrency,
                takes_turns=rules.takes_turns,
            )
            runner = Runner(store, bus, engine, parts.agents, metrics=parts.metrics)
            await runner.finish_deletions()
            await self._open_metrics(stack, store)
            self._engine = await stack.enter_async_context(engine)
            self.state.runner = runner
            self.state.states = States(store, parts.agents)
            self.state.sockets = Sockets()
            stack.callback(self.state.sockets.close)
            yield

    async def _open_metrics(self, stack: AsyncExitStack, store: Store) -> None:
        await stack.enter_async_context(self._parts.tracing)
        place, metrics = self.config.observability.metrics, self._parts.metrics
        if place is not None and isinstance(metrics, CountedMetrics):
            listener = MetricsListener(metrics, place.host, place.port, read_queue=store.read_queue)
            await stack.enter_async_context(listener)

    async def _open_parts(self, stack: AsyncExitStack) -> Store:
        store = await stack.enter_async_context(self._parts.store)
        guards = self._parts.guards
        for part in (guards.audit, guards.limiter, guards.revocations, guards.authenticator):
            if part is not None:
                await part.open()
                stack.push_async_callback(part.close)
        for agent in self._parts.agents.values():
            await agent.open()
            stack.push_async_callback(agent.close)
        return store


def _run_rules(config: RunsConfig) -> RunRules:
    return RunRules(
        history_limit=config.history_limit,
        timeout=config.timeout,
        retry=config.on_crash == "retry",
        max_attempts=config.max_attempts,
        takes_turns=config.takes_turns,
    )


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


def create_app(config: Config | Path | str | None = None) -> AgentflowApp:
    """The server for an agentflow.json; by default the one in the current folder.

    Loads the agents, the authentication and the keys; opens nothing yet. Raises ConfigError with
    every problem there is; what a user's module raises while it is imported passes through.
    """
    if not isinstance(config, Config):
        config = load_config(config)
    use_folder(config)
    install_alias()
    return AgentflowApp(config, choose_parts(config))
