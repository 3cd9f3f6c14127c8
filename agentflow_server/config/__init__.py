"""agentflow.json: read strictly, every problem explained in one line."""

from agentflow_server.config.exposure import exposure_problems, is_loopback
from agentflow_server.config.loading import load_config, read_config, use_folder
from agentflow_server.config.models import (
    AuthConfig,
    Config,
    CorsConfig,
    CustomAuthConfig,
    JwtConfig,
    LimitsConfig,
    NoAuthConfig,
    RunsConfig,
)
from agentflow_server.config.showing import effective

__all__ = [
    "AuthConfig",
    "Config",
    "CorsConfig",
    "CustomAuthConfig",
    "JwtConfig",
    "LimitsConfig",
    "NoAuthConfig",
    "RunsConfig",
    "effective",
    "exposure_problems",
    "is_loopback",
    "load_config",
    "read_config",
    "use_folder",
]
