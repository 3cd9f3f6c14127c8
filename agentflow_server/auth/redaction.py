"""The traceback of a user's backend, without the credential it was looking at."""

import logging
import re
import traceback
from urllib.parse import quote

# Anything shorter is a word: replacing it would only make the traceback unreadable.
_SHORTEST = 4


def log_failure(
    log: logging.Logger, text: str, name: str, error: BaseException, credential: str | None
) -> None:
    """As `log.exception(text, name)`, with a traceback that does not show the credential.

    A formatter finds the traceback where it would have left its own: readable in a human's log,
    in one line among JSON. The error itself is not handed on, because it may hold the credential.
    """
    record = log.makeRecord(log.name, logging.ERROR, __file__, 0, text, (name,), None)
    lines = "".join(traceback.format_exception(error))
    record.exc_text = redact(lines, credential).rstrip("\n")
    if log.isEnabledFor(record.levelno):
        log.handle(record)


def redact(text: str, credential: str | None) -> str:
    """`text` without the credential, also where only a part of it or an escaped form is shown."""
    if credential is None:
        return text
    forms = {
        credential,
        quote(credential, safe=""),
        repr(credential)[1:-1],
        *re.split(r"[:.,;=\s]", credential),
    }
    for form in sorted(forms, key=len, reverse=True):
        if len(form) >= _SHORTEST:
            text = text.replace(form, "[credential]")
    return text
