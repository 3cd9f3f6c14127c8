"""agentflow.json as types: its sections, and the `Config` that the server is built from."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, SecretStr, Tag, field_validator

from agentflow_server.config.fields import (
    AgentName,
    Audience,
    DatabaseUrl,
    HeaderName,
    Host,
    Method,
    Origin,
    PublicUrl,
    Reference,
    Text,
    refused,
)
from agentflow_server.models import Frozen

Algorithm = Literal["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512"]
LogLevel = Literal["debug", "info", "warning", "error", "critical"]
DEFAULT_DATABASE = "sqlite:///.agentflow/agentflow.db"

# A client must never choose these; listing them would be a promise that is not kept.
_SERVER_KEYS = frozenset({"thread_id", "run_id", "agent", "user", "user_id"})


class Section(Frozen):
    """A JSON object whose keys and types are taken literally."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, hide_input_in_errors=True)


class NoAuthConfig(Section):
    """Everybody may use the server, as one anonymous user."""

    method: Literal["none"] = "none"


class _JwtOptions(Section):
    method: Literal["jwt"] = "jwt"
    issuer: Text | None = Field(
        default=None, description="The `iss` a token must have. Also JWT_ISSUER."
    )
    audience: Audience | None = Field(
        default=None, description="One of these must be in the token's `aud`. Also JWT_AUDIENCE."
    )
    user_id_claim: Text | None = Field(
        default=None, description="The claim that names the user; else `user_id`, then `sub`."
    )
    leeway: float = Field(
        default=5.0, ge=0, le=60, description="Seconds that clocks may differ (`nbf`, `iat`)."
    )
    allow_weak_secret: bool = Field(
        default=False, description="Accept a weak HMAC secret, on a loopback address only."
    )


class JwtSection(_JwtOptions):
    """Tokens signed with one key, as it is written in the file."""

    algorithm: Algorithm | None = Field(
        default=None, description="Default HS256; required for a PEM. Also JWT_ALGORITHM."
    )
    secret_key: SecretStr | None = Field(
        default=None, description='Only as "${VARIABLE}". Default: the variable JWT_SECRET_KEY.'
    )


class JwtConfig(_JwtOptions):
    """Tokens signed with one key. `secret_name` is the variable that holds it."""

    algorithm: Algorithm = "HS256"
    secret_key: SecretStr
    secret_name: str = "JWT_SECRET_KEY"  # noqa: S105 - the name of a variable


class CustomAuthConfig(Section):
    """A class of the user's own."""

    method: Literal["custom"] = "custom"
    path: Reference = Field(description="The BaseAuth class: `auth.custom:MyAuthBackend`.")
    options: dict[str, Any] = Field(
        default={}, repr=False, description="Keyword arguments of the class."
    )
    timeout: float = Field(
        default=5.0, gt=0, le=300, description="Seconds after which a request is answered 503."
    )


AuthConfig = NoAuthConfig | JwtConfig | CustomAuthConfig


class LimitsConfig(Section):
    """What one request may cost."""

    max_body_bytes: int = Field(default=1_000_000, ge=1, description="Larger bodies are a 413.")
    body_timeout: float = Field(
        default=30.0, gt=0, le=3600, description="Seconds a body may take to arrive."
    )
    json_depth: int = Field(default=32, ge=1, le=200, description="Deeper nesting is a 422.")


class CorsConfig(Section):
    """Which pages of other origins may call this server: none, unless they are listed."""

    allow_origins: list[Origin] = Field(default=[], description="scheme://host[:port], or *.")
    allow_methods: list[Method] = Field(default=["GET", "POST", "PATCH", "DELETE"])
    allow_headers: list[HeaderName] = Field(
        default=["Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID"]
    )
    expose_headers: list[HeaderName] = Field(
        default=["Retry-After", "WWW-Authenticate", "X-Request-Id"]
    )
    allow_credentials: bool = False
    max_age: int = Field(default=600, ge=0, le=86400, description="Seconds.")

    @field_validator("allow_credentials", mode="after")
    @classmethod
    def _no_wildcard(cls, value: bool, info: Any) -> bool:
        lists = ("allow_origins", "allow_methods", "allow_headers", "expose_headers")
        if value and any("*" in info.data.get(name, ()) for name in lists):
            raise refused('cannot be combined with "*"; list each value')
        return value


class RunsConfig(Section):
    """How turns are run."""

    client_config: list[Text] = Field(
        default=["recursion_limit", "tags"],
        description="Keys that a client may send in `config`; any other is a 422.",
    )
    recursion_limit: int = Field(
        default=100, ge=1, le=10_000, description="The largest recursion limit for a run."
    )
    history_limit: int | None = Field(
        default=None, ge=1, description="How many messages a function agent is given; null: all."
    )
    durability: Literal["sync", "exit"] = Field(
        default="sync", description="When LangGraph checkpoints: each step, or at the end."
    )
    on_busy: Literal["enqueue", "reject"] = Field(
        default="enqueue", description="What a message does on a busy thread: wait, or a 409."
    )
    shutdown_grace: float = Field(
        default=30.0, ge=0, le=3600, description="Seconds that running turns have to finish."
    )

    @field_validator("client_config", mode="after")
    @classmethod
    def _not_ours(cls, value: list[str]) -> list[str]:
        if taken := sorted(_SERVER_KEYS.intersection(value)):
            raise refused(f"{', '.join(taken)}: set by the server, never by a client")
        return value


def _auth_form(value: Any) -> str | None:
    match value:
        case None | "none" | "jwt":
            return "word"
        case {"method": "none" | "jwt" | "custom" as method}:
            return str(method)
    return None


AuthSection = Annotated[
    Annotated[Literal["none", "jwt"] | None, Tag("word")]
    | Annotated[NoAuthConfig, Tag("none")]
    | Annotated[JwtSection, Tag("jwt")]
    | Annotated[CustomAuthConfig, Tag("custom")],
    Discriminator(
        _auth_form,
        custom_error_type="expected",
        custom_error_message="{what}",
        custom_error_context={
            "what": 'null, "none", "jwt", {"method": "jwt", …} or '
            '{"method": "custom", "path": "auth.custom:MyAuthBackend"}'
        },
    ),
]


class _Plugins(Section):
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
    limits: LimitsConfig = LimitsConfig()
    cors: CorsConfig = CorsConfig()
    runs: RunsConfig = RunsConfig()


class ConfigFile(_Plugins):
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
    database: DatabaseUrl = Field(
        default=DEFAULT_DATABASE, description="Relative to the folder of this file."
    )


class Config(_Plugins):
    """Everything the server is built from. Read by `load_config`."""

    path: Path
    folder: Path
    """Goes first on `sys.path`, and is the base of relative paths."""
    agents: dict[AgentName, Reference]
    """At least one; the first is the default."""
    env: str | None = None
    auth: AuthConfig = NoAuthConfig()
    auth_written: bool = False
    """The file has an `auth` key; null counts."""
    database: DatabaseUrl = DEFAULT_DATABASE
    host: Host = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    log_level: LogLevel = "info"
    expanded_options: frozenset[tuple[str | int, ...]] = Field(default=frozenset(), repr=False)
    """Where in `auth.options` a value came from the environment: masked when shown."""

    @property
    def database_path(self) -> Path:
        return self.folder / self.database.removeprefix("sqlite:///")
