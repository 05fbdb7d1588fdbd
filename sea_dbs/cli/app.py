"""The root command, and the one place where an error becomes a sentence and an exit code."""

from __future__ import annotations

import importlib
import sys
from typing import Annotated, Any, NoReturn

import typer

app = typer.Typer(
    name="sea-dbs",
    help="Adaptive deep brain stimulation: train in simulation, export, close the loop on a board. "
    "Research use only, not for human use.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# The order of --help is the order of the work.
COMMANDS = (
    "demo",
    "simulate",
    "verify_plant",
    "train",
    "evaluate",
    "tune",
    "foresight",
    "benchmark",
    "reproduce",
    "export",
    "parity",
    "board",
    "release",
    "session",
    "faults",
    "soak",
    "archive",
    "trace",
    "report",
    "key",
    "doctor",
)

for _name in COMMANDS:
    importlib.import_module(f"sea_dbs.cli.{_name}").register(app)


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"sea-dbs {version('sea-dbs')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    del version


#: ClickException, base of what the option parser raises: typer brings its own click and exports only this subclass.
_PARSER_ERROR = typer.BadParameter.__mro__[2]


def _usage(error: Any) -> NoReturn:
    """Wrong options: one sentence, exit code 2. A group without a command shows its help instead."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        raise SystemExit(2)
    command = error.ctx.command_path if getattr(error, "ctx", None) is not None else "sea-dbs"
    said = error.format_message()
    sys.stderr.write(f"{command}: {said[:1].lower()}{said[1:].rstrip('.')}: see '{command} --help'\n")
    raise SystemExit(error.exit_code)


def main() -> None:
    """Entry point of ``sea-dbs``: 0 done, 1 a check failed, 2 wrong input, 130 interrupted."""
    try:
        raise SystemExit(app(prog_name="sea-dbs", standalone_mode=False) or 0)
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("sea-dbs: interrupted\n")
        raise SystemExit(130) from None
    except BrokenPipeError:
        raise SystemExit(141) from None
    except Exception as error:
        if isinstance(error, _PARSER_ERROR):
            _usage(error)
        # Importing envs.errors here would import Gymnasium for every --help; whoever raised it has imported it.
        errors = sys.modules.get("envs.errors")
        if errors is None or not isinstance(error, errors.UserError):
            raise
        sys.stderr.write(f"sea-dbs: {error}\n")
        raise SystemExit(2) from None
