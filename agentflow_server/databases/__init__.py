"""What one `database` setting brings: a store, and what fits it."""

from agentflow_server.config import Config
from agentflow_server.databases.database import Database
from agentflow_server.databases.embedded import EmbeddedDatabase
from agentflow_server.errors import ConfigError
from agentflow_server.stores.rules import Observe


def choose_database(
    config: Config, *, observe: Observe | None = None, exclusive: bool = True
) -> Database:
    """Opens nothing yet. `exclusive=False` is for commands that may run beside a server.

    `observe` is told how long each operation of the store took. Raises ConfigError.
    """
    if config.database_path is not None:
        return EmbeddedDatabase(
            config.database_path, config.runs, observe=observe, exclusive=exclusive
        )
    try:
        # Imported here because psycopg is an extra.
        from agentflow_server.databases.distributed import DistributedDatabase  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        raise ConfigError("database: pip install 'agentflow-server[postgres]'") from exc
    return DistributedDatabase(config.database, config.runs, observe=observe, upgrades=exclusive)


__all__ = ["Database", "choose_database"]
