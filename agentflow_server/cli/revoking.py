"""`agentflow revoke`: credentials that verify and are refused nevertheless."""

import time
from datetime import datetime
from pathlib import Path

from agentflow_server.cli.credential_store import tell, use_credentials
from agentflow_server.cli.durations import parse_duration
from agentflow_server.cli.failures import explained
from agentflow_server.errors import ConfigError
from agentflow_server.interfaces import CredentialStore
from agentflow_server.models import Revocation


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
    with explained():
        now = time.time()
        _check_options(token_id=token_id, issuer=issuer, user_id=user_id, before=before)
        revocation = Revocation(
            at=now if before is None else _parse_time(before, now),
            expires_at=now + parse_duration(keep, option="--keep"),
            token_id=token_id,
            issuer=issuer,
            user_id=user_id,
        )
    named = {"token_id": token_id, "issuer": issuer, "user_id": user_id}
    keys = use_credentials(
        config,
        database,
        lambda store: _revoke(store, revocation, now),
        act="revoke",
        details={name: value for name, value in named.items() if value is not None},
    )
    tell(
        "Revoked: refused within 60 seconds by a server that runs, and at once by one that starts.",
        *([f"API keys revoked for ever: {keys}"] if keys else []),
    )


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


async def _revoke(store: CredentialStore, revocation: Revocation, now: float) -> int:
    """The number of API keys that are revoked with it.

    They may live longer than any token, and so longer than the entry is kept.
    """
    await store.add_revocation(revocation)
    if revocation.token_id is not None:
        return int(await store.revoke_api_key(revocation.token_id, now))
    older = [
        key
        for key in await store.list_api_keys(revocation.user_id)
        if key.created_at.timestamp() < revocation.at and key.revoked_at is None
    ]
    for key in older:
        await store.revoke_api_key(key.key_id, now)
    return len(older)
