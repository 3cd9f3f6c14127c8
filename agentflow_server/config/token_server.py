"""The section `token_server`: this server logs users in itself, and grants tokens to clients."""

import re
from typing import Any

from pydantic import Field

from agentflow_server.config.addresses import is_loopback
from agentflow_server.config.clients import (
    OWN_CLIENT,
    ClientConfig,
    ClientId,
    ClientSection,
    make_own_client,
    resolve_client,
)
from agentflow_server.config.explain import Problems
from agentflow_server.config.fields import Text
from agentflow_server.config.methods import (
    AuthConfig,
    NoAuthConfig,
    TokenServerAuthConfig,
    find_issuer,
)
from agentflow_server.config.sections import Section


class TokenServerSection(Section):
    """Users of this server's own log in here, as the file describes it."""

    audience: Text | None = Field(
        default=None, description="The `aud` of the tokens; default: this server."
    )
    access_token_lifetime: int = Field(default=900, ge=60, le=3600, description="Seconds.")
    refresh_token_lifetime: int = Field(
        default=2_592_000,
        ge=600,
        le=31_536_000,
        description="Seconds since the login, after which it has to be repeated.",
    )
    password_grant: bool = Field(
        default=False,
        description="Clients may send a user's password themselves: for your own ones alone.",
    )
    password_min_length: int = Field(
        default=15, ge=8, le=64, description="Characters of a new password at least."
    )
    clients: dict[ClientId, ClientSection] = Field(
        default={}, description="Applications by their ids; `agentflow` is one in any case."
    )


class TokenServerConfig(Section):
    """The same, complete: who issues, for whom, and all clients by their ids."""

    issuer: str
    audience: str
    access_token_lifetime: int = 900
    refresh_token_lifetime: int = 2_592_000
    password_grant: bool = False
    password_min_length: int = 15
    clients: dict[str, ClientConfig]


def resolve_token_server(
    section: TokenServerSection,
    *,
    public_url: str | None,
    host: str,
    port: int,
    are_scopes_asked_for: bool,
    problems: Problems,
) -> TokenServerConfig | None:
    """None when there are problems."""
    before = len(problems.lines)
    if not are_scopes_asked_for:
        _refuse_scopes(section, problems)
    issuer = _find_issuer(public_url, host, port, problems) or ""
    clients = {
        client_id: resolve_client(
            client_id, client, password_grant=section.password_grant, problems=problems
        )
        for client_id, client in section.clients.items()
    }
    clients.setdefault(OWN_CLIENT, make_own_client(issuer, password_grant=section.password_grant))
    if len(problems.lines) > before:
        return None
    values: dict[str, Any] = {**dict(section), "issuer": issuer, "clients": clients}
    return TokenServerConfig(**values | {"audience": section.audience or issuer})


def _refuse_scopes(section: TokenServerSection, problems: Problems) -> None:
    """Whoever limits a client believes that it is limited."""
    for client_id, client in section.clients.items():
        if client.scopes is not None:
            problems.add(
                f"token_server.clients.{client_id}.scopes",
                'limits nothing without "authorization", which says what scopes allow',
            )


def add_token_server(
    auth: tuple[AuthConfig, ...], server: TokenServerConfig, *, written: bool, problems: Problems
) -> tuple[AuthConfig, ...]:
    """The methods with the token server's first: it takes no token but its own."""
    own = TokenServerAuthConfig(
        issuer=server.issuer, audience=server.audience, password_grant=server.password_grant
    )
    if auth == (NoAuthConfig(),):
        if written:
            problems.add("auth", 'lets everybody in, and "token_server" nobody; remove one of them')
        return (own,)
    for number, method in enumerate(auth):
        if find_issuer(method) == server.issuer:
            place = f"auth[{number}].issuer" if len(auth) > 1 else "auth.issuer"
            problems.add(place, 'is this server, whose tokens "token_server" accepts already')
    return (own, *auth)


def _find_issuer(public_url: str | None, host: str, port: int, problems: Problems) -> str | None:
    if public_url is None:
        if is_loopback(host) and port:
            return f"http://{f'[{host}]' if ':' in host else host}:{port}"
        problems.add("public_url", 'is missing; "token_server" puts it into every token')
    elif public_url.startswith("http://") and not is_loopback(_host_of(public_url)):
        problems.add(
            "public_url", 'must be https for "token_server"; http is for a loopback address'
        )
    return public_url


def _host_of(url: str) -> str:
    match = re.match(r"http://(\[[^\]]*\]|[^:/]*)", url)
    return match[1] if match else ""
