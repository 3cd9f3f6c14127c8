"""Whether a username and a password belong together."""

from typing import TYPE_CHECKING

from agentflow_server.errors import TooManyRequests
from agentflow_server.interfaces import UserStore
from agentflow_server.models import User, UserSecrets

if TYPE_CHECKING:
    # It needs an extra, and this module must not.
    from agentflow_server.users.passwords import Passwords


async def find_verified_user(
    store: UserStore, passwords: "Passwords", username: str, password: str
) -> tuple[User, UserSecrets] | None:
    """None for an unknown user, a wrong password and a disabled user: they cost the same, and
    nobody learns which of them it was.

    A second factor, if he has one, is still to be asked for. A hash of older parameters is
    replaced. Raises TooManyRequests, StoreUnavailable.
    """
    found = await store.find_user_by_name(username)
    stored = found[1].password_hash if found else None
    verification = await passwords.verify(password, stored)
    if found is None or not verification.is_right or found[0].disabled_at is not None:
        return None
    user, secrets = found
    if verification.is_outdated and stored is not None:
        await _hash_anew(store, passwords, user.user_id, password, stored)
    return user, secrets


async def _hash_anew(
    store: UserStore, passwords: "Passwords", user_id: str, password: str, old: str
) -> None:
    try:
        new = await passwords.hash(password)
    except TooManyRequests:
        return  # at the next login, then
    await store.replace_hash(user_id, old, new)
