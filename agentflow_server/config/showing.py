"""The configuration as `agentflow show` prints it."""

from typing import Any

from agentflow_server.config.masking import MASK, mask
from agentflow_server.config.models import Config, CustomAuthConfig, JwtConfig


def effective(config: Config) -> dict[str, Any]:
    """Every setting with its value, as JSON data; secrets are masked."""
    shown = config.model_dump(mode="json", exclude={"auth", "auth_written", "expanded_options"})
    return {**shown, "database_path": str(config.database_path), "auth": _auth(config)}


def _auth(config: Config) -> Any:
    auth = config.auth
    match auth:
        case JwtConfig():
            return {**auth.model_dump(mode="json"), "secret_key": MASK}
        case CustomAuthConfig():
            options = mask(auth.options, hidden=config.expanded_options)
            return {**auth.model_dump(mode="json"), "options": options}
    return "none" if config.auth_written else None
