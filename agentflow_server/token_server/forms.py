"""What comes to the token server and goes out of it, checked and typed."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ClientLogin:
    """How a client says who it is: by HTTP Basic or in the form, never both."""

    client_id: str
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """A request that may be answered at its `redirect_uri`, once somebody has logged in.

    `scopes` are those asked for; empty: whatever the user may do.
    """

    client_id: str
    client_name: str
    redirect_uri: str
    scopes: tuple[str, ...]
    state: str | None
    code_challenge: str


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """`redirect_url` takes the code to the client: it is as secret as that."""

    redirect_url: str = field(repr=False)
    user_id: str


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """What was granted (RFC 6749 section 5.1). Who got it, and the token's id, are for the audit."""

    access_token: str = field(repr=False)
    expires_in: int
    scope: str
    refresh_token: str | None = field(repr=False)
    user_id: str
    client_id: str
    token_id: str

    @property
    def body(self) -> dict[str, Any]:
        """As it is sent; a token without scopes has an empty `scope`."""
        answer: dict[str, Any] = {
            "access_token": self.access_token,
            "token_type": "Bearer",
            "expires_in": self.expires_in,
            "scope": self.scope,
        }
        if self.refresh_token is not None:
            answer["refresh_token"] = self.refresh_token
        return answer
