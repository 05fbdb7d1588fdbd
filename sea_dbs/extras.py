"""Optional parts: a missing one is named together with the command that installs it."""

from __future__ import annotations

from importlib.util import find_spec

from envs.errors import UserError


def need(extra: str, *modules: str) -> None:
    """Check that the modules of an extra are installed, before they are imported.

    Raises:
        UserError: one is not, with the line that installs it.
    """
    for module in modules:
        if find_spec(module) is None:
            raise UserError(f"this needs {module} of the extra '{extra}': pip install 'sea-dbs[{extra}]'")
