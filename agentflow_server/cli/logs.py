"""Logging: one record is one line, readable or as JSON."""

import json
import logging
import os
import re
import sys
from datetime import UTC, datetime
from typing import TextIO

from agentflow_server.log_context import ContextFilter, describe_ids

_UNSAFE = re.compile(
    # Control characters, line separators, bidirectional marks, lone surrogates.
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_COLOURS = {"DEBUG": 2, "INFO": 32, "WARNING": 33, "ERROR": 31, "CRITICAL": 31}
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}

# Below WARNING these write what they send, headers and query strings included.
_TALKATIVE = ("httpx", "httpx2", "httpcore", "httpcore2", "urllib3", "asyncio", "watchfiles")


def escape(text: str) -> str:
    """`text` in one line, without characters that a terminal or a log reader obeys."""
    return _UNSAFE.sub(
        lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), text
    )


def wants_colour(stream: TextIO) -> bool:
    return stream.isatty() and "NO_COLOR" not in os.environ


class HumanFormatter(logging.Formatter):
    """Time, level, message; a traceback keeps its lines."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        time = self.formatTime(record, "%H:%M:%S")
        level = f"{record.levelname:<8}"
        if self._colour:
            level = f"\x1b[{_COLOURS.get(record.levelname, 0)}m{level}\x1b[0m"
            time = f"\x1b[2m{time}\x1b[0m"
        lines = [f"{time} {level} {escape(record.getMessage().rstrip() + describe_ids(record))}"]
        lines += map(escape, _find_traceback(self, record).splitlines())
        return "\n".join(lines)


class JsonFormatter(logging.Formatter):
    """One JSON object a line, with whatever the record was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields.update({k: v for k, v in vars(record).items() if k not in _STANDARD | {*fields}})
        if found := _find_traceback(self, record):
            fields["exception"] = found
        return json.dumps(fields, default=str)


def _find_traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """As the standard library's formatter has it: `exc_text`, if it is there, comes first."""
    if record.exc_text is None and record.exc_info:
        return formatter.formatException(record.exc_info)
    return record.exc_text or ""


def set_up_logs(level: str, *, as_json: bool = False, stream: TextIO | None = None) -> None:
    """Send the records of everybody to `stream` (stderr), at most `level` in detail."""
    target = stream or sys.stderr
    handler = logging.StreamHandler(target)
    handler.addFilter(ContextFilter())
    handler.setFormatter(
        JsonFormatter() if as_json else HumanFormatter(colour=wants_colour(target))
    )
    wanted = logging.getLevelNamesMapping()[level.upper()]
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(wanted, logging.INFO))
    logging.getLogger("agentflow_server").setLevel(wanted)
    # uvicorn tells at INFO what the banner has said already.
    quiet = logging.INFO if wanted < logging.INFO else max(wanted, logging.WARNING)
    logging.getLogger("uvicorn.error").setLevel(quiet)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(wanted, logging.WARNING))
