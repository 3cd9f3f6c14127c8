"""Opaque cursors: where a page ended, and of which list."""

import base64
import hashlib
from typing import Any

from pydantic_core import from_json, to_json

from agentflow_server.errors import InvalidRequest

_MAX_LENGTH = 2048
_MAX_INTEGER = 2**63 - 1


def encode_cursor(listing: str, *place: int | str) -> str:
    """A cursor that `decode_cursor` accepts for the same `listing` only."""
    return base64.urlsafe_b64encode(to_json([_tag(listing), *place])).rstrip(b"=").decode()


def decode_cursor(listing: str, cursor: str, *types: type[int] | type[str]) -> tuple[Any, ...]:
    """The place, one value of each of `types`.

    Raises InvalidRequest for anything that is not a cursor of this listing.
    """
    if len(cursor) > _MAX_LENGTH:
        raise _refusal()
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        tag, *place = from_json(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, TypeError):
        raise _refusal() from None
    if tag != _tag(listing) or [type(value) for value in place] != list(types):
        raise _refusal()
    if any(type(value) is int and not 0 <= value <= _MAX_INTEGER for value in place):
        raise _refusal()
    return tuple(place)


def _tag(listing: str) -> str:
    return hashlib.blake2s(listing.encode(), digest_size=6).hexdigest()


def _refusal() -> InvalidRequest:
    return InvalidRequest("The cursor is not one that this list has returned")
