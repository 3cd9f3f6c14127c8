"""What the token server has granted: SQLite's side of it.

Every function runs inside a caller's transaction.
"""

import sqlite3
from datetime import datetime

from agentflow_server.models import AuthorizationCode, RefreshToken, SigningKey
from agentflow_server.stores import grants as sql
from agentflow_server.stores.rows import now, to_microseconds


def ensure_signing_key(connection: sqlite3.Connection, key: SigningKey) -> bool:
    return connection.execute(sql.ENSURE_KEY, sql.make_key_row(key)).rowcount > 0


def add_signing_key(
    connection: sqlite3.Connection, key: SigningKey, *, others_retire_at: datetime
) -> None:
    connection.execute(sql.RETIRE_KEYS, (to_microseconds(others_retire_at),))
    if not connection.execute(sql.ADD_KEY, sql.make_key_row(key)).rowcount:
        raise sql.taken()


def list_signing_keys(connection: sqlite3.Connection) -> list[SigningKey]:
    return [sql.read_key(row) for row in connection.execute(sql.LIST_KEYS)]


def remove_signing_key(connection: sqlite3.Connection, kid: str) -> bool:
    return connection.execute(sql.REMOVE_KEY, (kid,)).rowcount > 0


def add_code(connection: sqlite3.Connection, code: AuthorizationCode) -> None:
    connection.execute(sql.JOIN_FAMILY, sql.make_family_row(code))
    connection.execute(sql.ADD_CODE, sql.make_code_row(code))


def take_code(
    connection: sqlite3.Connection, code_hash: bytes
) -> tuple[AuthorizationCode, bool] | None:
    # All rows are fetched: SQLite leaves a statement open that returns more.
    rows = connection.execute(sql.TAKE_CODE, (code_hash,)).fetchall()
    return sql.read_taken(rows[0] if rows else None)


def add_refresh_token(connection: sqlite3.Connection, token: RefreshToken) -> bool:
    if not connection.execute(sql.JOIN_FAMILY, sql.make_family_row(token)).rowcount:
        return False
    connection.execute(sql.ADD_TOKEN, sql.make_token_row(token))
    return True


def find_refresh_token(connection: sqlite3.Connection, token_hash: bytes) -> RefreshToken | None:
    return sql.read_token(connection.execute(sql.FIND_TOKEN, (token_hash,)).fetchone())


def replace_refresh_token(
    connection: sqlite3.Connection, token_hash: bytes, successor: RefreshToken
) -> bool:
    moment = to_microseconds(successor.issued_at)
    if not connection.execute(sql.REPLACE_TOKEN, (moment, token_hash)).rowcount:
        return False
    connection.execute(sql.ADD_TOKEN, sql.make_token_row(successor))
    return True


def revoke_family(connection: sqlite3.Connection, family_id: str) -> None:
    connection.execute(sql.REVOKE_FAMILY, (family_id, now()))


def revoke_user_grants(connection: sqlite3.Connection, user_id: str) -> int:
    connection.execute(sql.FORGET_CODES, (user_id,))
    return sql.count_good(connection.execute(sql.REVOKE_FAMILIES, (user_id,)).fetchall())


def prune_grants(connection: sqlite3.Connection, now: datetime) -> int:
    return sum(connection.execute(*one).rowcount for one in sql.describe_pruning(now))
