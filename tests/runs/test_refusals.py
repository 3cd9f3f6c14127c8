"""What becomes of a run whose agent was told no."""

import asyncio

import pytest

from agentflow_server import NotApproved, approve
from agentflow_server.adapters.asking import Asked
from agentflow_server.errors import RunFailed
from agentflow_server.models import Answer


def caused(error, cause):
    error.__cause__ = cause
    return error


SELF_CAUSED = LookupError()
SELF_CAUSED.__cause__ = SELF_CAUSED

ENDS = {
    "a refusal": (NotApproved(), "not_approved"),
    "a wrapped one": (caused(LookupError(), caused(KeyError(), NotApproved())), "not_approved"),
    "several": (ExceptionGroup("", [NotApproved(), NotApproved("x")]), "not_approved"),
    "one beside a question": (BaseExceptionGroup("", [NotApproved(), Asked()]), "not_approved"),
    "one beside an error": (ExceptionGroup("", [NotApproved(), LookupError()]), "agent_failed"),
    "an error of its own cause": (SELF_CAUSED, "agent_failed"),
}


@pytest.mark.parametrize("kind", ENDS)
async def test_only_a_refusal_ends_a_run_as_one(open_house, request_for, alice, kind):
    error, code = ENDS[kind]

    async def agent(messages, config):
        raise error

    async with open_house(agent) as house:
        with pytest.raises(RunFailed) as failure:
            await house.runner.send(alice, await house.thread(), request_for("go"))
        assert failure.value.run_code == code


async def test_a_refusal_in_a_task_group_ends_the_run_while_others_ask(
    open_house, request_for, alice
):
    async def agent(messages, config):
        async with asyncio.TaskGroup() as group:
            for number in range(2):
                group.create_task(approve(config, f"step {number}"))

    async with open_house(agent) as house:
        thread_id = await house.thread()
        turn = await house.runner.send(alice, thread_id, request_for("go"))
        with pytest.raises(RunFailed) as failure:
            await house.runner.send_answer(alice, thread_id, turn.run_id, Answer(value=False))
        assert failure.value.run_code == "not_approved"
