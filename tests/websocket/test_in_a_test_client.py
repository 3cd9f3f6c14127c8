"""Applications test their sockets in Starlette's client, which cancels whoever serves one."""

from fastapi.testclient import TestClient


def test_a_socket_that_is_left_in_a_test_client_ends_quietly(make_app):
    with TestClient(make_app(auth=None)) as client:
        for _ in range(10):
            thread_id = client.post("/threads").json()["thread_id"]
            with client.websocket_connect(f"/threads/{thread_id}/ws") as socket:
                assert socket.receive_json()["type"] == "ready"
