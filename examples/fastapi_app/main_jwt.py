"""The same application with signed tokens that end, and passwords that nobody can read."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import jwt
from fastapi import Depends, FastAPI, HTTPException, status
from fastapi.security import OAuth2PasswordBearer, OAuth2PasswordRequestForm
from pwdlib import PasswordHash
from pydantic import BaseModel

from agentflow_server import include_agentflow

AGENTS = Path(__file__).parent / "agents" / "agentflow.json"
SECRET_KEY = os.environ["APP_SECRET_KEY"]
ALGORITHM = "HS256"
LIFETIME = timedelta(minutes=30)

app = FastAPI(title="An application with agents")
oauth2_scheme = OAuth2PasswordBearer(tokenUrl="token")
passwords = PasswordHash.recommended()


class User(BaseModel):
    username: str
    full_name: str
    disabled: bool = False
    hashed_password: str


# In an application this is a table, and nobody's password is in the source.
USERS = {
    "alice": User(username="alice", full_name="Alice", hashed_password=passwords.hash("secret")),
    "bob": User(username="bob", full_name="Bob", hashed_password=passwords.hash("secret2")),
}
NOBODY = passwords.hash("of nobody")


# Not `async`: hashing takes a while, and FastAPI calls this in a thread.
@app.post("/token")
def login(form: Annotated[OAuth2PasswordRequestForm, Depends()]) -> dict[str, str]:
    user = USERS.get(form.username)
    known = user.hashed_password if user else NOBODY  # or the time would tell who has an account
    if not passwords.verify(form.password, known) or user is None:
        raise HTTPException(
            status.HTTP_401_UNAUTHORIZED,
            "Incorrect username or password",
            headers={"WWW-Authenticate": "Bearer"},
        )
    claims = {"sub": user.username, "exp": datetime.now(UTC) + LIFETIME}
    return {
        "access_token": jwt.encode(claims, SECRET_KEY, algorithm=ALGORITHM),
        "token_type": "bearer",
    }


async def get_current_user(token: Annotated[str, Depends(oauth2_scheme)]) -> User:
    refused = HTTPException(
        status.HTTP_401_UNAUTHORIZED,
        "Could not validate credentials",
        headers={"WWW-Authenticate": "Bearer"},
    )
    try:
        claims = jwt.decode(
            token, SECRET_KEY, algorithms=[ALGORITHM], options={"require": ["sub", "exp"]}
        )
    except jwt.InvalidTokenError:
        raise refused from None
    user = USERS.get(claims["sub"])
    if user is None:
        raise refused
    return user


def get_user_claims(user: Annotated[User, Depends(get_current_user)]) -> dict[str, Any]:
    """What the agents get to know; `user_id` says whose everything is."""
    if user.disabled:
        raise HTTPException(status.HTTP_400_BAD_REQUEST, "Inactive user")
    return {"user_id": user.username, "full_name": user.full_name}


include_agentflow(app, AGENTS, prefix="/agent-api", principal=Depends(get_user_claims))


@app.get("/users/me")
def read_me(user: Annotated[User, Depends(get_current_user)]) -> dict[str, str]:
    return {"username": user.username, "full_name": user.full_name}
