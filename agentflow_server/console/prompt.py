"""What somebody types at a terminal, with a history."""

import os
import sys
from contextlib import suppress
from pathlib import Path

from agentflow_server.console.printable import make_printable

try:
    import readline
except ImportError:  # pragma: no cover – Windows has none
    readline = None  # type: ignore[assignment]  # the history goes without it

_MAX_LINES = 1000


class Prompt:
    """Asks at the terminal; the history is a file that only its owner can read."""

    def __init__(self, history: Path) -> None:
        self._history = history
        self._typed = 0
        if readline is not None:
            readline.set_history_length(_MAX_LINES)
            readline.set_auto_history(False)
            with suppress(OSError):
                readline.read_history_file(history)

    def read(self, mark: str) -> str:
        """What is typed; after a `\\` it goes on in the next line. Raises EOFError."""
        text = _read_line(mark)
        while text.endswith("\\"):
            text = f"{text[:-1]}\n{_read_line('… ')}"
        if readline is not None and text.strip():
            readline.add_history(text.replace("\n", " "))
            self._typed += 1
        return text

    def save(self) -> None:
        """What was typed since the beginning, behind what others have saved meanwhile."""
        if readline is None or not self._typed:
            return
        with suppress(OSError):  # a conversation does not fail for want of its history
            self._history.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._history, os.O_WRONLY | os.O_CREAT, 0o600))
            readline.append_history_file(self._typed, self._history)
            self._history.chmod(0o600)
        self._typed = 0


def _read_line(mark: str) -> str:
    """Raises EOFError."""
    if sys.stdout.isatty():
        return input(mark)
    sys.stderr.write(make_printable(mark))
    sys.stderr.flush()
    return input()
