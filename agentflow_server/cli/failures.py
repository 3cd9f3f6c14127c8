"""What goes wrong at start-up, in lines that say what to do."""

import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, TypeVar

import typer

from agentflow_server.cli.logs import escape
from agentflow_server.config import Config
from agentflow_server.config.models import ConfigFile
from agentflow_server.errors import ConfigError, StoreUnavailable

if TYPE_CHECKING:
    from agentflow_server.app import AgentflowApp

T = TypeVar("T")

CANNOT_LISTEN = 1
BAD_CONFIG = 2

_KEY = re.compile("[a-z_]+(?=[ .:[])")
_OWN_FOLDER = str(Path(__file__).parents[1])


def fail(*lines: str, code: int = BAD_CONFIG) -> NoReturn:
    """Print the lines to stderr and leave."""
    for line in lines:
        typer.secho(escape(line), err=True, fg=typer.colors.RED)
    sys.exit(code)


@contextmanager
def explained() -> Iterator[None]:
    """Whatever is wrong with the configuration ends the process with one line each."""
    try:
        yield
    except ConfigError as exc:
        _show_user_cause(exc)
        fail(*exc.problems)
    except StoreUnavailable as exc:
        fail(f"database: {exc}")


@contextmanager
def naming_the_file(config: Config) -> Iterator[None]:
    """What is found while loading and opening begins with the file, as what its reading finds."""
    try:
        yield
    except ConfigError as exc:
        name = config.path.name
        exc.problems = [
            f"{name}: {problem}" if _is_about_the_file(problem) else problem
            for problem in exc.problems
        ]
        raise


def _is_about_the_file(problem: str) -> bool:
    """It begins with a key of the file: `auth.path: …`, `agent 'react': …`."""
    key = _KEY.match(problem)
    return key is not None and key[0] in ConfigFile.model_fields


def load_app(config: Config, *, executes: bool = True, upgrades: bool = True) -> "AgentflowApp":
    """Build the application. Raises ConfigError; leaves when the user's own code raises."""
    # Imported here because `token` and `show` do without the web framework.
    from agentflow_server.app import create_app  # noqa: PLC0415

    return load_user_code(config, partial(create_app, executes=executes, upgrades=upgrades))


def load_user_code(config: Config, build: Callable[[Config], T]) -> T:
    """What `build` makes. Raises ConfigError; leaves when the user's own code raises."""
    try:
        with naming_the_file(config):
            return build(config)
    except ConfigError:
        raise
    except (Exception, SystemExit) as exc:
        # The user's modules run here, and may raise anything: it is shown as it is.
        _explain_user_error(exc)
        raise SystemExit(BAD_CONFIG) from exc


def _explain_user_error(exc: BaseException) -> None:
    theirs = _skip_own_frames(exc.__traceback__)
    frames = traceback.extract_tb(theirs)
    is_ours = not frames and not isinstance(exc, SyntaxError)
    traceback.print_exception(type(exc), exc, exc.__traceback__ if is_ours else theirs)
    place = f"{frames[-1].filename}, line {frames[-1].lineno}: " if frames else ""
    typer.secho(
        f"{place}{type(exc).__name__} while loading what agentflow.json names: nothing was started",
        err=True,
        fg=typer.colors.RED,
    )


def _show_user_cause(error: ConfigError) -> None:
    """Where the user's own code raised what became `error`, its traceback comes first."""
    for cause in (error.__cause__, *error.causes):
        theirs = _skip_own_frames(cause.__traceback__) if cause is not None else None
        if cause is not None and theirs is not None and _is_user_code(theirs):
            traceback.print_exception(type(cause), cause, theirs)


def _is_user_code(step: TracebackType) -> bool:
    """Neither the standard library nor an installed package comes before the user's first line."""
    file = step.tb_frame.f_code.co_filename
    return not file.startswith((sys.prefix, sys.base_prefix))


def _skip_own_frames(step: TracebackType | None) -> TracebackType | None:
    """The traceback from the first line of the user's on."""
    while step is not None:
        file = step.tb_frame.f_code.co_filename
        if not file.startswith((_OWN_FOLDER, "<frozen importlib")) and "importlib" not in file:
            return step
        step = step.tb_next
    return None
