"""`sea-dbs parity`: the policy of an export folder on compilers and boards, compared bit by bit, and its cost there."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from export.chain import Chain
from export.integer import IntegerModel, adversarial, dequantise, quantise, run, weight_bytes
from export.manifest import Manifest, load
from export.policy import OnnxPolicy
from firmware_bridge.images import build_image, check_fits, check_source, policy_source, table_bytes
from firmware_bridge.integer_policy import INTEGER
from firmware_bridge.observation import decide_integer
from firmware_bridge.parity.energy import MCU, estimate
from firmware_bridge.parity.observations import real_observations
from firmware_bridge.policy_bench import EMULATED, HOST_TARGETS, callgrind, check_tools, run_policy
from sea_dbs.files import (
    atomic_write,
    atomic_write_bytes,
    prepare_output_dir,
    read_json,
    sha256_file,
    sha256_json,
    write_json,
)
from sea_dbs.manifest import machine
from sea_dbs.progress import progress

BOARDS = ("host", *EMULATED)
FORMATS = ("int8", "fp32", "fp16")
HALF_BOARD = "qemu-m55"  # the one core here that computes in half precision
FLOAT_SCALE = 65536.0  # float formats give logits · 2^16 as int32 (sea_policy.h)
CALLGRIND_OBSERVATIONS = 8
ONNX_BLOCK = 500  # observations in one call of ONNX Runtime
OBSERVATIONS = "board_observations.npz"
RESULT = "boards.json"


@dataclass(frozen=True)
class Settings:
    """What is compared: so many real and adversarial observations (int8), fewer for the float formats."""

    boards: tuple[str, ...] = BOARDS
    real: int = 10_000
    adversarial: int = 10_000
    floats: int = 1_000  # of each kind; floating point is slow to emulate
    seed: int = 0

    def check(self) -> None:
        """Raises:
        UserError: an unknown board, or a count out of range.
        """
        for board in self.boards:
            if board not in BOARDS:
                raise UserError(f"there is no board '{board}' to compare on: choose from {', '.join(BOARDS)}")
        if not self.boards:
            raise UserError(f"no board was named: choose from {', '.join(BOARDS)}")
        for name, count in (("real", self.real), ("adversarial", self.adversarial), ("floats", self.floats)):
            if not 1 <= count <= 100_000:
                raise UserError(f"--{name} is {count}: from 1 to 100,000 are allowed")


@dataclass(frozen=True)
class Row:
    """One format on one target.

    ``equal`` counts observations whose logits have the bits of the yardstick: the NumPy reference for int8, the first
    target of the same format for the floats. ``decisions_alike`` are slots decided as by the yardstick, for floats by
    the ONNX file of that precision.
    """

    format: str
    target: str
    observations: int
    equal_real: int
    equal_adversarial: int
    decisions: int
    decisions_alike: int
    largest_logit_difference: float  # to the yardstick (int8: int32 steps; floats: logit units, to the ONNX file)
    instructions: float | None
    stack_bytes: int

    @property
    def bit_equal(self) -> bool:
        """Every logit has the yardstick's bits."""
        return self.equal_real + self.equal_adversarial == self.observations


def compare_boards(
    folder: Path,
    out: Path,
    settings: Settings,
    *,
    overwrite: bool = False,
    resume: bool = False,
    quiet: bool = False,
    own_source: bool = False,
) -> dict[str, Any]:
    """Compare and write ``boards.json``, ``boards.md``, ``boards.png``; the result. A stopped comparison can go on.

    An export's C source is compiled and run only if it follows from its ONNX file; ``own_source`` waives that for a
    caller who has written the source.

    Raises:
        UserError: the export's chain is broken, it holds no integer model, a tool is missing, a source is not what
            this version makes, or a policy does not fit. All that before a plant is simulated.
    """
    settings.check()
    manifest, chain = load(folder), Chain.of_folder(folder)
    if not (folder / INTEGER).is_file():
        raise UserError(f"{folder} holds no {INTEGER}: export the run again with --precisions int8 --targets c")
    model = IntegerModel.load(folder / INTEGER)
    formats = [name for name in FORMATS if (folder / "c" / name / "sea_policy.c").is_file()]
    for name in formats:
        targets = _targets(name, settings.boards)
        check_tools(targets)
        for target in set(targets) & set(EMULATED):
            check_fits(target, *table_bytes(policy_source(folder, name).read_text()))
        if targets and not own_source:
            check_source(folder, name)
    prepare_output_dir(out, overwrite=overwrite, resume=resume)
    real, hostile = _observations(folder, out, manifest, model, settings, quiet)
    rows: list[Row] = []
    for name in formats:
        rows += _format_rows(folder, out, name, model, manifest, (real, hostile), settings, quiet)
    result = {
        "model_hash": chain.model_hash.hex(),
        "policy": manifest.actor["name"],
        "seed": settings.seed,
        "real": len(real),
        "adversarial": len(hostile),
        "rows": [{**asdict(row), "bit_equal": row.bit_equal} for row in rows],
        "cost": _cost(folder, rows, settings, real, quiet, own_source),
        "int8_weight_bytes": weight_bytes(model),
        "all_bit_equal": all(row.bit_equal for row in rows),
        "machine": machine(),
    }
    write_json(out / RESULT, result)
    return result


def _observations(
    folder: Path, out: Path, manifest: Manifest, model: IntegerModel, settings: Settings, quiet: bool
) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Real and adversarial int8 observations; those of a stopped comparison are taken up if they are the same ones."""
    key = sha256_json([model.sha256, settings.real, settings.adversarial, settings.seed])
    path = out / OBSERVATIONS
    if path.is_file():
        with np.load(path, allow_pickle=False) as held:
            if str(held["key"]) == key:
                return held["real"], held["adversarial"]
    seen = real_observations(manifest, OnnxPolicy(folder), settings.real, seed=settings.seed, quiet=quiet)
    real = quantise(model, seen)
    hostile = adversarial(settings.adversarial, model.n_obs, np.random.default_rng([settings.seed, 1]))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, key=np.array(key), real=real, adversarial=hostile)
    atomic_write_bytes(path, buffer.getvalue())
    return real, hostile


def _targets(format: str, boards: Sequence[str]) -> list[str]:
    if format == "fp16":
        return [HALF_BOARD] if HALF_BOARD in boards else []
    named = [list(HOST_TARGETS) if board == "host" else [board] for board in boards]
    return [target for group in named for target in group]


def _format_rows(
    folder: Path,
    out: Path,
    format: str,
    model: IntegerModel,
    manifest: Manifest,
    observations: tuple[NDArray[np.int8], NDArray[np.int8]],
    settings: Settings,
    quiet: bool,
) -> list[Row]:
    """All targets of a format. Rows that a stopped comparison has finished are not run again."""
    real, hostile = observations
    if format != "int8":
        real, hostile = real[: settings.floats], hostile[: settings.floats]
    values = np.concatenate([real, hostile])
    source = policy_source(folder, format)
    yardstick = run(model, values) if format == "int8" else None
    wanted = None if format == "int8" else _onnx_logits(folder, format, manifest, model, values)
    rows: list[Row] = []
    digest = hashlib.sha256(values.tobytes()).hexdigest()
    for target in _targets(format, settings.boards):
        key = sha256_json([sha256_file(source), digest, target])
        place = out / "rows" / f"{format}-{target}"
        held, logits_file = place.with_suffix(".json"), place.with_suffix(".npy")
        if held.is_file() and (saved := read_json(held)).get("key") == key:
            if yardstick is None:
                yardstick = np.load(logits_file, allow_pickle=False)
            rows.append(Row(**saved["row"]))
            continue
        ran = run_policy(target, source, values, quiet=quiet)
        if yardstick is None:  # floats: the other targets are held against the first one's bits
            yardstick = logits = ran.logits
            atomic_write(logits_file, lambda stream, logits=logits: np.save(stream, logits))  # type: ignore[misc]
        rows.append(_row(format, target, len(real), ran.logits, yardstick, wanted, ran.instructions, ran.stack_bytes))
        write_json(held, {"key": key, "row": asdict(rows[-1])})
    return rows


def _row(
    format: str,
    target: str,
    n_real: int,
    logits: NDArray[np.int32],
    yardstick: NDArray[np.int32],
    wanted: NDArray[np.float32] | None,
    instructions: float | None,
    stack_bytes: int,
) -> Row:
    same = (logits == yardstick).all(axis=(1, 2))
    decided = decide_integer(logits)
    if wanted is None:
        alike = decided == decide_integer(yardstick)
        largest = float(np.abs(logits.astype(np.int64) - yardstick).max())
    else:
        alike = decided == (wanted[..., 1] > wanted[..., 0])
        largest = float(np.abs(logits / FLOAT_SCALE - wanted).max())
    return Row(
        format=format,
        target=target,
        observations=len(logits),
        equal_real=int(same[:n_real].sum()),
        equal_adversarial=int(same[n_real:].sum()),
        decisions=int(alike.size),
        decisions_alike=int(alike.sum()),
        largest_logit_difference=largest,
        instructions=instructions,
        stack_bytes=stack_bytes,
    )


def _onnx_logits(
    folder: Path, format: str, manifest: Manifest, model: IntegerModel, values: NDArray[np.int8]
) -> NDArray[np.float32]:
    """What ONNX Runtime gives for the same int8 observations, with the file of that precision."""
    policy = OnnxPolicy(folder, format if format in manifest.precisions else None)
    block = 1 if model.hidden else ONNX_BLOCK  # a recurrent policy sees one observation after the other
    policy.init_state(block)
    seen = dequantise(model, values)
    return np.concatenate([policy.logits(seen[i : i + block]) for i in range(0, len(seen), block)])


def _cost(
    folder: Path, rows: Sequence[Row], settings: Settings, real: NDArray[np.int8], quiet: bool, own_source: bool
) -> list[dict[str, Any]]:
    """Flash, RAM, stack, instructions and energy of a decision, by format and board."""
    cost = []
    emulated = [row for row in rows if row.target in EMULATED]
    formats = sorted({row.format for row in rows if row.format != "fp16"}) if "host" in settings.boards else []
    with progress("cost of a decision", len(emulated) + len(formats), quiet=quiet) as bar:
        for row in emulated:
            image = build_image(row.target, folder, row.format, unchecked_source_for_tests=own_source)
            entry: dict[str, Any] = {
                "format": row.format,
                "board": row.target,
                "policy_flash_bytes": image.policy_flash_bytes,
                "policy_ram_bytes": image.policy_ram_bytes,
                "flash_bytes": image.flash_bytes,
                "ram_bytes": image.ram_bytes,
                "stack_bytes": row.stack_bytes,
                "instructions": row.instructions,
                "image": image.sha256,
            }
            if row.target == "qemu-m4f" and row.instructions is not None:
                entry["energy"] = {"mcu": MCU, **estimate(row.instructions)._asdict()}
            cost.append(entry)
            bar.update(1, f"{row.target} {row.format}")
        for name in formats:
            source = policy_source(folder, name)
            flash, ram = table_bytes(source.read_text())
            cost.append(
                {
                    "format": name,
                    "board": "host",
                    "policy_flash_bytes": flash,
                    "policy_ram_bytes": ram,
                    "instructions": callgrind(source, real[:CALLGRIND_OBSERVATIONS]),
                    "stack_bytes": max(row.stack_bytes for row in rows if row.format == name),
                }
            )
            bar.update(1, f"callgrind {name}")
    return cost
