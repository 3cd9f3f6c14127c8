"""The guide's `AuthenticatedAgent` in three lines, with either kind of client."""

from agentflow_server.client import AgentflowClient, AsyncAgentflowClient, Password


def test_the_guides_example_is_three_lines(served, issuer):
    agent = AgentflowClient(served.url, Password(issuer.url, "alice", "correct horse"))
    response = agent.make_authenticated_request(f"{served.url}/agents")
    found = response.json()
    agent.close()
    assert found["data"][0]["name"] == "talk"


async def test_the_guides_example_is_three_lines_in_async_code(served, issuer):
    agent = AsyncAgentflowClient(served.url, Password(issuer.url, "alice", "correct horse"))
    response = await agent.make_authenticated_request(f"{served.url}/agents")
    found = response.json()
    await agent.close()
    assert found["data"][0]["name"] == "talk"


async def test_the_guides_other_methods_are_there(connect, served, issuer):
    agent = connect(served.url, Password(issuer.url, "alice", "correct horse"))
    assert agent.client.is_token_valid() is False
    headers = await agent("get_authenticated_headers")
    assert headers["Authorization"].startswith("Bearer ey")
    assert agent.client.is_token_valid() is True
    assert await agent("get_authenticated_headers") == headers
