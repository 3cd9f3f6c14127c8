"""From the names in agentflow.json to agents."""

import subprocess
import sys
import textwrap
from itertools import count

import pytest

from agentflow_server.adapters import open_agents
from agentflow_server.errors import ConfigError
from agentflow_server.stores.sqlite import SqliteStore

NUMBER = count()


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Opens what is named in a module with this source."""
    monkeypatch.syspath_prepend(tmp_path)
    file = SqliteStore(tmp_path / "agentflow.db")

    def opened(source, *, names=("app",), checkpointer=None, store=None, database=file, **settings):
        module = f"served_{next(NUMBER)}"
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        return open_agents(
            {name: f"{module}:{name}" for name in names},
            database=database,
            checkpointer=checkpointer and f"{module}:{checkpointer}",
            store=store and f"{module}:{store}",
            **settings,
        )

    return opened


ECHO = """
async def app(messages, config):
    return messages[-1]["content"]
"""

GRAPH = """
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.store.memory import InMemoryStore

def echo(state):
    return {"messages": [AIMessage(str(len(state["messages"])))]}

builder = StateGraph(MessagesState)
builder.add_node(echo)
builder.add_edge(START, "echo")
app = builder.compile()
saver = InMemorySaver()
memory = InMemoryStore
"""

OWN = """
from agentflow_server.interfaces import Agent

class app(Agent):
    kind = "own"

    async def stream(self, context, messages):
        return
        yield
"""


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (ECHO, "function"),
        (GRAPH, "langgraph"),
        (OWN, "own"),
        (OWN.replace("class app", "class Own") + "app = Own()", "own"),
        (ECHO.replace("def app", "def echo") + "def app(): return echo", "function"),
        (ECHO.replace("def app", "def echo") + "def app(model='x'): return echo", "function"),
        (GRAPH + "def build(**options): return builder.compile()\napp = build", "langgraph"),
        ("class app:\n def __call__(self, messages): return 'x'", "function"),
        ("def app(messages=(), config=None): return 'x'", "function"),
        ("def app(*arguments): return 'x'", "function"),
        ("from functools import partial\napp = partial(lambda a, messages: a, 'x')", "function"),
    ],
)
async def test_the_adapter_is_chosen_by_what_is_found(opened, source, kind):
    assert opened(source)["app"].kind == kind


async def test_a_factory_is_called_once(opened, capsys):
    opened("def app():\n print('made')\n return lambda messages: 'x'")
    assert capsys.readouterr().out == "made\n"


async def test_several_agents_keep_their_order(opened):
    agents = opened(ECHO + "second = first = app", names=("second", "first"))
    assert list(agents) == ["second", "first"]


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("app = 7", "agent 'app': expected a function of .*; found int"),
        ("def app(): return None", "found NoneType"),
        ("async def app(): pass", "is async"),
        ("def app(messages, config, more): pass", r"found app\(messages, config, more\)"),
        ("app = max", "expected a function of .*found max"),
        (GRAPH + "app = builder", r"call .compile\(\)"),
        ("import langgraph_that_is_missing", None),
        ("other = 1", "has no 'app'"),
    ],
)
async def test_what_cannot_be_served_is_refused_with_a_reason(opened, source, complaint):
    if complaint is None:
        with pytest.raises(ModuleNotFoundError, match="langgraph_that_is_missing"):
            opened(source)
    else:
        with pytest.raises(ConfigError, match=complaint):
            opened(source)


async def test_an_exception_of_the_users_module_passes(opened):
    with pytest.raises(ZeroDivisionError):
        opened("app = 1 / 0")


async def test_an_exception_of_the_users_factory_passes(opened):
    with pytest.raises(ZeroDivisionError):
        opened("def app(): 1 / 0")


async def test_all_problems_are_reported_at_once(opened):
    with pytest.raises(ConfigError) as failure:
        opened("one = 1\ntwo = 2", names=("one", "two", "three"))
    assert len(failure.value.problems) == 3


async def test_a_graph_uses_the_configured_checkpointer_and_store(opened):
    agent = opened(GRAPH, checkpointer="saver", store="memory", durability="exit")["app"]
    assert agent.remembers
    assert type(agent._graph.checkpointer).__name__ == "InMemorySaver"
    assert type(agent._graph.store).__name__ == "InMemoryStore"


async def test_a_graph_gets_the_checkpointer_of_the_database(opened):
    psycopg_store = pytest.importorskip("agentflow_server.stores.postgres")
    distributed = psycopg_store.PostgresStore("postgresql://")
    kept = [opened(GRAPH)["app"], opened(GRAPH, database=distributed)["app"]]
    names = [type(agent._graph.checkpointer).__name__ for agent in kept]
    assert names == ["SqliteCheckpoints", "PostgresCheckpoints"]
    assert all(agent.resumable for agent in kept)


@pytest.mark.parametrize("compiled", [True, False])
async def test_a_memory_of_one_process_is_refused_where_several_execute_runs(opened, compiled):
    psycopg_store = pytest.importorskip("agentflow_server.stores.postgres")
    distributed = psycopg_store.PostgresStore("postgresql://")
    source = GRAPH + ("\napp = builder.compile(saver)" if compiled else "")
    with pytest.raises(ConfigError, match=r"any process may execute .* without a checkpointer"):
        opened(source, database=distributed, checkpointer=None if compiled else "saver")


@pytest.mark.parametrize("source", [ECHO, OWN])
@pytest.mark.parametrize("key", ["checkpointer", "store"])
async def test_memory_that_nobody_would_use_is_refused(opened, source, key):
    with pytest.raises(ConfigError, match=rf"^{key}: agent 'app' (is a function|keeps its own)"):
        opened(source + "\nthing = object()", **{key: "thing"})


@pytest.mark.parametrize(
    ("module", "extra"), [("langgraph", "langgraph"), ("agentflow", "tenxgraph")]
)
async def test_a_framework_that_is_missing_is_named(opened, monkeypatch, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    expected = rf"install it with: pip install 'agentflow-server\[{extra}\]'"
    with pytest.raises(ConfigError, match=expected):
        opened(f"import {module}.graph")


async def test_a_part_of_an_extra_that_is_missing_is_named(opened, monkeypatch):
    monkeypatch.delitem(sys.modules, "agentflow_server.adapters.langgraph_sqlite", raising=False)
    monkeypatch.setitem(sys.modules, "langgraph.checkpoint.sqlite", None)
    with pytest.raises(ConfigError, match=r"pip install 'agentflow-server\[langgraph\]'"):
        opened(GRAPH)


def test_no_framework_is_imported_for_a_function(tmp_path):
    (tmp_path / "served.py").write_text(ECHO, encoding="utf-8")
    script = """
    import sys
    from agentflow_server.adapters import open_agents
    assert open_agents({"app": "served:app"}, database=None)["app"].kind == "function"
    roots = {name.partition(".")[0] for name in sys.modules}
    assert not roots & {"langgraph", "langchain_core", "tenxgraph", "agentflow"}, roots
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        check=False,
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{':'.join(filter(None, sys.path))}"},
    )
    assert ended.returncode == 0
