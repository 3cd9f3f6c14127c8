"""`agentflow auth init`: secrets, the key that signs, and a first user, where there is none."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import typer

from agentflow_server.cli.acts import Act
from agentflow_server.cli.failures import explained
from agentflow_server.cli.first_secrets import make_first_secrets
from agentflow_server.cli.new_passwords import make_password
from agentflow_server.cli.operating import change_database, load_for_operator, tell
from agentflow_server.cli.user_facts import build_user, tell_facts
from agentflow_server.cli.users import SHOWN_ONCE, make_add_act
from agentflow_server.config import Config
from agentflow_server.databases import Database
from agentflow_server.errors import IdTaken
from agentflow_server.models import SigningKey, User, UserSecrets
from agentflow_server.users import open_passwords


class _Added(NamedTuple):
    key: SigningKey | None
    user: User | None


def init_auth(
    config: Path | None,
    database: str | None,
    *,
    username: str,
    roles: Sequence[str],
    scopes: Sequence[str],
) -> None:
    """The password, and nothing else, goes to stdout. Twice is the same as once."""
    with explained():
        has_made_secrets = make_first_secrets(config)
    loaded = load_for_operator(config, database)
    with explained():
        user = build_user(loaded, username, roles=roles, scopes=scopes)
        passwords = open_passwords()
    password = make_password()

    async def add(opened: Database) -> tuple[_Added, Sequence[Act]]:
        key = await _ensure_key(opened, loaded)
        acts = [Act("signing_key.add", {"key_id": key.kid})] if key else []
        if (await opened.users.list_users(limit=1)).data:
            return _Added(key, None), acts
        secrets = UserSecrets(await passwords.hash(password))
        try:
            await opened.users.add_users([(user, secrets)])
        except IdTaken:  # by another process, just now
            return _Added(key, None), acts
        return _Added(key, user), [*acts, make_add_act(user)]

    def show(added: _Added) -> None:
        if added.key is not None:
            tell(f"The key that signs tokens was made: {added.key.kid}.")
        if added.user is not None:
            typer.echo(password)
            tell_facts(added.user, loaded)
            tell(SHOWN_ONCE)
        else:
            is_more = has_made_secrets or added.key is not None
            tell(
                f"There are users already: {'none was added' if is_more else 'nothing was changed'}."
            )
        tell('Next: "agentflow users list" shows them, "agentflow users add" adds another.')

    change_database(loaded, add, show=show)


async def _ensure_key(opened: Database, config: Config) -> SigningKey | None:
    """The one that was made; None where there is one already, or none is needed."""
    if config.token_server is None:
        return None
    # It brings the hashes of passwords, an extra, whose absence has been explained by now.
    from agentflow_server.token_server.keys import make_signing_key  # noqa: PLC0415

    key = make_signing_key(datetime.now(UTC))
    return key if await opened.grants.ensure_signing_key(key) else None
