"""``sea-dbs reproduce``."""

from __future__ import annotations

from typing import Annotated

import typer

from sea_dbs.cli.benchmark import Address, AnyVersion, EngineName, Out, Page, Seeds, TablesOnly, Workers

EXAMPLE = "Example: sea-dbs reproduce fig4 --seeds 10 --released --out runs/benchmark"


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command(epilog=EXAMPLE)(reproduce)


def reproduce(
    figure: Annotated[str, typer.Argument(metavar="FIGURE", help="fig4, fig5, fig6, fig7, table2 or all.")],
    out: Out,
    seeds: Seeds = 10,
    released: Annotated[
        bool, typer.Option("--released", help="The authors' variant too: random actions, untrained reward model.")
    ] = False,
    engine: EngineName = "local",
    workers: Workers = 2,
    address: Address = None,
    plants: Annotated[int, typer.Option("--plants", help="Held-out plants of a seed, 2 to 8.")] = 8,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Settings of every training.")
    ] = None,
    any_version: AnyVersion = False,
    tables_only: TablesOnly = False,
    write: Page = None,
) -> None:
    """Make the paper's figures and table from runs with the paper's configuration, published values beside ours.

    Each comes with a sentence on how it differs and why. Jobs are shared with 'sea-dbs benchmark' in the same --out.
    """
    from sea_dbs.benchmark.page import publish
    from sea_dbs.benchmark.suites import Options
    from sea_dbs.cli.benchmark import finish, make_engine, said
    from sea_dbs.extras import need
    from sea_dbs.reproduce.run import reproduce as run_reproduction

    need("train", "torch")
    need("report", "matplotlib")
    words = f"reproduce {figure}{' --released' if released else ''}"
    result = run_reproduction(
        figure,
        Options(seeds, plants, None, tuple(settings or ())),
        out,
        make_engine(engine, workers, address),
        released=released,
        any_version=any_version,
        tables_only=tables_only,
        command=said(words, seeds, "", "", None, settings),
    )
    if write is not None:
        shown = [out / f"reproduce-{name}.png" for name in result["figures"]]
        publish(write, f"reproduce {figure}", (out / f"reproduce-{figure}.md").read_text(), shown)
    typer.echo(f"written: {out / f'reproduce-{figure}.md'}")
    finish(result["failures"])
