"""Events, sinks that fail on demand, and files that hold a log."""

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from agentflow_server.audit.chain import START, Chain
from agentflow_server.models import AuditEvent

TIME = 1_700_000_000.123


@pytest.fixture
def event() -> Callable[..., AuditEvent]:
    """`event(user_id="alice")`: a login at a time that is always the same."""

    def event(**fields: Any) -> AuditEvent:
        return AuditEvent(**{"time": TIME, "action": "authenticate", "result": "success", **fields})

    return event


@pytest.fixture
def seal(event: Callable[..., AuditEvent]) -> Callable[..., list[str]]:
    """The lines of so many events; their users are user-1, user-2 …"""

    def seal(count: int, *, key: bytes | None = None) -> list[str]:
        events = [event(user_id=f"user-{number}") for number in range(1, count + 1)]
        return list(Chain(key).extend(START, events)[0])

    return seal


@pytest.fixture
def users() -> Callable[[Sequence[str]], list[str]]:
    """Who the lines are about: the user, or else the action."""

    def users(lines: Sequence[str]) -> list[str]:
        fields = [json.loads(line) for line in lines]
        return [line.get("user_id", line["action"]) for line in fields]

    return users


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(lines: Sequence[str], name: str = "audit.log") -> Path:
        path = tmp_path / name
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    return write


@pytest.fixture
def within() -> Callable[[], AbstractContextManager[Any]]:
    """A deadline for whatever a test waits for."""
    return lambda: asyncio.timeout(30)
