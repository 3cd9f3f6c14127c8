"""How long something lasts, as operators write it: 30s, 15m, 1h, 7d."""

import re

from agentflow_server.errors import ConfigError

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([1-9][0-9]{0,8})([smhd])")
_LONGEST = 36_500 * 86_400  # dates end in the year 9999


def parse_duration(text: str, *, option: str) -> int:
    """Seconds. Raises ConfigError, which names the option."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ConfigError(f"{option}: expected a time like 30s, 15m, 1h or 90d, found {text!r}")
    seconds = int(match[1]) * _SECONDS[match[2]]
    if seconds > _LONGEST:
        raise ConfigError(f"{option}: expected at most 36500d, found {text!r}")
    return seconds
