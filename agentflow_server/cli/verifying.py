"""`agentflow token verify`: why the configured server accepts or refuses a token."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import typer
from fastapi.security import HTTPAuthorizationCredentials

from agentflow_server.auth.explain import Explanation, explain, show
from agentflow_server.auth.jwt import JwtAuth
from agentflow_server.auth.opening import open_jwt
from agentflow_server.auth.token import MAX_TOKEN, is_compact, peek
from agentflow_server.cli.failures import explained
from agentflow_server.cli.logs import set_up_logs
from agentflow_server.config import AuthConfig, JwtConfig, read_config
from agentflow_server.errors import ConfigError, NotAuthenticated

REFUSED = 1


def verify_token(path: Path | None, text: str) -> None:
    """Print the verdict; leave with 1 when the token is refused or cannot be judged now.

    With `-` the token is read from stdin, which keeps it out of the shell's history.
    """
    set_up_logs("error")
    with explained():
        methods = read_config(path).named_methods
        explanation = asyncio.run(_explain(methods, _read_token(text)))
    for line in explanation.lines:
        typer.echo(line)
    if not explanation.accepted:
        raise typer.Exit(REFUSED)


def _read_token(text: str) -> str:
    if text == "-":
        # One more than is accepted, and the line break: enough to see that it is too long.
        text = sys.stdin.read(MAX_TOKEN + 2)
    return text.strip().removeprefix("Bearer ").strip()


async def _explain(methods: Sequence[tuple[str, AuthConfig]], token: str) -> Explanation:
    """Raises ConfigError."""
    every = [method for _, method in methods]
    verifiers = [
        (place, open_jwt(method, every))
        for place, method in methods
        if isinstance(method, JwtConfig)
    ]
    if not verifiers:
        raise ConfigError('token verify: needs "auth": "jwt" in the configuration')
    chosen = _choose(verifiers, token)
    if chosen is None:
        return _explain_stranger(verifiers, token)
    place, auth = chosen
    await auth.open()
    try:
        explanation = await explain(auth, token)
    finally:
        await auth.close()
    return Explanation(explanation.accepted, (f"method: {place} (jwt)", *explanation.lines))


def _choose(verifiers: Sequence[tuple[str, JwtAuth]], token: str) -> tuple[str, JwtAuth] | None:
    """As the server would: the first that recognises the token; the only one takes all."""
    if len(verifiers) == 1:
        return verifiers[0]
    bearer = HTTPAuthorizationCredentials(scheme="Bearer", credentials=token)
    return next((pair for pair in verifiers if pair[1].recognises(bearer)), None)


def _explain_stranger(verifiers: Sequence[tuple[str, JwtAuth]], token: str) -> Explanation:
    if not is_compact(token):
        return Explanation(False, ("refused: malformed (R15)", "it does not look like a JWT"))
    try:
        issuer = show(peek(token)[1].get("iss"))
    except NotAuthenticated as exc:
        return Explanation(False, (f"refused: {exc.reason}", "it cannot be read"))
    known = ", ".join(f"{show(auth.rules.issuer)} ({place})" for place, auth in verifiers)
    why = f"its iss is {issuer}, and no method has that issuer; configured are {known}"
    return Explanation(False, ("refused: not_recognised (R23)", why))
