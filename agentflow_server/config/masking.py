"""Values as they may be shown: what could be a secret is replaced."""

import re
from collections.abc import Collection
from typing import Any

MASK = "********"

_SECRET_NAME = re.compile(
    r"secret|passw|passphrase|token|credential|private|api[_-]?key|access[_-]?key|^keys?$|_key$|"
    r"dsn|pepper|salt",
    re.IGNORECASE,
)
_URL_PASSWORD = re.compile(r"(\w://[^\s:/@]*:)\S*(?=@)")
_URL_PARAMETER = re.compile(
    r"([?&;][\w-]*(?:secret|passw|token|key|signature)[\w-]*=)[^&;\s#]+", re.IGNORECASE
)


def looks_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def mask(
    value: Any,
    *,
    hidden: Collection[tuple[str | int, ...]] = (),
    place: tuple[str | int, ...] = (),
) -> Any:
    """A copy of JSON data without secrets: by the name of the key, by place, inside URLs."""
    if place in hidden:
        return MASK
    match value:
        case str():
            return _URL_PARAMETER.sub(rf"\1{MASK}", _URL_PASSWORD.sub(rf"\1{MASK}", value))
        case dict():
            return {
                key: MASK
                if item not in (None, "") and looks_secret(key)
                else mask(item, hidden=hidden, place=(*place, key))
                for key, item in value.items()
            }
        case list():
            return [mask(item, hidden=hidden, place=(*place, n)) for n, item in enumerate(value)]
    return value
