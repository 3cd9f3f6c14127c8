"""LangGraph's own tests of a checkpointer."""

import pytest

from agentflow_server.adapters.langgraph_memory import _make_saver

WANTED = {"put", "put_writes", "get_tuple", "list", "delete_thread", "copy_thread"}


async def test_our_checkpointer_passes(database):
    async def make():
        saver = _make_saver(database)
        await saver.open()
        yield saver

    conformance = pytest.importorskip("langgraph.checkpoint.conformance")
    registered = conformance.checkpointer_test("ours")(make)
    report = await conformance.validate(registered)
    results = {name: result for name, result in report.results.items() if result.detected}
    assert set(results) == WANTED
    assert {name: result.failures for name, result in results.items() if not result.passed} == {}
