"""What all models are made of."""

from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

JsonObject = dict[str, Any]
"""A JSON object as the standard library reads it."""
T = TypeVar("T")


class Frozen(BaseModel):
    """Immutable data that crosses the edge of the process."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Page(Frozen, Generic[T]):
    """A part of a list; pass `next_cursor` as `cursor` to get the next one, null at the end."""

    data: list[T]
    next_cursor: str | None = None
