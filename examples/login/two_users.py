"""Alice and bob log in, talk on a thread each, and look for the other's."""

import os
import sys

from agentflow_server.client import AgentflowClient, NotFound, Password

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"


def log_in(username: str) -> AgentflowClient:
    """The client fetches a token when it needs one, and the next before that one expires."""
    password = os.environ[f"{username.upper()}_PASSWORD"]
    return AgentflowClient(URL, auth=Password(f"{URL}/token", username, password))


def try_to_read(client: AgentflowClient, thread_id: str) -> str:
    try:
        return f"{len(list(client.list_messages(thread_id)))} messages"
    except NotFound as error:
        return f"{error.status}, {error.detail}"


def main() -> None:
    with log_in("alice") as alice, log_in("bob") as bob:
        clients = {"alice": alice, "bob": bob}
        threads = {user: client.create_thread().thread_id for user, client in clients.items()}
        for user, client in clients.items():
            print(f"{user} is told: {client.send(threads[user], f'I am {user}').text}")
        for user, client in clients.items():
            for owner, thread_id in threads.items():
                print(f"{user} reads the thread of {owner}: {try_to_read(client, thread_id)}")
        for user, client in clients.items():
            listed = {thread.thread_id for thread in client.list_threads()}
            found = [owner for owner, thread_id in threads.items() if thread_id in listed]
            print(f"{user} lists the thread of: {', '.join(found)}")


if __name__ == "__main__":
    main()
