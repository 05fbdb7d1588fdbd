"""``sea-dbs benchmark``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

A_SEEDS_PLANTS = 8  # the default of `sea_dbs.benchmark.suites.Options`, which --help does not load
EXAMPLE = "Example: sea-dbs benchmark --suite paper --seeds 10 --out runs/benchmark"

Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the jobs, tables and figures.")]
Suite = Annotated[str, typer.Option("--suite", help="paper, pattern, efficient, trains, amplitude or robust.")]
Seeds = Annotated[int, typer.Option("--seeds", help="Trainings of each learner; each is judged on its own plants.")]
EngineName = Annotated[str, typer.Option("--engine", metavar="local|ray", help="Processes here, or a Ray cluster.")]
Workers = Annotated[int, typer.Option("--workers", help="local: processes at the same time.")]
Address = Annotated[str | None, typer.Option("--address", help="ray: of a running cluster; default: one here.")]
AnyVersion = Annotated[
    bool, typer.Option("--any-version", help="Take results of other versions of the code too, and say so.")
]
TablesOnly = Annotated[bool, typer.Option("--tables-only", help="Run nothing; tables of what is finished.")]
Page = Annotated[
    Path | None, typer.Option("--write", metavar="FILE", help="A Markdown page to put the tables into, between marks.")
]


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command(epilog=EXAMPLE)(benchmark)


def benchmark(
    out: Out,
    suite: Suite = "paper",
    seeds: Seeds = 10,
    engine: EngineName = "local",
    workers: Workers = 2,
    address: Address = None,
    tasks: Annotated[str, typer.Option("--tasks", metavar="LIST", help="These tasks alone.")] = "",
    controllers: Annotated[str, typer.Option("--controllers", metavar="LIST", help="These alone, beside never.")] = "",
    plants: Annotated[int, typer.Option("--plants", help="Held-out plants of a seed, 2 to 64.")] = A_SEEDS_PLANTS,
    steps: Annotated[int | None, typer.Option("--steps", help="Decisions on each; default: the task's.")] = None,
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings of every training.")
    ] = None,
    any_version: AnyVersion = False,
    tables_only: TablesOnly = False,
    write: Page = None,
    mark: Annotated[
        str, typer.Option("--mark", metavar="NAME", help="Of the marks on the page; default: benchmark SUITE.")
    ] = "",
) -> None:
    """Run every controller on every task of a suite with every seed, each once, and make tables and figures.

    A benchmark that was stopped, even by kill -9, goes on where it was with the same --out; finished jobs are taken
    from there for other suites and figures too. A row that is called open-loop or constant stimulation meets no goal.
    """
    from sea_dbs.benchmark.page import check_page, publish
    from sea_dbs.benchmark.run import benchmark as run_benchmark
    from sea_dbs.benchmark.suites import Options
    from sea_dbs.extras import need

    need("train", "torch")
    need("report", "matplotlib")
    mark = mark or f"benchmark {suite}"
    if write is not None:
        check_page(write, mark)  # before hours of jobs
    options = Options(seeds, plants, steps, tuple(settings or ()), split(controllers), split(tasks))
    result = run_benchmark(
        suite,
        options,
        out,
        make_engine(engine, workers, address),
        any_version=any_version,
        tables_only=tables_only,
        command=said(f"benchmark --suite {suite}", seeds, tasks, controllers, steps, settings, plants),
    )
    if write is not None:
        publish(write, mark, (out / f"{suite}.md").read_text(), [out / name for name in result["pictures"]])
    typer.echo(f"written: {out / suite}.md")
    finish(result["failures"])


def split(names: str) -> tuple[str, ...]:
    """A comma-separated list."""
    return tuple(name.strip() for name in names.split(",") if name.strip())


def said(
    command: str,
    seeds: int,
    tasks: str,
    controllers: str,
    steps: int | None,
    settings: list[str] | None,
    plants: int = A_SEEDS_PLANTS,
) -> str:
    """The command as it would be typed again."""
    words = [f"sea-dbs {command} --seeds {seeds}"]
    words += [f"--tasks {tasks}"] if tasks else []
    words += [f"--controllers {controllers}"] if controllers else []
    words += [f"--plants {plants}"] if plants != A_SEEDS_PLANTS else []
    words += [f"--steps {steps}"] if steps else []
    return " ".join([*words, *(settings or [])])


def make_engine(name: str, workers: int, address: str | None) -> Any:
    """The engine by its name.

    Raises:
        UserError: another name, or a number of workers out of range.
    """
    from envs.errors import UserError

    if name == "ray":
        from sea_dbs.benchmark.engine_ray import RayEngine

        return RayEngine(address)
    if name != "local":
        raise UserError(f"--engine is '{name}': local or ray is expected")
    if not 1 <= workers <= 256:
        raise UserError(f"--workers is {workers}: from 1 to 256 are allowed")
    from sea_dbs.benchmark.engine_local import LocalEngine

    return LocalEngine(workers)


def finish(failures: dict[str, str]) -> None:
    """Name what failed; exit code 1 if anything did."""
    for name, sentence in failures.items():
        typer.echo(f"failed: {name}: {sentence}", err=True)
    if failures:
        raise typer.Exit(1)
