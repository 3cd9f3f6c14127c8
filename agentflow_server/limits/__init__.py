"""How often somebody may: rate limiters, and whom an address stands for."""

from pydantic import SecretStr

from agentflow_server.errors import ConfigError
from agentflow_server.interfaces import RateLimiter
from agentflow_server.limits.address import client_address, limit_key
from agentflow_server.limits.memory import MemoryRateLimiter


def open_limiter(redis: SecretStr | None) -> RateLimiter:
    """The limiter that counts in Redis, if its URL is given, else in this process.

    Connects to nothing yet. Raises ConfigError.
    """
    if redis is None:
        return MemoryRateLimiter()
    try:
        # Imported here because it is an extra, and not a light one.
        from agentflow_server.limits.redis import RedisRateLimiter  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        if exc.name not in ("limits", "redis"):
            raise
        raise ConfigError("redis: pip install 'agentflow-server[redis]'") from exc
    return RedisRateLimiter(redis.get_secret_value())


__all__ = ["MemoryRateLimiter", "client_address", "limit_key", "open_limiter"]
