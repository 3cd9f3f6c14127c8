"""The section `webhooks`: who may be told that a run has ended, and what signs it."""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from agentflow_server.config.explain import Problems
from agentflow_server.config.fields import VariableName, expected, refused
from agentflow_server.config.sections import Section

SECRET_PREFIX = "whsec_"  # noqa: S105 – as every secret of Standard Webhooks begins
_SECRET_BYTES = range(24, 65)
_HOST_PATTERN = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|[0-9a-f:]*:[0-9a-f:.]*")
_ADVICE = f'echo "{SECRET_PREFIX}$(openssl rand -base64 32)" makes a good one'


def _one_or_two(value: Any) -> Any:
    names = tuple(value) if isinstance(value, list | tuple) else (value,)
    if len(names) not in (1, 2):
        raise refused("expected the name of an environment variable, or a list of two")
    return names


def _host_pattern(value: str) -> str:
    if not _HOST_PATTERN.fullmatch(value):
        raise expected('a host in lower case like "hooks.example.com", or "*.example.com"')
    return value


HostPattern = Annotated[str, AfterValidator(_host_pattern)]


class WebhooksSection(Section):
    """Whether the end of a run is told to a `webhook`, as the file describes it."""

    secret: Annotated[
        tuple[VariableName, ...],
        BeforeValidator(_one_or_two, json_schema_input_type=str | list[str]),
    ] = Field(
        description="The environment variable that holds whsec_…; of two, the newer one first.",
    )
    allow_private: bool = Field(
        default=False, description="Private addresses, and http to them, are allowed, too."
    )
    allow_hosts: list[HostPattern] = Field(
        default=[], description='No other hosts, if there are any; "*.example.com" is all below.'
    )
    timeout: float = Field(
        default=10.0, gt=0, le=60, description="Seconds a receiver may take to answer."
    )
    max_attempts: int = Field(
        default=8, ge=1, le=50, description="How often it is tried in all; 8 take a day and a half."
    )


class WebhooksConfig(WebhooksSection):
    """The same with the secrets themselves, the newest first; they are never shown."""

    keys: tuple[SecretStr, ...] = Field(min_length=1, exclude=True, repr=False)


def resolve_webhooks(
    section: WebhooksSection | None, variables: Mapping[str, str], problems: Problems
) -> WebhooksConfig | None:
    """None, too, when there is a problem."""
    if section is None:
        return None
    before = len(problems.lines)
    keys: dict[str, str] = {}
    for name in section.secret:
        text = variables.get(name, "").strip()
        if name not in variables:
            problems.add("webhooks.secret", f"the environment variable {name} is not set")
        elif why := _explain_secret(text):
            problems.add("webhooks.secret", f"{name} {why}; {_ADVICE}")
        elif text in keys.values():
            problems.add("webhooks.secret", f"{name} holds the same secret as {next(iter(keys))}")
        keys[name] = text
    if len(problems.lines) > before:
        return None
    return WebhooksConfig(**dict(section), keys=tuple(SecretStr(key) for key in keys.values()))


def _explain_secret(text: str) -> str | None:
    """What is wrong with it; None when nothing is."""
    if not text:
        return "is empty"
    if not text.startswith(SECRET_PREFIX):
        return f"does not begin with {SECRET_PREFIX}"
    encoded = text.removeprefix(SECRET_PREFIX)
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except binascii.Error:
        return f"is not base64 after {SECRET_PREFIX}"
    if len(key) not in _SECRET_BYTES:
        return f"is of {len(key)} bytes, expected {_SECRET_BYTES[0]} to {_SECRET_BYTES[-1]}"
    return None
