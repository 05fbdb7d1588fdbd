"""``sea-dbs export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: sea-dbs export runs/seed3 --out exports/seed3"


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command(epilog=EXAMPLE)(export)


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder of a trained run.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the ONNX files and their evidence.")],
    seconds: Annotated[
        float,
        typer.Option("--seconds", help="Simulated time (s) of each of the 8 plants whose observations are compared."),
    ] = 4.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Empty the folder first.")] = False,
) -> None:
    """Write a trained policy as ONNX in FP32 and FP16, and compare both with torch.

    The folder then holds policy_fp32.onnx and policy_fp16.onnx, manifest.json (hashes, shapes, units), and the parity
    with torch over real observations: parity.json, parity.md, parity.png, latency.npz, observations.npz.
    """
    from sea_dbs.extras import need

    need("train", "torch", "tensorboard")
    need("export", "onnx", "onnxscript", "onnxruntime")
    need("report", "matplotlib")
    from export.parity import sentence, size_text
    from export.run import export_run

    manifest, rows = export_run(run, out, overwrite=overwrite, seconds=seconds)
    for row in rows[1 : 1 + len(manifest.precisions)]:
        typer.echo(f"{row.precision}: {size_text(row.file_bytes)}, {sentence(row)}")
    typer.echo(f"model {manifest.hashes.onnx[:12]} ({manifest.default}) in {out}; table: {out}/parity.md")
    typer.echo(f"next: sea-dbs board host, then sea-dbs session --policy {out} --port PORT --steps 30 --out DIR")
