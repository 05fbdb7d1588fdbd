"""C sources of a policy, and which boards were asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from envs.errors import UserError
from sea_dbs.files import atomic_write_bytes, atomic_write_text

C = "c"
BOARDS = {"m4f": "qemu-m4f", "m7": "qemu-m7", "m55": "qemu-m55"}  # target -> board
TARGETS = (C, *BOARDS)
HALF_PRECISION = ("m55",)  # cores that compute in half precision; elsewhere it would only save flash
BYTES = {"int8": 1, "fp16": 2, "fp32": 4}  # of a weight
INTEGER = "integer.npz"


def check(targets: Sequence[str], precisions: Sequence[str]) -> None:
    """Refuse targets that are unknown, or that the precisions cannot serve.

    Raises:
        UserError: which.
    """
    for name in targets:
        if name not in TARGETS:
            raise UserError(f"unknown target '{name}': choose from {', '.join(TARGETS)}")
    if targets and "int8" not in precisions:
        raise UserError(
            "--targets needs the precision int8: a board takes int8 observations, whatever it computes in; add it to "
            "--precisions"
        )


def images(targets: Sequence[str], precisions: Sequence[str]) -> list[tuple[str, str]]:
    """(board, format) of every firmware image that the targets ask for."""
    return [
        (BOARDS[target], name)
        for target in targets
        if target != C
        for name in precisions
        if name != "fp16" or target in HALF_PRECISION
    ]


def c_sources(models: Mapping[str, bytes], single: bytes) -> tuple[bytes, dict[str, str]]:
    """integer.npz and the C source of each format: INT8 from its ONNX file, the others from the FP32 file ``single``.

    Raises:
        UserError: a graph that the policy in C does not know (the node is named), or a sum that could overflow.
    """
    from export import integer
    from export.integer.storage import to_bytes

    model = integer.IntegerModel.from_onnx(models["int8"])
    made = {"int8": integer.c_source(model)}
    for name in ("fp32", "fp16"):
        if name in models:
            made[name] = integer.float_c_source(single, name, model)
    return to_bytes(model), made


def write(out: Path, model: bytes, sources: Mapping[str, str]) -> None:
    """Write integer.npz and c/FORMAT/sea_policy.c.

    Raises:
        UserError: a file cannot be written.
    """
    atomic_write_bytes(out / INTEGER, model)
    for name, text in sources.items():
        atomic_write_text(out / "c" / name / "sea_policy.c", text)
