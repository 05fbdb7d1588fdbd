"""The jobs behind each figure: the paper's configuration, shared with the benchmark wherever they are the same."""

from __future__ import annotations

from dataclasses import dataclass, replace

from envs.errors import UserError
from sea_dbs.benchmark.jobs import Job
from sea_dbs.benchmark.suites import Options, job_of, play_of
from sea_dbs.reproduce.published import TABLE2_STEPS

FIGURES = ("fig4", "fig5", "fig6", "fig7", "table2")
PAIR = ("ddpg", "sea-dbs")
ABLATION = ("gs-only", "ddpg", "pm-only", "sea-dbs")
#: What the authors' code does in place of its method: every action of training is a fair coin for each slot, and the
#: reward model keeps its random weights. Their actor of 17 M parameters is replaced by the compact one.
RELEASED = (  # of the variant pm-only, which explores by chance
    "epsilon_0=1.0",
    "epsilon_min=1.0",
    "reward_model_lr=1e-12",
    "actor=compact",
)


@dataclass(frozen=True)
class Part:
    """One curve or cell of a figure: its jobs, one a seed."""

    figure: str
    task: str
    variant: str
    jobs: tuple[Job, ...]
    steps: int = 0  # table2: steps between two seeds
    precision: str = "fp32"


def parts(figure: str, options: Options, *, released: bool = False) -> list[Part]:
    """What a figure needs; with ``released``, the authors' variant beside it.

    Raises:
        UserError: an unknown figure, or an option out of range.
    """
    if figure == "all":
        return [part for one in FIGURES for part in parts(one, options, released=released)]
    if figure not in FIGURES:
        raise UserError(f"unknown figure '{figure}': one of {', '.join(FIGURES)}, all is expected")
    options.check()
    found: list[Part] = []

    def add(task: str, variant: str, chosen: Options = options, precision: str = "fp32") -> None:
        tests = figure != "table2" and precision == "fp32"  # with them it is the benchmark's own job
        jobs = tuple(_job(task, variant, seed, chosen, precision, tests) for seed in range(options.seeds))
        steps = (chosen.steps or 0) if figure == "table2" else 0
        found.append(Part(figure, task, variant, jobs, steps, precision))

    match figure:
        case "fig5":
            for task in ("paper", "paper-30"):
                for variant in ("never", "always", *PAIR):
                    add(task, variant)
        case "fig6":
            for variant in PAIR:
                add("paper", variant)
                add("paper", variant, precision="fp16")
        case "fig7":
            for variant in ("never", *ABLATION):
                add("paper", variant)
        case "table2":
            for steps in TABLE2_STEPS:
                for variant in ("never", *PAIR):
                    add("paper", variant, replace(options, steps=steps))
        case _:
            for variant in PAIR:
                add("paper", variant)
    if released and figure in ("fig4", "fig5", "fig7"):
        add("paper", "released")
    return found


def _job(task: str, variant: str, seed: int, options: Options, precision: str, tests: bool) -> Job:
    if variant in ("never", "always"):
        return job_of(task, variant, seed, options)
    if variant == "released":
        return play_of(task, "pm-only", seed, options, settings=RELEASED, label="released code")
    return play_of(task, variant, seed, options, precision=precision, tests=tests)
