"""`make bench-peers`: measures our server beside others and writes RESULTS.md."""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from benchmarks.peers.contenders import CONTENDERS
from benchmarks.peers.environments import default_folder
from benchmarks.peers.measuring import FULL, QUICK, measure
from benchmarks.peers.report import write_report
from benchmarks.server import take_cores

RESULTS = Path(__file__).with_name("RESULTS.md")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a little of each; writes no file")
    parser.add_argument("--only", default="", help="those whose name contains this; no file either")
    parser.add_argument(
        "--folder", type=Path, default=default_folder(), help="where the environments are kept"
    )
    arguments = parser.parse_args()
    if sys.platform != "linux":
        print("The benchmarks read /proc, so they need Linux.", file=sys.stderr)
        return 2
    # A raised SystemExit leaves every `with`, and so stops every server.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    begun = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - begun:5.0f} s  {what}", file=sys.stderr, flush=True)

    effort = QUICK if arguments.quick else FULL
    chosen = [one for one in CONTENDERS if arguments.only in one.name]
    load_before = os.getloadavg()[0]
    found = measure(chosen, arguments.folder, effort, take_cores(), say)
    load = (load_before, os.getloadavg()[0])
    command = "python -m benchmarks.peers" + " --quick" * arguments.quick
    page = write_report(found, effort, command=command, load=load)
    if arguments.quick or arguments.only:
        print(page)
    else:
        RESULTS.write_text(page, encoding="utf-8")
    say("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
