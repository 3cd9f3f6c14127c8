"""`make bench-replicas`: measures and writes RESULTS-replicas.md; `--quick` measures less and prints."""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from benchmarks.replicas.measuring import FULL, QUICK, measure
from benchmarks.replicas.report import write_report

RESULTS = Path(__file__).parent.with_name("RESULTS-replicas.md")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replicas", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute; writes no file")
    quick = parser.parse_args().quick
    if sys.platform != "linux":
        print("The benchmarks read /proc, so they need Linux.", file=sys.stderr)
        return 2
    # A raised SystemExit leaves every `with`, and so stops every server.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    begun = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - begun:5.0f} s  {what}", file=sys.stderr, flush=True)

    load_before = os.getloadavg()[0]
    try:
        figures = measure(QUICK if quick else FULL, say)
    except RuntimeError as exc:
        print(exc, file=sys.stderr)
        return 1
    page = write_report(
        figures, command="make bench-replicas", load=(load_before, os.getloadavg()[0])
    )
    if quick:
        print(page)
    else:
        RESULTS.write_text(page, encoding="utf-8")
    say("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
