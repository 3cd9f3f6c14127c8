"""How an answer is shown while it comes: as Markdown in a terminal, as plain text elsewhere.

Every text may be anybody's: none of them reaches the terminal as it is.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import dropwhile
from typing import TextIO

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment
from rich.spinner import Spinner
from rich.text import Text

from agentflow_server.console.printable import make_line, make_printable

# HTML is shown as it was written: rich would leave it out, and what is in it.
_PARSER = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])


class Display(ABC):
    """Where an answer goes."""

    @contextmanager
    def answering(self) -> Iterator[None]:
        """The time in which an answer comes."""
        try:
            yield
        finally:
            self.end_message()

    @abstractmethod
    def say(self, piece: str) -> None:
        """The next piece of a message."""

    @abstractmethod
    def end_message(self) -> None:
        """Nothing is left of it."""

    @abstractmethod
    def note(self, text: str) -> None:
        """One line about what happens besides."""

    @abstractmethod
    def tell(self, text: str) -> None:
        """Lines for who sits at the terminal."""


class PlainDisplay(Display):
    """The answer alone goes to `out`; without `notes`, what happens besides is not told."""

    def __init__(self, out: TextIO, notes: TextIO | None) -> None:
        self._out = out
        self._notes = notes
        self._is_in_line = False

    def say(self, piece: str) -> None:
        if text := make_printable(piece):
            self._out.write(text)
            self._out.flush()
            self._is_in_line = not text.endswith("\n")

    def end_message(self) -> None:
        if self._is_in_line:
            self.say("\n")

    def note(self, text: str) -> None:
        self.tell(make_line(text))

    def tell(self, text: str) -> None:
        if self._notes is not None:
            self._notes.write(f"{make_printable(text)}\n")
            self._notes.flush()


class MarkdownDisplay(Display):
    """Blocks of Markdown are printed when they are complete; the last one is shown as it grows."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._unfinished = ""
        self._is_first = True

    @contextmanager
    def answering(self) -> Iterator[None]:
        waiting = Spinner("dots")
        # What this process writes to its streams meanwhile is not for rich to catch.
        with Live(
            waiting,
            console=self._console,
            refresh_per_second=8,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        ) as self._live:
            try:
                yield
            finally:
                self.end_message()
                self._live.update("", refresh=True)
        self._live = None
        if not self._is_first:
            self._console.print()
        self._is_first = True

    def say(self, piece: str) -> None:
        self._unfinished += make_printable(piece)
        if "\n" in piece:
            self._print_finished()
        self._show_unfinished()

    def end_message(self) -> None:
        self._print(self._unfinished)
        self._unfinished = ""
        self._show_unfinished()

    def note(self, text: str) -> None:
        self.end_message()
        self._console.print(
            Text(make_line(text), style="dim", no_wrap=True, overflow="ellipsis"), soft_wrap=False
        )

    def tell(self, text: str) -> None:
        self._console.print(Text(make_printable(text)), soft_wrap=True)

    def _print_finished(self) -> None:
        """A block is complete when another one has begun."""
        starts = [
            token.map[0]
            for token in _PARSER.parse(self._unfinished)
            if token.map and not token.level
        ]
        if len(starts) < 2:
            return
        lines = self._unfinished.splitlines(keepends=True)
        self._print("".join(lines[: starts[-1]]))
        self._unfinished = "".join(lines[starts[-1] :])

    def _print(self, text: str) -> None:
        if not text.strip():
            return
        if not self._is_first:
            self._console.print()
        self._is_first = False
        self._console.print(_Safe(text))

    def _show_unfinished(self) -> None:
        if self._live is not None and self._unfinished.strip():
            self._live.update(_Tail(_Safe(self._unfinished)))
        elif self._live is not None:
            self._live.update(Spinner("dots"))


class _Safe:
    """Markdown of which no character is obeyed, not even one that is written as `&#x202e;`."""

    def __init__(self, text: str) -> None:
        # A link shows where it leads: the terminal makes none whose text could say otherwise.
        self._markdown = Markdown("", hyperlinks=False)
        self._markdown.parsed = _PARSER.parse(text)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._markdown, options, pad=False)
        # Some blocks begin with an empty line of their own.
        for line in dropwhile(_is_empty, lines):
            for segment in line:
                yield Segment(make_printable(segment.text), segment.style, segment.control)
            yield Segment.line()


def _is_empty(line: list[Segment]) -> bool:
    return not any(segment.text.strip() or segment.style for segment in line)


class _Tail:
    """The last lines, as many as there is room for."""

    def __init__(self, content: RenderableType) -> None:
        self._content = content

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._content, options.update(height=None), pad=False)
        for line in lines[-max(1, console.size.height - 1) :]:
            yield from line
            yield Segment.line()
