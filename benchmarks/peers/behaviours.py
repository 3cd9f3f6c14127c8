"""What a server does where speed is not the question; each is tried on the real thing."""

import secrets
from enum import StrEnum

from benchmarks.load import run_clients
from benchmarks.peers.contenders import REPLY, Auth, Contender
from benchmarks.peers.environments import Environment
from benchmarks.peers.served import Served, served
from benchmarks.server import Cores

AT_ONCE = 6
CLIENTS = 4
ANY_STATUS = range(200, 600)


class Behaviour(StrEnum):
    CRASH = "acknowledged turns lost by `kill -9`"
    OVERLAP = f"{AT_ONCE} messages at once to one thread: acknowledged turns lost"
    NO_AUTH = "a stranger, when nothing is configured about authentication"
    TYPO = 'a stranger, when the key is misspelt `"auht"`'


def observe(
    contender: Contender, environment: Environment, cores: Cores, crashes: int
) -> dict[Behaviour, str]:
    with served(contender, environment, cores) as server:
        server.start()
        overlapping = _count_overlapping(server, rounds=crashes)
        crashed = _count_crashed(server, crashes)
    return {
        Behaviour.CRASH: crashed,
        Behaviour.OVERLAP: overlapping,
        Behaviour.NO_AUTH: _visit(contender, environment, cores, "none"),
        Behaviour.TYPO: _visit(contender, environment, cores, "typo"),
    }


def _count_crashed(server: Served, crashes: int) -> str:
    said: list[tuple[str, str]] = []
    for _ in range(crashes):
        words = [secrets.token_hex(8) for _ in range(CLIENTS)]
        threads = [server.new_threads(client, 1, 2)[0] for client in range(CLIENTS)]
        turns = [
            [server.turn(thread, word, client)]
            for client, (thread, word) in enumerate(zip(threads, words, strict=True))
        ]
        server.run(turns)
        server.crash()
        server.start()
        said += zip(threads, words, strict=True)
    kept = sum(
        _is_kept(server, thread, word, number % CLIENTS)
        for number, (thread, word) in enumerate(said)
    )
    return f"{len(said) - kept} of {len(said)}"


def _count_overlapping(server: Served, rounds: int) -> str:
    acknowledged = lost = 0
    for _ in range(rounds):
        (thread,) = server.new_threads(0, 1, 2)
        words = [secrets.token_hex(8) for _ in range(AT_ONCE)]
        requests = [[server.turn(thread, word, 0)] for word in words]
        answers = run_clients(server.port, requests, 60, expected=ANY_STATUS).bodies
        answered = [word for word in words if any(word.encode() in body for body in answers)]
        acknowledged += len(answered)
        lost += sum(not _is_kept(server, thread, word, 0) for word in answered)
    refused = rounds * AT_ONCE - acknowledged
    return f"{lost} of {acknowledged}" + (f" ({refused} refused)" if refused else "")


def _is_kept(server: Served, thread: str, word: str, client: int) -> bool:
    try:
        history = server.history(thread, client)
    except RuntimeError:  # the whole thread is gone
        return False
    return REPLY + word.encode() in history


def _visit(contender: Contender, environment: Environment, cores: Cores, auth: Auth) -> str:
    with served(contender, environment, cores, auth=auth) as server:
        try:
            server.start()
        except RuntimeError:
            return "finds no server: it does not start"
        request = contender.creation(None)
        answer = run_clients(server.port, [[request]], 60, expected=ANY_STATUS).bodies[0]
    try:
        contender.thread_id(answer)
    except (KeyError, ValueError, TypeError):
        return "is refused"
    return "gets in"
