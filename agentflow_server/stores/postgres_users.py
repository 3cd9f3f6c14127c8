"""Local users: PostgreSQL's side of it."""

from collections.abc import Sequence

from agentflow_server.models import Page, User, UserChange, UserSecrets
from agentflow_server.stores import users as sql
from agentflow_server.stores.postgres_connections import Connection
from agentflow_server.stores.users import to_postgres

_ADD = to_postgres(sql.ADD)
FIND_BY_NAME = to_postgres(sql.FIND_BY_NAME)
GET = to_postgres(sql.GET)
PAGE = to_postgres(sql.PAGE)
_REPLACE_HASH = to_postgres(sql.REPLACE_HASH)
_ACCEPT_STEP = to_postgres(sql.ACCEPT_STEP)
_REMOVE = to_postgres(sql.REMOVE)


async def add_users(connection: Connection, users: Sequence[tuple[User, UserSecrets]]) -> None:
    rows = [sql.make_row(*one) for one in users]
    async with connection.transaction(), connection.cursor() as cursor:
        await cursor.executemany(_ADD, rows)
        if rows and cursor.rowcount != len(rows):
            raise sql.taken()


async def find_user_by_name(
    connection: Connection, username: str
) -> tuple[User, UserSecrets] | None:
    name = sql.find_stored_name(username)
    found = await connection.execute(FIND_BY_NAME, (name,))
    return sql.read_found(await found.fetchone())


async def get_user(connection: Connection, user_id: str) -> User:
    found = await connection.execute(GET, (_escape(user_id),))
    return sql.read_one(await found.fetchone())


async def list_users(
    connection: Connection, *, limit: int, cursor: str | None = None
) -> Page[User]:
    found = await connection.execute(PAGE, (sql.find_place(cursor), limit + 1))
    return sql.read_page(await found.fetchall(), limit)


async def update_user(connection: Connection, user_id: str, change: UserChange) -> User:
    statement, values = sql.describe_change(_escape(user_id), change)
    found = await connection.execute(to_postgres(statement), values)
    return sql.read_one(await found.fetchone())


async def replace_hash(connection: Connection, user_id: str, old: str, new: str) -> None:
    await connection.execute(_REPLACE_HASH, (new, user_id, old))


async def accept_totp_step(connection: Connection, user_id: str, step: int) -> bool:
    accepted = await connection.execute(_ACCEPT_STEP, (step, _escape(user_id), step))
    return accepted.rowcount > 0


async def remove_user(connection: Connection, user_id: str) -> bool:
    return (await connection.execute(_REMOVE, (_escape(user_id),))).rowcount > 0


def _escape(user_id: str) -> str:
    """PostgreSQL refuses to look for NUL, which no id has: then it looks for nothing's id."""
    return "" if "\0" in user_id else user_id
