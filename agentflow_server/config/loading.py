"""agentflow.json, the environment and the flags → one checked `Config`."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from agentflow_server.config.authentication import find_misplaced_secrets, resolve_auth
from agentflow_server.config.clients import ClientSection, find_misplaced_client_secrets
from agentflow_server.config.connections import CONNECTION_TYPES, check_connections
from agentflow_server.config.environment import (
    ServerEnvironment,
    merge,
    publish,
    read_dotenv,
)
from agentflow_server.config.explain import Place, Problems, Sections
from agentflow_server.config.fields import DatabaseUrl, Host
from agentflow_server.config.methods import (
    METHODS,
    AuthConfig,
    AuthSection,
    ClaimsConfig,
    KeySection,
)
from agentflow_server.config.models import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    Config,
    ConfigFile,
    LogLevel,
)
from agentflow_server.config.reading import (
    Expansion,
    find_config_file,
    parse_object,
    read_file,
)
from agentflow_server.config.sections import (
    AuditConfig,
    CorsConfig,
    LimitsConfig,
    ObservabilityConfig,
    RateLimitConfig,
    RolesConfig,
    RunsConfig,
    Section,
)
from agentflow_server.config.token_server import (
    TokenServerConfig,
    TokenServerSection,
    add_token_server,
    resolve_token_server,
)
from agentflow_server.config.webhooks import WebhooksConfig, WebhooksSection, resolve_webhooks
from agentflow_server.errors import ConfigError

_SECTIONS = Sections(
    {
        (): ConfigFile,
        ("limits",): LimitsConfig,
        ("cors",): CorsConfig,
        ("runs",): RunsConfig,
        ("token_server",): TokenServerSection,
        ("token_server", "clients"): ClientSection,
        ("webhooks",): WebhooksSection,
        ("rate_limit",): RateLimitConfig,
        ("observability",): ObservabilityConfig,
        ("observability", "audit"): AuditConfig,
        ("authorization",): RolesConfig,
        **{("auth", name): model for name, model in METHODS.items()},
        **{("connections", name): model for name, model in CONNECTION_TYPES.items()},
        ("auth", "jwt", "keys"): KeySection,
        ("auth", "jwt", "claims"): ClaimsConfig,
        ("auth", "introspection", "claims"): ClaimsConfig,
    }
)
_Model = TypeVar("_Model", bound=BaseModel)


class _AuthOnly(Section):
    auth: AuthSection


class _Flags(Section):
    host: Host | None = Field(default=None, alias="--host")
    port: int | None = Field(default=None, ge=0, le=65535, alias="--port")
    database: DatabaseUrl | None = Field(default=None, alias="--database")
    log_level: LogLevel | None = Field(default=None, alias="--log-level")


def load_config(
    path: Path | str | None = None, *, overrides: Mapping[str, str | int | None] = {}
) -> Config:
    """The configuration; afterwards the dotenv file's variables are in `os.environ`.

    `path` defaults to `$AGENTFLOW_CONFIG`, then `./agentflow.json`. `overrides` are the flags
    `host`, `port`, `database`, `log_level`; None means not given. Raises ConfigError with every
    problem, and then nothing has changed.
    """
    config, dotenv = _resolve(path, overrides)
    publish(dotenv)
    return config


def read_config(
    path: Path | str | None = None, *, overrides: Mapping[str, str | int | None] = {}
) -> Config:
    """As `load_config`, but `os.environ` stays as it is: for a process that runs no agent."""
    return _resolve(path, overrides)[0]


def use_folder(config: Config) -> None:
    """Let modules beside agentflow.json be imported, before any others."""
    folder = str(config.folder)
    if sys.path[:1] != [folder]:
        sys.path.insert(0, folder)


@dataclass(frozen=True, slots=True)
class _Written:
    """What the file says, before it is checked."""

    file: Path
    raw: dict[str, Any]
    values: dict[str, Any]
    """`raw` with its variables replaced."""
    expanded: frozenset[Place]
    unset: frozenset[Place]
    dotenv: Mapping[str, str]


def _resolve(
    path: Path | str | None, overrides: Mapping[str, str | int | None]
) -> tuple[Config, Mapping[str, str]]:
    file = find_config_file(path)
    text = read_file(file, hint=" (agentflow init makes a project)")
    raw = parse_object(text, source=file.name)
    problems = Problems(file.name)
    written = _expand(file, raw, problems)
    settings = _check_file(written, problems)
    check_connections(
        raw.get("connections"),
        settings.connections if settings else {},
        unset=written.unset,
        problems=problems,
    )
    auth = _check_auth(written, problems)
    webhooks = _check_webhooks(settings, written, problems)
    flags = _check_flags(overrides, problems)
    server = _check_environment(written.dotenv, problems)
    chosen = {
        **(server.model_dump(exclude_none=True) if server else {}),
        **(flags.model_dump(exclude_none=True) if flags else {}),
    }
    token_server = _check_token_server(settings, written, chosen, problems)
    if auth and token_server:
        is_written = "auth" in raw
        auth = add_token_server(auth, token_server, written=is_written, problems=problems)
    if problems.lines or not (settings and auth and flags and server):
        raise ConfigError(*problems.lines)
    chosen |= {"webhooks": webhooks, "token_server": token_server}
    return _build(written, settings, auth, chosen), written.dotenv


def _expand(file: Path, raw: dict[str, Any], problems: Problems) -> _Written:
    # Where the dotenv file is cannot depend on what is in it.
    outside = Expansion(os.environ, problems)
    env = outside.expand(raw.get("env"), ("env",))
    dotenv = (
        read_dotenv(file.parent / env, problems) if isinstance(env, str) and env.strip() else {}
    )
    inside = Expansion(merge(dotenv), problems)
    values = inside.expand({key: value for key, value in raw.items() if key != "env"})
    return _Written(
        file=file,
        raw=raw,
        values={**values, "env": env},
        expanded=frozenset(outside.places | inside.places),
        unset=frozenset(outside.unset | inside.unset),
        dotenv=dotenv,
    )


def _check_file(written: _Written, problems: Problems) -> ConfigFile | None:
    agents = [key for key in ("agent", "agents") if written.raw.get(key) is not None]
    if not agents:
        problems.add("agent", 'is missing; write e.g. "agent": "graph.react:app"')
    if len(agents) > 1:
        problems.add("agents", 'expected either "agent" or "agents", found both')
    if written.values.get("agents") == {}:
        problems.add("agents", "expected at least one agent, found an empty object")
    if written.raw.get("redis") is not None and "rate_limit" not in written.raw:
        problems.add("redis", 'is used by "rate_limit" alone, which is missing')
    # The JWT variables matter only with a valid `auth` section, so that one is checked apart.
    rest = {key: value for key, value in written.values.items() if key != "auth"}
    return _check(ConfigFile, rest, written, problems)


def _check_auth(written: _Written, problems: Problems) -> tuple[AuthConfig, ...] | None:
    raw = written.raw.get("auth")
    if find_misplaced_secrets(raw, problems):
        return None
    section = _check(_AuthOnly, {"auth": written.values.get("auth")}, written, problems)
    if section is None or any(place[0] == "auth" for place in written.unset):
        return None
    return resolve_auth(
        section.auth,
        raw_auth=raw,
        folder=written.file.parent,
        dotenv=written.dotenv,
        problems=problems,
    )


def _check_webhooks(
    settings: ConfigFile | None, written: _Written, problems: Problems
) -> WebhooksConfig | None:
    if settings is None or any(place[0] == "webhooks" for place in written.unset):
        return None
    return resolve_webhooks(settings.webhooks, merge(written.dotenv), problems)


def _check_token_server(
    settings: ConfigFile | None,
    written: _Written,
    chosen: Mapping[str, Any],
    problems: Problems,
) -> TokenServerConfig | None:
    misplaced = find_misplaced_client_secrets(written.raw.get("token_server"), problems)
    if settings is None or settings.token_server is None or misplaced:
        return None
    if any(place[0] in ("token_server", "public_url") for place in written.unset):
        return None
    return resolve_token_server(
        settings.token_server,
        public_url=settings.public_url,
        host=chosen.get("host", DEFAULT_HOST),
        port=chosen.get("port", DEFAULT_PORT),
        are_scopes_asked_for=settings.authorization is not None,
        problems=problems,
    )


def _check_flags(overrides: Mapping[str, str | int | None], problems: Problems) -> _Flags | None:
    try:
        return _Flags.model_validate(
            {f"--{name.replace('_', '-')}": value for name, value in overrides.items()}
        )
    except ValidationError as error:
        Problems("", problems.lines).add_invalid(error, Sections({(): _Flags}))
        return None


def _check_environment(dotenv: Mapping[str, str], problems: Problems) -> ServerEnvironment | None:
    try:
        return ServerEnvironment.read(dotenv)
    except ValidationError as error:
        Problems("environment", problems.lines).add_invalid(error, Sections({}))
        return None


def _check(
    model: type[_Model], values: Mapping[str, Any], written: _Written, problems: Problems
) -> _Model | None:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems.add_invalid(error, _SECTIONS, secret=written.expanded, known=written.unset)
        return None


def _build(
    written: _Written,
    settings: ConfigFile,
    auth: tuple[AuthConfig, ...],
    chosen: Mapping[str, Any],
) -> Config:
    own = ("schema_", "agent", "agents", "auth")
    taken = {name: value for name, value in settings if name not in own}
    agents = settings.agents or {"agent": str(settings.agent)}
    several = isinstance(written.raw.get("auth"), list)
    return Config(
        path=written.file,
        folder=written.file.parent,
        auth=auth,
        auth_written="auth" in written.raw,
        expanded=frozenset(
            place[1:] if several else (0, *place[1:])
            for place in written.expanded
            if place[0] == "auth"
        ),
        **{**taken, "agents": agents, **chosen},
    )
