"""`echo hi | agentflow chat`: one message, one answer, and nothing else on stdout."""

import pytest

pytestmark = pytest.mark.usefixtures("as_alice")


def test_the_answer_alone_is_on_stdout(run):
    result = run("chat", stdin="hi\nthere\n")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "echo hi\nthere\n", "")


def test_nothing_in_is_nothing_out(run, client):
    before = len(list(client.list_threads()))
    result = run("chat", stdin=" \n")
    assert (result.exit_code, result.output) == (0, "")
    assert len(list(client.list_threads())) == before


def test_an_answer_that_is_not_streamed_is_printed_too(run):
    assert run("chat", stdin="whole").stdout == "a part\n"


def test_tool_calls_are_not_in_the_way(run):
    result = run("chat", "--agent", "graph", stdin="hi")
    assert (result.stdout, result.stderr) == ("It is sunny in Paris\n", "")


def test_a_thread_goes_on(run, client):
    thread = client.create_thread()
    for text in ("a", "b"):
        assert run("chat", "--thread", thread.thread_id, stdin=text).exit_code == 0
    said = [message.content for message in client.list_messages(thread.thread_id)]
    assert said == ["a", "echo a", "b", "echo b"]


def test_no_control_character_of_an_agent_gets_through(run):
    result = run("chat", stdin="evil")
    assert result.stdout.startswith(r"a\x1b]0;owned\x07\x9b31m &#x202e;b")
    assert all(letter.isprintable() or letter == "\n" for letter in result.stdout)


def test_a_run_that_fails_is_one_line_and_code_1(run):
    result = run("chat", stdin="fail")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "the run failed: The agent could not finish this turn\n"


def test_a_question_cannot_be_answered_and_says_so(run, client):
    result = run("chat", stdin="ask")
    assert (result.exit_code, result.stdout) == (1, "")
    thread_id = next(client.list_threads()).thread_id
    assert result.stderr.startswith('the agent asks: Really? { "amount": 7 } – answer with ')
    assert f"agentflow chat --thread {thread_id}" in result.stderr


def test_who_is_not_logged_in_is_told_how(run, monkeypatch, served):
    monkeypatch.delenv("AGENTFLOW_TOKEN")
    result = run("chat", stdin="hi")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.endswith(f"to log in: agentflow login --url {served.url}\n")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        (("--url", "http://127.0.0.1:1"), b"hi", "no answer from http://127.0.0.1:1"),
        (("--thread", "0190d5a2-8c4e-7cc3-9a6f-0d2f5e1b7a11"), b"hi", "no such thread"),
        (("--agent", "nobody"), b"hi", "no such agent"),
        ((), b"\xff\xfe", "stdin is no text in UTF-8"),
    ],
)
def test_what_cannot_be_sent_is_one_line_and_code_1(run, arguments, stdin, said):
    result = run("chat", *arguments, stdin=stdin)
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_url_that_is_none_is_a_usage_error(run):
    result = run("chat", "--url", "ftp://x", stdin="hi")
    assert result.exit_code == 2
    assert "expected a URL such as" in result.stderr


def test_an_answer_goes_on_after_a_dropped_connection(start, line, served):
    process = start("chat", "--url", line.url)
    process.stdin.write(b"slow")
    process.stdin.close()
    assert process.stdout.read(4) == b"one "
    line.cut()
    served.gate.open("wb").close()
    assert process.stdout.read() == b"two\n"
    assert (process.stderr.read(), process.wait(60)) == (b"", 0)


def test_ctrl_c_stops_the_agent_and_is_130(start, client):
    process = start("chat")
    process.stdin.write(b"hold")
    process.stdin.close()
    assert process.stdout.read(4) == b"one "
    process.send_signal(2)
    assert (process.stdout.read(), process.wait(60)) == (b"\n", 130)
    thread = next(client.list_threads())
    (run,) = client.list_runs(thread.thread_id)
    assert client.wait(thread.thread_id, run.run_id, timeout=60).status == "cancelled"
