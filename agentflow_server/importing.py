"""`"module:attribute"` → a checked object: the one door for everything a user plugs in."""

import importlib
import inspect
import re
from typing import Any

from agentflow_server.errors import ConfigError

_PATH = re.compile(r"[A-Za-z_][\w]*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")

_EXTRAS = {
    "langgraph": "langgraph",
    "langchain_core": "langgraph",
    "tenxgraph": "tenxgraph",
    "agentflow": "tenxgraph",
    "injectq": "tenxgraph",
    "pyotp": "mfa",
    "sqlalchemy": "database",
    "firebase_admin": "firebase",
}
"""Which extra of ours brings a top-level module that users' code imports."""


def load(path: str, *, setting: str) -> Any:
    """The object that `path` ("package.module:attribute") names.

    Raises ConfigError naming `setting` when the path is malformed, the module is missing or has no
    such attribute. Whatever the user's module itself raises while it is imported passes through,
    so that the traceback shows the user's line; so does a missing module that *it* wants.
    """
    if not _PATH.fullmatch(path):
        raise ConfigError(f'{setting}: expected "package.module:attribute", found {path!r}')
    module_name, _, attributes = path.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not _is_part_of(exc.name, module_name):
            raise
        raise ConfigError(
            f"{setting}: there is no module {exc.name!r} (looking for {path!r}; the folder of "
            "agentflow.json is searched first)"
        ) from exc
    for name in attributes.split("."):
        if not hasattr(found, name):
            known = ", ".join(sorted(n for n in vars(found) if not n.startswith("_"))[:8])
            raise ConfigError(
                f"{setting}: {module_name!r} has no {attributes!r}"
                + (f" (it has {known})" if known else "")
            )
        found = getattr(found, name)
    return found


def find_extra(module: str | None) -> str | None:
    """What brings a module that is missing: `pip install 'agentflow-server[…]'`."""
    return _EXTRAS.get((module or "").partition(".")[0])


def count_positional(function: Any) -> int:
    """How many positional arguments `function` can be called with; -1 when any number."""
    count = 0
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            return -1
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            count += 1
    return count


def is_async_callable(function: Any) -> bool:
    """True for coroutine functions, also behind `functools.partial` or a `__call__`."""
    while hasattr(function, "func"):
        function = function.func
    return inspect.iscoroutinefunction(function) or (
        callable(function) and inspect.iscoroutinefunction(type(function).__call__)
    )


def _is_part_of(missing: str, wanted: str) -> bool:
    return wanted == missing or wanted.startswith(missing + ".")
