"""A board's firmware from an export folder: checked, compiled, kept."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from envs.errors import UserError
from export.chain import Chain
from firmware_bridge.images.compiling import compile_image
from firmware_bridge.images.image import Image, copy_image
from firmware_bridge.images.policy import check_fits, policy_source, table_bytes
from firmware_bridge.images.source import check_source
from firmware_bridge.limits import LIMITS, judge
from firmware_bridge.targets import find_target

BROKEN = ("ramp", "lease", "balance")  # what a broken test build leaves out


class FixedSetting(NamedTuple):
    """A setting for FALLBACK, approved before the image is built."""

    amplitude_uA: int
    width_us: int
    period_us: int


def build_image(
    board: str,
    policy_dir: Path | None = None,
    format: str = "int8",
    out_dir: Path | None = None,
    *,
    test_build: bool = False,
    steady: bool = False,
    broken: str | None = None,
    fallback: FixedSetting | None = None,
    unchecked_source_for_tests: bool = False,
) -> Image:
    """Compile the firmware of a board, with an export's policy inside if there is one.

    Images are kept in a cache keyed by all that goes in; ``out_dir`` gets copies (sea-board.elf, .bin, image.json).
    ``test_build`` adds the faults that tests inject; ``broken`` (one of BROKEN) leaves a rule of the envelope out, so
    that a checker can be checked. ``fallback`` compiles a fixed setting for FALLBACK in. The export's C source is
    compiled only if it is, byte for byte, what this version makes of the ONNX file beside it;
    ``unchecked_source_for_tests`` compiles what stands there, and with it runs whatever its author wrote.

    Raises:
        UserError: an unknown board, no compiler, a policy that does not fit, a broken chain, a source that is not what
            this version makes, a fixed setting outside a limit, a broken build that is no test build, or a failed
            compilation.
    """
    target = find_target(board)
    chain = None if policy_dir is None else Chain.of_folder(policy_dir)
    policy = None
    if policy_dir is not None:
        policy = policy_source(policy_dir, format)
        check_fits(board, *table_bytes(policy.read_text()))
        if not unchecked_source_for_tests:
            check_source(policy_dir, format)
    image = compile_image(
        target,
        policy,
        None if chain is None else chain.model_hash,
        format=None if policy is None else format,
        links=() if chain is None else chain.links,
        test_build=test_build,
        steady=steady,
        defines=(*_broken(broken, test_build), *_fallback(fallback)),
    )
    return image if out_dir is None else copy_image(image, out_dir)


def _broken(broken: str | None, test_build: bool) -> tuple[str, ...]:
    if broken is None:
        return ()
    if broken not in BROKEN or not test_build:
        raise UserError(f"there is no broken build '{broken}': test builds alone may be one of {', '.join(BROKEN)}")
    return (f"-DSEA_BROKEN_{broken.upper()}",)


def _fallback(fixed: FixedSetting | None) -> tuple[str, ...]:
    if fixed is None:
        return ()
    verdict = judge(fixed.amplitude_uA, fixed.width_us, fixed.period_us, 1, LIMITS["LEASE_MIN_MS"].value)
    if verdict.code is not None or verdict.clamp or not fixed.amplitude_uA:
        raise UserError(
            f"the fixed setting {tuple(fixed)} (µA, µs, µs) for FALLBACK is outside the limits of the board"
        )
    names = ("UA", "WIDTH_US", "PERIOD_US")
    return tuple(f"-DSEA_FALLBACK_{name}={value}" for name, value in zip(names, fixed, strict=True))
