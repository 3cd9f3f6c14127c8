"""Which code may use a connection: that of a run which is executed here, and now."""

from typing import Any
from uuid import uuid4

import pytest

from agentflow_server import ConnectionUnavailable, connection, connection_client
from agentflow_server.connections import Connections

CRM = {"type": "api_key", "value": "a-key", "base_url": "https://crm.example.com"}


async def test_an_unknown_name_is_answered_with_those_that_exist(lend: Any) -> None:
    config = await lend(crm=CRM, billing={**CRM})
    with pytest.raises(ConnectionUnavailable) as caught:
        await connection(config, "bilin")
    assert str(caught.value) == (
        "connection 'bilin': there is none of this name; there are: billing, crm"
    )
    assert (caught.value.reason, caught.value.connection) == ("unknown", "bilin")
    with pytest.raises(ConnectionUnavailable, match='none at all in "connections"'):
        connection_client(await lend(), "crm")


async def test_when_its_run_has_ended_a_config_is_good_for_nothing(lend: Any) -> None:
    config = await lend(crm=CRM)
    opened: Connections = config["opened"]
    with opened.lend("r1"):
        with opened.lend("r1"):  # begun once more, before the first time had ended
            pass
        assert await connection(config, "crm") == "a-key"
    with pytest.raises(ConnectionUnavailable) as caught:
        await connection({"run_id": "r1"}, "crm")
    assert caught.value.reason == "no_run"


async def test_the_earlier_of_two_times_ends_nothing_of_the_later(lend: Any) -> None:
    opened: Connections = (await lend(crm=CRM))["opened"]
    first, second = opened.lend("r2"), opened.lend("r2")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert await connection({"run_id": "r2"}, "crm") == "a-key"
    second.__exit__(None, None, None)
    with pytest.raises(ConnectionUnavailable):
        await connection({"run_id": "r2"}, "crm")


async def test_the_config_of_a_graph_leads_to_its_run(lend: Any) -> None:
    config = await lend(crm=CRM)
    graph = {"run_id": uuid4(), "configurable": {"run_id": config["run_id"]}}  # its tracing has one
    assert await connection(graph, "crm") == "a-key"


async def test_a_claim_does_not_lead_to_the_run_of_another(lend: Any) -> None:
    other = await lend(crm=CRM)
    claims = {"configurable": {"run_id": other["run_id"]}}
    mine = {**claims, "run_id": "ended"}
    with pytest.raises(ConnectionUnavailable) as caught:
        await connection(mine, "crm")
    assert caught.value.reason == "no_run"


@pytest.mark.parametrize("config", [{}, None, "run", {"run_id": 5}, {"configurable": {}}])
async def test_another_config_is_a_mistake(config: Any) -> None:
    with pytest.raises(TypeError, match="expected the config that the agent, node or tool"):
        await connection(config, "crm")
