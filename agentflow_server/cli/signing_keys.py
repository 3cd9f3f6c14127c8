"""`agentflow auth rotate-keys`: another key for the tokens that this server grants."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agentflow_server.cli.acts import Act
from agentflow_server.cli.failures import explained
from agentflow_server.cli.operating import change_database, load_for_operator, tell
from agentflow_server.databases import Database
from agentflow_server.errors import ConfigError
from agentflow_server.interfaces import GrantStore
from agentflow_server.models import SigningKey
from agentflow_server.token_server.keys import make_signing_key
from agentflow_server.web.token_server import PUBLISHED_SECONDS

LEAD = timedelta(seconds=2 * PUBLISHED_SECONDS)
"""From then on, nobody can still have the published keys from before the new one."""
MARGIN = timedelta(seconds=60)
"""By so much a verifier's clock may be behind."""


def rotate_keys(config: Path | None, database: str | None, *, at_once: bool) -> None:
    loaded = load_for_operator(config, database)
    with explained():
        if loaded.token_server is None:
            raise ConfigError(
                f'{loaded.path.name}: there is no "token_server", and so no key of its own'
            )
    lifetime = timedelta(seconds=loaded.token_server.access_token_lifetime)

    async def rotate(opened: Database) -> tuple[SigningKey, Sequence[Act]]:
        now = datetime.now(UTC)
        others = await opened.grants.list_signing_keys()
        waits = not at_once and any(key.signs_from <= now for key in others)
        key = make_signing_key(now, signs_from=now + LEAD if waits else now)
        retire_at = now if at_once else key.signs_from + lifetime + MARGIN
        await opened.grants.add_signing_key(key, others_retire_at=retire_at)
        acts = [Act("signing_key.add", {"key_id": key.kid})]
        if at_once:
            acts += await _remove(opened.grants, others)
        return key, acts

    def show(key: SigningKey) -> None:
        tell(f"The new key is {key.kid}.")
        if at_once:
            tell(
                "All others are removed. Tokens they have signed are refused within 30 seconds by a "
                "server that runs, and at once by one that starts; refresh tokens stay good."
            )
        else:
            minutes = (lifetime + MARGIN).total_seconds() / 60
            tell(
                f"It signs from {key.signs_from:%Y-%m-%d %H:%M:%S} UTC on; the ones before it stay "
                f"good for {minutes:.0f} minutes more, until their last token has expired."
            )

    change_database(loaded, rotate, show=show)


async def _remove(grants: GrantStore, keys: Sequence[SigningKey]) -> list[Act]:
    removed = [key for key in keys if await grants.remove_signing_key(key.kid)]
    return [Act("signing_key.remove", {"key_id": key.kid}) for key in removed]
