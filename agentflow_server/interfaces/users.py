"""Where local users are kept."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from agentflow_server.models import Page, User, UserChange, UserSecrets


class UserStore(ABC):
    """Users and the hashes of their passwords: for the login and for operators, so without an
    owner. Usernames are found however they are written. Any method raises StoreUnavailable.
    """

    @abstractmethod
    async def add_users(self, users: Sequence[tuple[User, UserSecrets]]) -> None:
        """All of them or, when a username or an id is taken, none. Raises IdTaken.

        `has_totp` says what the secrets say.
        """

    @abstractmethod
    async def find_user_by_name(self, username: str) -> tuple[User, UserSecrets] | None:
        """Also when he is disabled; None for what cannot be a username, too."""

    @abstractmethod
    async def get_user(self, user_id: str) -> User:
        """Raises NotFound."""

    @abstractmethod
    async def list_users(self, *, limit: int, cursor: str | None = None) -> Page[User]:
        """In the order of their usernames. Raises InvalidRequest (cursor)."""

    @abstractmethod
    async def update_user(self, user_id: str, change: UserChange) -> User:
        """As he is now; one who is disabled already keeps his time. Raises NotFound."""

    @abstractmethod
    async def replace_hash(self, user_id: str, old: str, new: str) -> None:
        """Another hash of the same password, unless it is a different one by now."""

    @abstractmethod
    async def accept_totp_step(self, user_id: str, step: int) -> bool:
        """Whether no code of this 30 second step or a later one was accepted of him before.

        Of many who try at the same time, one succeeds (RFC 6238 5.2). False for an unknown user.
        """

    @abstractmethod
    async def remove_user(self, user_id: str) -> bool:
        """Whether there was such a user. His threads stay: they are no business of this store."""
