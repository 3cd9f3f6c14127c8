"""`agentflow auth card`: a token and the server's URL, for an agent's code to show."""

from collections.abc import Sequence
from pathlib import Path

import typer

from agentflow_server.auth.claims import read_user_id
from agentflow_server.cli.acts import Act
from agentflow_server.cli.durations import parse_duration
from agentflow_server.cli.failures import explained, fail
from agentflow_server.cli.logs import escape
from agentflow_server.cli.minting import choose_key, find_signing_key, make_payload, sign
from agentflow_server.cli.operating import load_for_operator
from agentflow_server.cli.user_lookup import change_user
from agentflow_server.config import Config, TokenServerConfig, is_loopback
from agentflow_server.databases import Database
from agentflow_server.errors import ConfigError
from agentflow_server.gate import AuthCard, BadCard
from agentflow_server.gate.card import find_verify_url
from agentflow_server.models import User

LONGEST_GRANT = 3600


def write_card(
    config: Path | None,
    database: str | None,
    *,
    user: str,
    save_path: Path,
    api_url: str | None,
    expires_in: str | None,
    key_file: Path | None,
) -> None:
    """Where the token server is on, `user` is one of its users; else whoever the token names."""
    loaded = load_for_operator(config, database)
    with explained():
        url = _find_url(loaded, api_url)
        if loaded.token_server is None:
            text = _sign(loaded, user, expires_in or "1h", key_file)
            _save(text, url, save_path)
            return
        if key_file is not None:
            raise ConfigError("--key: the token server signs with keys of its own")
        seconds = _find_lifetime(loaded.token_server, expires_in)
        # Brings the hashes of passwords, an extra that cards by other keys do without.
        from agentflow_server.cli.granting import issue_token  # noqa: PLC0415
    granted = loaded.token_server.model_copy(update={"access_token_lifetime": seconds})

    async def issue(opened: Database, found: User) -> tuple[str, Sequence[Act]]:
        return await issue_token(opened, granted, found)

    change_user(config, database, user, issue, show=lambda text: _save(text, url, save_path))


def _find_url(config: Config, api_url: str | None) -> str:
    """Raises ConfigError."""
    if api_url is not None:
        try:
            return find_verify_url(api_url)
        except BadCard as exc:
            raise ConfigError(f"--api-url: {str(exc).removeprefix('api_url: ')}") from None
    if config.public_url is not None:
        return config.public_url
    if not (is_loopback(config.host) and config.port):
        raise ConfigError("--api-url: is missing, and there is no public_url: where is the server?")
    host = f"[{config.host}]" if ":" in config.host else config.host
    return f"http://{host}:{config.port}"


def _sign(config: Config, user: str, expires_in: str, key_file: Path | None) -> str:
    """A token as `agentflow token` makes it. Raises ConfigError."""
    try:
        read_user_id(user)
    except ValueError as exc:
        raise ConfigError(f"--user: {exc}") from None
    auth, key = choose_key(config.auth, None)
    payload = make_payload(auth, user_id=user, claims=(), expires=expires_in, option="--expires-in")
    return sign(key, payload, find_signing_key(auth, key, key_file))


def _find_lifetime(server: TokenServerConfig, expires_in: str | None) -> int:
    """Raises ConfigError."""
    if expires_in is None:
        return server.access_token_lifetime
    seconds = parse_duration(expires_in, option="--expires-in")
    if seconds > LONGEST_GRANT:
        raise ConfigError(
            "--expires-in: a token of the token server lasts an hour at most; "
            "an API key may be a card's token, too"
        )
    return seconds


def _save(text: str, url: str, path: Path) -> None:
    try:
        card = AuthCard(text, url)
        card.save(path)
    except BadCard as exc:
        fail(str(exc))
    except OSError as exc:
        fail(f"{exc.filename or path}: cannot be written: {exc.strerror}")
    typer.echo(
        escape(f"{path}: a card for {card.api_url}; keep it secret, it is as good as a login")
    )
