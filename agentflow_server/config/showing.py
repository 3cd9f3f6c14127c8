"""The configuration as `agentflow show` prints it."""

from typing import Any

from agentflow_server.config.masking import MASK, mask
from agentflow_server.config.methods import (
    CustomAuthConfig,
    Discovery,
    IntrospectionConfig,
    JwksFile,
    JwksUrl,
    JwtConfig,
    KeySource,
    StaticKeys,
    TokenServerAuthConfig,
    WrittenAuthConfig,
)
from agentflow_server.config.models import Config


def effective(config: Config) -> dict[str, Any]:
    """Every setting with its value, as JSON data; secrets are masked."""
    apart = {"auth", "auth_written", "connections", "expanded", "redis", "database"}
    return {
        **config.model_dump(mode="json", exclude=apart),
        "redis": None if config.redis is None else mask(config.redis.get_secret_value()),
        "database": mask(config.database),
        "database_path": config.database_path and str(config.database_path),
        "auth": _auth(config),
        "connections": {
            name: one.model_dump(mode="json", by_alias=True)
            for name, one in config.connections.items()
        },
    }


def _auth(config: Config) -> Any:
    if not config.auth_written:
        return None
    written = [one for one in config.auth if not isinstance(one, TokenServerAuthConfig)]
    shown = [_method(config, n, method) for n, method in enumerate(written)]
    return shown if len(shown) > 1 else shown[0]


def _method(config: Config, number: int, method: WrittenAuthConfig) -> Any:
    match method:
        case JwtConfig():
            data = method.model_dump(mode="json", exclude={"source"})
            return {**data, "source": _source(method.source)}
        case IntrospectionConfig():
            data = method.model_dump(mode="json", exclude={"url", "client_secret"})
            return {**data, "url": mask(method.url), "client_secret": MASK}
        case CustomAuthConfig():
            mine = (number, "options")
            hidden = {place[2:] for place in config.expanded if place[:2] == mine}
            return {
                **method.model_dump(mode="json", exclude={"options"}),
                "options": mask(method.options, hidden=hidden),
            }
    return "none" if method.method == "none" else method.model_dump(mode="json")


def _source(source: KeySource) -> Any:
    match source:
        case StaticKeys(keys=keys):
            return {
                "keys": [
                    {
                        "kid": key.kid,
                        "algorithm": key.algorithm,
                        "name": key.name,
                        "material": MASK,
                    }
                    for key in keys
                ]
            }
        case JwksFile(path=path):
            return {"jwks_file": str(path)}
        case JwksUrl(url=url):
            return {"jwks_url": mask(url)}
        case Discovery():
            return "discovery"
