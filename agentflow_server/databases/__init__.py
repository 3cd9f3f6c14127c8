"""What one `database` setting brings: a store, and what fits it."""

from agentflow_server.config import Config
from agentflow_server.databases.database import Database
from agentflow_server.databases.embedded import EmbeddedDatabase
from agentflow_server.errors import ConfigError
from agentflow_server.stores.rules import Observe


def choose_database(
    config: Config,
    *,
    observe: Observe | None = None,
    exclusive: bool = True,
    upgrades: bool = True,
) -> Database:
    """Opens nothing yet. `exclusive=False` is for commands that may run beside a server.

    Unless this `upgrades`, a database that an older version has made is refused when it is opened.
    `observe` is told how long each operation of the store took. Raises ConfigError.
    """
    if config.database_path is not None:
        return EmbeddedDatabase(
            config.database_path,
            config.runs,
            observe=observe,
            exclusive=exclusive,
            upgrades=upgrades,
        )
    try:
        # Imported here because psycopg is an extra.
        from agentflow_server.databases.distributed import DistributedDatabase  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        if exc.name not in ("psycopg", "psycopg_pool"):
            raise
        raise ConfigError("database: pip install 'agentflow-server[postgres]'") from exc
    return DistributedDatabase(config.database, config.runs, observe=observe, upgrades=upgrades)


__all__ = ["Database", "choose_database"]
