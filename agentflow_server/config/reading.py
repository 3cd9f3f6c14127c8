"""The text of agentflow.json → plain values, with `${VAR}` replaced."""

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from agentflow_server.config.explain import Place, Problems, describe, name_place
from agentflow_server.errors import ConfigError

_VARIABLE = re.compile(
    r"\$(?P<escaped>\$\{)|\$\{(?P<name>[A-Za-z_]\w*)(?::-(?P<default>[^}]*))?\}|(?P<broken>\$\{)"
)


def find_config_file(path: Path | str | None) -> Path:
    return Path(path or os.environ.get("AGENTFLOW_CONFIG") or "agentflow.json").absolute()


def read_file(path: Path, *, hint: str = "") -> str:
    """Raises ConfigError; `hint` says what to do when the file is missing."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file{hint}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: expected a file, found a folder") from None
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path}: is not UTF-8 (byte {exc.start + 1})") from None
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not a file name"
        raise ConfigError(f"{path}: cannot be read: {reason}") from None


def parse_object(text: str, *, source: str) -> dict[str, Any]:
    """Raises ConfigError."""
    twice: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                twice.append(key)
            seen.add(key)
        return dict(pairs)

    try:
        value = json.loads(text, object_pairs_hook=unique, parse_float=_finite)
        # What the standard library lets pass: NaN, half surrogate pairs, hundreds of levels.
        from_json(text, allow_inf_nan=False)
    except json.JSONDecodeError as exc:
        raise ConfigError(
            f"{source}: line {exc.lineno}, column {exc.colno}: "
            f"{_syntax(text, exc.pos) or exc.msg[:1].lower() + exc.msg[1:]}"
        ) from None
    except (RecursionError, ValueError) as exc:
        raise ConfigError(f"{source}: not valid JSON: {exc}") from None
    if twice:
        raise ConfigError(
            *(f"{source}: {name_place((key,))}: written twice in one object" for key in twice)
        )
    if not isinstance(value, dict):
        raise ConfigError(f"{source}: expected an object, found {describe(value)}")
    return value


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _syntax(text: str, position: int) -> str:
    rest = text[position:]
    if not text.strip():
        return "the file is empty"
    if rest.startswith(("//", "/*", "#")):
        return "JSON has no comments"
    if rest.startswith("'"):
        return "JSON wants double quotes"
    if rest.startswith(("}", "]")) and text[:position].rstrip().endswith(","):
        return "a comma before the end"
    return ""


def find_variable(written: Any) -> str | None:
    """The name in `"${NAME}"`, if there is nothing else, and no default either."""
    match = _VARIABLE.fullmatch(written) if isinstance(written, str) else None
    return match["name"] if match and match["default"] is None else None


class Expansion:
    """Replaces `${VAR}` and `${VAR:-default}` in every string; `$${` is a literal `${`.

    Values are not expanded again. `places` is where something was replaced, `unset` where a
    variable was missing; each of those is a problem.
    """

    def __init__(self, environment: Mapping[str, str], problems: Problems) -> None:
        self._environment = environment
        self._problems = problems
        self.places: set[Place] = set()
        self.unset: set[Place] = set()

    def expand(self, value: Any, place: Place = ()) -> Any:
        match value:
            case str():
                return _VARIABLE.sub(lambda match: self._replace(match, place), value)
            case dict():
                return {key: self.expand(item, (*place, key)) for key, item in value.items()}
            case list():
                return [self.expand(item, (*place, n)) for n, item in enumerate(value)]
        return value

    def _replace(self, match: re.Match[str], place: Place) -> str:
        if match["escaped"]:
            return "${"
        if match["broken"]:
            return self._fail(
                place, "expected ${NAME} or ${NAME:-default}; write $${ for a plain ${"
            )
        self.places.add(place)
        found = self._environment.get(match["name"])
        if match["default"] is not None:
            return found or match["default"]
        if found is None:
            return self._fail(place, f"the environment variable {match['name']} is not set")
        return found

    def _fail(self, place: Place, text: str) -> str:
        self.unset.add(place)
        self._problems.add(name_place(place), text)
        return ""
