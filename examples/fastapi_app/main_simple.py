"""An application with a login of its own includes the agents: tokens that are no secret at all."""

from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, status
from fastapi.security import OAuth2PasswordBearer, OAuth2PasswordRequestForm
from pydantic import BaseModel

from agentflow_server import include_agentflow

AGENTS = Path(__file__).parent / "agents" / "agentflow.json"

app = FastAPI(title="An application with agents")
oauth2_scheme = OAuth2PasswordBearer(tokenUrl="token")


class User(BaseModel):
    user_id: str
    disabled: bool = False
    password: str


USERS = {
    "alice": User(user_id="alice", password="secret"),
    "bob": User(user_id="bob", password="secret2"),
}


@app.post("/token")
async def login(form: Annotated[OAuth2PasswordRequestForm, Depends()]) -> dict[str, str]:
    user = USERS.get(form.username)
    if user is None or user.password != form.password:
        raise HTTPException(status.HTTP_400_BAD_REQUEST, "Incorrect username or password")
    # Whoever knows a user's name could write this himself. main_jwt.py does better.
    return {"access_token": user.user_id, "token_type": "bearer"}


async def get_current_user(token: Annotated[str, Depends(oauth2_scheme)]) -> User:
    user = USERS.get(token)
    if user is None:
        raise HTTPException(
            status.HTTP_401_UNAUTHORIZED,
            "Invalid authentication credentials",
            headers={"WWW-Authenticate": "Bearer"},
        )
    return user


def get_user_id(user: Annotated[User, Depends(get_current_user)]) -> str:
    if user.disabled:
        raise HTTPException(status.HTTP_400_BAD_REQUEST, "Inactive user")
    return user.user_id


include_agentflow(app, AGENTS, prefix="/agent-api", principal=Depends(get_user_id))


@app.get("/")
def read_root(user_id: Annotated[str, Depends(get_user_id)]) -> dict[str, str]:
    return {"hello": user_id}
