"""The policy bench: equal bits everywhere, counted instructions, painted stack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from envs.errors import UserError
from firmware_bridge.policy_bench import COUNTED, EMULATED, HOST_TARGETS, callgrind, run_policy
from tests.observe_tools import TinyPolicy

TINY = Path(__file__).parent / "firmware" / "tiny_policy.h"
LOOP = """
#include "sea_policy.h"
static void reset(void) {}
static void infer(const int8_t *x, int32_t *logits)
{
    volatile uint8_t deep[%d];
    uint32_t n = %d;
    __asm volatile("1: subs %%0, %%0, #1\\n\\tbne 1b" : "+r"(n)::"cc");
    deep[0] = (uint8_t)x[0];
    logits[0] = deep[0];
    logits[1] = 0;
}
const sea_policy_t SEA_POLICY = {.n_obs = 4, .slots = 1, .reset = reset, .infer = infer};
"""


@pytest.mark.parametrize("target", [*HOST_TARGETS, *EMULATED])
def test_logits_are_equal_bit_by_bit(target: str, tmp_path: Path) -> None:
    """More observations than are counted, and a recurrent state that is cleared now and then."""
    policy = tmp_path / "sea_policy.c"
    policy.write_text(f'#include "{TINY}"\n')
    rows = np.random.default_rng(3).integers(-128, 128, (3 * COUNTED, 400), dtype=np.int8)
    expected = []
    for i, row in enumerate(rows):
        if i % 10 == 0:
            twin = TinyPolicy()
        expected.append(twin.infer(row))
    found = run_policy(target, policy, rows, reset_every=10, quiet=True)
    assert np.array_equal(found.logits, np.array(expected))
    assert 0 <= found.stack_bytes < 1024
    assert (found.instructions is None) == (target in HOST_TARGETS)


@pytest.mark.parametrize("target", EMULATED)
def test_instructions_and_stack_are_what_the_code_says(target: str, tmp_path: Path) -> None:
    observations = np.zeros((COUNTED, 4), np.int8)
    found = []
    for deep, turns in ((40, 1000), (1040, 51_000)):
        policy = tmp_path / "sea_policy.c"
        policy.write_text(LOOP % (deep, turns))
        found.append(run_policy(target, policy, observations, quiet=True))
    (few, shallow), (many, deep_stack) = ((run.instructions, run.stack_bytes) for run in found)
    assert few is not None
    assert many is not None
    assert many - few == pytest.approx(2 * 50_000, abs=2), "two instructions a turn"
    assert 2_000 < few < 2_030
    assert deep_stack - shallow == 1000


def test_callgrind_counts_the_policy_alone(tmp_path: Path) -> None:
    counts = []
    for turns in (1000, 3000):
        policy = tmp_path / "sea_policy.c"
        source = LOOP.replace("subs %%0, %%0, #1\\n\\tbne 1b", "dec %%0\\n\\tjne 1b")
        policy.write_text(source % (40, turns))
        counts.append(callgrind(policy, np.zeros((3, 4), np.int8)))
    assert counts[1] - counts[0] == 4000
    assert counts[0] < 2050


def test_bad_input_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tmp_path / "sea_policy.c"
    policy.write_text(f'#include "{TINY}"\n')
    for target in ("host-gcc-O3", "qemu-m4f"):
        with pytest.raises(UserError, match=f"the policy on {target} takes observations of another size"):
            run_policy(target, policy, np.zeros((2, 399), np.int8), quiet=True)
    with pytest.raises(UserError, match=r"observations are int8 \(n, n_obs\), not float64 \(2, 400\)"):
        run_policy("qemu-m4f", policy, np.zeros((2, 400)), quiet=True)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="there is no target 'avr': choose one of host-gcc-O0"):
        run_policy("avr", policy, np.zeros((2, 400), np.int8))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="valgrind was not found: on Debian 'apt-get install valgrind'"):
        callgrind(policy, np.zeros((2, 400), np.int8))
    with pytest.raises(UserError, match="clang-14 was not found: on Debian 'apt-get install clang-14'"):
        run_policy("host-clang-O0", policy, np.zeros((2, 400), np.int8))
