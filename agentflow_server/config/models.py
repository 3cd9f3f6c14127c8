"""agentflow.json as types: the whole file, and the `Config` that the server is built from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from agentflow_server.config.addresses import RedisUrl
from agentflow_server.config.connections import ConnectionName, ConnectionSection
from agentflow_server.config.explain import Place
from agentflow_server.config.fields import (
    AgentName,
    DatabaseUrl,
    Host,
    PublicUrl,
    Reference,
    Text,
    is_postgres,
)
from agentflow_server.config.masking import mask
from agentflow_server.config.methods import (
    AuthConfig,
    AuthSection,
    NoAuthConfig,
    TokenServerAuthConfig,
)
from agentflow_server.config.sections import (
    AuthorizationSection,
    CorsConfig,
    LimitsConfig,
    ObservabilityConfig,
    RateLimitConfig,
    RunsConfig,
    Section,
)
from agentflow_server.config.token_server import TokenServerConfig, TokenServerSection
from agentflow_server.config.webhooks import WebhooksConfig, WebhooksSection

LogLevel = Literal["debug", "info", "warning", "error", "critical"]
DEFAULT_DATABASE = "sqlite:///.agentflow/agentflow.db"
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000


class _Settings(Section):
    authorization: AuthorizationSection = Field(
        default=None,
        description="What callers may do: roles and scopes, or `module:attribute` of a class.",
    )
    checkpointer: Reference | None = Field(
        default=None, description="A checkpointer for graphs that have none: `module:attribute`."
    )
    store: Reference | None = Field(
        default=None, description="A store for graphs that have none: `module:attribute`."
    )
    thread_name_generator: Reference | None = Field(
        default=None, description="Names a thread from its first messages: `module:attribute`."
    )
    public_url: PublicUrl | None = Field(
        default=None, description="What the outside world calls this server."
    )
    redis: RedisUrl | None = Field(
        default=None, description="Where replicas share their rate limits: redis://host:6379/0."
    )
    connections: dict[ConnectionName, ConnectionSection] = Field(
        default={}, description="Other APIs by name, and how tools log in to them."
    )
    rate_limit: RateLimitConfig = RateLimitConfig()
    limits: LimitsConfig = LimitsConfig()
    cors: CorsConfig = CorsConfig()
    runs: RunsConfig = RunsConfig()
    observability: ObservabilityConfig = ObservabilityConfig()


class ConfigFile(_Settings):
    """agentflow.json as it is written, after `${VAR}` was expanded."""

    schema_: str | None = Field(default=None, alias="$schema")
    agent: Reference | None = Field(
        default=None,
        description="An agent, or a callable that returns one.",
        examples=["graph.react:app"],
    )
    agents: dict[AgentName, Reference] | None = Field(
        default=None, description="Several agents by name; the first is the default."
    )
    env: Text | None = Field(default=None, description="A dotenv file; it must exist.")
    auth: AuthSection = Field(default=None, description="Who may use the server.")
    token_server: TokenServerSection | None = Field(
        default=None, description="Lets users of this server's own log in, and clients get tokens."
    )
    webhooks: WebhooksSection | None = Field(
        default=None, description="Lets requests name a URL that is told when their run has ended."
    )
    database: DatabaseUrl = Field(
        default=DEFAULT_DATABASE,
        description="sqlite:///file, relative to the folder of this file, or postgresql://…",
        repr=False,
    )


class Config(_Settings):
    """Everything the server is built from. Read by `load_config`."""

    path: Path
    folder: Path
    """Goes first on `sys.path`, and is the base of relative paths."""
    agents: dict[AgentName, Reference]
    """At least one; the first is the default."""
    env: str | None = None
    auth: tuple[AuthConfig, ...] = Field(default=(NoAuthConfig(),), min_length=1)
    """The methods in the order in which they are asked; none is a method."""
    token_server: TokenServerConfig | None = None
    webhooks: WebhooksConfig | None = None
    auth_written: bool = False
    """The file has an `auth` key; null counts."""
    database: DatabaseUrl = Field(default=DEFAULT_DATABASE, repr=False)
    host: Host = DEFAULT_HOST
    port: int = Field(default=DEFAULT_PORT, ge=0, le=65535)
    log_level: LogLevel = "info"
    expanded: frozenset[Place] = Field(default=frozenset(), repr=False)
    """Where in `auth` a value came from the environment, `(method, "options", …)`: masked."""

    @property
    def is_distributed(self) -> bool:
        """Whether several processes may share the database."""
        return is_postgres(self.database)

    @property
    def database_path(self) -> Path | None:
        """The file of the database, if it is one."""
        if self.is_distributed:
            return None
        return self.folder / self.database.removeprefix("sqlite:///")

    @property
    def database_shown(self) -> str:
        """Which database it is, without its password."""
        return str(self.database_path or mask(self.database))

    @property
    def named_methods(self) -> Sequence[tuple[str, AuthConfig]]:
        """The methods, each with its place in the file: `auth`, or `auth[0]`, `auth[1]`, …

        The token server's comes first, if there is one, and is called like its section.
        """
        own = [one for one in self.auth if isinstance(one, TokenServerAuthConfig)]
        written = self.auth[len(own) :]
        several = len(written) > 1
        return [
            *(("token_server", one) for one in own),
            *((f"auth[{n}]" if several else "auth", one) for n, one in enumerate(written)),
        ]

    @property
    def audit_path(self) -> Path | None:
        """The file of the audit log, if it is one."""
        path = self.observability.audit.path
        return None if path is None else self.folder / path
