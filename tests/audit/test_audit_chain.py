"""R83 and R84: one event is one line, and a log that was touched says where."""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_server.audit.chain import START, Chain, find_link, parse_line
from agentflow_server.audit.verifying import Verification
from agentflow_server.models import AuditEvent

KEY = b"k" * 31 + b"y"


def verify(lines: Sequence[str], *, key: bytes | None = None, part: bool = False) -> list[str]:
    verification = Verification(Chain(key), part=part)
    return [
        f"{number}: {finding}"
        for number, line in enumerate(lines, start=1)
        for finding in verification.check(line)
    ]


def reseal(line: str, **changes: Any) -> str:
    """What somebody with write access, but without a key, can make of a line."""
    fields = json.loads(line) | changes
    del fields["hash"]
    body = json.dumps(fields, separators=(",", ":"))[:-1]
    return f'{body},"hash":"{Chain()._hash(body)}"}}'


def test_a_line_holds_what_the_event_does(event: Callable[..., AuditEvent]) -> None:
    sealed = event(
        result="failure",
        reason="bad_signature",
        user_id="alice",
        method="jwt",
        issuer="https://id.example.com",
        token_id="t1",
        algorithm="RS256",
        key_id="k1",
        client="192.0.2.1",
        route="POST /threads",
        request_id="r1",
        details={"scope": "admin"},
    )
    (line,), link = Chain().extend(START, [sealed])
    fields = json.loads(line)
    assert fields == {
        "seq": 1,
        "time": "2023-11-14T22:13:20.123Z",
        "action": "authenticate",
        "result": "failure",
        "reason": "bad_signature",
        "user_id": "alice",
        "method": "jwt",
        "issuer": "https://id.example.com",
        "token_id": "t1",
        "algorithm": "RS256",
        "key_id": "k1",
        "client": "192.0.2.1",
        "route": "POST /threads",
        "request_id": "r1",
        "details": {"scope": "admin"},
        "prev": "0" * 64,
        "hash": link.hash,
    }
    assert link.seq == 1


def test_what_is_not_known_is_left_out(event: Callable[..., AuditEvent]) -> None:
    (line,), _ = Chain().extend(START, [event()])
    assert list(json.loads(line)) == ["seq", "time", "action", "result", "prev", "hash"]


@pytest.mark.parametrize(
    "hostile",
    ["a\r\nb", "\x1b[31m", "a\0b", "\x7f\x85\x9b", "\u2028\u2029", "\u202eevil\u2066", "\ud800"],
)
def test_r83_hostile_characters_come_out_escaped(
    hostile: str, event: Callable[..., AuditEvent]
) -> None:
    (line,), _ = Chain().extend(START, [event(key_id=hostile, details={hostile: hostile})])
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["key_id"] == hostile
    assert json.loads(line)["details"] == {hostile: hostile}


def test_a_field_without_end_is_cut(event: Callable[..., AuditEvent]) -> None:
    (line,), _ = Chain().extend(START, [event(key_id="k" * 1_000_000)])
    assert len(line) < 2000
    assert json.loads(line)["key_id"] == "k" * 512 + "…"


@given(st.lists(st.text(max_size=60), min_size=1, max_size=5), st.sampled_from([None, KEY]))
def test_whatever_is_recorded_verifies(texts: list[str], key: bytes | None) -> None:
    events = [
        AuditEvent(0.0, text, "error", reason=text, details={text: text, "prev": text})
        for text in texts
    ]
    lines, last = Chain(key).extend(START, events)
    assert verify(lines, key=key) == []
    assert [line.count("\n") for line in lines] == [0] * len(texts)
    assert find_link(reversed(lines)) == last


def test_r84_an_untouched_log_verifies(seal: Callable[..., list[str]]) -> None:
    assert verify(seal(5)) == []
    assert verify(seal(5, key=KEY), key=KEY) == []
    assert verify([]) == []


def test_r84_an_edited_line_is_found(seal: Callable[..., list[str]]) -> None:
    lines = seal(5)
    lines[2] = lines[2].replace("user-3", "user-9")
    assert verify(lines) == ["3: seq 3: was changed, or written with another key"]


def test_r84_an_edited_line_with_a_new_hash_is_found(seal: Callable[..., list[str]]) -> None:
    lines = seal(5)
    lines[2] = reseal(lines[2], user_id="user-9")
    (finding,) = verify(lines)
    assert finding.startswith("4: seq 4: does not continue the line before it")


def test_r84_a_dropped_line_is_found(seal: Callable[..., list[str]]) -> None:
    lines = seal(6)
    assert verify(lines[:2] + lines[3:]) == ["3: seq 4: before it seq 3 is missing"]
    assert verify(lines[:1] + lines[4:]) == ["2: seq 5: before it 2–4 is missing"]


def test_r84_dropped_lines_with_new_numbers_are_found(seal: Callable[..., list[str]]) -> None:
    lines = seal(4)
    lines[1:] = [reseal(line, seq=seq) for seq, line in enumerate(lines[2:], start=2)]
    assert verify(lines)


def test_r84_a_dropped_beginning_is_found_unless_it_is_known(
    seal: Callable[..., list[str]],
) -> None:
    lines = seal(5)[2:]
    assert verify(lines) == ["1: seq 3: before it 1–2 is missing"]
    assert verify(lines, part=True) == []


def test_r84_reordered_lines_are_found(seal: Callable[..., list[str]]) -> None:
    lines = seal(5)
    lines[1], lines[2] = lines[2], lines[1]
    assert verify(lines) == [
        "2: seq 3: before it seq 2 is missing",
        "3: seq 2: is out of place, or there twice",
    ]


def test_r84_a_line_that_is_there_twice_is_found(seal: Callable[..., list[str]]) -> None:
    lines = seal(3)
    assert verify([*lines, lines[1]]) == ["4: seq 2: is out of place, or there twice"]


@pytest.mark.parametrize("garbage", ["", "{}", "null", "x" * 10_000, '{"seq":4}', "\ufffd"])
def test_a_line_that_is_none_is_found(garbage: str, seal: Callable[..., list[str]]) -> None:
    lines = seal(3)
    assert verify([*lines[:2], garbage, lines[2]]) == ["3: is not a line of an audit log"]


@pytest.mark.parametrize("addition", [" ", "\t", "\r", "é"])
def test_a_line_is_compared_byte_by_byte(addition: str, seal: Callable[..., list[str]]) -> None:
    lines = seal(2)
    lines[0] = re.sub('"time"', f'{addition}"time"', lines[0])
    assert verify(lines) != []
    assert verify([seal(2)[0] + addition, seal(2)[1]]) != []


def test_r84_with_a_key_nobody_else_can_compute_the_chain_anew(
    seal: Callable[..., list[str]],
) -> None:
    forged = Chain().extend(START, [AuditEvent(0.0, "authenticate", "success")])[0]
    assert verify(forged, key=KEY) == ["1: seq 1: was changed, or written with another key"]
    assert len(verify(seal(3, key=KEY), key=b"another key " * 4)) == 3
    assert len(verify(seal(3, key=KEY))) == 3


def test_the_newest_line_is_found_below_garbage(seal: Callable[..., list[str]]) -> None:
    lines = seal(3)
    last = parse_line(lines[2])
    assert last
    assert find_link(["garbage", *reversed(lines)]) == last.link
    assert find_link(["garbage"]) is None
