"""What a token or a backend says about the caller → a Principal that nobody can change later."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from pydantic_core import to_json

from agentflow_server import strict_json
from agentflow_server.models import Principal

MAX_USER_ID = 256
MAX_DEPTH = 20
SCOPE_CLAIMS = ("scope", "scp", "scopes", "permissions")
ROLE_CLAIMS = ("roles",)


def read_user_id(value: object) -> str:
    """The id as a string. Raises ValueError, with a text that never repeats the value.

    Anonymous callers are owned by the blank id, so refusing blank ones keeps that id reserved.
    """
    match value:
        # A bool is an int, and "True" would be one account for everybody.
        case bool():
            raise ValueError("the user id is a boolean")
        case str():
            user_id = str.__str__(value)
        case int():
            user_id = int.__repr__(value)
        case UUID():
            user_id = str(value)
        case _:
            raise ValueError("the user id is neither a string nor an integer nor a UUID")
    if not user_id.strip():
        raise ValueError("the user id is blank")
    if len(user_id) > MAX_USER_ID:
        raise ValueError(f"the user id has more than {MAX_USER_ID} characters")
    if not user_id.isprintable():
        raise ValueError("the user id contains unprintable characters")
    if user_id != user_id.strip():
        raise ValueError("the user id begins or ends with white space")
    return user_id


def read_principal(claims: Mapping[Any, Any]) -> Principal:
    """The principal that `claims["user_id"]` names, with a private JSON copy of all claims.

    Raises ValueError when the id is unusable, or when the claims are not JSON as `strict_json`
    reads it: then they could not be stored with the run either.
    """
    user_id = read_user_id(claims.get("user_id"))
    copy = strict_json.parse(to_json(claims), max_depth=MAX_DEPTH)
    return Principal(
        user_id,
        {**copy, "user_id": user_id},
        scopes=find_words(copy, SCOPE_CLAIMS, split=True),
        roles=find_words(copy, ROLE_CLAIMS),
        method="custom",
    )


def find_claim(claims: Mapping[str, Any], name: str) -> Any:
    """The claim of that name, else the one at the end of that path; None if there is neither."""
    if name in claims or "." not in name:
        return claims.get(name)
    found: Any = claims
    for step in name.split("."):
        if not isinstance(found, dict):
            return None
        found = found.get(step)
    return found


def find_words(
    claims: Mapping[str, Any], names: tuple[str, ...], *, split: bool = False
) -> frozenset[str]:
    """All strings under these claims; what is neither a string nor a list of them grants nothing."""
    words: list[str] = []
    for name in names:
        found = find_claim(claims, name)
        if isinstance(found, str):
            words.extend(found.split(" ") if split else (found,))
        elif isinstance(found, list):
            words.extend([member for member in found if isinstance(member, str)])
    return frozenset(filter(None, words))
