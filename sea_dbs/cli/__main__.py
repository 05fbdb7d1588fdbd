"""``python -m sea_dbs.cli``: the same as ``sea-dbs``."""

from sea_dbs.cli import main

main()
