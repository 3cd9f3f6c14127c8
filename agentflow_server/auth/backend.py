"""The user's BaseAuth: found, constructed and judged at start-up."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from agentflow_server.auth.alias import accepted_bases, install_alias
from agentflow_server.errors import ConfigError
from agentflow_server.importing import find_extra, is_async_callable, load
from agentflow_server.interfaces import BaseAuth

SETTING = "auth.path"


def load_backend(path: str, options: Mapping[str, Any]) -> BaseAuth:
    """The backend that `path` names; a class is constructed with `options`.

    Raises ConfigError; where the user's own code raised, its exception is the cause.
    """
    install_alias()
    found = _import(path)
    bases = accepted_bases()
    if isinstance(found, type) and issubclass(found, bases):
        return _construct(found, path, options)
    if not isinstance(found, bases):
        raise ConfigError(
            f"{SETTING}: expected a BaseAuth class or instance, {path!r} is {_describe(found)}"
        )
    if options:
        raise ConfigError(f"auth.options: {path!r} is constructed already and takes no options")
    return _as_backend(found)


def takes_request(authenticate: Callable[..., Any]) -> bool:
    """Whether the three-argument form is meant. Raises ConfigError when it is neither form."""
    try:
        signature = inspect.signature(authenticate)
    except (TypeError, ValueError):
        raise ConfigError(f"{SETTING}: authenticate is not a function") from None
    two, three = (_accepts(signature, count) for count in (2, 3))
    if three and (next(iter(signature.parameters)) == "request" or not two):
        return True
    if two:
        return False
    raise ConfigError(
        f"{SETTING}: authenticate must take (res, credential) or (request, res, credential), "
        f"found {signature}"
    )


def find_recogniser(backend: BaseAuth) -> Callable[[str], object] | None:
    """The backend's own `recognises(credential)`, if it has one. Raises ConfigError.

    Among several methods it says, quickly and from the text alone, whether a credential is the
    backend's to judge.
    """
    recognise: Callable[[str], object] | None = getattr(backend, "recognises", None)
    if recognise is None:
        return None
    if not _can_be_called(recognise, 1) or is_async_callable(recognise):
        raise ConfigError(
            f"{SETTING}: recognises must be a plain method that takes the credential alone"
        )
    return recognise


def find_closer(backend: BaseAuth) -> Callable[[], Any] | None:
    """The backend's own `close()`, if it has one. Raises ConfigError."""
    close: Callable[[], Any] | None = getattr(backend, "close", None)
    if close is None:
        return None
    if not _can_be_called(close, 0):
        raise ConfigError(f"{SETTING}: close must be a method without arguments")
    return close


def _can_be_called(found: Any, count: int) -> bool:
    """With so many positional arguments."""
    try:
        return _accepts(inspect.signature(found), count)
    except (TypeError, ValueError):
        return False


def _accepts(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def _import(path: str) -> Any:
    try:
        return load(path, setting=SETTING)
    except ConfigError:
        raise
    except ModuleNotFoundError as exc:
        extra = find_extra(exc.name)
        if extra is None:
            raise ConfigError(f"{SETTING}: importing {path!r} failed: {_one_line(exc)}") from exc
        raise ConfigError(
            f"{SETTING}: {path!r} needs {exc.name!r}, "
            f"install it with: pip install 'agentflow-server[{extra}]'"
        ) from None
    except Exception as exc:
        # The user's module: whatever it raises is shown as his, below the setting that names it.
        raise ConfigError(f"{SETTING}: importing {path!r} failed: {_one_line(exc)}") from exc


def _construct(backend: type[Any], path: str, options: Mapping[str, Any]) -> BaseAuth:
    if inspect.isabstract(backend):
        missing = ", ".join(sorted(backend.__abstractmethods__))
        raise ConfigError(f"{SETTING}: {path!r} does not implement {missing}")
    try:
        return _as_backend(backend(**options))
    except ValueError as exc:
        # How a backend says that its options are wrong: one line is all there is to see.
        raise ConfigError(f"{SETTING}: constructing {path!r} failed: {_one_line(exc)}") from None
    except Exception as exc:
        # The user's constructor, as above.
        raise ConfigError(f"{SETTING}: constructing {path!r} failed: {_one_line(exc)}") from exc


def _as_backend(found: Any) -> BaseAuth:
    """An old package's BaseAuth has the same shape as ours, but another type."""
    backend: BaseAuth = found
    return backend


def _describe(found: object) -> str:
    return f"the class {found.__name__}" if isinstance(found, type) else f"a {type(found).__name__}"


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
