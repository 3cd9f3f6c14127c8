"""Each line of the log says where it comes from."""

import asyncio
import io
import json
import logging

import pytest
from anyio import to_thread

from agentflow_server import log_context
from agentflow_server.cli.logs import JsonFormatter
from agentflow_server.log_context import ContextFilter, bind, describe_ids

log = logging.getLogger("agentflow_server.tests.log_context")


class Readable(logging.Formatter):
    def format(self, record):
        return record.getMessage() + describe_ids(record)


@pytest.fixture(params=[JsonFormatter, Readable])
def lines(request):
    """The lines of this test, in each format."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(request.param())
    handler.addFilter(ContextFilter())
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield lambda: [_fields(line) for line in stream.getvalue().splitlines()]
    log.removeHandler(handler)


def _fields(line):
    if line.startswith("{"):
        fields = json.loads(line)
        return {name: fields[name] for name in ("message", *log_context._IDS) if name in fields}
    message, *pairs = line.split(" ")
    return {"message": message, **dict(pair.split("=") for pair in pairs)}


def test_a_line_inside_a_run_carries_its_run_and_its_thread(lines):
    log.info("before")
    with bind(request="q1", thread="t1", run="r1"):
        log.info("inside")
        with bind(thread="t2", run="r2"):
            log.info("deeper")
        log.info("back")
    log.info("after")
    ids = {"run_id": "r1", "thread_id": "t1", "request_id": "q1"}
    assert lines() == [
        {"message": "before"},
        {"message": "inside", **ids},
        {"message": "deeper", "run_id": "r2", "thread_id": "t2"},
        {"message": "back", **ids},
        {"message": "after"},
    ]


async def test_runs_at_the_same_time_do_not_mix(lines):
    async def one(number):
        with bind(thread=f"t{number}", run=f"r{number}"):
            await asyncio.sleep(0)
            log.info(f"m{number}")  # noqa: G004 - the message has to differ
            await to_thread.run_sync(log.info, f"m{number}")

    await asyncio.gather(*(one(number) for number in range(100, 150)))
    assert len(lines()) == 100
    assert all(
        (f"r{line['message'][1:]}", f"t{line['message'][1:]}")
        == (line["run_id"], line["thread_id"])
        for line in lines()
    )


def test_a_record_that_names_a_run_itself_is_right(lines):
    with bind(run="r1"):
        log.info("other", extra={"run_id": "r9"})
    assert lines() == [{"message": "other", "run_id": "r9"}]


def test_an_exception_does_not_leave_its_ids_behind(lines):
    with pytest.raises(ValueError, match="broken"), bind(run="r1"):
        raise ValueError("broken")
    log.info("after")
    assert lines() == [{"message": "after"}]


def test_a_reader_is_not_told_twice():
    with bind(request="q1", thread="t1", run="r1"):
        record = logging.makeLogRecord({"msg": "run %s failed", "args": ("r1",)})
        assert ContextFilter().filter(record)
    assert describe_ids(record) == " thread_id=t1 request_id=q1"
