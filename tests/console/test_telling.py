"""What is shown of events, questions and texts, whatever is in them."""

import io

import pytest

from agentflow_server.client import RunFailed
from agentflow_server.console.display import PlainDisplay
from agentflow_server.console.printable import make_line, make_printable
from agentflow_server.console.questions import describe, read_answer
from agentflow_server.console.telling import Telling
from agentflow_server.models import Event, Interrupt
from agentflow_server.models.approvals import make_approval

NOW = "2026-11-22T09:30:00Z"


class Told:
    """A run, told to somebody at a pipe who sits at a terminal."""

    def __init__(self):
        self.out, self.notes = io.StringIO(), io.StringIO()
        self.telling = Telling(PlainDisplay(self.out, self.notes))
        self.number = 0

    def __call__(self, kind, **data):
        self.number += 1
        self.telling.take(Event("run", self.number, kind, data))
        return self.out.getvalue()

    def complete(self, message_id, content, role="assistant"):
        ids = {"message_id": message_id, "thread_id": "t", "run_id": "run"}
        return self(
            "message.completed", **ids, role=role, content=content, created_at=NOW, metadata={}
        )


@pytest.fixture
def told():
    return Told()


def test_a_message_comes_once_although_it_is_told_in_pieces_and_as_a_whole(told):
    told("run.started")
    told("message.delta", message_id="1", delta="Hel")
    told("message.delta", message_id="1", delta="lo")
    assert told.complete("1", "Hello!") == "Hello!\n"


def test_of_two_that_speak_at_once_none_interrupts_the_other(told):
    told("message.delta", message_id="1", delta="one ")
    told("message.delta", message_id="2", delta="two ")
    told("message.delta", message_id="1", delta="one")
    told.complete("1", "one one")
    assert told.complete("2", "two two") == "one one\ntwo two\n"


def test_what_is_complete_first_stands_in_lines_of_its_own(told):
    told("message.delta", message_id="1", delta="one ")
    told.complete("2", "two")
    assert told.complete("1", "one and all") == "one \ntwo\nand all\n"


def test_what_turns_out_otherwise_is_told_again(told):
    told("message.delta", message_id="1", delta="draft")
    assert told.complete("1", "final") == "draft\nfinal\n"


def test_a_run_that_begins_again_says_so(told):
    told("run.started")
    told("message.delta", message_id="1", delta="half")
    told("run.started")
    told("message.delta", message_id="2", delta="whole")
    assert told.complete("2", "whole") == "half\nwhole\n"
    assert "may come once more" in told.notes.getvalue()


def test_what_a_tool_says_is_no_answer(told):
    assert told.complete("1", "raw", role="tool") == ""
    told("tool.started", name="find\x1b", call_id="c", arguments={"q": "a\nb"})
    told("custom", data={"progress": 1})
    assert told.notes.getvalue() == '⚙ find\\x1b {"q":"a\\nb"}\n· {"progress":1}\n'


def test_a_part_that_is_no_text_is_named(told):
    parts = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {}}]
    assert told.complete("1", parts) == "see\n[image_url]\n"


def test_a_run_that_was_stopped_elsewhere_says_so(told):
    told("run.cancelled")
    assert told.notes.getvalue() == "The run was cancelled.\n"


def test_a_run_that_fails_without_a_reason_fails_all_the_same(told):
    with pytest.raises(RunFailed) as caught:
        told("run.failed", error=None)
    assert caught.value.code == "error"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("Really?\x07", r"Really?\x07"),
        ({"message": "Go on?"}, "Go on?"),
        ({"question": 1, "prompt": "Well?"}, 'Well?\n{\n  "question": 1\n}'),
        (make_approval("send\x07", {}), "May this be done? send\\x07\ny or n"),
        (
            make_approval("send", {"to": "bob"}),
            'May this be done? send\n{\n  "to": "bob"\n}\ny or n',
        ),
        (["a"], '[\n  "a"\n]'),
        (None, "The agent waits for an answer (id)."),
    ],
)
def test_a_question_is_shown_whatever_it_is(value, shown):
    assert describe(Interrupt(interrupt_id="id", value=value)) == shown


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("yes", "yes"),
        ("true", True),
        ("42", 42),
        ('"42"', "42"),
        ('{"a":1}', {"a": 1}),
        ("NaN", "NaN"),
    ],
)
def test_an_answer_is_json_where_it_can_be(typed, meant):
    assert read_answer(Interrupt(interrupt_id="id", value="Really?"), typed) == meant


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("y", True), ("Yes", True), ("n", False), ("NO", False), ("true", True), ("maybe", "maybe")],
)
def test_an_approval_takes_y_and_n(typed, meant):
    approval = Interrupt(interrupt_id="id", value=make_approval("send", {}))
    assert read_answer(approval, typed) == meant


def test_a_text_keeps_its_lines_and_loses_its_power():
    assert make_printable("a\tb\r\nc\x1b[2J\x9d\u2028\u202e\ud800é") == (
        "a\tb\nc\\x1b[2J\\x9d\\u2028\\u202e\\ud800é"
    )
    assert make_line("a\n\n b" + "c" * 20, 10) == "a bcccccc…"
