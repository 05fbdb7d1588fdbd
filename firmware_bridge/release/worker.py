"""A worker process of a release check: names of runs in, one a line; each outcome goes to a file of its own.

It ends when its input does: whoever started it is gone, or has no more work.
"""

from __future__ import annotations

import sys
from pathlib import Path

from envs.errors import UserError
from firmware_bridge.release.run import Job, Work, run
from sea_dbs.files import write_json


def main(arguments: list[str]) -> None:
    """``EXPORT PATIENTS SECONDS SEED RUNS_DIR``; answers "done NAME" or "failed SENTENCE"."""
    export, patients, seconds, seed, folder = arguments
    work = Work(Path(export), int(patients), float(seconds), int(seed))
    for line in sys.stdin:
        job = Job.named(line.strip())
        try:
            write_json(Path(folder) / f"{job.name}.json", run(work, job))
        except UserError as error:
            print(f"failed {error}", flush=True)  # noqa: T201 (what a worker answers)
            continue
        print(f"done {job.name}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
