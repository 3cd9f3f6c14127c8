"""Which client is asking, and whether it is that (RFC 6749 section 2.3)."""

import hashlib
import hmac
import secrets
from collections.abc import Mapping

from agentflow_server.config import OWN_CLIENT, ClientConfig, GrantType
from agentflow_server.token_server.errors import OAuthError
from agentflow_server.token_server.forms import ClientLogin


class Clients:
    """Their secrets are compared as hashes: the time says nothing of length or content."""

    def __init__(self, clients: Mapping[str, ClientConfig]) -> None:
        self._clients = clients
        self._hashes = {
            name: _hash(client.secret.get_secret_value())
            for name, client in clients.items()
            if client.secret is not None
        }
        self._nobody = secrets.token_bytes(32)

    def find(self, client_id: str) -> ClientConfig | None:
        return self._clients.get(client_id)

    def authenticate(self, login: ClientLogin | None) -> ClientConfig:
        """Raises OAuthError: an unknown client and a wrong secret look alike."""
        if login is None:
            login = ClientLogin(OWN_CLIENT)
        client = self._clients.get(login.client_id)
        wanted = self._hashes.get(login.client_id)
        is_right = hmac.compare_digest(_hash(login.secret or ""), wanted or self._nobody)
        # A public client has no secret; an empty one is what Basic sends for none.
        is_public = client is not None and wanted is None and not login.secret
        if client is None or not (is_public or is_right):
            raise OAuthError(
                "invalid_client", "The client is not known, or its secret is wrong", status=401
            )
        return client


def require_grant(client: ClientConfig, grant: GrantType) -> None:
    """Raises OAuthError."""
    if grant not in client.grants:
        raise OAuthError("unauthorized_client", "The client may not use this grant")


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode(errors="replace")).digest()
