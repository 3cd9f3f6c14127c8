"""`agentflow auth init`: secrets that agentflow.json names, where nobody has set them."""

from pathlib import Path

from agentflow_server import private_files
from agentflow_server.cli.keygen import make_secret
from agentflow_server.cli.operating import tell
from agentflow_server.config import find_unset_secrets
from agentflow_server.errors import ConfigError


def make_first_secrets(config: Path | None) -> bool:
    """Into the file that `env` names; whether there was any to make. Raises ConfigError."""
    unset = find_unset_secrets(config)
    if not unset.names:
        return False
    names = ", ".join(unset.names)
    if unset.env is None:
        raise ConfigError(
            f'{unset.file.name}: env: is missing; write "env": ".env", and {names} will be made '
            "there, or set it in the environment"
        )
    lines = "".join(f"{name}={make_secret()}\n" for name in unset.names)
    # The line before may not have been ended.
    lines = f"\n{lines}" if unset.env.exists() and unset.env.stat().st_size else lines
    try:
        private_files.append(unset.env, lines)
    except OSError as exc:
        raise ConfigError(f"{unset.env}: cannot be written: {exc.strerror}") from None
    tell(f"{unset.env}: made {names}; keep the file to yourself, and out of version control.")
    return True
