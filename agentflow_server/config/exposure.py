"""Whether a configuration may be served on an address that others can reach."""

import ipaddress
from collections.abc import Sequence

from agentflow_server.config.models import Config, JwtConfig, NoAuthConfig


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`; a name other than localhost might be anything."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def exposure_problems(config: Config, host: str) -> tuple[Sequence[str], Sequence[str]]:
    """(errors, warnings): the errors forbid serving on `host`."""
    if is_loopback(host):
        return (), ()
    name = config.path.name
    outside = f"{host} can be reached from other machines"
    match config.auth:
        case NoAuthConfig() if config.auth_written:
            return (), (f'{name}: auth: is "none", and {outside}: everybody may use this server',)
        case NoAuthConfig():
            fix = 'write "auth": "jwt", or "auth": "none" if everybody may use this server'
            return (f"{name}: auth: is missing, and {outside}; {fix}",), ()
        case JwtConfig(allow_weak_secret=True):
            fix = 'remove it; "agentflow secret" makes a good secret'
            return (f"{name}: auth.allow_weak_secret: {outside}; {fix}",), ()
    return (), ()
