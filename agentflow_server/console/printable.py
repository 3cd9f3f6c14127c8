"""What others say, as text that no terminal obeys."""

import re

# C0 without tab and line feed, DEL, C1, separators that some terminals take for line breaks, what
# changes the direction of the text around it, and lone surrogates.
_OBEYED = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def make_printable(text: str) -> str:
    """`text` with its lines and tabs; other control characters are shown, not sent.

    A carriage return, with which a line could be written over, is left out.
    """
    return _OBEYED.sub(_show, text.replace("\r", ""))


def make_line(text: str, limit: int = 300) -> str:
    """The same in one line of at most `limit` characters."""
    line = " ".join(make_printable(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _show(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape", "surrogatepass").decode()
