"""The command line: ``sea-dbs``. It sits on top of all packages and is imported by none.

Each command lives in a module of its own, which imports typer alone; what is heavy is imported inside the command.
"""

from __future__ import annotations

from sea_dbs.cli.app import main

__all__ = ["main"]
