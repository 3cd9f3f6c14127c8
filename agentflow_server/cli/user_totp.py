"""`agentflow users totp`: the second factor of a login."""

from collections.abc import Sequence
from pathlib import Path

import typer

from agentflow_server.cli.acts import Act
from agentflow_server.cli.operating import tell
from agentflow_server.cli.user_lookup import change_user, describe
from agentflow_server.databases import Database
from agentflow_server.models import User, UserChange
from agentflow_server.users.totp import make_totp_secret, totp_uri

_NAME = "agentflow"
_NOTHING = b""
"""What is stored of a user who has none."""


def set_totp(config: Path | None, database: str | None, name: str) -> None:
    """The address for the authenticator app, and nothing else, goes to stdout."""
    secret = make_totp_secret()

    async def enrol(opened: Database, user: User) -> tuple[User, Sequence[Act]]:
        enrolled = await opened.users.update_user(user.user_id, UserChange(totp_secret=secret))
        return enrolled, [Act("user.set_totp", describe(user))]

    def show(user: User) -> None:
        typer.echo(totp_uri(secret, username=user.username, issuer=_NAME))
        tell(
            f"From now on {user.username} needs a code to log in.",
            "This address holds the secret and is shown only now: add it to an authenticator app, "
            "by hand or as a QR code.",
        )

    change_user(config, database, name, enrol, show=show)


def remove_totp(config: Path | None, database: str | None, name: str) -> None:
    async def remove(opened: Database, user: User) -> tuple[User, Sequence[Act]]:
        changed = await opened.users.update_user(user.user_id, UserChange(totp_secret=_NOTHING))
        return changed, [Act("user.remove_totp", describe(user))]

    def show(user: User) -> None:
        tell(f"{user.username} logs in with the password alone.")

    change_user(config, database, name, remove, show=show)
