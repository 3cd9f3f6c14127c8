"""What is left after a crash: all that was acknowledged, in order, and nothing half-done."""

import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

FUNCTION = """
import gate

def app(messages, config):
    gate.pass_through(messages[-1]["content"])
    return f"{messages[-1]['content']} is number {len(messages)}"
"""

GRAPH = """
import gate
from langgraph.graph import START, MessagesState, StateGraph

def answer(state):
    content = state["messages"][-1].content
    gate.pass_through(content)
    return {"messages": [{"role": "ai", "content": f"{content} is number {len(state['messages'])}"}]}

app = StateGraph(MessagesState).add_node(answer).add_edge(START, "answer").compile()
"""

AGENTS = pytest.mark.parametrize("agent", [FUNCTION, GRAPH], ids=["function", "langgraph"])
SIX = [f"m{number}" for number in range(1, 7)]


class Senders:
    """Clients that send one message each and wait for the answer."""

    def __init__(self, server: Any, thread_id: str, runs_of: Any) -> None:
        self._server = server
        self._thread_id = thread_id
        self._runs_of = runs_of
        self._pool = ThreadPoolExecutor(len(SIX))
        self.answers: list[Future[httpx2.Response]] = []

    def send(self, content: str) -> None:
        """Returns when the message is in line, behind those sent before."""
        url = f"/threads/{self._thread_id}/messages"
        post = self._server.client().post
        self.answers.append(self._pool.submit(post, url, json={"content": content}))
        while len(self._runs_of(self._server.http, self._thread_id)) < len(self.answers):
            assert not self.answers[-1].done(), self.answers[-1].result().text

    def close(self) -> None:
        self._pool.shutdown()


@pytest.fixture
def overlap(runs_of: Any) -> Any:
    opened: list[Senders] = []

    def overlap(server: Any, thread_id: str) -> Senders:
        opened.append(Senders(server, thread_id, runs_of))
        return opened[-1]

    yield overlap
    for senders in opened:
        senders.close()


def follow_to_the_end(client: httpx2.Client, run: dict[str, Any]) -> str:
    """The run's last event; the stream ends with it."""
    answer = client.get(f"/threads/{run['thread_id']}/runs/{run['run_id']}/events")
    return answer.text.strip().split("\n\n")[-1]


@AGENTS
def test_1_six_overlapping_messages_are_six_turns_also_after_kill_9(
    agent, write, start, gate, new_thread, overlap, say, history
):
    folder = write({"agent.py": agent})
    server = start(folder, GATE=gate.port)
    thread_id = new_thread(server.http)
    senders = overlap(server, thread_id)
    first = None
    for content in SIX:
        senders.send(content)
        first = first or gate.wait()
    first.let_go()
    for content in SIX[1:]:
        held = gate.wait()
        assert held.name == content, "one at a time, in the order of arrival"
        held.let_go()
    answers = [answer.result().json()["message"]["content"] for answer in senders.answers]
    assert answers == [f"m{n} is number {2 * n - 1}" for n in range(1, 7)]
    server.kill()

    again = start(folder)
    expected = [line for n in range(1, 7) for line in (f"user m{n}", f"assistant {answers[n - 1]}")]
    assert history(again.http, thread_id) == expected
    assert say(again.http, thread_id, "m7") == "m7 is number 13"


@AGENTS
def test_5_after_a_crash_a_graph_goes_on_a_function_has_failed_and_those_in_line_are_answered(
    agent, write, start, gate, new_thread, overlap, say, history, runs_of
):
    folder = write({"agent.py": agent})
    server = start(folder, GATE=gate.port)
    thread_id = new_thread(server.http)
    senders = overlap(server, thread_id)
    first = None
    for content in SIX:
        senders.send(content)
        first = first or gate.wait()
    first.let_go()
    gate.wait().let_go()
    third = gate.wait()
    assert [senders.answers[n].result().status_code for n in (0, 1)] == [200, 200]
    server.kill()
    third.let_go()
    assert all(
        isinstance(answer.exception(), httpx2.TransportError) for answer in senders.answers[2:]
    )

    again = start(folder)
    goes_on = "langgraph" in agent
    runs = runs_of(again.http, thread_id)
    end = "event: run.completed" if goes_on else "event: run.failed"
    assert end in follow_to_the_end(again.http, runs[2])
    assert "event: run.completed" in follow_to_the_end(again.http, runs[5])
    runs = runs_of(again.http, thread_id)
    third = ("success", 2, None) if goes_on else ("error", 1, "server_restarted")
    code = (runs[2]["error"] or {}).get("code")
    assert (runs[2]["status"], runs[2]["attempt"], code) == third
    assert [run["status"] for run in runs if run is not runs[2]] == ["success"] * 5
    said = history(again.http, thread_id)
    assert [line for line in said if line.startswith("user")] == [f"user {name}" for name in SIX]
    answered = [line.split()[1] for line in said if line.startswith("assistant")]
    assert answered == ["m1", "m2", *(["m3"] if goes_on else []), "m4", "m5", "m6"]
    assert runs[2]["run_id"] in again.output
    assert say(again.http, thread_id, "m7").startswith("m7 is number 1")
    assert again.http.get(f"/threads/{thread_id}").json()["status"] == "idle"


def test_1_what_was_acknowledged_under_load_is_there_after_kill_9(
    write, start, new_thread, history, runs_of
):
    folder = write({})
    server = start(folder)
    threads = [new_thread(server.http) for _ in range(3)]
    acknowledged: list[list[str]] = [[] for _ in threads]
    enough = threading.Event()

    def talk(number: int) -> None:
        client = server.client()
        url = f"/threads/{threads[number % 3]}/messages"
        try:
            for turn in range(1000):
                content = f"{number}.{turn}"
                client.post(url, json={"content": content}).raise_for_status()
                acknowledged[number % 3].append(content)
                if sum(map(len, acknowledged)) >= 100:
                    enough.set()
        except httpx2.TransportError:
            enough.set()

    with ThreadPoolExecutor(6) as pool:
        talking = [pool.submit(talk, number) for number in range(6)]
        assert enough.wait(60)
        os.kill(server.process.pid, 9)
        for done in talking:
            done.result()
    server.wait()

    again = start(folder)
    for thread_id, contents in zip(threads, acknowledged, strict=True):
        for run in runs_of(again.http, thread_id)[-3:]:
            follow_to_the_end(again.http, run)
        assert {run["status"] for run in runs_of(again.http, thread_id)} <= {"success", "error"}
        said = history(again.http, thread_id)
        for content in contents:
            asked = said.index(f"user {content}")
            assert said[asked + 1] == f"assistant None: {content}"


def test_5_sigterm_lets_the_running_turn_finish_and_those_in_line_go_on_at_the_next_start(
    write, start, gate, new_thread, overlap, history, runs_of
):
    folder = write({"agent.py": FUNCTION}, runs={"shutdown_grace": 5.0})
    server = start(folder, GATE=gate.port)
    thread_id = new_thread(server.http)
    senders = overlap(server, thread_id)
    senders.send("m1")
    first = gate.wait()
    senders.send("m2")
    senders.send("m3")
    server.process.terminate()
    server.wait_for("stopping")
    first.let_go()
    assert senders.answers[0].result().status_code == 200
    assert server.wait() == 0

    again = start(folder)
    last = runs_of(again.http, thread_id)[-1]
    assert "event: run.completed" in follow_to_the_end(again.http, last)
    said = [line.split()[1] for line in history(again.http, thread_id)]
    assert said == ["m1", "m1", "m2", "m2", "m3", "m3"]


def test_5_sigterm_tells_those_in_line_with_a_problem_document(
    write, start, gate, new_thread, overlap
):
    folder = write({"agent.py": FUNCTION}, runs={"shutdown_grace": 2.0})
    server = start(folder, GATE=gate.port)
    senders = overlap(server, new_thread(server.http))
    senders.send("m1")
    first = gate.wait()
    senders.send("m2")
    server.process.terminate()
    server.wait_for("stopping")
    first.let_go()
    answer = senders.answers[1].result()
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.status_code == 503
    assert server.wait() == 0
    assert "Traceback" not in server.output


def test_a_second_server_on_the_same_database_refuses_in_one_line(
    write, start, refuse, new_thread, say
):
    folder = write({})
    server = start(folder)
    refused = refuse(folder)
    assert refused.code == 2
    (line,) = refused.lines
    assert line.endswith("agentflow.db: is in use by another agentflow server")
    assert say(server.http, new_thread(server.http), "still here") == "None: still here"


def test_9_the_first_start_in_a_fresh_folder_works_and_the_second_goes_on(
    write, start, new_thread, say, history
):
    folder = write({})
    before = {file.name for file in folder.iterdir()}
    server = start(folder)
    thread_id = new_thread(server.http)
    say(server.http, thread_id, "Hello")
    assert server.stop() == 0
    made = {file.name for file in folder.iterdir()} - before - {"__pycache__"}
    assert made == {".agentflow"}
    assert (folder / ".agentflow").stat().st_mode & 0o077 == 0
    again = start(folder)
    assert history(again.http, thread_id) == ["user Hello", "assistant None: Hello"]
    assert say(again.http, thread_id, "again") == "None: again"
