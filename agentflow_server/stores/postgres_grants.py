"""What the token server has granted: PostgreSQL's side of it."""

from datetime import datetime

from agentflow_server.models import AuthorizationCode, RefreshToken, SigningKey
from agentflow_server.stores import grants as sql
from agentflow_server.stores.postgres_connections import Connection
from agentflow_server.stores.rows import now, to_microseconds
from agentflow_server.stores.users import to_postgres

# Nobody else adds a key meanwhile; everybody reads them.
_ALONE = "LOCK TABLE signing_keys IN SHARE ROW EXCLUSIVE MODE"
_ENSURE_KEY = to_postgres(sql.ENSURE_KEY)
_ADD_KEY = to_postgres(sql.ADD_KEY)
_RETIRE_KEYS = to_postgres(sql.RETIRE_KEYS)
_REMOVE_KEY = to_postgres(sql.REMOVE_KEY)
_JOIN_FAMILY = to_postgres(sql.JOIN_FAMILY)
REVOKE_FAMILY = to_postgres(sql.REVOKE_FAMILY)
REVOKE_FAMILIES = to_postgres(sql.REVOKE_FAMILIES)
_ADD_CODE = to_postgres(sql.ADD_CODE)
TAKE_CODE = to_postgres(sql.TAKE_CODE)
FORGET_CODES = to_postgres(sql.FORGET_CODES)
_ADD_TOKEN = to_postgres(sql.ADD_TOKEN)
FIND_TOKEN = to_postgres(sql.FIND_TOKEN)
REPLACE_TOKEN = to_postgres(sql.REPLACE_TOKEN)
# What another server is deleting at the moment need not be deleted twice.
LOCK = " FOR UPDATE SKIP LOCKED"


async def ensure_signing_key(connection: Connection, key: SigningKey) -> bool:
    async with connection.transaction():
        await connection.execute(_ALONE)
        return (await connection.execute(_ENSURE_KEY, sql.make_key_row(key))).rowcount > 0


async def add_signing_key(
    connection: Connection, key: SigningKey, *, others_retire_at: datetime
) -> None:
    async with connection.transaction():
        await connection.execute(_ALONE)
        await connection.execute(_RETIRE_KEYS, (to_microseconds(others_retire_at),))
        if not (await connection.execute(_ADD_KEY, sql.make_key_row(key))).rowcount:
            raise sql.taken()


async def list_signing_keys(connection: Connection) -> list[SigningKey]:
    found = await connection.execute(sql.LIST_KEYS)
    return [sql.read_key(row) for row in await found.fetchall()]


async def remove_signing_key(connection: Connection, kid: str) -> bool:
    if "\0" in kid:  # which PostgreSQL refuses to look for
        return False
    return (await connection.execute(_REMOVE_KEY, (kid,))).rowcount > 0


async def add_code(connection: Connection, code: AuthorizationCode) -> None:
    async with connection.transaction():
        await connection.execute(_JOIN_FAMILY, sql.make_family_row(code))
        await connection.execute(_ADD_CODE, sql.make_code_row(code))


async def take_code(
    connection: Connection, code_hash: bytes
) -> tuple[AuthorizationCode, bool] | None:
    found = await connection.execute(TAKE_CODE, (code_hash,))
    return sql.read_taken(await found.fetchone())


async def add_refresh_token(connection: Connection, token: RefreshToken) -> bool:
    async with connection.transaction():
        joined = await connection.execute(_JOIN_FAMILY, sql.make_family_row(token))
        if joined.rowcount:
            await connection.execute(_ADD_TOKEN, sql.make_token_row(token))
    return joined.rowcount > 0


async def find_refresh_token(connection: Connection, token_hash: bytes) -> RefreshToken | None:
    found = await connection.execute(FIND_TOKEN, (token_hash,))
    return sql.read_token(await found.fetchone())


async def replace_refresh_token(
    connection: Connection, token_hash: bytes, successor: RefreshToken
) -> bool:
    moment = to_microseconds(successor.issued_at)
    async with connection.transaction():
        replaced = await connection.execute(REPLACE_TOKEN, (moment, token_hash))
        if replaced.rowcount:
            await connection.execute(_ADD_TOKEN, sql.make_token_row(successor))
    return replaced.rowcount > 0


async def revoke_family(connection: Connection, family_id: str) -> None:
    await connection.execute(REVOKE_FAMILY, (family_id, now()))


async def revoke_user_grants(connection: Connection, user_id: str) -> int:
    if "\0" in user_id:
        return 0
    async with connection.transaction():
        await connection.execute(FORGET_CODES, (user_id,))
        revoked = await connection.execute(REVOKE_FAMILIES, (user_id,))
        return sql.count_good(await revoked.fetchall())


async def prune_grants(connection: Connection, now: datetime) -> int:
    pruned = 0
    for statement, values in sql.describe_pruning(now, lock=LOCK):
        pruned += (await connection.execute(to_postgres(statement), values)).rowcount
    return pruned
