"""``sea-dbs tune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

EXAMPLE = "Example: sea-dbs tune pi --task slots-130 --trials 64 --out runs/pi"


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command(epilog=EXAMPLE)(tune)


def tune(
    controller: Annotated[
        str,
        typer.Argument(
            metavar="CONTROLLER",
            help="periodic, random, on-off, dual-threshold, proportional, pi, pi-amplitude, titration, or pattern.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for tuned.json and tuning.png.")],
    task: Annotated[
        str, typer.Option("--task", metavar="NAME", help="paper, slots-130, realtime, graded, ...")
    ] = "paper",
    method: Annotated[
        str, typer.Option("--method", metavar="random|grid", help="How the ranges are searched.")
    ] = "random",
    trials: Annotated[int, typer.Option("--trials", help="Parameter sets to try.")] = 32,
    measure: Annotated[
        str | None,
        typer.Option(
            "--measure",
            metavar="beta|error|reward",
            help="beta (the default), or beta above the target (tracking error), each with --price; or the task's own "
            "reward.",
        ),
    ] = None,
    price: Annotated[
        float | None,
        typer.Option("--price", help="Of beta and error: score = share of untreated + price × share of charge [0.3]."),
    ] = None,
    most_hz: Annotated[
        float | None, typer.Option("--most-hz", help="Only controllers with at most this mean rate (Hz).")
    ] = None,
    rate: Annotated[float, typer.Option("--rate", help="pattern: largest mean rate (Hz).")] = 45.0,
    slot_hz: Annotated[float, typer.Option("--slot-hz", help="pattern: slot rate, 130 or 50 Hz.")] = 130.0,
    period_slots: Annotated[
        int | None, typer.Option("--period-slots", help="pattern: slots until it repeats; default: a second.")
    ] = None,
    generations: Annotated[int, typer.Option("--generations", help="pattern: generations.")] = 20,
    population: Annotated[int, typer.Option("--population", help="pattern: patterns a generation.")] = 16,
    seeds: Annotated[int | None, typer.Option("--seeds", help="Search plants; default: 8, pattern 4.")] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", help="Simulated after settling; default: 8, pattern 5.")
    ] = None,
    confirm_seeds: Annotated[int, typer.Option("--confirm-seeds", help="pattern: held-out plants.")] = 8,
    seed: Annotated[int, typer.Option("--seed", help="Of the search.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a search that was stopped.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Empty the folder first.")] = False,
) -> None:
    """Search a classical controller's parameters, or a pattern of pulses, on search plants (never on held-out ones).

    'sea-dbs evaluate' and 'sea-dbs session' take what is found: --controllers pi:DIR, --controller pattern:DIR.
    pi-amplitude is for plants with graded recruitment: --task graded.
    """
    from sea_dbs.extras import need

    need("report", "matplotlib")
    if controller == "pattern":
        from envs.errors import UserError
        from sea_dbs.tune_pattern import PatternPlan, tune_pattern

        if measure is not None or price is not None:
            raise UserError("--measure and --price are not for patterns, which are chosen by beta at their --rate")
        pattern = PatternPlan(
            rate=rate,
            slot_hz=slot_hz,
            period_slots=round(slot_hz) if period_slots is None else period_slots,
            generations=generations,
            population=population,
            seeds=4 if seeds is None else seeds,
            seconds=5.0 if seconds is None else seconds,
            confirm_seeds=confirm_seeds,
            seed=seed,
        )
        _print_pattern(tune_pattern(pattern, out, resume=resume, overwrite=overwrite))
    else:
        from sea_dbs.tune import TunePlan
        from sea_dbs.tune import tune as search

        plan = TunePlan(
            controller=controller,
            task=task,
            method=method,  # type: ignore[arg-type]  # checked by the plan
            trials=trials,
            seeds=8 if seeds is None else seeds,
            seconds=8.0 if seconds is None else seconds,
            measure=measure or "beta",  # type: ignore[arg-type]  # checked by the plan
            price=price,
            most_hz=most_hz,
            seed=seed,
        )
        result = search(plan, out, resume=resume, overwrite=overwrite)
        for name, row in (("default", result["literature"]), ("chosen", result["best"])):
            if row["score"] is None:
                typer.echo(f"{name}: {row['name']}: {row['lost']} of {plan.seeds} plants diverged, not judged")
                continue
            lost = f", {row['lost']} of {plan.seeds} plants diverged" if row["lost"] else ""
            typer.echo(
                f"{name}: {row['name']}: P_beta {row['beta_percent']:.0f} % and tracking error "
                f"{row['error_percent']:.0f} % of untreated, {row['pulse_hz']:.1f} Hz, charge "
                f"{row['charge_percent_of_130Hz']:.0f} % of 130 Hz, reward {row['mean_reward']:.3f}, "
                f"score {row['score']:.3f}{lost}"
            )
    typer.echo(f"written: {out}")


def _print_pattern(result: dict[str, Any]) -> None:
    found = result["confirmation"]
    low, high = found["difference_ci95"]
    typer.echo(
        f"{result['patterns_tried']} patterns; the best {result['best']['beta_percent']:.1f} % of untreated, "
        f"the regular train {result['regular']['beta_percent']:.1f} % (search plants)"
    )
    typer.echo(
        f"held out: {found['pattern_percent']:.1f} % against {found['regular_percent']:.1f} % of untreated at "
        f"{found['pulse_hz']:.1f} Hz, difference {low:+.1f} to {high:+.1f}"
    )
