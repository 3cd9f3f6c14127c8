"""What is served, for the eyes of whoever has started it. No secrets."""

import sys
from collections.abc import Mapping

import typer

from agentflow_server import __version__
from agentflow_server.cli.logs import escape, wants_colour
from agentflow_server.config import (
    ApiKeyConfig,
    AuthConfig,
    Config,
    CustomAuthConfig,
    Discovery,
    IntrospectionConfig,
    JwksFile,
    JwksUrl,
    JwtConfig,
    NoAuthConfig,
    StaticKeys,
    TokenServerAuthConfig,
)


def summarise(config: Config) -> Mapping[str, str]:
    """The parts of the configuration that one wants to see at a glance."""
    agents = ", ".join(f"{name} ({path})" for name, path in config.agents.items())
    return {"Agents": agents, "Auth": _auth(config), "Database": config.database_shown}


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
    return "; ".join(map(_method, config.auth))


def _method(method: AuthConfig) -> str:
    match method:
        case JwtConfig():
            return f"JWT, {_keys(method)}"
        case IntrospectionConfig(url=url):
            return f"introspection, {url}"
        case ApiKeyConfig():
            return "API keys"
        case TokenServerAuthConfig(issuer=issuer):
            return f"users of this server, tokens from {issuer}"
        case CustomAuthConfig(path=path):
            return f"custom, {path}"
        case NoAuthConfig():
            return "none: everybody may use this server"


def _keys(method: JwtConfig) -> str:
    match method.source:
        case StaticKeys(keys=keys):
            names = ", ".join(key.name for key in keys)
            return f"{' and '.join(method.algorithms)}, key from {names}"
        case JwksFile(path=path):
            return f"keys from {path}"
        case JwksUrl(url=url):
            return f"keys from {url}"
        case Discovery():
            return f"issuer {method.issuer}"
