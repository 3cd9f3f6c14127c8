"""Quotas as they are written: `"20/minute"`."""

import re
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from agentflow_server.config.fields import expected
from agentflow_server.models import Quota

_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_QUOTA = re.compile(rf"([1-9][0-9]{{0,8}})/({'|'.join(_UNITS)})")


def _parse(value: Any) -> Quota:
    if isinstance(value, Quota):
        return value
    match = _QUOTA.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise expected('a quota like "20/minute" (per second, minute, hour or day)')
    return Quota(amount=int(match[1]), seconds=_UNITS[match[2]])


def _write(quota: Quota) -> str:
    names = {seconds: name for name, seconds in _UNITS.items()}
    return f"{quota.amount}/{names.get(quota.seconds, f'{quota.seconds} seconds')}"


WrittenQuota = Annotated[
    Quota,
    PlainValidator(_parse),
    PlainSerializer(_write, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{_QUOTA.pattern}$", "examples": ["20/minute"]}),
]
