"""What is wrong with the arguments of a command: one line, and where to read on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

# Typer's versions take it from different places.
_UsageError: Any = typer.BadParameter.__base__


class Commands(TyperGroup):
    """The commands; their usage errors do not print the usage."""

    def make_context(self, info_name: Any, args: list[str], *rest: Any, **kwargs: Any) -> Any:
        with _in_one_line():
            _refuse_bytes(args)
            return super().make_context(info_name, args, *rest, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        with _in_one_line():
            return super().invoke(ctx)


def _refuse_bytes(args: Sequence[str]) -> None:
    """What is no text in UTF-8 can neither be looked up nor shown. Raises BadParameter."""
    try:
        "".join(args).encode()
    except UnicodeEncodeError:
        raise typer.BadParameter("an argument is not in UTF-8") from None


@contextmanager
def _in_one_line() -> Iterator[None]:
    try:
        yield
    except _UsageError as exc:
        # One without arguments shows the help instead, in a way of its own.
        if type(exc).show is not _UsageError.show:
            raise
        from agentflow_server.cli.failures import fail  # noqa: PLC0415 – --help does without it

        command = exc.ctx.command_path if exc.ctx else "agentflow"
        text = exc.format_message().rstrip(".")
        # Pydantic, which checks for Typer, says first what kind of exception there was.
        text = " ".join(text.replace("Value error, ", "").split())
        fail(f"{command}: {text[:1].lower()}{text[1:]} – see {command} --help")
