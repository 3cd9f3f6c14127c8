"""Which checkpointer and which store a LangGraph graph is served with."""

from typing import Any

from langgraph._internal._serde import build_serde_allowlist
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.store.base import BaseStore

from agentflow_server.adapters.databases import Database, PostgresDatabase
from agentflow_server.adapters.langgraph_saver import DatabaseSaver
from agentflow_server.adapters.langgraph_states import Graph
from agentflow_server.errors import ConfigError


def choose_saver(
    graph: Graph, name: str, database: Database, configured: object
) -> BaseCheckpointSaver[Any] | None:
    """Its own, the configured one, or one of ours. Raises ConfigError."""
    own = graph.checkpointer
    if configured is not None and not isinstance(configured, BaseCheckpointSaver):
        raise ConfigError(
            f"checkpointer: expected a LangGraph checkpointer, found {type(configured).__name__}"
        )
    if configured is not None and own is not None:
        raise ConfigError(
            f"agent {name!r}: the graph is compiled with checkpointer={own!r} and the config has "
            '"checkpointer" too: remove one of the two'
        )
    if own is False:
        return None
    chosen = own if isinstance(own, BaseCheckpointSaver) else configured
    if isinstance(chosen, InMemorySaver) and isinstance(database, PostgresDatabase):
        raise ConfigError(
            f"agent {name!r}: the memory of an InMemorySaver is in one process, and with PostgreSQL "
            "any process may execute a thread's next run; compile the graph without a checkpointer "
            "to keep its states in the database"
        )
    return chosen or _make_saver(database).with_allowlist(_declared_types(graph))


def choose_store(graph: Graph, name: str, configured: object) -> BaseStore | None:
    """Its own, or the configured one. Raises ConfigError."""
    if configured is not None and not isinstance(configured, BaseStore):
        raise ConfigError(f"store: expected a LangGraph store, found {type(configured).__name__}")
    if configured is not None and graph.store is not None:
        raise ConfigError(
            f'agent {name!r}: the graph is compiled with a store and the config has "store" too: '
            "remove one of the two"
        )
    return configured or graph.store


def _make_saver(database: Database) -> DatabaseSaver:
    """Each imports the driver of its own database."""
    if isinstance(database, PostgresDatabase):
        from agentflow_server.adapters.langgraph_postgres import PostgresCheckpoints  # noqa: PLC0415

        return PostgresCheckpoints(database)
    from agentflow_server.adapters.langgraph_sqlite import SqliteCheckpoints  # noqa: PLC0415

    return SqliteCheckpoints(database)


def _declared_types(graph: Graph) -> set[tuple[str, ...]]:
    """The types that the graph's state may hold, by LangGraph's own reckoning."""
    return build_serde_allowlist(schemas=list(graph.builder.schemas), channels=graph.channels)
