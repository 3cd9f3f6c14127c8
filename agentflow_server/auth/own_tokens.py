"""Tokens of this server's own token server (RFC 9068), verified like any other issuer's."""

from agentflow_server.auth.claim_rules import ClaimRules
from agentflow_server.auth.jwt import JwtAuth
from agentflow_server.auth.stored_keys import StoredKeys

TOKEN_TYPE = "at+jwt"  # noqa: S105 – a media type

CLIENT_PREFIX = "client:"
"""What the ids begin with of clients that act for themselves: no user's does."""


class OwnTokenAuth(JwtAuth):
    name = "token_server"

    def __init__(self, source: StoredKeys, rules: ClaimRules) -> None:
        super().__init__(source, rules, token_type=TOKEN_TYPE)
