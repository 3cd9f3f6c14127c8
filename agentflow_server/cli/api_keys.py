"""`agentflow api-keys`: make, list and revoke API keys, also while a server runs."""

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import typer

from agentflow_server.auth.api_key import make_api_key, split_api_key
from agentflow_server.cli.acts import Act, make_revoke_act
from agentflow_server.cli.durations import parse_duration
from agentflow_server.cli.failures import explained, fail
from agentflow_server.cli.key_scopes import refuse_misspelt
from agentflow_server.cli.operating import change_database, load_for_operator, tell, use_database
from agentflow_server.cli.tables import NOTHING, format_time, tabulate
from agentflow_server.config import ApiKeyConfig
from agentflow_server.databases import Database
from agentflow_server.errors import ConfigError
from agentflow_server.models import ApiKey, Revocation

NO_SUCH_KEY = 1

OPEN_SOCKETS_SECONDS = 86_400
"""Every socket asks within a minute; a machine may be suspended for longer."""

_COLUMNS = ("KEY ID", "USER", "STATE", "CREATED", "EXPIRES", "LAST USED", "SCOPES", "NAME")


def create_key(
    config: Path | None,
    database: str | None,
    *,
    user_id: str,
    name: str | None,
    scopes: Sequence[str],
    expires: str | None,
) -> None:
    """Nothing but the key goes to stdout."""
    loaded = load_for_operator(config, database)
    with explained():
        refuse_misspelt(scopes, loaded)
        now = datetime.now(UTC)
        expires_at = None
        if expires is not None:
            expires_at = now + timedelta(seconds=parse_duration(expires, option="--expires"))
        try:
            text, key, secret_hash = make_api_key(
                user_id, name=name, scopes=scopes, created_at=now, expires_at=expires_at
            )
        except ValueError as exc:
            raise ConfigError(f"api-keys create: {exc}") from exc

    async def create(database: Database) -> tuple[ApiKey, Sequence[Act]]:
        await database.credentials.add_api_key(key, secret_hash)
        details = {"key_id": key.key_id, "user_id": user_id, "scopes": " ".join(scopes)}
        return key, [Act("api_key.create", details)]

    def show(key: ApiKey) -> None:
        typer.echo(text)
        _tell_facts(key)
        if not any(isinstance(method, ApiKeyConfig) for method in loaded.auth):
            tell('Warning: the server refuses it, as "auth" has no "api_key".')

    change_database(loaded, create, show=show)


def _tell_facts(key: ApiKey) -> None:
    facts = {
        "Key id": key.key_id,
        "User": key.user_id,
        "Name": key.name or NOTHING,
        "Scopes": " ".join(key.scopes) or NOTHING,
        "Expires": format_time(key.expires_at) if key.expires_at else "never",
    }
    tell(*(f"  {label:<8} {value}" for label, value in facts.items()))
    tell("The key is shown only now: the database holds a hash of it.")


def list_keys(
    config: Path | None, database: str | None, *, user_id: str | None, as_json: bool
) -> None:
    loaded = load_for_operator(config, database)
    keys = use_database(loaded, lambda database: database.credentials.list_api_keys(user_id))
    if as_json:
        shown = [key.model_dump(mode="json") for key in keys]
        typer.echo(json.dumps(shown, indent=2))
    elif keys:
        now = datetime.now(UTC)
        typer.echo(tabulate([_COLUMNS, *(_describe(key, now) for key in keys)]))
    else:
        tell("There are no API keys.")


def revoke_key(config: Path | None, database: str | None, key_id: str) -> None:
    # A key that has leaked is at hand as a whole; whatever was given is not repeated.
    parts = split_api_key(key_id)
    wanted = parts[0] if parts else key_id

    async def revoke(database: Database) -> tuple[ApiKey | None, Sequence[Act]]:
        store = database.credentials
        found = await store.find_api_key(wanted)
        if found is None:
            return None, ()
        key, _ = found
        if key.revoked_at is not None:
            return key, ()
        now = time.time()
        # Asking for a key refuses it at once; the other is for WebSockets that were opened with a
        # ticket, where nobody asks for it again.
        await store.revoke_api_key(wanted, now)
        keep = now + OPEN_SOCKETS_SECONDS
        await store.add_revocation(Revocation(at=now, expires_at=keep, token_id=wanted))
        return key, [make_revoke_act(key)]

    change_database(load_for_operator(config, database), revoke, show=_tell_revoked)


def _tell_revoked(before: ApiKey | None) -> None:
    if before is None:
        fail('There is no such API key; "agentflow api-keys list" shows them.', code=NO_SUCH_KEY)
    if before.revoked_at is not None:
        tell(f"The key was revoked already, at {format_time(before.revoked_at)}.")
    else:
        tell("Revoked: the key is refused from now on.")


def _describe(key: ApiKey, now: datetime) -> Sequence[str]:
    state = "valid"
    if key.revoked_at is not None:
        state = "revoked"
    elif key.expires_at is not None and now >= key.expires_at:
        state = "expired"
    times = (key.created_at, key.expires_at, key.last_used_at)
    dates = (format_time(time) if time else NOTHING for time in times)
    scopes = " ".join(key.scopes)
    return key.key_id, key.user_id, state, *dates, scopes or NOTHING, key.name or NOTHING
