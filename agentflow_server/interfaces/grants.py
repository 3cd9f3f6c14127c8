"""Where the token server keeps its keys and what it has granted."""

from abc import ABC, abstractmethod
from datetime import datetime

from agentflow_server.models import AuthorizationCode, RefreshToken, SigningKey


class GrantStore(ABC):
    """For the token server and operators, so without an owner. Any method raises
    StoreUnavailable. Secrets come as hashes only; private keys as PEM.
    """

    @abstractmethod
    async def ensure_signing_key(self, key: SigningKey) -> bool:
        """Add it if there is none at all: of many replicas that start, one key is added."""

    @abstractmethod
    async def add_signing_key(self, key: SigningKey, *, others_retire_at: datetime) -> None:
        """In one step with the end of all others; one that retires already keeps its time.

        Raises IdTaken.
        """

    @abstractmethod
    async def list_signing_keys(self) -> list[SigningKey]:
        """Oldest first, by `signs_from`; those that have retired too, until they are pruned."""

    @abstractmethod
    async def remove_signing_key(self, kid: str) -> bool:
        """At once: what it has signed is refused from now on. Whether there was one."""

    @abstractmethod
    async def add_code(self, code: AuthorizationCode) -> None: ...

    @abstractmethod
    async def take_code(self, code_hash: bytes) -> tuple[AuthorizationCode, bool] | None:
        """And whether this was the first time; None for an unknown one. Expired ones are returned
        too. Whoever takes one for the second time must revoke its family (RFC 6749 4.1.2).
        """

    @abstractmethod
    async def add_refresh_token(self, token: RefreshToken) -> bool:
        """The first of its family; False, and not added, when the family is revoked already."""

    @abstractmethod
    async def find_refresh_token(self, token_hash: bytes) -> RefreshToken | None:
        """None for an unknown one, and for every one of a family that is revoked."""

    @abstractmethod
    async def replace_refresh_token(self, token_hash: bytes, successor: RefreshToken) -> bool:
        """Of many who try at the same time, one succeeds; False also for a revoked family.

        It was replaced when its successor was issued, and is remembered until it expires.
        """

    @abstractmethod
    async def revoke_family(self, family_id: str) -> None:
        """For ever, also before its first refresh token is added. Twice is the same as once."""

    @abstractmethod
    async def revoke_user_grants(self, user_id: str) -> int:
        """All his families and unused codes; how many families were still good."""

    @abstractmethod
    async def prune_grants(self, now: datetime) -> int:
        """Forget expired codes and refresh tokens, and keys that have retired, some at a time.

        How many; 0 when nothing is left. Whether a family is revoked is known until it expires.
        """
