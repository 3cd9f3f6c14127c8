"""What docs/gating.md says works, with a card of a real server."""

import re
from pathlib import Path

import pytest

from agentflow_server import AuthCard, gate

PAGE = (Path(__file__).parents[2] / "docs" / "gating.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)


def test_the_code_on_the_page_runs(server, token, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENTFLOW_CARD_TOKEN", token())
    monkeypatch.setenv("AGENTFLOW_CARD_API_URL", server)
    AuthCard(token(), server).save("authen/secret.json")
    names = {"__name__": "page"}
    for block in BLOCKS:
        code = block.replace("http://localhost:8000", server)
        exec(compile(code, "gating.md", "exec"), names)
    assert capsys.readouterr().out == "I am a Financial Analyst.\n"
    assert len(BLOCKS) == 5


def test_a_refusal_is_told_as_on_the_page(server, token, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    AuthCard(token(lifetime=-1), server).save("authen/secret.json")
    names = {"__name__": "page"}
    with pytest.raises(gate.CardExpired):
        exec(compile(BLOCKS[0], "gating.md", "exec"), names)
    exec(compile(BLOCKS[-1], "gating.md", "exec"), names)
    assert capsys.readouterr().out.startswith("card_expired the card's token expired on ")


def test_every_exception_and_every_variable_is_on_the_page():
    words = set(re.findall(r"\w+", PAGE))
    assert set(gate.__all__) <= words
    assert {"AGENTFLOW_CARD_TOKEN", "AGENTFLOW_CARD_API_URL"} <= words
