"""Jobs: what is run once. A job is a plain description; its key is a hash of it and of the code that it depends on.

``train`` trains one learner on one task with one seed; ``play`` puts one controller on the plants of one seed. A job
takes files and gives files, so that any process on any machine can run it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from envs.jit import sources
from sea_dbs.files import sha256_json

FORMAT = 1  # raised when what a job's files hold changes its meaning
Kind = Literal["train", "play"]

#: The modules that decide on a kind's result; with them goes whatever of ours they import.
ROOTS: dict[str, tuple[str, ...]] = {
    "train": ("sea_dbs.train", "sea_dbs.baselines.outsiders", "sea_dbs.benchmark.world"),
    "play": ("sea_dbs.benchmark.play",),
}
#: Imported by them, without a say in any number.
NO_SAY = ("errors", "extras", "files", "jit", "manifest", "progress", "runlog", "untrusted")


@dataclass(frozen=True)
class Job:
    """One unit of work.

    Attributes:
        kind: what runs it (`sea_dbs.benchmark.work.run_job`).
        name: for people, such as "paper, sea-dbs, seed 3"; not part of the key.
        spec: everything that the result depends on, as JSON.
        needs: jobs whose files it reads, in the order in which it gets them.
    """

    kind: Kind
    name: str
    spec: dict[str, Any]
    needs: tuple[Job, ...] = field(default=())

    @property
    def config_hash(self) -> str:
        """Of the description, those of the needed jobs included."""
        needs = [job.config_hash for job in self.needs]
        return sha256_json({"format": FORMAT, "kind": self.kind, "spec": self.spec, "needs": needs})[:16]

    @property
    def code_hash(self) -> str:
        """Of the code that the result depends on, that of the needed jobs included."""
        needs = [job.code_hash for job in self.needs]
        return sha256_json([code_version(self.kind), *needs])[:8]

    @property
    def key(self) -> str:
        """Name of the job's folder."""
        return f"{self.config_hash}-{self.code_hash}"


def everything(jobs: Iterable[Job]) -> list[Job]:
    """The jobs and all that they need, each key once, a needed job before who needs it."""
    ordered: dict[str, Job] = {}

    def add(job: Job) -> None:
        for needed in job.needs:
            add(needed)
        ordered.setdefault(job.key, job)

    for job in jobs:
        add(job)
    return list(ordered.values())


@lru_cache
def code_version(kind: str) -> str:
    """Hash of the meaning of the code behind a kind of job: comments, docstrings and layout do not count."""
    root = Path(__file__).parents[2]
    files = {file for module in ROOTS[kind] for file in sources(module, root)}
    return sha256_json({str(file.relative_to(root)): _meaning(file) for file in files if file.stem not in NO_SAY})


def _meaning(file: Path) -> str:
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            text = first.value if isinstance(first, ast.Expr) else None
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                node.body = node.body[1:]
    return ast.dump(tree)
