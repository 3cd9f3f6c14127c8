"""Local users: SQLite's side of it. Every function runs inside a caller's transaction."""

import sqlite3
from collections.abc import Sequence

from agentflow_server.models import Page, User, UserChange, UserSecrets
from agentflow_server.stores import users as sql


def add_users(connection: sqlite3.Connection, users: Sequence[tuple[User, UserSecrets]]) -> None:
    rows = [sql.make_row(*one) for one in users]
    if rows and connection.executemany(sql.ADD, rows).rowcount != len(rows):
        raise sql.taken()


def find_user_by_name(
    connection: sqlite3.Connection, username: str
) -> tuple[User, UserSecrets] | None:
    name = sql.find_stored_name(username)
    return sql.read_found(connection.execute(sql.FIND_BY_NAME, (name,)).fetchone())


def get_user(connection: sqlite3.Connection, user_id: str) -> User:
    return sql.read_one(connection.execute(sql.GET, (user_id,)).fetchone())


def list_users(
    connection: sqlite3.Connection, *, limit: int, cursor: str | None = None
) -> Page[User]:
    values = (sql.find_place(cursor), limit + 1)
    return sql.read_page(connection.execute(sql.PAGE, values).fetchall(), limit)


def update_user(connection: sqlite3.Connection, user_id: str, change: UserChange) -> User:
    # All rows are fetched: SQLite leaves a statement open that returns more.
    rows = connection.execute(*sql.describe_change(user_id, change)).fetchall()
    return sql.read_one(rows[0] if rows else None)


def replace_hash(connection: sqlite3.Connection, user_id: str, old: str, new: str) -> None:
    connection.execute(sql.REPLACE_HASH, (new, user_id, old))


def accept_totp_step(connection: sqlite3.Connection, user_id: str, step: int) -> bool:
    return connection.execute(sql.ACCEPT_STEP, (step, user_id, step)).rowcount > 0


def remove_user(connection: sqlite3.Connection, user_id: str) -> bool:
    return connection.execute(sql.REMOVE, (user_id,)).rowcount > 0
