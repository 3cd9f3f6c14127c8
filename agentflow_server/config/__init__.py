"""agentflow.json: read strictly, every problem explained in one line."""

from agentflow_server.config.addresses import is_loopback
from agentflow_server.config.clients import OWN_CLIENT, ClientConfig, GrantType
from agentflow_server.config.connections import (
    ApiKeyConnection,
    BasicConnection,
    BearerConnection,
    ClientCredentialsConnection,
    ConnectionConfig,
)
from agentflow_server.config.environment import unknown_variables
from agentflow_server.config.exposure import exposure_problems
from agentflow_server.config.loading import load_config, read_config, use_folder
from agentflow_server.config.methods import (
    Algorithm,
    ApiKeyConfig,
    AuthConfig,
    ClaimsConfig,
    CustomAuthConfig,
    Discovery,
    IntrospectionConfig,
    JwksFile,
    JwksUrl,
    JwtConfig,
    KeyConfig,
    KeySource,
    NoAuthConfig,
    StaticKeys,
    TokenServerAuthConfig,
    find_issuer,
    find_namespaces,
)
from agentflow_server.config.models import Config
from agentflow_server.config.sections import (
    AuditConfig,
    CorsConfig,
    LimitsConfig,
    ObservabilityConfig,
    RateLimitConfig,
    RolesConfig,
    RunsConfig,
)
from agentflow_server.config.showing import effective
from agentflow_server.config.token_server import TokenServerConfig
from agentflow_server.config.unset_secrets import UnsetSecrets, find_unset_secrets
from agentflow_server.config.webhooks import WebhooksConfig

__all__ = [
    "OWN_CLIENT",
    "Algorithm",
    "ApiKeyConfig",
    "ApiKeyConnection",
    "AuditConfig",
    "AuthConfig",
    "BasicConnection",
    "BearerConnection",
    "ClaimsConfig",
    "ClientConfig",
    "ClientCredentialsConnection",
    "Config",
    "ConnectionConfig",
    "CorsConfig",
    "CustomAuthConfig",
    "Discovery",
    "GrantType",
    "IntrospectionConfig",
    "JwksFile",
    "JwksUrl",
    "JwtConfig",
    "KeyConfig",
    "KeySource",
    "LimitsConfig",
    "NoAuthConfig",
    "ObservabilityConfig",
    "RateLimitConfig",
    "RolesConfig",
    "RunsConfig",
    "StaticKeys",
    "TokenServerAuthConfig",
    "TokenServerConfig",
    "UnsetSecrets",
    "WebhooksConfig",
    "effective",
    "exposure_problems",
    "find_issuer",
    "find_namespaces",
    "find_unset_secrets",
    "is_loopback",
    "load_config",
    "read_config",
    "unknown_variables",
    "use_folder",
]
