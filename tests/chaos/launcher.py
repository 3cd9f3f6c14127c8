"""Starts `agentflow …` whenever a line comes in, in a process of its own, one after the other.

What costs time at every start, the imports, is done once, and the server is forked off: so a
second is enough for several deaths. The line `exec` starts the command as a shell would.
"""

import gc
import os
import sys

import langgraph.checkpoint.sqlite
import langgraph.graph  # noqa: F401 – what `served.py` needs, too

import agentflow_server.app  # noqa: F401
from agentflow_server.__main__ import main

COMMAND = sys.argv[1:]


def serve(how: str) -> None:
    if how == "exec":
        os.execv(sys.executable, [sys.executable, "-m", "agentflow_server", *COMMAND])
    sys.argv[1:] = COMMAND
    main()


def launch() -> None:
    gc.freeze()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        child = os.fork()
        if not child:
            serve(line.strip())
            os._exit(0)
        sys.stdout.write(f"pid {child}\n")
        sys.stdout.flush()
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"ended {os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


launch()
