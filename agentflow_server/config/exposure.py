"""Whether a configuration may be served on an address that others can reach."""

from collections.abc import Sequence

from agentflow_server.config.addresses import is_loopback
from agentflow_server.config.methods import JwtConfig, NoAuthConfig
from agentflow_server.config.models import Config


def exposure_problems(config: Config, host: str) -> tuple[Sequence[str], Sequence[str]]:
    """(errors, warnings): the errors forbid serving on `host`."""
    name = config.path.name
    weak = [
        place
        for place, method in config.named_methods
        if isinstance(method, JwtConfig) and method.allow_weak_secret
    ]
    if is_loopback(host):
        warning = "weak secrets are accepted: for demos and tests only"
        return (), tuple(f"{name}: {place}.allow_weak_secret: {warning}" for place in weak)
    outside = f"{host} can be reached from other machines"
    if any(isinstance(method, NoAuthConfig) for method in config.auth):
        if config.auth_written:
            return (), (f'{name}: auth: is "none", and {outside}: everybody may use this server',)
        fix = 'write "auth": "jwt", or "auth": "none" if everybody may use this server'
        return (f"{name}: auth: is missing, and {outside}; {fix}",), ()
    fix = 'remove it; "agentflow secret" makes a good secret'
    errors = [f"{name}: {place}.allow_weak_secret: {outside}; {fix}" for place in weak]
    return tuple(errors), ()
