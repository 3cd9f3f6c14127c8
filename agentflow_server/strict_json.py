"""JSON exactly as RFC 8259 has it, with limits: for request bodies and for token segments."""

import json
import math
from typing import Any

from pydantic_core import from_json

_CONTAINERS = frozenset({dict, list})


def parse(data: bytes, *, max_depth: int, max_digits: int = 20) -> Any:
    """The value of a JSON text in UTF-8.

    Raises ValueError, with a text that never repeats the input, for: anything RFC 8259 does not
    allow, a byte order mark, NaN and infinities (also 1e999), lone surrogates, NUL in a string,
    duplicate members, integers of more than `max_digits` digits, nesting deeper than `max_depth`.
    """
    try:
        value = from_json(data, allow_inf_nan=False)
    except ValueError:
        raise ValueError("not valid JSON") from None
    _refuse_depth(value, max_depth)
    # A second reading sees what the first one cannot: duplicate members and the digits of integers.
    json.loads(
        data,
        object_pairs_hook=_unique,
        parse_int=lambda digits: _short(digits, max_digits),
        parse_float=_finite,
    )
    if b"\\u0000" in data:
        _refuse_nul(value)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member occurs twice in one object")
    return members


def _short(digits: str, limit: int) -> int:
    if len(digits.lstrip("-")) > limit:
        raise ValueError(f"an integer has more than {limit} digits")
    return 0


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _refuse_nul(value: Any) -> None:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            if "\0" in item:
                raise ValueError("a string contains NUL")
        elif isinstance(item, dict):
            pending.extend(item.keys())
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)


def _refuse_depth(value: Any, limit: int) -> None:
    # One loop, no calls: a hostile text of 16 kB holds thousands of containers.
    level: list[Any] = [[value]]
    for _ in range(limit + 1):
        level = [
            child
            for item in level
            for child in (item.values() if type(item) is dict else item)
            if type(child) in _CONTAINERS
        ]
        if not level:
            return
    raise ValueError(f"nested deeper than {limit} levels")
