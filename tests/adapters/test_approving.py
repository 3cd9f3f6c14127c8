"""Function agents that wait for a yes."""

import asyncio
from copy import copy
from pickle import dumps, loads

import pytest

import agentflow_server
from agentflow_server import NotApproved, approve, approve_sync, ask
from agentflow_server.adapters.function import FunctionAgent

QUESTION = {"type": "approval_required", "action": "send 3 emails", "details": {"to": ["bob"]}}


@pytest.fixture
def talk_to(talk):
    return lambda function: talk(FunctionAgent(function, name="main"))


@pytest.fixture
def sender(talk_to):
    """Its `sent` are the emails that went out."""

    async def agent(messages, config):
        approval = await approve(config, "send 3 emails", details={"to": ["bob"]})
        talk.sent.append("email")
        return f"sent, {approval.comment}"

    talk = talk_to(agent)
    talk.sent = []
    return talk


async def test_the_question_says_what_is_to_be_done(sender):
    asked = await sender.say("go")
    assert sender.asked(asked) == [QUESTION]
    assert sender.sent == []


@pytest.mark.parametrize(
    ("answer", "comment"),
    [
        (True, None),
        ({"approved": True}, None),
        ({"approved": True, "comment": None}, None),
        ({"approved": True, "comment": "but politely"}, "but politely"),
    ],
)
async def test_a_yes_lets_it_go_on(sender, answer, comment):
    await sender.say("go")
    assert sender.texts(await sender.answer(answer)) == [f"sent, {comment}"]
    assert sender.sent == ["email"]


@pytest.mark.parametrize(
    ("answer", "comment"),
    [
        (False, None),
        ({"approved": False}, None),
        ({"approved": False, "comment": "too many"}, "too many"),
    ],
)
async def test_a_no_is_raised_with_its_comment(sender, answer, comment):
    await sender.say("go")
    with pytest.raises(NotApproved) as refusal:
        await sender.answer(answer)
    assert (refusal.value.comment, sender.sent) == (comment, [])


@pytest.mark.parametrize(
    "answer",
    [
        *(1, 0, 1.0, "", "yes", "true", "approved", None, [], [True], {}),
        *({"approved": 1}, {"approved": "true"}, {"approved": None}, {"approve": True}),
        *({"approved": True, "comment": 7}, {"approved": True, "details": {}}, {"Approved": True}),
    ],
)
async def test_nothing_but_a_yes_is_a_yes(sender, answer):
    await sender.say("go")
    with pytest.raises(NotApproved) as refusal:
        await sender.answer(answer)
    assert refusal.value.comment.startswith("Not understood: expected true, false, or")
    assert sender.sent == []


async def test_a_refusal_tells_nobody_what_was_commented():
    refusal = NotApproved("between us")
    assert "between us" not in f"{refusal} {refusal!r}"
    assert [each(refusal).comment for each in (copy, lambda error: loads(dumps(error)))] == [
        "between us",
        "between us",
    ]


async def test_an_agent_may_do_something_else_when_it_is_refused(talk_to):
    async def agent(messages, config):
        try:
            await approve(config, "delete the folder")
        except NotApproved as refusal:
            return f"kept it: {refusal.comment}"

    talk = talk_to(agent)
    assert talk.asked(await talk.say("go"))[0]["details"] == {}
    answered = await talk.answer({"approved": False, "comment": "still needed"})
    assert talk.texts(answered) == ["kept it: still needed"]


async def test_a_synchronous_agent_and_one_that_writes_piecewise_may_ask(talk_to):
    def agent(messages, config):
        return "yes" if approve_sync(config, "go on") else "never"

    def writing(messages, config):
        yield "It is "
        approve_sync(config, "go on")
        yield "done"

    for function, said in ((agent, "yes"), (writing, "It is done")):
        talk = talk_to(function)
        await talk.say("go")
        assert talk.texts(await talk.answer(True)) == [said]


@pytest.mark.parametrize(
    "other", [("send 4 emails", {"to": ["bob"]}), ("send 3 emails", {"to": ["alice"]})]
)
async def test_a_yes_is_good_for_what_was_shown_and_for_nothing_else(talk_to, other):
    plans = iter([("send 3 emails", {"to": ["bob"]}), other, other])
    sent = []

    async def agent(messages, config):
        action, details = next(plans)
        await approve(config, action, details=details)
        sent.append(action)
        return "sent"

    talk = talk_to(agent)
    await talk.say("go")
    again = talk.asked(await talk.answer(True))
    assert [(question["action"], question["details"]) for question in again] == [other]
    assert sent == []
    assert talk.texts(await talk.answer(True)) == ["sent"]


async def test_each_approval_of_a_run_has_its_own_answer(talk_to):
    async def agent(messages, config):
        said = []
        for action in ("one", "one", "two"):
            try:
                said.append((await approve(config, action)).comment)
            except NotApproved as refusal:
                said.append(f"not {refusal.comment}")
        return " ".join([*said, str(await ask(config, "and now?"))])

    talk = talk_to(agent)
    asked = [*talk.asked(await talk.say("go"))]
    for answer in (
        {"approved": True, "comment": "a"},
        {"approved": False, "comment": "b"},
        {"approved": True, "comment": "c"},
    ):
        asked += talk.asked(await talk.answer(answer))
    assert [question["action"] for question in asked[:3]] == ["one", "one", "two"]
    assert asked[3] == "and now?"
    assert talk.texts(await talk.answer("bye")) == ["a not b c bye"]


async def test_approvals_that_are_asked_for_at_once_are_given_one_after_the_other(talk_to):
    async def agent(messages, config):
        both = await asyncio.gather(*(approve(config, action) for action in ("one", "two")))
        return " ".join(str(approval.comment) for approval in both)

    talk = talk_to(agent)
    assert [question["action"] for question in talk.asked(await talk.say("go"))] == ["one"]
    second = talk.asked(await talk.answer({"approved": True, "comment": "first"}))
    assert [question["action"] for question in second] == ["two"]
    answered = await talk.answer({"approved": True, "comment": "second"})
    assert talk.texts(answered) == ["first second"]


@pytest.mark.parametrize("details", [["a list"], "text", {"when": object()}, {"n": float("nan")}])
async def test_details_that_cannot_be_shown_are_the_agents_error(talk_to, details):
    async def agent(messages, config):
        await approve(config, "go on", details=details)

    with pytest.raises(TypeError):
        await talk_to(agent).say("go")


async def test_an_action_is_text(talk_to):
    async def agent(messages, config):
        await approve(config, {"do": "it"})

    with pytest.raises(TypeError, match="expected an action that is text"):
        await talk_to(agent).say("go")


@pytest.mark.parametrize("config", [{}, {"user_id": "alice"}, None, "config"])
async def test_who_has_not_the_config_cannot_ask(config):
    with pytest.raises(TypeError, match="expected the config that the function, node or tool"):
        await approve(config, "go on")


async def test_the_package_shows_how_to_approve():
    assert {"approve", "approve_sync", "NotApproved"} <= set(agentflow_server.__all__)
