"""A token of the token server's for one of its users, without his logging in."""

from collections.abc import Sequence
from datetime import UTC, datetime

from uuid_utils import uuid7

from agentflow_server.cli.acts import Act
from agentflow_server.config import TokenServerConfig
from agentflow_server.config.clients import OWN_CLIENT
from agentflow_server.databases import Database
from agentflow_server.errors import ConfigError
from agentflow_server.models import User
from agentflow_server.token_server.access_tokens import AccessTokens, Session
from agentflow_server.token_server.keys import Keys
from agentflow_server.token_server.permissions import Permissions


async def issue_token(
    opened: Database, server: TokenServerConfig, user: User
) -> tuple[str, Sequence[Act]]:
    """With all he may do, and no refresh token. Raises ConfigError."""
    if user.disabled_at is not None:
        raise ConfigError(f"--user: {user.username} is disabled")
    keys = Keys(opened.grants)
    await keys.open()
    try:
        session = Session(str(uuid7()), datetime.now(UTC))
        permissions = Permissions(tuple(user.scopes), tuple(user.roles))
        issued = await AccessTokens(server, keys).issue(
            user, OWN_CLIENT, session, permissions, refresh_token=None
        )
    finally:
        await keys.close()
    details = {"user_id": user.user_id, "token_id": issued.token_id}
    return issued.access_token, [Act("token.issue", details)]
