"""``sea-dbs session``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = (
    "Example: sea-dbs session --policy runs/export --port /dev/pts/3 --steps 30 --out runs/session; in shadow: sea-dbs "
    "session --policy runs/export --shadow on-off --key clinic.key --out runs/shadow"
)


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command(epilog=EXAMPLE)(session)


def session(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the recording.")],
    policy: Annotated[
        Path | None, typer.Option("--policy", metavar="EXPORT_DIR", help="Folder written by sea-dbs export.")
    ] = None,
    port: Annotated[
        str | None,
        typer.Option(
            "--port", metavar="PORT", help="The board, as 'sea-dbs board host' prints it. Without: start one."
        ),
    ] = None,
    board: Annotated[
        str | None,
        typer.Option("--board", metavar="KIND", help="Board to start: host, qemu-m4f, qemu-m7, qemu-m55 (real time)."),
    ] = None,
    decide_on: Annotated[
        str,
        typer.Option("--decide-on", metavar="host|board", help="Who decides: the host orders, or the board itself."),
    ] = "host",
    source: Annotated[
        str,
        typer.Option("--source", metavar="plant|file:RECORDING|lsl:NAME", help="Where the observations come from."),
    ] = "plant",
    steps: Annotated[int, typer.Option("--steps", min=1, help="Decisions.")] = 30,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the plant, and of a random controller.")] = 0,
    realtime: Annotated[
        bool, typer.Option("--realtime", help="Pace plant and board with the wall clock; without: in lockstep.")
    ] = False,
    latency_ms: Annotated[
        float | None,
        typer.Option(
            "--latency-ms",
            help="In real time: from sample to slot 0 (100; 400: an emulated board decides); 0: at once.",
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision", metavar="fp32|fp16|int8", help="Of the policy (the export's default; int8 on a board)."
        ),
    ] = None,
    controller: Annotated[
        str | None,
        typer.Option(
            "--controller",
            metavar="NAME",
            help="never, always, periodic, random, random-trains, on-off, dual-threshold, proportional, pi, "
            "titration, pattern:FILE, replayed:FILE: in the policy's place, on its plant; KIND:FILE takes what "
            "'sea-dbs tune' found.",
        ),
    ] = None,
    shadow: Annotated[
        str | None,
        typer.Option(
            "--shadow",
            metavar="NAME",
            help="Shadow mode: this controller drives (names as --controller), the policy is only recorded.",
        ),
    ] = None,
    hz: Annotated[float, typer.Option("--hz", help="Rate of the periodic controller (Hz).")] = 50.0,
    duty: Annotated[float, typer.Option("--duty", help="Share of slots of the random controller.")] = 0.5,
    preset: Annotated[
        str | None, typer.Option("--preset", metavar="NAME", help="Environment: paper, realtime (the policy's own).")
    ] = None,
    electrode: Annotated[
        str | None,
        typer.Option("--electrode", metavar="PATH", help="Electrode channel of a board that is no host board."),
    ] = None,
    stimulator: Annotated[
        str | None,
        typer.Option(
            "--stimulator", metavar="stimjim:PORT|pulsepal:PORT", help="An emulated stimulator in the board's place."
        ),
    ] = None,
    width_us: Annotated[
        int | None, typer.Option("--width-us", help="With --stimulator: width of each phase (the policy's own).")
    ] = None,
    lsl: Annotated[
        bool, typer.Option("--lsl", help="Stream what is recorded to the Lab Streaming Layer (docs/recording.md).")
    ] = False,
    prelude: Annotated[
        bool,
        typer.Option(
            "--prelude/--no-prelude",
            help="Let the amplitude ramp up (0.5 mA/s) before the first decision, or from there on.",
        ),
    ] = True,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="The board's device key: every frame is signed.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Empty the folder first.")] = False,
) -> None:
    """Close the loop over a board: plant, policy, serial link, electrode.

    Without --key it is bench mode: simulated electrode only. With --key the policy must have been released by that key
    (sea-dbs release), or decide in the shadow of a classical controller (--shadow), where nothing of it is applied.
    """
    from envs.errors import UserError
    from firmware_bridge.plan import SessionPlan
    from firmware_bridge.session import run_session

    plan = SessionPlan(
        out=out,
        policy=policy,
        precision=precision,
        controller=controller,
        shadow=shadow,
        preset=preset,
        hz=hz,
        duty=duty,
        board=board,
        decide_on=decide_on,
        source=source,
        port=port,
        electrode=electrode,
        steps=steps,
        seed=seed,
        realtime=realtime,
        latency_ms=latency_ms,
        lsl=lsl,
        prelude=prelude,
        key=key,
        overwrite=overwrite,
    )
    if stimulator is not None:
        if key is not None:
            raise UserError("--key belongs to a board: a stimulator of others holds none")
        if shadow is not None:
            raise UserError("--shadow belongs to a board: a stimulator of others decides nothing")
        from firmware_bridge.stimulators.session import run_stimulator_session

        summary, realtime = run_stimulator_session(plan, stimulator, width_us), True
    elif width_us is not None:
        raise UserError("--width-us belongs to --stimulator: a board takes the policy's own pulse")
    else:
        summary = run_session(plan)
    beta, safety = summary["P_beta"], summary["safety"]
    typer.echo(
        f"{summary['decisions']} decisions, {summary['pulses']} pulses (duty {summary['duty']:.2f}): "
        f"P_beta {beta['first']:.0f} -> {beta['last']:.0f} (mean {beta['mean']:.0f})"
    )
    if summary["shadow"] is not None:
        from sea_dbs.report.shadow import sentence

        typer.echo(sentence(summary["shadow"]))
    if summary.get("source", "plant") != "plant":
        typer.echo(f"source: {summary['source']}")
    if realtime:
        late = summary["deadline_misses"]
        kept = f"came too late for {late} of {summary['decisions']} decisions" if late else "kept up with real time"
        typer.echo(f"the plant and the host {kept}")
    colour = typer.colors.RED if "stimulator" in summary else None
    typer.secho(f"{summary['mode']}; envelope violations: {safety['violations']}", fg=colour)
    typer.echo(f"written to {out}")
    if safety["violations"]:
        typer.echo(safety["violation_list"][0], err=True)
        raise typer.Exit(1)
