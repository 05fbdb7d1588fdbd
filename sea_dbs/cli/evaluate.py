"""``sea-dbs evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

EXAMPLE = "Example: sea-dbs evaluate runs/seed3 --controllers never,always,random,policy --seeds 10 --out out/seed3"


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command(epilog=EXAMPLE)(evaluate)


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a trained run.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for evaluation.json and figures.")],
    controllers: Annotated[
        str,
        typer.Option(
            "--controllers",
            metavar="LIST",
            help="Comma-separated, in the table's order; empty: never, always, periodic, random, on-off where it "
            "sees beta, policy. All: never, always, periodic, random, random-trains, replayed, on-off, "
            "dual-threshold, proportional, pi, titration, pattern:FILE, policy; KIND:FILE takes what "
            "'sea-dbs tune' found.",
        ),
    ] = "",
    seeds: Annotated[int, typer.Option("--seeds", help="Number of held-out plants.")] = 10,
    steps: Annotated[int | None, typer.Option("--steps", help="Decisions on each; default: the run's episode.")] = None,
    world: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Another world than the policy was trained in, may be repeated: pd, drift, delay_steps, noise_sd, "
            "artefact, missing_share, amplitude_uA_cm2 or width_ms, such as pd=0 or drift=disease.",
        ),
    ] = None,
    cohort: Annotated[bool, typer.Option("--cohort", help="On patients that no training meets, at most 20.")] = False,
    beside: Annotated[
        Path | None,
        typer.Option(
            "--beside", metavar="DIR", help="Another evaluation of as many plants and seconds: its rows stand here too."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an evaluation that was stopped.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Empty the folder first.")] = False,
) -> None:
    """Compare a trained policy with baselines on plants that it has never met.

    "policy" brings two more rows, the policy with its observation silenced (zeros, and its mean): one that loses
    nothing by that is called open-loop, one that stimulates over 95 % of the slots constant stimulation. "random" has
    the policy's duty, "replayed" its decisions on another plant; "periodic" is the best regular train with no more
    pulses than the policy gives; "random-trains" draws one of the trains of actor=trains for each decision. "error" is
    beta above the 75th percentile of healthy beta, untreated = 100 %; "above" the share of decisions there; "policy
    below it" by how many points of untreated beta the policy is lower, plant by plant, with its 95 % interval.
    """
    from envs.errors import UserError
    from sea_dbs.extras import need

    need("train", "torch")
    need("report", "matplotlib")
    from sea_dbs.evaluate import evaluate as run_evaluation
    from sea_dbs.evaluation_plan import Plan

    if controllers and not any(name.strip() for name in controllers.split(",")):
        raise UserError("--controllers names none: name at least one, such as never, periodic, on-off, pi, policy")
    plan = Plan(
        tuple(name.strip() for name in controllers.split(",") if name.strip()),
        seeds,
        steps,
        world=tuple(world or ()),
        cohort=cohort,
        beside=beside,
    )
    result = run_evaluation(run, out, plan, overwrite=overwrite, resume=resume)
    print_table(result["rows"])
    typer.echo(f"written: {out}")


def _what(row: dict[str, Any]) -> str:
    """The label, and on how many plants the row does not stand; a policy without a label has passed all four tests."""
    word = row["label"] or ("closed-loop" if row["controller"] == "policy" else "")
    lost = f"{row['diverged']} of {row['seeds'] + row['diverged']} plants diverged" if row["diverged"] else ""
    return "; ".join(one for one in (word, lost) if one)


def _points(below: dict[str, Any] | None) -> str:
    """A paired difference with its interval."""
    if below is None:
        return ""
    bounds = below["ci95"]
    return f"{below['iqm']:+.1f}" + ("" if bounds is None else f" ({bounds[0]:+.1f} to {bounds[1]:+.1f})")


def _reward(above: dict[str, Any] | None) -> str:
    """The mean over plants of a paired difference in reward, with its interval."""
    if above is None:
        return ""
    bounds = above["mean_ci95"]
    return f"{above['mean']:+.2f}" + ("" if bounds is None else f" ({bounds[0]:+.2f} to {bounds[1]:+.2f})")


def print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{rows[0]['seeds']} held-out plants, {rows[0]['steps']} decisions each", title_justify="left")
    table.add_column("controller")
    for column in (
        "P_beta",
        "95 %",
        "% of untreated",
        "reward",
        "duty",
        "pulses",
        "charge, % of 130 Hz",
        "error, %",
        "above, %",
        "policy below it, points",
        "policy's reward above it, mean",
    ):
        table.add_column(column, justify="right")
    table.add_column("what it is")
    for row in rows:
        bounds = row["P_beta_ci95"]
        table.add_row(
            row["detail"],
            f"{row['P_beta_iqm']:.0f}",
            "" if bounds is None else f"{bounds[0]:.0f}-{bounds[1]:.0f}",
            f"{row['percent_of_untreated']:.0f}",
            f"{row['reward_iqm']:+.2f}",
            f"{row['duty']:.2f}",
            f"{row['pulses']:.0f}",
            f"{row['charge_percent_of_130Hz']:.0f}",
            "" if row["tracking_error_percent"] is None else f"{row['tracking_error_percent']:.0f}",
            f"{row['time_above_target_percent']:.0f}",
            _points(row.get("policy_below_points")),
            _reward(row.get("policy_reward_above")),
            _what(row),
        )
    Console(width=None if Console().is_terminal else 184).print(table)
