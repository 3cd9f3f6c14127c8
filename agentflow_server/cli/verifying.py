"""`agentflow token verify`: why the configured server accepts or refuses a credential."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import typer
from fastapi.security import HTTPAuthorizationCredentials
from starlette.datastructures import Headers

from agentflow_server.auth import AnyOf, ApiKeyAuth, NoAuth, open_authenticator
from agentflow_server.auth.explain import Explanation, explain, show
from agentflow_server.auth.token import MAX_TOKEN, is_compact, peek
from agentflow_server.cli.database import open_database
from agentflow_server.cli.failures import explained, naming_the_file
from agentflow_server.cli.logs import set_up_logs
from agentflow_server.config import (
    AuthConfig,
    Config,
    CustomAuthConfig,
    JwtConfig,
    TokenServerAuthConfig,
    load_config,
    use_folder,
)
from agentflow_server.errors import AuthUnavailable, NotAuthenticated
from agentflow_server.interfaces import Authenticator, CredentialStore
from agentflow_server.web.credentials import read_credential

REFUSED = 1

_AT_THE_DOOR = {
    "credential_too_long": ("R16", f"it is longer than {MAX_TOKEN} characters"),
    "not_one_token": ("R15", "it is not one word of visible ASCII without commas"),
}


def verify_token(path: Path | None, database: str | None, text: str) -> None:
    """Print the verdict; leave with 1 when the token is refused or cannot be judged here and now.

    With `-` the token is read from stdin, which keeps it out of the shell's history.
    """
    set_up_logs("error")
    with explained():
        # Loaded, and the folder used, for the sake of a class of the user's own.
        config = load_config(path, overrides={"database": database})
        use_folder(config)
        explanation = asyncio.run(_explain(config, _read_token(text)))
    for line in explanation.lines:
        typer.echo(line)
    if not explanation.accepted:
        raise typer.Exit(REFUSED)


def _read_token(text: str) -> str:
    if text == "-":
        # One more than is accepted, and the line break: enough to see that it is too long.
        text = sys.stdin.read(MAX_TOKEN + 2)
    return text.strip().removeprefix("Bearer ").strip()


async def _explain(config: Config, token: str) -> Explanation:
    """Raises ConfigError."""
    async with open_database(config) as database:
        with naming_the_file(config):
            auth = open_authenticator(
                config.auth, credentials=database.credentials, grants=database.grants
            )
        if isinstance(auth, NoAuth):
            why = "auth is none: no credential is looked at, everybody is the anonymous caller"
            return Explanation(True, ("accepted", why))
        try:
            credential = _send(token)
            chosen = auth.find_method(credential) if isinstance(auth, AnyOf) else auth
        except NotAuthenticated as exc:
            rule, why = _AT_THE_DOOR[exc.reason]
            return Explanation(False, (f"refused: {exc.reason} ({rule})", why))
        except AuthUnavailable as exc:
            why = "a class of your own failed to say whether it is to judge: see above"
            return Explanation(False, (f"not judged: {exc.reason}", why))
        if chosen is None:
            return _explain_stranger(config.named_methods, token)
        methods = auth.methods if isinstance(auth, AnyOf) else (auth,)
        place, written = config.named_methods[methods.index(chosen)]
        verdict = await _ask(chosen, written, token, database.credentials)
    return Explanation(verdict.accepted, (f"method: {place} ({chosen.name})", *verdict.lines))


def _send(token: str) -> HTTPAuthorizationCredentials | None:
    """As the server takes it from a request. Raises NotAuthenticated."""
    header = f"Bearer {token}".encode(errors="surrogateescape")
    return read_credential(Headers(raw=[(b"authorization", header)]))


async def _ask(
    method: Authenticator, written: AuthConfig, token: str, credentials: CredentialStore
) -> Explanation:
    if isinstance(written, CustomAuthConfig):
        # It may do whatever it likes when it is asked, and with the request it has not got.
        why = f"{written.path} decides, and only a request is shown to it"
        return Explanation(False, ("not judged: the class decides", why))
    async with _opened(method):
        return await explain(method, token, credentials=credentials)


@asynccontextmanager
async def _opened(method: Authenticator) -> AsyncIterator[None]:
    if isinstance(method, ApiKeyAuth):
        # When closed it would write down that the key was used, and it was only looked at.
        yield
        return
    await method.open()
    try:
        yield
    finally:
        await method.close()


def _explain_stranger(methods: Sequence[tuple[str, AuthConfig]], token: str) -> Explanation:
    issuers = [
        f"{show(method.issuer)} ({place})"
        for place, method in methods
        if isinstance(method, JwtConfig | TokenServerAuthConfig)
    ]
    if not is_compact(token):
        why = "it looks neither like a JWT nor like an API key, and no method takes anything else"
        return Explanation(False, ("refused: not_recognised (R23)", why))
    try:
        issuer = show(peek(token)[1].get("iss"))
    except NotAuthenticated as exc:
        return Explanation(False, (f"refused: {exc.reason}", "it cannot be read"))
    known = ", ".join(issuers) or "none"
    why = f"its iss is {issuer}, and no method has that issuer; configured are {known}"
    return Explanation(False, ("refused: not_recognised (R23)", why))
