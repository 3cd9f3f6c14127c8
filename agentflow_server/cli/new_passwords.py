"""A new password: asked for twice, read from stdin, or made. Never an argument."""

import secrets
import sys
from getpass import getpass

from agentflow_server.config import Config
from agentflow_server.errors import ConfigError, InvalidRequest
from agentflow_server.users.policy import MAX_BYTES, PasswordPolicy

# Without those that look alike: it may be copied from a screen by hand.
_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"
_GROUPS, _GROUP = 5, 5  # 125 bits


def read_new_password(config: Config, *, username: str, generate: bool, from_stdin: bool) -> str:
    """Raises ConfigError, also when the policy does not allow it."""
    if generate and from_stdin:
        raise ConfigError("--generate and --password-stdin exclude each other")
    if generate:
        return make_password()
    password = _read_line() if from_stdin else _ask()
    try:
        _find_policy(config).check(password, username=username)
    except InvalidRequest as exc:
        raise ConfigError(str(exc)) from None
    return password


def _find_policy(config: Config) -> PasswordPolicy:
    server = config.token_server
    return PasswordPolicy() if server is None else PasswordPolicy(server.password_min_length)


def make_password() -> str:
    groups = ("".join(secrets.choice(_LETTERS) for _ in range(_GROUP)) for _ in range(_GROUPS))
    return "-".join(groups)


def _ask() -> str:
    if not sys.stdin.isatty():
        raise ConfigError(
            "The password cannot be asked for, as stdin is no terminal: "
            "--password-stdin reads it, --generate makes one"
        )
    # It turns the echo off before it asks, which Typer's own prompt does afterwards.
    first, second = (getpass(prompt) for prompt in ("Password: ", "Repeat it: "))
    if not secrets.compare_digest(*(typed.encode("utf-8", "replace") for typed in (first, second))):
        raise ConfigError("The two passwords differ")
    return first


def _read_line() -> str:
    """All of stdin, without the end of its one line. Raises ConfigError."""
    data = sys.stdin.buffer.read(MAX_BYTES + 3)
    line = data.removesuffix(b"\n").removesuffix(b"\r")
    if b"\n" in line or b"\r" in line:
        raise ConfigError("--password-stdin: expected one line")
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise ConfigError("--password-stdin: expected text in UTF-8") from None
