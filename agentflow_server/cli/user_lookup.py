"""What the commands about users have in common."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from agentflow_server.cli.acts import Act
from agentflow_server.cli.failures import fail
from agentflow_server.cli.operating import change_database, load_for_operator
from agentflow_server.databases import Database
from agentflow_server.errors import NotFound
from agentflow_server.models import User, is_user_id

IMPOSSIBLE = 1

T = TypeVar("T")


async def find_user(database: Database, name: str) -> User:
    """By his name or his id. Raises NotFound."""
    if is_user_id(name):
        return await database.users.get_user(name)
    found = await database.users.find_user_by_name(name)
    if found is None:
        raise NotFound("There is no such user")
    return found[0]


def change_user(
    config: Path | None,
    database: str | None,
    name: str,
    change: Callable[[Database, User], Awaitable[tuple[T, Sequence[Act]]]],
    *,
    show: Callable[[T], None],
) -> None:
    """`change_database` for one user; one who is not there ends the process with IMPOSSIBLE."""

    async def find_and_change(opened: Database) -> tuple[T, Sequence[Act]]:
        return await change(opened, await find_user(opened, name))

    try:
        change_database(load_for_operator(config, database), find_and_change, show=show)
    except NotFound:
        fail_unknown()


def fail_unknown() -> NoReturn:
    fail('There is no such user; "agentflow users list" shows them.', code=IMPOSSIBLE)


def describe(user: User) -> Mapping[str, str]:
    """For the audit log."""
    return {"user_id": user.user_id, "username": user.username}
