"""Local users: who may be one, their passwords, and telling whether one is right."""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from agentflow_server.errors import ConfigError

if TYPE_CHECKING:
    from agentflow_server.users.passwords import Passwords


def open_passwords() -> "Passwords":
    """Raises ConfigError when the extra is missing."""
    if not (find_spec("pwdlib") and find_spec("argon2")):
        raise ConfigError("users: pip install 'agentflow-server[passwords]'")
    # Imported here because pwdlib is an extra.
    from agentflow_server.users.passwords import Passwords  # noqa: PLC0415

    return Passwords()


__all__ = ["open_passwords"]
