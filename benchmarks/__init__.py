"""Measures a served process over real HTTP: `python -m benchmarks` writes RESULTS.md."""
