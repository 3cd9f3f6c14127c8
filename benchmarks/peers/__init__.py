"""Our server and its peers, side by side: `python -m benchmarks.peers` writes RESULTS.md."""
