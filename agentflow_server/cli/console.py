"""`agentflow chat`, `login`, `logout` and `whoami`."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from getpass import getpass
from urllib.parse import urlsplit

import typer

from agentflow_server.cli.failures import fail
from agentflow_server.cli.logs import escape
from agentflow_server.client import (
    AgentflowClientError,
    Credentials,
    LoginFailed,
    NotAuthenticated,
    Password,
    StaticToken,
    Token,
)
from agentflow_server.client.origin import Origin
from agentflow_server.console.logins import Identity, ask_identity, give_back, obtain
from agentflow_server.console.sessions import Login, Session

FAILED = 1
INTERRUPTED = 130
DEFAULT_URL = "http://127.0.0.1:8000"
TOKEN_VARIABLE = "AGENTFLOW_TOKEN"  # noqa: S105 – its name
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
# What RFC 6749 has for a client that may not use passwords, or a server that takes none.
_NO_PASSWORDS = frozenset({"unauthorized_client", "unsupported_grant_type"})
_MAX_LINE = 16 * 1024


@dataclass(frozen=True, slots=True)
class Way:
    """How to log in; `token_url` and `client_id` are those of another login server."""

    user: str | None = None
    totp: bool = False
    password_stdin: bool = False
    token_stdin: bool = False
    browser: bool = False
    token_url: str | None = None
    client_id: str = "agentflow"


def chat(url: str | None, *, thread: str | None, agent: str | None, user: str | None) -> None:
    """Talk with an agent until stdin ends."""
    from agentflow_server.console.talking import talk  # noqa: PLC0415 – only this draws

    with _explained(url) as server:
        session = Session(server)
        if user is not None and not _is_of(session, user):
            session.save(_log_in(server, Way(user=user)))
        login = _find_login(session) if user is None else session.find_login()
        talk(server, login, thread_id=thread, agent=agent)


def log_in(url: str | None, way: Way) -> None:
    """Replace the session with that server; the one before stays when it comes to nothing."""
    with _explained(url, logs_in=True) as server:
        for place in {server, way.token_url or server}:
            _warn_of_listeners(place)
        token = _read_token() if way.token_stdin else _log_in(server, way)
        found = ask_identity(server, token.access_token)
        if found is not None and token.source.endswith(" "):
            # Nobody typed the name in; what the server calls him is what --user is compared with.
            token = replace(token, source=f"{token.source}{found.username or found.user_id}")
        Session(server).save(token)
        typer.echo(f"Logged in at {server}{_describe(found)}", err=True)


def log_out(url: str | None) -> None:
    """Revoke the session and forget it; what cannot be revoked is forgotten, too."""
    with _explained(url, logs_in=True) as server:
        session = Session(server)
        is_revoked, was_there = False, session.path.exists()
        try:
            login = session.find_login()
            is_revoked = login is not None and give_back(login)
        finally:
            session.forget()
    if not was_there:
        typer.echo(f"There is no session with {server}", err=True)
    elif is_revoked:
        typer.echo(f"Logged out at {server}", err=True)
    else:
        typer.echo(f"Logged out; {server} was not told, so tokens end when they expire", err=True)


def show_identity(url: str | None) -> None:
    """Print who the server says that you are; leave with 1 when it knows nobody."""
    with _explained(url) as server:
        login = _find_login(Session(server))
        found = ask_identity(server, login)
    facts: dict[str, str | None] = {"server": server}
    if found is None:
        facts["user"] = "not told: " + (
            "the server accepts the login" if login else "the server wants no login"
        )
    else:
        facts |= {
            "user": found.username or found.user_id,
            "user id": found.user_id,
            "scopes": None if found.scopes is None else " ".join(found.scopes) or "(none)",
            "expires": f"{found.expires_at:%Y-%m-%d %H:%M:%S %Z}" if found.expires_at else None,
        }
    for name, value in facts.items():
        if value is not None:
            typer.echo(f"{name:<9}{escape(value)}")


@contextmanager
def _explained(url: str | None, *, logs_in: bool = False) -> Iterator[str]:
    """The server's URL. Whatever goes wrong with it is one line and the code 1; Ctrl-C is 130."""
    try:
        server = str(Origin(url or os.environ.get("AGENTFLOW_URL") or DEFAULT_URL))
    except ValueError as error:
        raise typer.BadParameter(f"--url: {error}") from None
    try:
        yield server
    except (NotAuthenticated, LoginFailed) as error:
        fail(f"{error}{_find_advice(error, server, logs_in=logs_in)}", code=FAILED)
    except AgentflowClientError as error:
        fail(str(error), code=FAILED)
    except (KeyboardInterrupt, EOFError):
        typer.echo("", err=True)
        raise typer.Exit(INTERRUPTED) from None


def _find_advice(error: AgentflowClientError, server: str, *, logs_in: bool) -> str:
    if error.code in _NO_PASSWORDS:
        return " – it may do with --browser"
    return "" if logs_in else f" – to log in: agentflow login --url {server}"


def _find_login(session: Session) -> Credentials | None:
    """Raises LoginFailed."""
    if token := os.environ.get(TOKEN_VARIABLE):
        return StaticToken(token)
    return session.find_login()


def _is_of(session: Session, user: str) -> bool:
    try:
        login = session.find_login()
    except LoginFailed:
        return False
    return isinstance(login, Login) and login.username == user


def _log_in(server: str, way: Way) -> Token:
    """Raises LoginFailed."""
    token_url = way.token_url or f"{server}/token"
    if way.browser:
        from agentflow_server.console.browser import log_in_with_browser  # noqa: PLC0415

        return log_in_with_browser(server, token_url, client_id=way.client_id)
    if not (way.password_stdin or sys.stdin.isatty()):
        raise LoginFailed("a password is asked for at a terminal, or read with --password-stdin")
    user = way.user or input("Username: ")
    password = _read_line() if way.password_stdin else getpass(f"Password of {user}: ")
    extra: Mapping[str, str] = {"totp": getpass("One-time code: ")} if way.totp else {}
    login = Password(token_url, user, password, client_id=way.client_id, extra=extra)
    return obtain(server, login)


def _warn_of_listeners(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "http" and parts.hostname not in _LOCAL:
        typer.secho(
            f"{escape(url)} is not encrypted: whoever is on the way can read your login",
            err=True,
            fg=typer.colors.YELLOW,
        )


def _read_token() -> Token:
    """Raises LoginFailed."""
    return Token.of(_read_line())


def _read_line() -> str:
    """All of stdin, without the end of its line. Raises LoginFailed."""
    try:
        return sys.stdin.buffer.read(_MAX_LINE).decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise LoginFailed("stdin is no text in UTF-8") from None


def _describe(found: Identity | None) -> str:
    return f" as {escape(found.username or found.user_id)}" if found is not None else ""
