"""The sections of agentflow.json beside `auth`."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, ValidationInfo, field_validator

from agentflow_server.config.addresses import Network
from agentflow_server.config.fields import (
    HeaderName,
    Method,
    Origin,
    Reference,
    Route,
    Scope,
    Text,
    refused,
)
from agentflow_server.config.quotas import WrittenQuota
from agentflow_server.models import Frozen, OnBusy

# A client must never choose these; listing them would be a promise that is not kept.
_SERVER_KEYS = frozenset({"thread_id", "run_id", "agent", "user", "user_id"})


class Section(Frozen):
    """A JSON object whose keys and types are taken literally."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, hide_input_in_errors=True)


class LimitsConfig(Section):
    """What one request may cost."""

    max_body_bytes: int = Field(default=1_000_000, ge=1, description="Larger bodies are a 413.")
    body_timeout: float = Field(
        default=30.0, gt=0, le=3600, description="Seconds a body may take to arrive."
    )
    json_depth: int = Field(default=32, ge=1, le=200, description="Deeper nesting is a 422.")
    max_header_bytes: int = Field(
        default=32_768, ge=4096, le=1_000_000, description="More in all headers is a 431."
    )
    concurrent_requests: int | None = Field(
        default=None, ge=1, description="Requests at a time; one more is a 503. null: no limit."
    )
    websocket_idle: float = Field(
        default=300.0, gt=0, le=86_400, description="Seconds a WebSocket may be silent."
    )
    websockets_per_principal: int = Field(
        default=32, ge=1, description="WebSockets of each caller at a time; one more is a 429."
    )
    trusted_proxies: list[Network] = Field(
        default=[], description="Networks whose X-Forwarded-For is believed."
    )


class CorsConfig(Section):
    """Which pages of other origins may call this server: none, unless they are listed."""

    allow_origins: list[Origin] = Field(default=[], description="scheme://host[:port], or *.")
    allow_methods: list[Method] = Field(default=["GET", "POST", "PATCH", "DELETE"])
    allow_headers: list[HeaderName] = Field(
        default=[
            "Authorization",
            "Content-Type",
            "Idempotency-Key",
            "Last-Event-ID",
            "X-API-Key",
        ]
    )
    expose_headers: list[HeaderName] = Field(
        default=[
            "RateLimit",
            "RateLimit-Policy",
            "Retry-After",
            "WWW-Authenticate",
            "X-Request-Id",
        ]
    )
    allow_credentials: bool = False
    max_age: int = Field(default=600, ge=0, le=86400, description="Seconds.")

    @field_validator("allow_credentials", mode="after")
    @classmethod
    def _no_wildcard(cls, value: bool, info: ValidationInfo) -> bool:
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
    on_busy: OnBusy = Field(
        default="enqueue",
        description="What a message does on a busy thread: wait; a 409; stop what is unfinished "
        "and keep what it said (interrupt), or forget it (rollback).",
    )
    timeout: float | None = Field(
        default=3600.0, gt=0, description="Seconds a turn may take; null: no limit."
    )
    on_crash: Literal["fail", "retry"] = Field(
        default="fail",
        description="What becomes of a turn whose server died. A graph with checkpoints goes on "
        "in any case.",
    )
    max_attempts: int = Field(
        default=3, ge=1, le=100, description="How often a turn is begun in all."
    )
    concurrency: int | None = Field(
        default=None, ge=1, description="Turns at a time, others wait in line; null: no limit."
    )
    per_principal: int | None = Field(
        default=None, ge=1, description="The same for each caller, on all his threads."
    )
    event_retention: float | None = Field(
        default=None,
        gt=0,
        description="Seconds that the events of a run stay after its end; null: with its thread.",
    )
    lease: float = Field(
        default=15.0,
        ge=2,
        le=3600,
        description="Seconds until the turns of a silent process are given to others. PostgreSQL.",
    )
    shutdown_grace: float = Field(
        default=30.0, ge=0, le=3600, description="Seconds that running turns have to finish."
    )

    @property
    def takes_turns(self) -> bool:
        """Whether a turn may have to wait although its thread is free."""
        return self.concurrency is not None or self.per_principal is not None

    @field_validator("client_config", mode="after")
    @classmethod
    def _not_ours(cls, value: list[str]) -> list[str]:
        if taken := sorted(_SERVER_KEYS.intersection(value)):
            raise refused(f"{', '.join(taken)}: set by the server, never by a client")
        return value


class RateLimitConfig(Section):
    """How many requests are answered. A quota is "20/minute": per second, minute, hour or day."""

    per_principal: WrittenQuota | None = Field(
        default=None, description="For each authenticated caller; null: no limit."
    )
    per_address: WrittenQuota | None = Field(
        default=None, description="For each client address; null: no limit."
    )
    routes: dict[Route, WrittenQuota] = Field(
        default={}, description='For each caller and route: {"POST /threads": "20/minute"}.'
    )
    failed_auth: WrittenQuota = Field(
        default="20/minute",
        validate_default=True,
        description="Refused credentials of each client address.",
    )


class RolesConfig(Section):
    """Which scopes a caller has: those of his credential, of his roles, and the default ones."""

    roles: dict[Text, list[Scope]] = Field(
        default={}, description='What a role may do: {"reader": ["threads:read"]}.'
    )
    default_scopes: list[Scope] = Field(default=[], description="What every caller may do.")


def _authorization_form(value: Any) -> str | None:
    match value:
        case None:
            return "null"
        case str():
            return "path"
        case RolesConfig():
            return "object"
        case dict() if value:
            return "object"
    return None


AuthorizationSection = Annotated[
    Annotated[None, Tag("null")]
    | Annotated[Reference, Tag("path")]
    | Annotated[RolesConfig, Tag("object")],
    Discriminator(
        _authorization_form,
        custom_error_type="expected",
        custom_error_message='null, "package.module:attribute" or {"roles": {"role": ["scope", …]}}',
    ),
]


class AuditConfig(Section):
    """Where security decisions are written down."""

    sink: Literal["off", "stdout", "file", "database"] = "off"
    path: Text | None = Field(
        default=None,
        validate_default=True,
        description='The file of the sink "file"; relative to the folder of agentflow.json.',
    )

    @field_validator("path", mode="after")
    @classmethod
    def _fits_sink(cls, value: str | None, info: ValidationInfo) -> str | None:
        sink = info.data.get("sink")
        if sink == "file" and value is None:
            raise refused('is missing; "sink": "file" needs it')
        if sink in ("off", "stdout", "database") and value is not None:
            raise refused('belongs to "sink": "file"')
        return value


class MetricsConfig(Section):
    """Where Prometheus finds the metrics: a port of their own, which asks for no credential."""

    host: Text = Field(default="127.0.0.1")
    port: int = Field(default=9464, ge=0, le=65535)


class TracesConfig(Section):
    """Where OpenTelemetry's traces are sent."""

    endpoint: Text | None = Field(
        default=None,
        description="Base URL of an OTLP collector; null: what OTEL_EXPORTER_OTLP_ENDPOINT says.",
    )
    trust_parent: bool = Field(
        default=True, description="Whether a request's traceparent is the parent of its span."
    )


class ObservabilityConfig(Section):
    """What the server tells about itself."""

    audit: AuditConfig = AuditConfig()
    metrics: MetricsConfig | None = None
    traces: TracesConfig | None = None
