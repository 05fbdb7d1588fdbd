"""What a training run shows and writes while it goes: progress bar, metrics.jsonl, TensorBoard."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from envs.errors import UserError
from sea_dbs.extras import need
from sea_dbs.files import atomic_write_text, writing
from sea_dbs.progress import progress

METRICS = "metrics.jsonl"


class RunLog:
    """Opened once a training process; everything after ``step`` in an older log of the run is dropped.

    Args:
        run: the run folder.
        step: environment steps that the checkpoint holds; 0 for a new run.
        total: environment steps of the whole run.
        quiet: no progress on stderr.

    Raises:
        UserError: the extra 'train' is not installed, or the files cannot be written.
    """

    def __init__(self, run: Path, step: int, total: int, *, quiet: bool = False) -> None:
        need("train", "tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        self.path = run / METRICS
        drop_after(self.path, step)
        with writing(self.path):
            self.stream = self.path.open("a")
            self.board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)
        self.progress = progress("training", total, step, quiet=quiet)

    def __enter__(self) -> RunLog:
        self.progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.__exit__(kind, error, trace)
        self.board.close()
        self.stream.close()

    def write(self, lines: Sequence[Mapping[str, Any]], steps: int = 0) -> None:
        """Some lines, by default one an environment step; their mean goes to TensorBoard and to the progress bar.

        ``steps``: the environment steps that they stand for.

        Raises:
            UserError: the disk is full.
        """
        last = lines[-1]["step"]
        means = {
            key: sum(values) / len(values)
            for key in lines[0]
            if (values := [line[key] for line in lines if isinstance(line[key], float)])
        }
        with writing(self.path):
            self.stream.writelines(json.dumps(line) + "\n" for line in lines)
            self.stream.flush()
            for key, value in means.items():
                self.board.add_scalar(key, value, last)
        state = f"P_beta {means['P_beta']:.0f}  reward {means['reward']:+.2f}  duty {means['duty']:.2f}"
        self.progress.update(steps or len(lines), state)

    def sync(self) -> None:
        """Bring everything to the disk, before a checkpoint says that it is there."""
        with writing(self.path):
            self.stream.flush()
            os.fsync(self.stream.fileno())
            self.board.flush()


def drop_after(path: Path, step: int) -> None:
    """Drop the lines of a metrics file after environment step ``step``, a half-written last line included."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines(keepends=True):
        try:
            if not line.endswith("\n") or json.loads(line)["step"] > step:
                break
        except (ValueError, KeyError, TypeError):
            break
        kept.append(line)
    atomic_write_text(path, "".join(kept))


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """All lines of a run's metrics file.

    Raises:
        UserError: missing or unreadable.
    """
    path = run / METRICS
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except FileNotFoundError:
        raise UserError(f"there is no file {path}: the folder holds no trained run") from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
