"""Several processes that listen on the same sockets, and one that watches over them."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from socket import socket

from agentflow_server.cli.failures import BAD_CONFIG

log = logging.getLogger(__name__)

PAUSE = 1.0
"""Seconds before a process that died is replaced: one that dies at once must not take all time."""

STOP, STARTED = b"stop", b"started"

Run = Callable[[int, Callable[[], None] | None], None]
"""What process number n does; the very first one calls what it is given when it serves."""


class Supervisor:
    """Starts `count` processes, replaces those that die, and ends when it is told to.

    The first one goes ahead: what keeps it from starting is said once, and ends everything. Later
    on nothing does: a file that somebody is editing, or a database that is away, does not stop
    those that serve.
    """

    def __init__(self, run: Run, count: int, sockets: Sequence[socket]) -> None:
        """`run` is pickled, and knows the sockets, too."""
        self._run = run
        self._count = count
        self._sockets = sockets
        self._context = multiprocessing.get_context("spawn")
        self._children: dict[int, BaseProcess] = {}
        self._heard, self._tell = self._context.Pipe(duplex=False)
        self._has_started = self._is_stopping = False
        self._code = 0

    def run(self) -> None:
        """Returns, or leaves with the code of one that failed, when all have ended."""
        for wish in (signal.SIGTERM, signal.SIGINT):
            signal.signal(wish, lambda *_: self._tell.send_bytes(STOP))
        resource_tracker.ensure_running()  # which `_start` does otherwise, changing what is blocked
        self._start(0)
        while self._children:
            wait([self._heard, *(child.sentinel for child in self._children.values())])
            while self._heard.poll():
                self._hear(self._heard.recv_bytes())
            for number, child in list(self._children.items()):
                if not child.is_alive():
                    self._bury(number, child)
        if self._code:
            sys.exit(self._code)

    def _hear(self, said: bytes) -> None:
        if said == STOP:
            self._stop()
        elif not self._has_started:
            self._has_started = True
            for number in range(1, self._count):
                self._start(number)

    def _start(self, number: int) -> None:
        if self._is_stopping:
            return
        tell = None if self._has_started else self._tell
        child = self._context.Process(target=_live, args=(self._run, number, tell))
        # Inherited: Ctrl-C reaches every process of the terminal, but it is for us to pass it on.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        child.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        self._children[number] = child

    def _stop(self) -> None:
        """It may be said several times."""
        self._is_stopping = True
        # Or clients would be let in for as long as we are here, when nobody answers any more.
        for each in self._sockets:
            each.close()
        for child in self._children.values():
            child.terminate()

    def _bury(self, number: int, child: BaseProcess) -> None:
        del self._children[number]
        ended_with = child.exitcode or 0
        if self._is_stopping or (child.exitcode == BAD_CONFIG and not self._has_started):
            self._code = max(self._code, ended_with)
            return
        log.error("process %d ended with %s; another one takes its place", number, ended_with)
        if self._heard.poll(PAUSE):
            self._hear(self._heard.recv_bytes())
        self._start(number)


def _live(run: Run, number: int, tell: Connection | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_follow_parent, daemon=True).start()
    run(number, None if tell is None else lambda: tell.send_bytes(STARTED))


def _follow_parent() -> None:
    """Nobody would stop us, or replace us, when the supervisor is gone."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
