"""The traceback of a user's backend, without the credential it was looking at."""

import re
import traceback
from urllib.parse import quote

# Anything shorter is a word: replacing it would only make the traceback unreadable.
_SHORTEST = 4


def describe_failure(error: BaseException, credential: str | None) -> str:
    """The formatted traceback with its causes, safe to log."""
    return redact("".join(traceback.format_exception(error)), credential)


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
