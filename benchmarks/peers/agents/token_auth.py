"""For servers that leave authentication to their users: as little as checks the same JWT."""

import os
from typing import Any

import jwt
from langgraph_sdk import Auth

auth = Auth()
SECRET = os.environ["JWT_SECRET_KEY"]


@auth.authenticate
async def authenticate(headers: dict[Any, Any]) -> Auth.types.MinimalUserDict:
    found = headers.get("authorization") or headers.get(b"authorization") or ""  # Aegra's, theirs
    token = found.decode() if isinstance(found, bytes) else found
    try:
        claims = jwt.decode(
            token.removeprefix("Bearer "),
            SECRET,
            algorithms=["HS256"],
            options={"require": ["exp"]},
        )
    except jwt.InvalidTokenError:
        raise Auth.exceptions.HTTPException(status_code=401, detail="no valid token") from None
    return {"identity": claims["user_id"]}
