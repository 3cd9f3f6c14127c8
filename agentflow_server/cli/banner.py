"""What is served, for the eyes of whoever has started it. No secrets."""

import sys
from collections.abc import Mapping

import typer

from agentflow_server import __version__
from agentflow_server.cli.logs import escape, wants_colour
from agentflow_server.config import Config, CustomAuthConfig, JwtConfig


def summarise(config: Config) -> Mapping[str, str]:
    """The parts of the configuration that one wants to see at a glance."""
    agents = ", ".join(f"{name} ({path})" for name, path in config.agents.items())
    return {"Agents": agents, "Auth": _auth(config), "Database": str(config.database_path)}


def addresses(config: Config, url: str) -> Mapping[str, str]:
    """Where the server answers."""
    public = {"Public URL": config.public_url} if config.public_url else {}
    return {"URL": url, **public, "Docs": f"{url}/docs"}


def print_banner(config: Config, url: str) -> None:
    where = dict(addresses(config, url))
    docs = where.pop("Docs")
    lines = {**where, **summarise(config), "Docs": docs}
    title = f"agentflow-server {__version__}"
    typer.echo(f"\n{_style(title, bold=True)}\n\n{align(lines)}\n\nCtrl-C stops the server.\n")
    # A pipe is not read at once otherwise.
    sys.stdout.flush()


def align(lines: Mapping[str, str]) -> str:
    """One line each, the values below one another."""
    return "\n".join(
        f"  {_style(f'{name:<10}', fg=typer.colors.CYAN)} {escape(value)}"
        for name, value in lines.items()
    )


def _style(text: str, *, bold: bool = False, fg: str | None = None) -> str:
    return typer.style(text, bold=bold, fg=fg) if wants_colour(sys.stdout) else text


def _auth(config: Config) -> str:
    match config.auth:
        case JwtConfig(algorithm=algorithm, secret_name=name):
            return f"JWT, {algorithm}, key from {name}"
        case CustomAuthConfig(path=path):
            return f"custom, {path}"
    return "none: everybody may use this server"
