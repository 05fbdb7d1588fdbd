"""``sea-dbs report``: a folder of results becomes one page that explains itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

from envs.errors import UserError
from sea_dbs.extras import need
from sea_dbs.files import atomic_write_bytes, atomic_write_text
from sea_dbs.report import headline, sections, technical
from sea_dbs.report.find import Found, Part, find
from sea_dbs.report.page import Missing, Page, Section, Text, Tile, render
from sea_dbs.report.session_data import SessionData, read_session
from sea_dbs.simulate import save, simulate

PAGE = "report.html"
PLANT = "plant"  # folder of the simulations that the report makes where it finds none
CONDITIONS = (("healthy", 0.0), ("pd", 0.0), ("pd", 130.0))
SECONDS, SEED = 2.0, 0  # of each simulation
MOST_TOLD = 3  # parts of a kind in the headline
Told = tuple[list[Text], list[Tile]]
DAMAGED = (KeyError, TypeError, ValueError, IndexError, AttributeError, StopIteration)  # JSON that is not what it was


def build_report(folder: Path, *, simulate_missing: bool = True) -> Path:
    """Write ``folder``/report.html and its pictures, from whatever lies in the folder; returns the page.

    Args:
        folder: holds runs, evaluations, exports, sessions, simulations, directly or in subfolders.
        simulate_missing: simulate healthy, parkinsonian and stimulated (2 s each) where the folder has no simulation.

    Raises:
        UserError: no such folder, nothing in it to report, or it cannot be written.
    """
    need("report", "matplotlib", "jinja2")
    found = find(folder)
    if not found.count():
        trouble = f" ({found.problems[0]})" if found.problems else ""
        raise UserError(f"{folder} holds no run, evaluation, export, session or simulation to report{trouble}")
    made_here = simulate_missing and not found.simulations and not (folder / PLANT).exists()
    if made_here:
        _simulate(folder / PLANT)
        found.simulations = find(folder / PLANT).simulations
    page = compose(folder.resolve().name or "report", found, made_here=made_here)
    for figure in page.figures():
        atomic_write_bytes(folder / figure.name, figure.png)
    atomic_write_text(folder / PAGE, render(page))
    return folder / PAGE


def compose(title: str, found: Found, *, made_here: bool = False) -> Page:
    """The page of what was found; a part that cannot be read is named in its place."""
    opened = _open_sessions(found)
    chapters: list[tuple[str, str, Callable[[], Section]]] = [
        ("evaluation", "Does it help?", lambda: sections.evaluation_section(found)),
        ("session", "Closed loop over a board", lambda: sections.session_section(found, opened)),
        ("network", "The simulated network", lambda: sections.plant_section(found, made_here)),
        ("learning", "How it learnt", lambda: sections.learning_section(found)),
        ("export", "From network to file", lambda: technical.export_section(found)),
        ("latency", "How fast", lambda: technical.latency_section(found, opened)),
        ("origin", "What was run, with which hashes", lambda: technical.origin_section(found, opened)),
    ]
    texts, tiles = _headline(found, opened)
    made = [_or_missing(anchor, name, make) for anchor, name, make in chapters]
    footer = (f"Made by sea-dbs {version('sea-dbs')} report. The pictures lie beside this page as PNG files.",)
    return Page(title, texts, tiles, [*made, technical.glossary_section()], footer)


def _or_missing(anchor: str, title: str, make: Callable[[], Section]) -> Section:
    try:
        return make()
    except UserError as error:
        why = str(error)
    except DAMAGED as error:
        why = f"its data lack or contradict what this version expects ({type(error).__name__}: {error})"
    return Section(anchor, title, "", [Missing(f"This part cannot be shown: {why}.")])


def _open_sessions(found: Found) -> list[tuple[Part, SessionData]]:
    opened, readable = [], []
    for part in found.sessions:
        try:
            opened.append((part, read_session(part.path / "session.sqlite")))
            readable.append(part)
        except UserError as error:
            found.problems.append(f"{part.name}: {error}")
    found.sessions = readable
    return opened


def _headline(found: Found, opened: list[tuple[Part, SessionData]]) -> tuple[list[Text], list[Tile]]:
    """Sentences of the first parts of each kind, named where there are several, and the numbers of the first one."""
    texts: list[Text] = []
    tiles: list[Tile] = []
    kinds: list[list[tuple[Part, Callable[[], Told]]]] = [
        [(part, partial(headline.of_evaluation, part.facts)) for part in found.evaluations],
        [(part, partial(headline.of_session, data, part.facts)) for part, data in opened],
        [(part, partial(_export_headline, part)) for part in found.exports],
    ]
    for parts in kinds:
        for i, (part, make) in enumerate(parts[:MOST_TOLD]):
            try:
                new_texts, new_tiles = make()
            except (UserError, *DAMAGED):
                texts.append(Text(f"{part.name} could not be read in full; see below.", "bad"))
                continue
            if len(parts) > 1 and new_texts:
                new_texts[0] = replace(new_texts[0], text=f"{part.name}: {new_texts[0].text}")
            texts += new_texts
            tiles += new_tiles if i == 0 else []
        if len(parts) > MOST_TOLD:
            texts.append(Text(f"{len(parts) - MOST_TOLD} more such folders stand below."))
    if not texts:
        texts.append(Text("The folder holds no evaluation, session or export yet: what there is stands below."))
    texts += [Text(f"Not read: {problem}.", "bad") for problem in found.problems]
    return texts, tiles


def _export_headline(part: Part) -> Told:
    return headline.of_export(part.facts, technical.parity_of(part))


def _simulate(folder: Path) -> None:
    """The three conditions of the raster, with the same network and inputs."""
    for condition, stim_hz in CONDITIONS:
        *_, (_, result) = simulate(condition, stim_hz, SECONDS, SEED)
        assert result is not None
        save(result, folder / f"{condition}-{stim_hz:g}Hz")
