"""``sea-dbs parity``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: sea-dbs parity out/export --boards host,qemu-m4f --out out/parity"


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command(epilog=EXAMPLE)(parity)


def parity(
    folder: Annotated[Path, typer.Argument(metavar="EXPORT_DIR", help="Folder written by sea-dbs export --targets c.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder of the tables. Default: EXPORT_DIR/boards.")
    ] = None,
    boards: Annotated[
        str, typer.Option("--boards", metavar="LIST", help="host (gcc and clang, -O0 and -O3), qemu-m4f, -m7, -m55.")
    ] = "host,qemu-m4f,qemu-m7,qemu-m55",
    real: Annotated[int, typer.Option("--real", help="Observations from the plant.")] = 10_000,
    adversarial: Annotated[int, typer.Option("--adversarial", help="Observations made to find differences.")] = 10_000,
    floats: Annotated[int, typer.Option("--floats", help="Of each kind for fp32 and fp16.")] = 1_000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of plants and adversarial observations.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole result as JSON.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a comparison that was stopped.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Empty the folder first.")] = False,
) -> None:
    """Run the exported policy as C on compilers and boards: the same bits everywhere, and what a decision costs.

    Exit code 1 where a logit differs. The boards get their observations loaded into memory, not over the link.
    """
    from sea_dbs.extras import need

    need("train", "torch")
    need("export", "onnx", "onnxruntime")
    need("report", "matplotlib")
    from firmware_bridge.parity.measure import Settings, compare_boards
    from firmware_bridge.parity.tables import markdown
    from sea_dbs.files import atomic_write_bytes, atomic_write_text
    from sea_dbs.report.boards_figure import draw

    place = out or folder / "boards"
    named = tuple(name.strip() for name in boards.split(",") if name.strip())
    settings = Settings(boards=named, real=real, adversarial=adversarial, floats=floats, seed=seed)
    result = compare_boards(folder, place, settings, overwrite=overwrite, resume=resume)
    table = markdown(result)
    atomic_write_text(place / "boards.md", table)
    picture = draw(result)
    atomic_write_bytes(place / "boards.png", picture)
    typer.echo(json.dumps(result, indent=2, sort_keys=True) if as_json else table)
    differ = [f"{row['format']} on {row['target']}" for row in result["rows"] if not row["bit_equal"]]
    if differ:
        typer.echo(f"logits differ: {', '.join(differ)}", err=True)
        raise typer.Exit(1)
