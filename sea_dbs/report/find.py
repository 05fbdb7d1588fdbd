"""What a folder holds: runs, evaluations, exports, sessions and simulations, wherever they lie in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envs.errors import UserError
from sea_dbs.files import read_json

DEPTH = 4  # levels of subfolders that are looked through
SKIPPED = frozenset({"tensorboard", "__pycache__", "node_modules"})


@dataclass(frozen=True)
class Part:
    """One folder with a result: its place relative to the reported folder, and the JSON that describes it."""

    path: Path
    name: str
    facts: dict[str, Any]


@dataclass
class Found:
    """All parts by kind, in the order of their names, and what could not be read, in sentences."""

    runs: list[Part] = field(default_factory=list)
    evaluations: list[Part] = field(default_factory=list)
    exports: list[Part] = field(default_factory=list)
    sessions: list[Part] = field(default_factory=list)
    simulations: list[Part] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def count(self) -> int:
        """Parts of all kinds."""
        return sum(map(len, (self.runs, self.evaluations, self.exports, self.sessions, self.simulations)))


def find(folder: Path) -> Found:
    """Look through a folder and its subfolders.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: report takes one that holds runs, exports, sessions, ...")
    found = Found()
    for place in _folders(folder, DEPTH):
        name = place.relative_to(folder).as_posix()
        try:
            _classify(place, folder.resolve().name if name == "." else name, found)
        except UserError as error:
            found.problems.append(str(error).replace(f"{folder}/", ""))
    return found


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    yield folder
    if depth:
        for inner in sorted(folder.iterdir()):
            if inner.is_dir() and not inner.is_symlink() and inner.name not in SKIPPED and inner.name[0] != ".":
                yield from _folders(inner, depth - 1)


def _classify(place: Path, name: str, found: Found) -> None:
    if (place / "session.sqlite").is_file():  # its summary is missing where the host was killed
        summary = place / "summary.json"
        found.sessions.append(Part(place, name, read_json(summary) if summary.is_file() else {}))
    elif (place / "simulation.npz").is_file():
        found.simulations.append(Part(place, name, read_json(place / "summary.json")))
    if (place / "evaluation.json").is_file():
        found.evaluations.append(Part(place, name, read_json(place / "evaluation.json")))
    if (place / "manifest.json").is_file():
        facts = read_json(place / "manifest.json")
        if not isinstance(facts, dict):
            raise UserError(f"{place / 'manifest.json'} is damaged: it holds no table of facts")
        if facts.get("kind") == "run":
            found.runs.append(Part(place, name, facts))
        elif str(facts.get("format", "")).startswith("sea-dbs-export"):
            found.exports.append(Part(place, name, facts))
