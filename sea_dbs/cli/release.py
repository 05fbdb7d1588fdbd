"""``sea-dbs release``: may a policy drive a board?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: sea-dbs release out/export --key clinic.key --out out/release"


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command(epilog=EXAMPLE)(release)


def release(
    export: Annotated[Path, typer.Argument(metavar="EXPORT", help="Folder written by sea-dbs export --targets c.")],
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="Device key that signs the verdict.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the runs, table, JSON and picture.")],
    patients: Annotated[int, typer.Option("--patients", min=1, help="Held-out patients; a release needs 20.")] = 20,
    seconds: Annotated[
        float, typer.Option("--seconds", help="Closed loop of each run (simulated s); a release needs 60.")
    ] = 60.0,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Of the cohort and its plants; a release needs 700000 to 709980.")
    ] = 700_000,
    toggles: Annotated[
        float, typer.Option("--toggles", help="Most switches of stimulation, off or on, a minute in any run.")
    ] = 30.0,
    board: Annotated[str, typer.Option("--board", help="host: only its clock can be stepped.")] = "host",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a check that was stopped.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Empty the folder first.")] = False,
) -> None:
    """Check a policy in closed loop on held-out patients, and sign the verdict into its manifest.

    Each patient is treated four times by the exported C on a host board: as it is, with artefact, with drift, and with
    50 ms of delay. Exit code 1 where it is not released: a gate failed, or it was too little to judge. See
    docs/release.md.
    """
    from envs.errors import UserError
    from firmware_bridge.release.check import Asked, check
    from firmware_bridge.release.tables import markdown
    from firmware_bridge.release.verdict import sign
    from firmware_bridge.security.keys import read_key
    from sea_dbs.extras import need
    from sea_dbs.files import atomic_write_bytes, atomic_write_text, json_text, write_json

    if board != "host":
        raise UserError(f"--board is '{board}': a check steps the board's clock, which only the host board allows")
    holder = read_key(key)
    need("report", "matplotlib")
    from sea_dbs.report.release_figure import draw

    asked = Asked(export, out, patients, seconds, seed, toggles, resume=resume, overwrite=overwrite, key=key)
    report = check(asked)
    passed = report["verdict"]["released"]
    signed = f"Nothing was signed: {export} stays as it was."
    if passed:
        entry = sign(export, report["verdict"], holder)
        report["verdict_sha256"], report["key"] = entry.verdict_sha256, entry.key
        signed = f"Signed into {export}/manifest.json: verdict {entry.verdict_sha256[:12]}, key {entry.key}."
        write_json(out / "release.json", report)
    table = markdown(report, signed)
    atomic_write_text(out / "release.md", table)
    picture = draw(report)
    atomic_write_bytes(out / "release.png", picture)
    typer.echo(json_text(report) if json else table)
    if not passed:
        raise typer.Exit(1)
