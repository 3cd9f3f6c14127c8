"""What the token server has granted, in any store of ours: SQL, and what its rows mean.

The SQL is SQLite's; `to_postgres` says the same to the other.
"""

# ruff: noqa: S608 – SQL is put together from constants of ours only.

from collections.abc import Sequence
from datetime import datetime

from pydantic_core import from_json

from agentflow_server.errors import IdTaken
from agentflow_server.models import AuthorizationCode, RefreshToken, SigningKey
from agentflow_server.stores.rows import Row, now, to_datetime, to_microseconds, to_text

_DAY = 86_400 * 1_000_000
AT_ONCE = 500
"""Rows of a table that are deleted: so few that nobody who writes waits for it."""

_KEY_COLUMNS = "kid, algorithm, private_pem, created_at, signs_from, retires_at"
ADD_KEY = f"""
    INSERT INTO signing_keys ({_KEY_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (kid) DO NOTHING"""
ENSURE_KEY = f"""
    INSERT INTO signing_keys ({_KEY_COLUMNS}) SELECT ?, ?, ?, ?, ?, ?
    WHERE NOT EXISTS (SELECT 1 FROM signing_keys)"""
RETIRE_KEYS = "UPDATE signing_keys SET retires_at = ? WHERE retires_at IS NULL"
LIST_KEYS = f"SELECT {_KEY_COLUMNS} FROM signing_keys ORDER BY signs_from, created_at, kid"
REMOVE_KEY = "DELETE FROM signing_keys WHERE kid = ?"

JOIN_FAMILY = """
    INSERT INTO grant_families (family_id, user_id, expires_at, revoked) VALUES (?, ?, ?, false)
    ON CONFLICT (family_id) DO UPDATE SET
        user_id = excluded.user_id, expires_at = excluded.expires_at
    WHERE NOT grant_families.revoked"""
REVOKE_FAMILY = """
    INSERT INTO grant_families (family_id, expires_at, revoked) VALUES (?, ?, true)
    ON CONFLICT (family_id) DO UPDATE SET revoked = true"""
REVOKE_FAMILIES = """
    UPDATE grant_families SET revoked = true WHERE user_id = ? AND NOT revoked
    RETURNING expires_at"""

_CODE_COLUMNS = """
    code_hash, client_id, redirect_uri, code_challenge, user_id, scopes, authenticated_at,
    expires_at, family_id"""
ADD_CODE = f"""
    INSERT INTO authorization_codes ({_CODE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
TAKE_CODE = f"""
    UPDATE authorization_codes SET uses = uses + 1 WHERE code_hash = ?
    RETURNING {_CODE_COLUMNS}, uses"""
FORGET_CODES = "DELETE FROM authorization_codes WHERE user_id = ? AND uses = 0"

_REFRESH_COLUMNS = """
    token_hash, family_id, client_id, user_id, scopes, authenticated_at, issued_at, expires_at,
    replaced_at"""
ADD_TOKEN = f"INSERT INTO refresh_tokens ({_REFRESH_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
# One without a family is good for nothing, too.
_GOOD = """
    EXISTS (SELECT 1 FROM grant_families AS families
        WHERE families.family_id = refresh_tokens.family_id AND NOT families.revoked)"""
FIND_TOKEN = f"SELECT {_REFRESH_COLUMNS} FROM refresh_tokens WHERE token_hash = ? AND {_GOOD}"
REPLACE_TOKEN = f"""
    UPDATE refresh_tokens SET replaced_at = ?
    WHERE token_hash = ? AND replaced_at IS NULL AND {_GOOD}"""

_PRUNE = """
    DELETE FROM {table} WHERE {key} IN (
        SELECT {key} FROM {table} WHERE {until} <= ? LIMIT ?{{lock}})"""
PRUNE_KEYS = _PRUNE.format(table="signing_keys", key="kid", until="retires_at")
PRUNE_CODES = _PRUNE.format(table="authorization_codes", key="code_hash", until="expires_at")
PRUNE_TOKENS = _PRUNE.format(table="refresh_tokens", key="token_hash", until="expires_at")
PRUNE_FAMILIES = _PRUNE.format(table="grant_families", key="family_id", until="expires_at")


def describe_pruning(moment: datetime, *, lock: str = "") -> Sequence[tuple[str, Row]]:
    """Statements that delete, and their values. `lock` is said of the rows they look for."""
    until = to_microseconds(moment)
    # Whoever took a code in its last moment may not have added a token yet: whether its family
    # is revoked is known for longer.
    ends = {PRUNE_KEYS: until, PRUNE_CODES: until, PRUNE_TOKENS: until}
    ends[PRUNE_FAMILIES] = until - _DAY
    return [(sql.format(lock=lock), (end, AT_ONCE)) for sql, end in ends.items()]


def make_key_row(key: SigningKey) -> Row:
    times = (key.created_at, key.signs_from, key.retires_at)
    return key.kid, key.algorithm, key.private_pem, *map(_to_column, times)


def read_key(row: Row) -> SigningKey:
    kid, algorithm, private_pem, created_at, signs_from, retires_at = row
    return SigningKey(
        kid=kid,
        algorithm=algorithm,
        private_pem=private_pem,
        created_at=to_datetime(created_at),
        signs_from=to_datetime(signs_from),
        retires_at=_from_column(retires_at),
    )


def make_code_row(code: AuthorizationCode) -> Row:
    return (
        code.code_hash,
        code.client_id,
        code.redirect_uri,
        code.code_challenge,
        code.user_id,
        to_text(code.scopes),
        to_microseconds(code.authenticated_at),
        to_microseconds(code.expires_at),
        code.family_id,
    )


def read_taken(row: Row | None) -> tuple[AuthorizationCode, bool] | None:
    """And whether it was the first time."""
    if row is None:
        return None
    code_hash, client_id, redirect_uri, challenge, user_id, scopes, *times, family_id, uses = row
    authenticated_at, expires_at = map(to_datetime, times)
    code = AuthorizationCode(
        code_hash=code_hash,
        client_id=client_id,
        redirect_uri=redirect_uri,
        code_challenge=challenge,
        user_id=user_id,
        scopes=tuple(from_json(scopes)),
        authenticated_at=authenticated_at,
        expires_at=expires_at,
        family_id=family_id,
    )
    return code, uses == 1


def make_token_row(token: RefreshToken) -> Row:
    times = (token.authenticated_at, token.issued_at, token.expires_at, token.replaced_at)
    return (
        token.token_hash,
        token.family_id,
        token.client_id,
        token.user_id,
        to_text(token.scopes),
        *map(_to_column, times),
    )


def read_token(row: Row | None) -> RefreshToken | None:
    if row is None:
        return None
    token_hash, family_id, client_id, user_id, scopes, *times, replaced_at = row
    authenticated_at, issued_at, expires_at = map(to_datetime, times)
    return RefreshToken(
        token_hash=token_hash,
        family_id=family_id,
        client_id=client_id,
        user_id=user_id,
        scopes=tuple(from_json(scopes)),
        authenticated_at=authenticated_at,
        issued_at=issued_at,
        expires_at=expires_at,
        replaced_at=_from_column(replaced_at),
    )


def make_family_row(grant: AuthorizationCode | RefreshToken) -> Row:
    return grant.family_id, grant.user_id, to_microseconds(grant.expires_at)


def count_good(rows: Sequence[Row]) -> int:
    """Of families that were revoked: those that had not expired."""
    moment = now()
    return sum(expires_at > moment for (expires_at,) in rows)


def taken() -> IdTaken:
    return IdTaken("The kid is taken")


def _to_column(moment: datetime | None) -> int | None:
    return None if moment is None else to_microseconds(moment)


def _from_column(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else to_datetime(microseconds)
