"""The log in a file: private, whole, and one chain whoever writes, rotates or dies."""

import errno
import json
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentflow_server.audit.chain import START, Chain
from agentflow_server.audit.file import AuditFile, read_backwards
from agentflow_server.audit.verifying import Verification
from agentflow_server.errors import ConfigError
from agentflow_server.models import AuditEvent

Event = Callable[..., AuditEvent]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "audit.log"


@pytest.fixture
async def file(path: Path) -> AuditFile:
    file = AuditFile(path, Chain())
    await file.open()
    return file


def lines_of(*paths: Path) -> list[str]:
    return [line for path in paths for line in path.read_text(encoding="utf-8").splitlines()]


def damage(*paths: Path) -> list[str]:
    verification = Verification(Chain())
    return [finding for line in lines_of(*paths) for finding in verification.check(line)]


async def test_only_its_owner_may_read_it(file: AuditFile, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_lines_are_appended(file: AuditFile, path: Path, event: Event, users: Any) -> None:
    await file.append([event(user_id="alice"), event(user_id="bob")])
    await file.append([event(user_id="carol")])
    assert users(lines_of(path)) == ["alice", "bob", "carol"]
    assert damage(path) == []


async def test_the_chain_goes_on_after_a_restart(file: AuditFile, path: Path, event: Event) -> None:
    await file.append([event()])
    for _ in range(3):
        again = AuditFile(path, Chain())
        await again.open()
        await again.append([event()])
    assert len(lines_of(path)) == 4
    assert damage(path) == []


async def test_two_writers_make_one_chain(file: AuditFile, path: Path, event: Event) -> None:
    other = AuditFile(path, Chain())
    for _ in range(5):
        await file.append([event()])
        await other.append([event(), event()])
    assert len(lines_of(path)) == 15
    assert damage(path) == []


async def test_two_writers_at_the_same_time_make_one_chain(
    file: AuditFile, path: Path, event: Event
) -> None:
    def work() -> None:
        writer = AuditFile(path, Chain())
        for _ in range(20):
            writer._append([event()])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines_of(path)) == 80
    assert damage(path) == []


async def test_the_chain_goes_on_in_the_next_file(
    file: AuditFile, path: Path, event: Event
) -> None:
    await file.append([event(), event()])
    rotated = path.rename(path.with_suffix(".1"))
    await file.append([event()])
    assert [json.loads(line)["seq"] for line in lines_of(path)] == [3]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert damage(rotated, path) == []


async def test_the_chain_goes_on_when_the_file_is_copied_and_emptied(
    file: AuditFile, path: Path, event: Event
) -> None:
    await file.append([event(), event()])
    copy = path.with_suffix(".1")
    copy.write_bytes(path.read_bytes())
    os.truncate(path, 0)
    await file.append([event()])
    assert damage(copy, path) == []
    assert len(lines_of(path)) == 1


@pytest.mark.parametrize("writer", ["server", "command"])
async def test_the_chain_goes_on_in_the_next_file_whoever_begins_it(
    file: AuditFile, path: Path, event: Event, writer: str
) -> None:
    await file.append([event(), event()])
    rotated = path.rename(path.with_suffix(".1"))
    first, second = file, AuditFile(path, Chain())
    if writer == "command":
        first, second = second, first
    await first.open()
    await first.append([event()])
    await second.append([event()])
    assert [json.loads(line)["seq"] for line in lines_of(path)] == [3, 4]
    assert damage(rotated, path) == []


async def test_the_chain_goes_on_when_a_command_writes_to_the_emptied_file(
    file: AuditFile, path: Path, event: Event
) -> None:
    await file.append([event(), event()])
    copy = path.with_suffix(".1")
    copy.write_bytes(path.read_bytes())
    os.truncate(path, 0)
    await AuditFile(path, Chain()).append([event()])
    await file.append([event()])
    assert damage(copy, path) == []
    assert len(lines_of(path)) == 2


async def test_the_chain_goes_on_when_a_writer_died_before_it_left_its_mark(
    file: AuditFile, path: Path, event: Event
) -> None:
    await file.append([event()])
    head = path.with_name(".audit.log.head")
    before = head.read_bytes()
    await file.append([event(), event()])
    head.write_bytes(before)
    rotated = path.rename(path.with_suffix(".1"))
    await AuditFile(path, Chain()).append([event()])
    assert damage(rotated, path) == []
    assert [json.loads(line)["seq"] for line in lines_of(path)] == [4]


async def test_without_its_mark_a_log_tells_itself_where_it_ends(
    file: AuditFile, path: Path, event: Event
) -> None:
    head = path.with_name(".audit.log.head")
    await file.append([event()])
    for content in (b"", b"garbage\n" * 30):
        head.write_bytes(content)
        await file.append([event()])
    head.unlink()
    await file.open()
    rotated = path.rename(path.with_suffix(".1"))
    await file.append([event()])
    assert damage(rotated, path) == []
    assert stat.S_IMODE(head.stat().st_mode) == 0o600


async def test_a_mark_that_cannot_be_written_makes_no_line_twice(
    file: AuditFile,
    path: Path,
    event: Event,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refuse)
        await file.append([event()])
    assert "the end of the chain could not be noted" in caplog.text
    await file.append([event()])
    assert len(lines_of(path)) == 2
    assert damage(path) == []


async def test_a_line_that_a_crash_cut_off_is_removed_and_that_is_said(
    file: AuditFile, path: Path, event: Event, users: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await file.append([event(user_id="alice")])
    with path.open("a", encoding="utf-8") as torn:
        torn.write('{"seq":2,"time":"20' + "x" * 100_000)
    again = AuditFile(path, Chain())
    await again.open()
    await again.append([event(user_id="bob")])
    assert users(lines_of(path)) == ["alice", "audit.repaired", "bob"]
    assert json.loads(lines_of(path)[1])["details"] == {"bytes": "100019"}
    assert damage(path) == []
    assert "incomplete last line" in caplog.text


async def test_after_garbage_the_chain_goes_on_from_the_last_good_line(
    file: AuditFile, path: Path, event: Event
) -> None:
    await file.append([event()])
    with path.open("a", encoding="utf-8") as other:
        other.write("garbage\n" * 20_000)
    await file.append([event()])
    assert set(damage(path)) == {"is not a line of an audit log"}
    assert json.loads(lines_of(path)[-1])["seq"] == 2


def cut_off(path: Path, count: int) -> None:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    os.truncate(path, len("".join(lines[:-count]).encode()))


@pytest.mark.parametrize("restarted", [True, False])
async def test_r84_lines_that_were_cut_off_are_missed_and_that_is_said(
    file: AuditFile,
    path: Path,
    event: Event,
    restarted: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await file.append([event()] * 5)
    cut_off(path, 3)
    if restarted:
        file = AuditFile(path, Chain())
        await file.open()
    await file.append([event()])
    await file.append([event()])
    lines = [json.loads(line) for line in lines_of(path)]
    assert [line["seq"] for line in lines] == [1, 2, 6, 7, 8]
    assert [line["action"] for line in lines[2:]] == ["audit.truncated"] + ["authenticate"] * 2
    assert lines[2]["details"] == {"found": "2", "written": "5"}
    assert damage(path) == ["seq 6: before it 3–5 is missing"]
    assert "lines at its end were removed" in caplog.text


async def test_r84_lines_cut_off_from_a_file_that_was_put_there_anew_are_missed(
    file: AuditFile, path: Path, event: Event
) -> None:
    await file.append([event()] * 3)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(b"".join(content.splitlines(keepends=True)[:1]))
    await file.append([event()])
    assert damage(path) == ["seq 4: before it 2–3 is missing"]


@pytest.mark.parametrize("rest", [b"{", b"\n"])
async def test_r84_a_log_of_which_no_line_is_left_is_not_gone_on_with(
    file: AuditFile, path: Path, event: Event, rest: bytes
) -> None:
    await file.append([event()] * 2)
    path.write_bytes(rest)
    with pytest.raises(OSError, match="not an audit log"):
        await file.append([event()])
    with pytest.raises(ConfigError, match="holds something else than an audit log"):
        await AuditFile(path, Chain()).open()
    assert path.read_bytes() == rest


async def test_r84_another_last_line_is_not_gone_on_from(
    file: AuditFile, path: Path, event: Event
) -> None:
    await file.append([event(user_id="alice")])
    forged = Chain().extend(START, [event(user_id="bob, who is longer")])[0]
    path.write_text(f"{forged[0]}\n", encoding="utf-8")
    await file.append([event()])
    assert damage(path) == [
        "seq 2: does not continue the line before it; one of the two was changed"
    ]
    assert json.loads(lines_of(path)[1])["action"] == "audit.truncated"


async def test_a_full_disk_leaves_no_half_line(
    file: AuditFile, path: Path, event: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    await file.append([event()])
    before = path.read_bytes()
    write = os.write
    room = [40]

    def write_a_little(file: int, data: bytes) -> int:
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data[: room.pop()])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write_a_little)
        with pytest.raises(OSError, match="No space left"):
            await file.append([event()])
    assert path.read_bytes() == before
    await file.append([event()])
    assert damage(path) == []


async def test_a_file_of_somebody_else_is_refused_and_left_alone(path: Path, event: Event) -> None:
    path.parent.mkdir()
    path.write_text("precious\n", encoding="utf-8")
    file = AuditFile(path, Chain())
    with pytest.raises(ConfigError, match="holds something else than an audit log"):
        await file.open()
    with pytest.raises(OSError, match="not an audit log"):
        await file.append([event()])
    assert path.read_text(encoding="utf-8") == "precious\n"


async def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"observability\.audit\.path: .* cannot be written"):
        await AuditFile(tmp_path, Chain()).open()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"observability\.audit\.path: .* cannot be written"):
        await AuditFile(tmp_path / "file" / "audit.log", Chain()).open()


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"a", []),
        (b"a\n", [b"a"]),
        (b"a\nb", [b"a"]),
        (b"a\n\nb\n", [b"b", b"", b"a"]),
        (b"\n", [b""]),
        (b"x" * 200_000 + b"\n" + b"y" * 70_000 + b"\nz", [b"y" * 70_000, b"x" * 200_000]),
        (b"1\n" * 40_000, [b"1"] * 40_000),
    ],
    ids=range(8),
)
def test_a_file_is_read_from_its_end(content: bytes, lines: list[bytes], tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(content)
    with path.open("rb") as file:
        assert list(read_backwards(file.fileno())) == lines


def test_the_first_link_is_the_beginning() -> None:
    assert (START.seq, START.hash) == (0, "0" * 64)
