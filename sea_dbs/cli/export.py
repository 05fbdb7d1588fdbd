"""``sea-dbs export``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = """\
Example: sea-dbs export runs/seed3 --targets c,m4f --out exports/seed3

Somebody else's policy: sea-dbs export --onnx policy.onnx --manifest policy.yaml --out exports/theirs

\b
where policy.yaml (or JSON) says what its numbers mean:
  format: sea-dbs-policy-1
  name: threshold      # in tables, and in the metadata of the files
  preset: paper        # the plant it was made for: paper, paper-released, realtime
  environment: {}      # settings of that plant that differ from the preset
  n_obs: 1000          # values of an observation, oldest first
  slots: 50            # pulse slots of a decision
  slot_us: 20000       # length of a slot (µs)
  amplitude_uA: 3000   # of a pulse on the device (µA)
  width_us: 60         # of its first phase (µs)
  divisor: 1000        # the graph takes P_beta (spikes²/s²) divided by this
  opset: 20            # of the ONNX file: 17 to 21
  state: 0             # values of a recurrent policy's state; 0: none
The graph maps observation (batch, n_obs) to logits (batch, slots, 2), float32; with a state, state to next_state too.
"""


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command(epilog=EXAMPLE)(export)


def export(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the files and their evidence.")],
    run: Annotated[Path | None, typer.Argument(metavar="[RUN_DIR]", help="Folder of a trained run.")] = None,
    onnx: Annotated[
        Path | None, typer.Option("--onnx", metavar="FILE", help="In place of a run: an FP32 policy of your own.")
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option("--manifest", metavar="FILE", help="With --onnx: what its numbers mean, see below.")
    ] = None,
    precisions: Annotated[
        str, typer.Option("--precisions", metavar="LIST", help="Comma-separated: fp32, fp16, int8.")
    ] = "fp32,fp16,int8",
    targets: Annotated[
        str, typer.Option("--targets", metavar="LIST", help="c: C sources; m4f, m7, m55: firmware of a virtual board.")
    ] = "",
    seconds: Annotated[
        float,
        typer.Option("--seconds", help="Simulated time (s) of each of the 8 plants whose observations are compared."),
    ] = 4.0,
    closed_loop_seeds: Annotated[
        int,
        typer.Option(
            "--closed-loop-seeds", metavar="N", help="Held-out plants on which each precision is run; 0: none."
        ),
    ] = 10,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Empty the folder first.")] = False,
) -> None:
    """Write a policy as ONNX in FP32, FP16 and INT8, with the evidence that all decide alike; and as C and firmware.

    The folder then holds policy_PRECISION.onnx, manifest.json (hashes, shapes, units), chain.json, and the parity over
    real observations and in closed loop: parity.json, parity.md, parity.png, latency.npz, observations.npz,
    calibration.npz. With --targets also integer.npz, c/FORMAT/sea_policy.c and firmware/BOARD/FORMAT.
    """
    from envs.errors import UserError
    from sea_dbs.extras import need

    need("train", "torch", "tensorboard")
    need("export", "onnx", "onnxscript", "onnxruntime")
    need("report", "matplotlib")
    from export.chain import load
    from export.parity import outcome_sentence, sentence, size_text
    from export.run import Settings, export_source
    from export.source import Source, read_run
    from sea_dbs.files import read_json

    settings = Settings(
        precisions=_names(precisions),
        targets=_names(targets),
        seconds=seconds,
        closed_loop_seeds=closed_loop_seeds,
        overwrite=overwrite,
    )
    settings.check()
    source: Source
    if run is not None and onnx is None and manifest is None:
        source = read_run(run)
    elif run is None and onnx is not None and manifest is not None:
        from export.foreign import read_foreign

        source = read_foreign(onnx, manifest)
    else:
        raise UserError("export takes a run folder, or --onnx FILE with --manifest FILE, and not both")
    _check_boards(source.parameters, settings.targets, settings.precisions)
    described, rows = export_source(source, out, settings)
    for row in rows:
        if row.policy == source.name and row.precision in described.precisions:
            typer.echo(f"{row.precision}: {size_text(row.file_bytes)}, {sentence(row, source.reference_name)}")
    outcome = read_json(out / "parity.json")["closed_loop"]
    for line in outcome_sentence(outcome):
        typer.echo(line)
    _images(out, settings.targets, settings.precisions)
    model = load(out).model_hash.hex()
    typer.echo(f"model {model[:12]} in {out}; table: {out}/parity.md")
    from firmware_bridge.limits import LIMITS

    if described.slot_us < (least := LIMITS["SLOT_PERIOD_MIN_US"].value):
        typer.echo(f"no board takes it yet: its slots are {described.slot_us:.0f} µs, a board's {least} µs or more")
        return
    typer.echo(f"next: sea-dbs board host, then sea-dbs session --policy {out} --port PORT --steps 30 --out DIR")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _check_boards(parameters: int, targets: Sequence[str], precisions: Sequence[str]) -> None:
    """Whether each board has a compiler and room for the policy, asked before a plant is simulated."""
    from export.targets import BYTES, images

    for board, name in images(targets, precisions):
        from firmware_bridge.images import check_fits
        from firmware_bridge.targets import find_target

        find_target(board).compiler()
        check_fits(board, parameters * BYTES[name])


def _images(out: Path, targets: Sequence[str], precisions: Sequence[str]) -> None:
    """Compile the firmware of every board that was asked for, the policy inside."""
    from export.targets import images

    for board, name in images(targets, precisions):
        from firmware_bridge.images import build_image

        image = build_image(board, out, name, out / "firmware" / board / name)
        typer.echo(
            f"{board} {name}: {image.flash_bytes:,} bytes of flash, {image.ram_bytes:,} of RAM without the stack; "
            f"image {image.sha256[:12]} in {out}/firmware/{board}/{name}"
        )
