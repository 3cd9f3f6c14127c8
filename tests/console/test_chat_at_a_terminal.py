"""`agentflow chat` as somebody who sits at a terminal meets it."""

import stat

import pytest

pytestmark = pytest.mark.usefixtures("as_alice")


def test_a_conversation(terminal, folder, served, client):
    empty = client.create_thread().thread_id
    screen = terminal("chat")
    screen.expect(f"talk at {served.url}")
    screen.expect("> ")
    screen.type("markdown\r")
    screen.expect("Title")
    screen.expect(" • b")
    screen.expect("> ")
    assert "\x1b[1mbold\x1b[0m" in screen.raw.decode()
    assert "**bold**" not in screen.text
    screen.type("fail\r")
    screen.expect("the run failed: The agent could not finish this turn\n> ")
    screen.type("one\\\r")
    screen.expect("… ")
    screen.type("two //x\r")
    screen.expect("echo one two //x")
    screen.expect("> ")
    screen.type("/nonsense\r")
    screen.expect("/nonsense: not like this")
    screen.type("/new\r")
    screen.expect("> ")
    screen.type("//quit\r")
    screen.expect("echo /quit")
    screen.expect("> ")
    screen.type("/threads\r")
    screen.expect("  1  ")
    screen.expect("  2  ")
    screen.type("/thread 2\r")
    screen.expect("> one two //x")
    screen.expect("echo one two //x")
    screen.type("/thread\r")
    screen.expect("echo one two //x")
    screen.type("/thread 77\r")
    screen.expect("> /thread 77\n")
    screen.expect("> ")
    screen.type(f"/thread {empty}\r")
    screen.expect(f"A thread without a name ({empty})")
    screen.expect("> ")
    screen.type("/help\r")
    screen.expect("/quit      leave")
    screen.expect("> ")
    screen.type("\x04")
    screen.expect(f"agentflow chat --url {served.url} --thread ")
    assert screen.wait() == 0
    history = folder / "history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert history.read_text().splitlines()[:2] == ["markdown", "fail"]


def test_a_tool_call_is_shown(terminal):
    screen = terminal("chat", "--agent", "graph")
    screen.expect("graph at")
    screen.expect("> ")
    screen.type("hi\r")
    screen.expect('⚙ weather {"city":"Paris"}')
    screen.expect("weather → sunny in Paris")
    screen.expect("It is sunny in Paris")
    screen.expect("> ")
    screen.type("/quit\r")
    assert screen.wait() == 0


def test_an_agent_that_is_not_there_is_noticed_before_anything_is_typed(terminal):
    screen = terminal("chat", "--agent", "nobody")
    assert screen.wait() == 1
    assert screen.text == "there is no agent 'nobody'; there are graph, talk\n"


def test_an_approval_takes_a_yes_or_a_no(terminal):
    screen = terminal("chat")
    screen.expect("> ")
    screen.type("approve\r")
    screen.expect('May this be done? send 3 emails\n{\n  "to": "bob"\n}\ny or n\n? ')
    screen.type("maybe\r")
    screen.expect("expected true, false")
    screen.expect("y or n\n? ")
    screen.type("y\r")
    screen.expect("sent")
    screen.expect("> ")
    screen.type("approve\r")
    screen.expect("y or n\n? ")
    screen.type("n\r")
    screen.expect("was not approved")
    screen.expect("> ")


def test_questions_are_asked_and_answered_now_or_later(terminal, client):
    screen = terminal("chat")
    screen.expect("> ")
    screen.type("ask\r")
    screen.expect('Really?\n{\n  "amount": 7\n}\n? ')
    screen.type("true\r")
    screen.expect("you said True")
    screen.expect("> ")
    screen.type("twice\r")
    screen.expect("First?\n? ")
    screen.type("\x04")
    assert screen.wait() == 0
    thread = next(client.list_threads())
    assert thread.status == "interrupted"

    screen = terminal("chat", "--thread", thread.thread_id)
    screen.expect("> twice")
    screen.expect("First?\n? ")
    screen.type("\r")
    screen.expect("First?\n? ")
    screen.type("a\r")
    screen.expect("Second?\n? ")
    screen.type('"7"\r')
    screen.expect("a and 7")
    screen.expect("> ")
    screen.type("\x04")
    assert screen.wait() == 0


def test_no_control_character_of_an_agent_reaches_the_terminal(terminal):
    screen = terminal("chat")
    screen.expect("> ")
    screen.type("evil\r")
    screen.expect(r"a\x1b]0;owned\x07\x9b31m \u202eb' <b>bold</b> here (http://there.example)")
    screen.expect("> ")
    screen.type("\x04")
    assert screen.wait() == 0
    shown = screen.raw.decode()
    assert "\x1b]" not in shown
    assert "\u202e" not in shown


def test_ctrl_c_stops_an_answer_and_then_leaves_with_130(terminal, client):
    screen = terminal("chat")
    screen.expect("> ")
    screen.type("hold\r")
    screen.expect("one")
    screen.type("\x03")
    screen.expect("Stopped.")
    screen.expect("> ")
    thread = next(client.list_threads())
    (run,) = client.list_runs(thread.thread_id)
    assert client.wait(thread.thread_id, run.run_id, timeout=60).status == "cancelled"
    screen.type("\x03")
    assert screen.wait() == 130


def test_ctrl_c_twice_leaves_with_130_even_if_the_server_does_not_answer(terminal, line):
    screen = terminal("chat", "--url", line.url)
    screen.expect("> ")
    screen.type("hold\r")
    screen.expect("one")
    line.is_silent = True
    screen.type("\x03")
    assert line.was_asked.wait(60)
    screen.type("\x03")
    assert screen.wait() == 130


def test_a_thread_that_is_busy_is_followed(terminal, client, served):
    thread = client.create_thread()
    client.start(thread.thread_id, "slow", agent="talk")
    screen = terminal("chat", "--thread", thread.thread_id)
    screen.expect("> slow")
    screen.expect("one")
    served.gate.open("wb").close()
    screen.expect("one two")
    screen.expect("> ")
    screen.type("\x04")
    assert screen.wait() == 0


def test_where_stdout_goes_elsewhere_the_prompt_is_on_the_terminal(terminal, tmp_path):
    screen = terminal("chat", out=tmp_path / "answers")
    screen.expect("> ")
    screen.type("caf\udce9\r")
    screen.expect("that is no text in UTF-8")
    screen.expect("> ")
    screen.type("hi\r")
    screen.expect("> ")
    screen.type("\x04")
    assert screen.wait() == 0
    assert (tmp_path / "answers").read_text() == "echo hi\n"
    assert "echo hi" not in screen.text
