"""``sea-dbs soak``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: sea-dbs soak --minutes 60 --seed 1 --out out/soak"


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command(epilog=EXAMPLE)(soak)


def soak(
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Folder of soak.json.")] = None,
    minutes: Annotated[float, typer.Option("--minutes", help="Simulated closed loop.")] = 60.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed, the same faults.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Empty the folder first.")] = False,
) -> None:
    """Simulated hours of closed loop on the host board with faults at random times, judged at the electrode.

    Exit code 1 where anything left the envelope, a fault had not its reaction, or memory grew.
    """
    from firmware_bridge.faults.soak import soak as run
    from sea_dbs.files import prepare_output_dir, write_json

    if out is not None:
        prepare_output_dir(out, overwrite=overwrite)
    result = run(seed, minutes)
    plain = result.as_json()
    if out is not None:
        write_json(out / "soak.json", plain)
    if as_json:
        typer.echo(json.dumps(plain, indent=2, sort_keys=True))
    else:
        typer.echo(
            f"{result.device_s / 60:.1f} simulated minutes, {sum(result.faults.values())} faults, {result.pulses} "
            "pulses: "
            f"{len(result.violations)} violations, {len(result.problems)} problems; memory of the board "
            f"{max(life.grown_kb for life in result.lives):+d} kB within one of its {len(result.lives)} lives at most, "
            f"of this process {result.host_kb[0]} -> {result.host_kb[1]} kB"
        )
        for text in [*result.violations, *result.problems, *result.leaks][:20]:
            typer.echo(f"  {text}")
    if not result.good:
        raise typer.Exit(1)
