"""Rounding in fixed point: exact fractions, NumPy and C agree on every bit."""

from __future__ import annotations

import ctypes
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from envs.errors import UserError
from export.integer.fixed import fixed, requantise
from firmware_bridge.build import CORE, WARNINGS

INT32 = st.integers(-(2**31), 2**31 - 1)
MULTIPLIER = st.integers(0, 2**31 - 1)
SHIFT = st.integers(1, 62)
SOURCE = """
#include "sea_policy.h"
int32_t one(int32_t value, int32_t multiplier, uint8_t shift);
int32_t one(int32_t value, int32_t multiplier, uint8_t shift)
{
    return sea_requantise(value, multiplier, shift);
}
"""


@pytest.fixture(scope="module", params=["gcc", "clang-14"])
def in_c(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """`sea_requantise` with undefined behaviour made fatal."""
    folder = tmp_path_factory.mktemp("requantise")
    (folder / "one.c").write_text(SOURCE)
    library = folder / "one.so"
    sanitise = ["-fsanitize=undefined", "-fsanitize-trap=all"] if request.param != "gcc" else []
    sanitise = sanitise or ["-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"]
    command = [request.param, *WARNINGS, "-O2", *sanitise, "-shared", "-fPIC", "-I", str(CORE)]
    subprocess.run([*command, "-o", str(library), str(folder / "one.c")], check=True)
    return ctypes.CDLL(str(library))


def exact(value: int, multiplier: int, shift: int) -> int:
    """By definition: round() of a Fraction takes halves to even."""
    return max(-(2**31), min(2**31 - 1, round(Fraction(value * multiplier, 2**shift))))


@given(INT32, MULTIPLIER, SHIFT)
@example(-(2**31), 2**31 - 1, 1)
@example(2**31 - 1, 2**31 - 1, 62)
@example(3, 2**30, 31)  # 1.5 -> 2
@example(5, 2**30, 31)  # 2.5 -> 2
@example(-5, 2**30, 31)
@example(5, 2**31 - 1, 33)
@example(2**31 - 1, 1, 32)
def test_requantise_is_the_rounded_fraction(in_c: ctypes.CDLL, value: int, multiplier: int, shift: int) -> None:
    wanted = exact(value, multiplier, shift)
    assert int(requantise(np.int64(value), multiplier, shift)) == wanted
    assert in_c.one(value, multiplier, shift) == wanted


@given(st.integers(-(2**20), 2**20), st.integers(1, 30))
def test_ties_go_to_the_even_neighbour_for_every_shift(in_c: ctypes.CDLL, odd: int, power: int) -> None:
    """value * 2^30 / 2^(30 + power): a tie whenever value is an odd multiple of half a step."""
    value = (2 * odd + 1) << (power - 1) if abs(odd) < 2 ** (30 - power) else 1
    wanted = exact(value, 2**30, 30 + power)
    assert in_c.one(value, 2**30, 30 + power) == wanted
    assert int(requantise(np.int64(value), 2**30, 30 + power)) == wanted


@given(st.floats(1e-18, 2.0**29))
def test_a_scale_factor_keeps_thirty_bits(real: float) -> None:
    multiplier, shift = fixed(real, "here")
    assert 0 <= multiplier < 2**31
    assert 1 <= shift <= 62
    error = abs(Fraction(multiplier, 2**shift) - Fraction(real))
    assert error <= max(Fraction(real) / 2**30, Fraction(1, 2**63))


@pytest.mark.parametrize("real", [0.0, -1.0, float("nan"), float("inf"), 2.0**30])
def test_a_scale_factor_out_of_range_is_refused_with_its_place(real: float) -> None:
    with pytest.raises(UserError, match="layer 3: the scale factor"):
        fixed(real, "layer 3")


def test_the_header_and_python_name_the_same_limits() -> None:
    from export.integer.model import MAX_OBS, MAX_SLOTS

    text = Path(CORE / "sea_policy.h").read_text()
    assert f"SEA_POLICY_MAX_OBS {MAX_OBS}u" in text
    assert f"SEA_POLICY_MAX_SLOTS {MAX_SLOTS}u" in text
