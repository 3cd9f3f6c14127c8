"""An existing FastAPI application includes the server, and may say itself who is calling."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, params

from agentflow_server.app import SECURED, AgentflowApp, create_app
from agentflow_server.auth import Revocations, install_alias
from agentflow_server.config import Config, NoAuthConfig, load_config, use_folder
from agentflow_server.errors import ConfigError
from agentflow_server.models import JsonObject
from agentflow_server.parts import Parts, choose_parts
from agentflow_server.web.host import HostAuth, HostGate, HostQuestion
from agentflow_server.web.openapi import build_openapi


def include_agentflow(
    host: FastAPI,
    config: Config | Path | str | None = None,
    *,
    prefix: str = "/agent-api",
    principal: params.Depends | None = None,
) -> AgentflowApp:
    """Serve an agentflow.json below `prefix` of `host`; opened and closed with the host's lifespan.

    With `principal=Depends(…)` this dependency of the host's decides who is calling, and nothing
    below `prefix` is answered without it. It returns a user id (a string, an integer, a UUID), a
    dict of claims with `user_id`, or a `Principal`; None is a 401; what it raises is answered by
    the host. Without it, `auth` in agentflow.json decides. Raises ConfigError.
    """
    if not prefix.startswith("/") or prefix.endswith("/"):
        raise ConfigError(f"prefix: expected a path such as /agent-api, found {prefix!r}")
    if principal is None:
        app = create_app(config)
        host.mount(prefix, app)
    else:
        if not isinstance(principal, params.Depends):
            raise ConfigError("principal: expected Depends(…), such as Depends(get_user_id)")
        question = HostQuestion(host, prefix, principal)
        app = _open_to_guests(config, question)
        host.mount(prefix, HostGate(app, question, app.state.socket_rules))

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        async with app.router.lifespan_context(app):
            yield

    host.include_router(APIRouter(lifespan=lifespan))
    return app


class _GuestApp(AgentflowApp):
    """Its OpenAPI document says what the host's dependency asks for."""

    def __init__(self, config: Config, parts: Parts, question: HostQuestion) -> None:
        super().__init__(config, parts)
        self._question = question

    def openapi(self) -> JsonObject:
        return build_openapi(
            self,
            secured=SECURED,
            security_schemes=self._question.security_schemes(),
            public_url=self.config.public_url,
        )


def _open_to_guests(config: Config | Path | str | None, question: HostQuestion) -> AgentflowApp:
    if not isinstance(config, Config):
        config = load_config(config)
    _refuse_other_methods(config)
    use_folder(config)
    install_alias()
    parts = choose_parts(config)
    guards = replace(
        parts.guards,
        authenticator=HostAuth(),
        revocations=Revocations(parts.database.credentials),
    )
    return _GuestApp(config, replace(parts, guards=guards), question)


def _refuse_other_methods(config: Config) -> None:
    if config.auth == (NoAuthConfig(),):
        return
    places = {place.partition("[")[0] for place, _ in config.named_methods}
    raise ConfigError(
        *(
            f"{config.path.name}: {place}: the application that includes this server says who is "
            "calling (principal=…): remove it, or write null"
            for place in sorted(places)
        )
    )
