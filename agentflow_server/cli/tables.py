"""Tables for a terminal."""

from collections.abc import Sequence
from datetime import datetime

from agentflow_server.cli.logs import escape

NOTHING = "–"


def format_time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%MZ}"


def tabulate(rows: Sequence[Sequence[str]]) -> str:
    """One line each, as many columns as the first, in which it is explained."""
    cells = [[escape(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )
