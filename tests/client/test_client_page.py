"""The code on docs/client.md runs, against a real server."""

import re
from pathlib import Path

import pytest
from anyio import to_thread

PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)


@pytest.fixture
def run(served, issuer, token, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    real = {
        "http://127.0.0.1:8000": served.url,
        "https://login.example.com/token": issuer.url,
        '"TOKEN"': repr(token()),
    }

    def run(code, names):
        for shown, meant in real.items():
            code = code.replace(shown, meant)
        exec(compile(code, "client.md", "exec"), names)

    return run


async def test_the_code_on_the_page_runs(run, capsys):
    names = {"__name__": "page"}
    for block in BLOCKS:
        await to_thread.run_sync(run, block, names)
    names["agent"].close()
    printed = capsys.readouterr().out
    assert printed.startswith("Hello \nAnd in detail? ")
    assert "run.started\nmessage.delta\n" in printed
    assert "not_found There is no such thread" in printed
    assert len(BLOCKS) == 6


def test_every_method_and_every_exception_is_on_the_page():
    from agentflow_server import client as clients

    methods = {name for name in dir(clients.AgentflowClient) if not name.startswith("_")}
    exceptions = {
        name
        for name in clients.__all__
        if isinstance(getattr(clients, name), type)
        and issubclass(getattr(clients, name), clients.AgentflowClientError)
    }
    on_the_page = set(re.findall(r"\w+", PAGE))
    assert methods - on_the_page == {"close"}
    assert exceptions <= on_the_page
