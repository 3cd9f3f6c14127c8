"""Where a browser may be sent back to, and with what."""

import re
from collections.abc import Iterable, Mapping
from urllib.parse import urlencode

_LOOPBACK = re.compile(r"(http://(?:\[[0-9a-f:]+\]|[A-Za-z0-9.-]+))(?::[0-9]{1,5})?([/?].*)?")


def is_registered(uri: str, registered: Iterable[str]) -> bool:
    """Exactly one of them; of http, which is for a loopback address, any port (RFC 8252 7.3)."""
    return any(uri == one or _same_but_for_port(uri, one) for one in registered)


def make_redirect(uri: str, parameters: Mapping[str, str | None]) -> str:
    """Parameters of None are left out."""
    query = urlencode({name: value for name, value in parameters.items() if value is not None})
    return f"{uri}{'&' if '?' in uri else '?'}{query}"


def _same_but_for_port(uri: str, registered: str) -> bool:
    found, wanted = _LOOPBACK.fullmatch(uri), _LOOPBACK.fullmatch(registered)
    return found is not None and wanted is not None and found.groups() == wanted.groups()
