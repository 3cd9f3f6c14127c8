"""A JWT says who, the database says whether and what: pip install 'agentflow-server[database]'

agentflow.json, with any synchronous SQLAlchemy URL (`${AUTH_DATABASE_URL}` keeps it in .env):

    "auth": {"method": "custom", "path": "auth.database:DatabaseAuth",
             "options": {"database_url": "sqlite:///users.db", "create_tables": true}}

.env: JWT_SECRET_KEY (at least 32 bytes; `agentflow secret` makes one); JWT_ISSUER and JWT_AUDIENCE
if your tokens have them. Tokens are HS256 and need the claims `user_id` and `exp`.

`python -m auth.database sqlite:///users.db alice alice@example.com` adds a user. A user who is
set inactive, or deleted, is refused from the next request on.
"""

import os
import sys
from pathlib import Path
from typing import Any

import jwt
from fastapi import HTTPException, Response
from fastapi.security import HTTPAuthorizationCredentials
from sqlalchemy import (
    JSON,
    Column,
    Engine,
    ForeignKey,
    String,
    Table,
    create_engine,
    inspect,
    make_url,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from agentflow_server import BaseAuth

PROJECT = Path(__file__).resolve().parent.parent
"""The folder above `auth/`."""


class Model(DeclarativeBase):
    """The tables: change them to the ones you have."""


user_roles = Table(
    "user_roles",
    Model.metadata,
    Column("user_id", ForeignKey("users.id"), primary_key=True),
    Column("role_id", ForeignKey("roles.id"), primary_key=True),
)


class Role(Model):
    __tablename__ = "roles"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    permissions: Mapped[list[str]] = mapped_column(JSON, default=list)


class User(Model):
    __tablename__ = "users"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    username: Mapped[str] = mapped_column(String(64), unique=True)
    email: Mapped[str] = mapped_column(String(254))
    is_active: Mapped[bool] = mapped_column(default=True)
    roles: Mapped[list[Role]] = relationship(secondary=user_roles, lazy="selectin")

    def get_permissions(self) -> list[str]:
        return sorted({name for role in self.roles for name in role.permissions})


class DatabaseAuth(BaseAuth):
    """Reads the user anew for each request: a change of roles counts at once."""

    def __init__(self, *, database_url: str, create_tables: bool = False) -> None:
        """Raises ValueError when the secret is weak or the database cannot be used."""
        self._secret = os.environ.get("JWT_SECRET_KEY", "")
        if len(self._secret.encode()) < 32 or len(set(self._secret)) < 8:
            raise ValueError("JWT_SECRET_KEY: 32 random bytes are needed; try `agentflow secret`")
        try:
            self._engine = open_engine(database_url)
            if create_tables:
                Model.metadata.create_all(self._engine)
            missing = Model.metadata.tables.keys() - set(inspect(self._engine).get_table_names())
        except (SQLAlchemyError, ImportError) as exc:
            raise ValueError(f"database_url: {type(exc).__name__}, cannot be used") from exc
        if missing:
            raise ValueError(f"the database has no table {min(missing)!r} (see create_tables)")

    def authenticate(
        self, res: Response, credential: HTTPAuthorizationCredentials
    ) -> dict[str, Any] | None:
        user_id = self.verify_jwt(credential.credentials)["user_id"]
        with Session(self._engine) as session:
            user = session.get(User, user_id)
            if user is None or not user.is_active:
                raise HTTPException(401, "User not found or inactive")
            return {
                "user_id": user.id,
                "username": user.username,
                "email": user.email,
                "roles": [role.name for role in user.roles],
                "permissions": user.get_permissions(),
            }

    def verify_jwt(self, token: str) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._secret,
                algorithms=["HS256"],
                issuer=os.environ.get("JWT_ISSUER") or None,
                audience=os.environ.get("JWT_AUDIENCE") or None,
                options={"require": ["exp", "user_id"]},
            )
        except jwt.ExpiredSignatureError as exc:
            raise HTTPException(401, "Token has expired") from exc
        except Exception as exc:  # hostile tokens make PyJWT raise more than its own errors
            raise HTTPException(401, "Invalid token") from exc
        if not isinstance(claims["user_id"], str):
            raise HTTPException(401, "Invalid token")
        return claims


def open_engine(database_url: str) -> Engine:
    """A relative path of SQLite starts at the project's folder, wherever the server is started."""
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite" and url.database not in {None, "", ":memory:"}:
        url = url.set(database=str(PROJECT / str(url.database)))
    # A parameter is a user id: it stays out of error texts.
    return create_engine(url, pool_pre_ping=True, hide_parameters=True)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python -m auth.database DATABASE_URL USERNAME EMAIL")
    engine = open_engine(sys.argv[1])
    Model.metadata.create_all(engine)
    with Session(engine) as new, new.begin():
        new.add(User(id=sys.argv[2], username=sys.argv[2], email=sys.argv[3]))
