"""libFuzzer on the board's C: the decoder, and the whole core. ``python -m tests.fuzz --help``."""
