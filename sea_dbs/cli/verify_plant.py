"""``sea-dbs verify-plant``: every spike, voltage and P_beta of reference runs against ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("verify-plant", epilog="Example: sea-dbs verify-plant tests/golden --json")(verify_plant)


def verify_plant(
    oracle_dir: Annotated[Path, typer.Argument(metavar="ORACLE_DIR", help="Folder with oracle files (*.npz).")],
    json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Compare both kernels of the plant with reference runs: spikes, voltages, P_beta. Exit code 1 if any differs."""
    import json as json_module

    from envs.plant.kernels import KERNELS
    from envs.verify import oracle_files, verify
    from sea_dbs.progress import progress

    files = oracle_files(oracle_dir)
    rows = []
    with progress("verify-plant", total=len(files) * len(KERNELS)) as bar:
        for row in verify(files):
            rows.append(row)
            bar.update(1, f"{row.file} {row.kernel}")
            if not json:
                verdict = "equal" if row.equal else f"DIFFERS ({row.first_difference})"
                numbers = f"|ΔV| ≤ {row.max_dv_mV:.1e} mV   P_beta within {row.beta_relative:.1e}"
                typer.echo(f"{row.file:22} {row.kernel:9} {numbers}   {verdict}")
    equal = sum(row.equal for row in rows)
    if json:
        result = {"equal": equal, "comparisons": len(rows), "rows": [row.to_dict() for row in rows]}
        typer.echo(json_module.dumps(result, indent=2))
    else:
        typer.echo(f"{equal} of {len(rows)} equal")
    if equal < len(rows):
        raise typer.Exit(1)
