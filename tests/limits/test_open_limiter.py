"""Which limiter a configuration gets."""

import sys

import pytest
from pydantic import SecretStr

from agentflow_server.errors import ConfigError
from agentflow_server.limits import MemoryRateLimiter, open_limiter


def test_without_redis_it_counts_in_memory() -> None:
    assert isinstance(open_limiter(None), MemoryRateLimiter)


def test_with_redis_it_counts_there() -> None:
    pytest.importorskip("limits", reason="the extra redis is not installed")
    limiter = open_limiter(SecretStr("rediss://localhost"))
    assert type(limiter).__name__ == "RedisRateLimiter"


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "agentflow_server.limits.redis", raising=False)
    monkeypatch.setitem(sys.modules, "limits", None)
    with pytest.raises(ConfigError, match=r"pip install 'agentflow-server\[redis\]'"):
        open_limiter(SecretStr("redis://localhost"))
