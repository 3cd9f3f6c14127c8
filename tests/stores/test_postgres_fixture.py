"""The server of these tests goes with the process that started it, however that ends."""

import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

START = """
import sys
sys.path.insert(0, sys.argv[1])
from postgres_server import find_wheel, running_postgres
with running_postgres(find_wheel()) as server:
    print(server.pid, server.folder, flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a child is not told")
@pytest.mark.usefixtures("postgres_server")
@pytest.mark.parametrize("how", [None, signal.SIGTERM, signal.SIGKILL])
def test_no_server_is_left_behind(how: signal.Signals | None) -> None:
    command = [sys.executable, "-c", START, str(Path(__file__).parents[1])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        pid, _, folder = process.stdout.readline().decode().strip().partition(" ")
        server = os.pidfd_open(int(pid))
        try:
            if how is None:
                process.stdin.close()
            else:
                process.send_signal(how)
            process.wait(30)
            ended, _, _ = select.select([server], [], [], 30)
        finally:
            os.close(server)
    assert ended
    assert Path(folder).exists() == (how is not None)
    shutil.rmtree(folder, ignore_errors=True)
