"""What the server tells Prometheus about real requests."""

import socket

import httpx2
from prometheus_client.parser import text_string_to_metric_families


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


async def scrape(port):
    async with httpx2.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{port}/metrics")
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_requests_runs_credentials_and_the_database_are_counted(serve, new_thread, as_user):
    port = free_port()
    client = await serve(auth="jwt", observability={"metrics": {"port": port}})
    headers = as_user()
    thread_id = await new_thread(client, headers=headers)
    body = {"content": "x", "stream": True}
    await client.post(f"/threads/{thread_id}/messages", json=body, headers=headers)
    await client.get("/threads", headers={"Authorization": "Bearer a.b.c"})
    await client.get("/nowhere")
    found = await scrape(port)
    sent = (("method", "POST"), ("route", "/threads/{thread_id}/messages"), ("status", "200"))
    assert found["agentflow_http_requests_total", *sent] == 1
    lost = (("method", "GET"), ("route", "other"), ("status", "404"))
    assert found["agentflow_http_requests_total", *lost] == 1
    assert found["agentflow_run_duration_seconds_count", ("status", "success")] == 1
    good = (("method", "jwt"), ("reason", ""), ("result", "success"))
    assert found["agentflow_auth_total", *good] == 2
    bad = [
        key for key in found if key[0] == "agentflow_auth_total" and ("result", "failure") in key
    ]
    assert len(bad) == 1
    assert found["agentflow_database_seconds_count", ("operation", "write")] >= 3
    assert found["agentflow_runs", ("status", "running")] == 0
    assert found["agentflow_event_lag_seconds_count",] >= 1
    assert (await client.get("/metrics", headers=headers)).status_code == 404


async def test_a_line_of_an_agent_tells_its_request_its_thread_and_its_run(
    serve, new_thread, caplog
):
    from agentflow_server.log_context import ContextFilter

    source = """
    import logging
    def app(messages, config):
        logging.getLogger("mine").warning("thinking")
        return "x"
    """
    client = await serve(source)
    thread_id = await new_thread(client)
    caplog.handler.addFilter(context := ContextFilter())
    try:
        answer = await client.post(
            f"/threads/{thread_id}/messages",
            json={"content": "x"},
            headers={"X-Request-Id": "my-request"},
        )
    finally:
        caplog.handler.removeFilter(context)
    (line,) = [record for record in caplog.records if record.name == "mine"]
    told = (line.request_id, line.thread_id, line.run_id)
    assert told == ("my-request", thread_id, answer.json()["run_id"])
