"""Analysis of the board's C beyond its tests: ``python -m tests.analysis`` (docs/firmware/ANALYSIS.md)."""
