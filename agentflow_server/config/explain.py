"""What is wrong with a setting, in one line: what was found, what was expected."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from agentflow_server.config.masking import looks_secret, mask

Place = tuple[str | int, ...]
"""Where a value is: `("cors", "allow_origins", 0)`."""

_WHAT = {
    "string_type": "a string",
    "string_unicode": "text in UTF-8",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "none_required": "null",
    "too_short": "at least one value",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
}
_OTHER_NAMES = {"authentication": "auth", "graph": "agent", "graphs": "agents"}
_ELSEWHERE = {
    "host": "set it with --host or AGENTFLOW_HOST",
    "port": "set it with --port or AGENTFLOW_PORT",
    "log_level": "set it with --log-level or AGENTFLOW_LOG_LEVEL",
}


@dataclass(frozen=True, slots=True)
class Sections:
    """Which keys an object may have: the model by the place of the object."""

    models: Mapping[Place, type[BaseModel]]

    def keys(self, place: Place) -> list[str]:
        model = self.models.get(_kind_of_place(place))
        fields = model.model_fields if model else {}
        return [info.alias or name for name, info in fields.items()]

    def siblings(self, place: Place) -> list[str]:
        """The other methods of authentication that have the key, for one in `auth`."""
        match _kind_of_place(place):
            case ("auth", str(mine), str(key)):
                methods = [model[1] for model in self.models if model[:-1] == ("auth",)]
                return [
                    str(name)
                    for name in methods
                    if name != mine and key in self.keys(("auth", name))
                ]
        return []


@dataclass(slots=True)
class Problems:
    """Collects lines for one ConfigError."""

    source: str
    lines: list[str] = field(default_factory=list)

    def add(self, where: str, text: str) -> None:
        self.lines.append(": ".join(part for part in (self.source, where, text) if part))

    def add_invalid(
        self,
        error: ValidationError,
        sections: Sections,
        *,
        secret: Collection[Place] = (),
        known: Collection[Place] = (),
    ) -> None:
        """One line for each error, but none for places that have one already (`known`).

        Values at the `secret` places are not shown.
        """
        for item in error.errors(include_url=False):
            place = _place_in_file(item["loc"])
            if place not in known:
                hidden = place in secret or _looks_secret(place)
                self.add(name_place(place), _sentence(item, sections, secret=hidden))


def name_place(place: Place) -> str:
    """`cors.allow_origins[0]`."""
    parts = (f"[{step}]" if isinstance(step, int) else f".{_printable(step)}" for step in place)
    return "".join(parts).removeprefix(".")


def suggest(word: str, known: Sequence[str], prefix: str = "") -> str:
    """` – did you mean "auth"?`, or nothing. `prefix` is what all of them begin with."""
    plain = {_plain(name): name for name in known}
    close = get_close_matches(_plain(word), plain, n=1, cutoff=0.6)
    other = _OTHER_NAMES.get(_plain(word))
    found = other if other in known else plain[close[0]] if close else None
    return f' – did you mean "{prefix}{found}"?' if found else ""


def describe(value: Any, *, secret: bool = False) -> str:
    """What was found, without giving away what could be a secret."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float():
            return "a number" if secret else _short(repr(value))
        case _ if not value:
            return f"an empty {_kind(value)}"
        case str() if not secret and len(value) <= 60 and value.isprintable():
            return json.dumps(mask(value), ensure_ascii=False)
    return f"{'an' if isinstance(value, dict) else 'a'} {_kind(value)}"


def _place_in_file(location: Place) -> Place:
    """Without what pydantic adds: the tags of unions, the mark of a key."""
    match location:
        case ("auth", "list", int(n), _, *rest):
            location = ("auth", n, *rest)
        case ("auth", "list", *rest) | ("auth", "one", _, *rest):
            location = ("auth", *rest)
        case ("authorization", _, *rest):
            location = ("authorization", *rest)
        case ("connections", name, _, *rest):
            location = ("connections", name, *rest)
    return location[:-1] if location[-1] == "[key]" else location


def _kind_of_place(location: Place) -> Place:
    """The same for every method and every member of a list: `("auth", "jwt", "claims")`."""
    names = tuple(step for step in location if not isinstance(step, int))
    match names:
        case ("auth", "list" | "one", *rest):
            return ("auth", *rest)
        case ("authorization", _, *rest):
            return ("authorization", *rest)
        case ("token_server", "clients", _, *rest):
            return ("token_server", "clients", *rest)
        case ("connections", _, *rest):
            return ("connections", *rest)
    return names


def _looks_secret(place: Place) -> bool:
    names = [step for step in place if isinstance(step, str)]
    if place[0] == "token_server":
        return names[-1] == "secret"  # its other keys are about tokens and passwords
    if place[0] == "connections":
        return names[2:3] in (["value"], ["password"], ["token"], ["client_secret"], ["extra"])
    return place[0] == "redis" or (place[0] == "auth" and looks_secret(names[-1]))


def _sentence(item: ErrorDetails, sections: Sections, *, secret: bool) -> str:
    kind, context = item["type"], item.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key{_hint(item['loc'], sections)}"
    if kind == "missing":
        return "is missing"
    if kind == "refused":
        return str(context["why"])
    if kind == "expected":
        what = item["msg"]
    else:
        what = _WHAT.get(kind, "another value").format(**context).replace("'", '"')
    found = describe(item["input"], secret=secret)
    return f"expected {what}, found {found}{_spelling(item, secret=secret)}"


def _hint(place: Place, sections: Sections) -> str:
    key = str(place[-1])
    if owners := sections.siblings(place):
        methods = " or ".join(f'"{name}"' for name in owners)
        return f' – it belongs to "method": {methods}'
    if len(place) == 1 and key in _ELSEWHERE:
        return f" – {_ELSEWHERE[key]}"
    return suggest(key, sections.keys(place[:-1]))


def _spelling(item: ErrorDetails, *, secret: bool) -> str:
    if secret or not isinstance(item["input"], str):
        return ""
    if item["type"] == "literal_error":
        known = str(item["ctx"]["expected"]).replace(" or ", ", ").replace("'", "").split(", ")
        return suggest(item["input"], known)
    whole = _kind_of_place(item["loc"]) == ("auth",)
    return suggest(item["input"], ["none", "jwt", "api_key"]) if whole else ""


def _plain(word: str) -> str:
    return word.lower().replace("-", "_")


def _kind(value: Any) -> str:
    return "string" if isinstance(value, str) else "list" if isinstance(value, list) else "object"


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "…"


def _printable(text: str) -> str:
    return _short(text if text.isprintable() else json.dumps(text))
