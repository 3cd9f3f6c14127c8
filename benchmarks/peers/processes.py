"""Processes with all their descendants: started on one core, counted, and ended for certain."""

import os
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

TICKS = os.sysconf("SC_CLK_TCK")
PATIENCE = 15.0


@contextmanager
def pinned_to(core: int) -> Iterator[None]:
    """Children begin on the core their parent is pinned to."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass(frozen=True, slots=True)
class Tree:
    """A process, and whoever descends from it at the moment of each call."""

    pid: int

    def pids(self) -> list[int]:
        children: dict[int, list[int]] = defaultdict(list)
        for pid, parent in _list_parents():
            children[parent].append(pid)
        found = [self.pid]
        for pid in found:
            found += children[pid]
        return found

    def cpu_seconds(self) -> float:
        """User and system time; of those that have ended meanwhile, in ticks of the kernel."""
        return sum(_cpu_seconds(pid) for pid in self.pids())

    def memory(self) -> float:
        """MB of 10^6 bytes. What several processes share counts once (PSS)."""
        return sum(_pss(pid) for pid in self.pids())

    def kill(self) -> None:
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextmanager
def running(
    command: Sequence[str], core: int, *, cwd: Path, variables: Mapping[str, str], log: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("ab") as output, pinned_to(core):
        process = subprocess.Popen(
            command, cwd=cwd, env=dict(variables), stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        stop(process)


def stop(process: "subprocess.Popen[bytes]") -> None:
    """SIGTERM to the first of them, then SIGKILL to all that are left."""
    if process.poll() is not None:
        return
    family = [pid for pid in Tree(process.pid).pids() if pid != process.pid]
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        Tree(process.pid).kill()
        process.wait()
    _bury(family)


def kill(process: "subprocess.Popen[bytes]") -> None:
    """As a crash: nobody gets to say goodbye."""
    family = Tree(process.pid).pids()[1:]
    Tree(process.pid).kill()
    process.wait()
    _bury(family)


def _bury(pids: Sequence[int]) -> None:
    """Descendants that outlive their parent are given a moment, and then none."""
    deadline = time.monotonic() + 2
    while (left := [pid for pid in pids if Path(f"/proc/{pid}").exists()]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.01)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU seconds by whose they are: the server's, and its database's."""

    server: float
    database: float

    def __sub__(self, other: Self) -> "Spent":
        return Spent(self.server - other.server, self.database - other.database)


def _list_parents() -> Iterator[tuple[int, int]]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                yield int(folder.name), int(_stat(int(folder.name))[1])


def _cpu_seconds(pid: int) -> float:
    with suppress(OSError):
        reaped = sum(map(int, _stat(pid)[13:15])) / TICKS
        # The clock id that clock_getcpuclockid(3) makes of a process id.
        return time.clock_gettime((~pid << 3) | 2) + reaped
    return 0.0


def _stat(pid: int) -> list[str]:
    """The fields after the name, which may contain anything: state, parent, …"""
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return text.rpartition(")")[2].split()


def _pss(pid: int) -> float:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0
