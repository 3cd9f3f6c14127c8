"""Makes agents of whatever framework servable: chosen by the type of the object, at start-up."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from agentflow_server.adapters.databases import Database, PostgresDatabase
from agentflow_server.adapters.function import FunctionAgent
from agentflow_server.errors import ConfigError
from agentflow_server.importing import find_extra, load
from agentflow_server.interfaces import Agent

_EXPECTED = (
    "expected a function of (messages, config), a compiled graph of LangGraph or 10xgraph, "
    "an agentflow_server Agent, or a callable returning one of these"
)


def open_agents(
    paths: Mapping[str, str],
    *,
    database: Database,
    checkpointer: str | None = None,
    store: str | None = None,
    durability: Literal["sync", "exit"] = "sync",
) -> dict[str, Agent]:
    """The agents that agentflow.json names, ready for `open()`.

    `checkpointer` and `store` name objects, or callables without arguments that make them.
    Raises ConfigError with everything that is wrong; what a user's module raises while it is
    imported, or a user's callable while it is called, passes through.
    """
    memory = {
        "checkpointer": _load(checkpointer, "checkpointer"),
        "store": _load(store, "store"),
    }
    agents: dict[str, Agent] = {}
    problems: list[str] = []
    for name, path in paths.items():
        try:
            found = _load(path, f"agent {name!r}")
            agents[name] = _adapt(found, name, database, memory, durability)
        except ConfigError as exc:
            problems.extend(exc.problems)
    problems.extend(_find_conflicts(agents))
    if problems:
        raise ConfigError(*problems)
    return agents


def _load(path: str | None, setting: str) -> Any:
    """The object, made by its factory if that is what `path` names."""
    if path is None:
        return None
    with _naming_the_extra(setting):
        found = load(path, setting=setting)
        if not _is_factory(found):
            return found
        if inspect.iscoroutinefunction(found):
            raise ConfigError(f"{setting}: {path!r} is async; a callable that makes it may not be")
        return found()


def _is_factory(found: Any) -> bool:
    """A class, or a function that can be called without arguments and is not an agent itself."""
    if inspect.isclass(found):
        return True
    if not (inspect.isfunction(found) or inspect.ismethod(found)):
        return False
    parameters = list(inspect.signature(found).parameters.values())
    optional = all(
        p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters
    )
    takes_messages = any(p.name == "messages" or p.kind is p.VAR_POSITIONAL for p in parameters)
    return optional and not takes_messages


def _adapt(
    found: Any,
    name: str,
    database: Database,
    memory: Mapping[str, Any],
    durability: Literal["sync", "exit"],
) -> Agent:
    if isinstance(found, Agent):
        _refuse_memory(memory, f"agent {name!r} keeps its own state")
        return found
    framework = _framework_of(found)
    if framework == "langgraph":
        with _naming_the_extra(f"agent {name!r}"):
            from agentflow_server.adapters.langgraph import LangGraphAgent  # noqa: PLC0415

            return LangGraphAgent(
                found, name=name, database=database, durability=durability, **memory
            )
    if framework == "tenxgraph":
        from agentflow_server.adapters.tenxgraph import TenxGraphAgent  # noqa: PLC0415

        _refuse_memory(
            memory, f"agent {name!r} is a graph of 10xgraph: pass it to the graph's compile()"
        )
        return TenxGraphAgent(found, name=name, distributed=isinstance(database, PostgresDatabase))
    if not callable(found):
        raise ConfigError(f"agent {name!r}: {_EXPECTED}; found {type(found).__name__}")
    agent = FunctionAgent(found, name=name)
    _refuse_memory(memory, f"agent {name!r} is a function, which keeps no state")
    return agent


def _framework_of(found: Any) -> str | None:
    """Which framework made it; without importing one that the user has not imported."""
    brought = {find_extra(cls.__module__) for cls in type(found).__mro__}
    return next(
        (framework for framework in ("langgraph", "tenxgraph") if framework in brought), None
    )


def _refuse_memory(memory: Mapping[str, Any], reason: str) -> None:
    set_ones = [key for key, value in memory.items() if value is not None]
    if set_ones:
        raise ConfigError(*(f"{key}: {reason}" for key in set_ones))


def _find_conflicts(agents: Mapping[str, Agent]) -> list[str]:
    graphs = {name: agent for name, agent in agents.items() if agent.kind == "tenxgraph"}
    if len(graphs) < 2:
        return []
    from agentflow_server.adapters.tenxgraph import find_conflicts  # noqa: PLC0415

    return find_conflicts(graphs)


@contextmanager
def _naming_the_extra(setting: str) -> Iterator[None]:
    """Turns the absence of a module into the command that installs it, if there is one."""
    try:
        yield
    except ModuleNotFoundError as exc:
        extra = find_extra(exc.name)
        if extra is None:
            raise
        raise ConfigError(
            f"{setting}: there is no module {exc.name!r}, "
            f"install it with: pip install 'agentflow-server[{extra}]'"
        ) from exc


__all__ = ["Database", "open_agents"]
