"""`agentflow revoke`: credentials that verify and are refused nevertheless."""

import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from agentflow_server.cli.acts import Act, make_revoke_act
from agentflow_server.cli.durations import parse_duration
from agentflow_server.cli.failures import explained
from agentflow_server.cli.operating import change_database, load_for_operator, tell
from agentflow_server.cli.subjects import (
    find_namesakes,
    is_open,
    refuse_unknown_issuer,
    refuse_unknown_user,
)
from agentflow_server.config import AuthConfig
from agentflow_server.errors import ConfigError
from agentflow_server.interfaces import CredentialStore
from agentflow_server.models import ApiKey, Revocation

_REVOKED = (
    "Revoked: refused within 60 seconds by a server that runs, and at once by one that starts."
)


def revoke_credentials(
    config: Path | None,
    database: str | None,
    *,
    token_id: str | None,
    issuer: str | None,
    user_id: str | None,
    before: str | None,
    keep: str,
) -> None:
    loaded = load_for_operator(config, database)
    with explained():
        now = time.time()
        _check_options(token_id=token_id, issuer=issuer, user_id=user_id, before=before)
        if issuer is not None:
            refuse_unknown_issuer(issuer, loaded.auth)
        if user_id is not None:
            refuse_unknown_user(user_id, loaded.auth)
        revocation = Revocation(
            at=now if before is None else _parse_time(before, now),
            expires_at=now + parse_duration(keep, option="--keep"),
            token_id=token_id,
            issuer=issuer,
            user_id=user_id,
        )

    def show(keys: int) -> None:
        tell(_REVOKED, *([f"API keys revoked for ever: {keys}"] if keys else []))
        tell(*_find_doubts(user_id, loaded.auth))

    change_database(
        loaded, lambda database: revoke_all(database.credentials, revocation, now), show=show
    )


def _find_doubts(user_id: str | None, methods: Sequence[AuthConfig]) -> Iterator[str]:
    """Why somebody may still get in who was meant."""
    if is_open(methods):
        yield 'Warning: "auth" is none, so nobody is refused.'
    if user_id is not None and (others := find_namesakes(user_id, methods)):
        yield f"Not revoked, because another user each: {', '.join(others)}"


def _check_options(
    *, token_id: str | None, issuer: str | None, user_id: str | None, before: str | None
) -> None:
    """Raises ConfigError."""
    given = {"--token-id": token_id, "--issuer": issuer, "--user-id": user_id}
    for option, value in given.items():
        if value is not None and not value.strip():
            raise ConfigError(f"{option}: is blank")
    if (token_id is None) == (user_id is None):
        raise ConfigError("revoke: expected either --token-id or --user-id")
    if token_id is not None and before is not None:
        raise ConfigError("--before: goes with --user-id; one token is refused altogether")
    if user_id is not None and issuer is not None:
        raise ConfigError(
            "--issuer: goes with --token-id; with several issuers, a user of one that is not the "
            'primary one is --user-id "ISSUER|ID"'
        )


def _parse_time(text: str, now: float) -> float:
    """Seconds since 1970. Raises ConfigError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ConfigError(
            "--before: expected a time with its offset from UTC, like 2026-01-31T12:00:00Z or "
            f"2026-01-31T13:00:00+01:00, found {text!r}"
        )
    if moment.timestamp() > now:
        raise ConfigError("--before: lies in the future")
    return moment.timestamp()


async def revoke_all(
    store: CredentialStore, revocation: Revocation, now: float
) -> tuple[int, Sequence[Act]]:
    """The number of API keys that are revoked with it.

    They may live longer than any token, and so longer than the entry is kept.
    """
    await store.add_revocation(revocation)
    keys = await _find_keys(store, revocation)
    for key in keys:
        await store.revoke_api_key(key.key_id, now)
    named = {
        "token_id": revocation.token_id,
        "issuer": revocation.issuer,
        "user_id": revocation.user_id,
    }
    details = {name: value for name, value in named.items() if value is not None}
    return len(keys), [Act("revoke", details), *map(make_revoke_act, keys)]


async def _find_keys(store: CredentialStore, revocation: Revocation) -> Sequence[ApiKey]:
    """Those that are revoked with it, and were not before."""
    if revocation.token_id is None:
        keys = await store.list_api_keys(revocation.user_id)
        older = [key for key in keys if key.created_at.timestamp() < revocation.at]
        return [key for key in older if key.revoked_at is None]
    found = await store.find_api_key(revocation.token_id)
    # What an issuer has made is no key of ours.
    if found is None or found[0].revoked_at is not None or revocation.issuer is not None:
        return ()
    return found[:1]
