"""What the board's tests share: compiled harnesses, and a session on a host board with a stepped clock."""

from __future__ import annotations

import ctypes
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from firmware_bridge.bench import Bench, ElectrodePulse
from firmware_bridge.board import HostBoard
from firmware_bridge.build import CORE, WARNINGS, cache_dir, compile_c, find_compiler, sources
from firmware_bridge.client import BoardClient
from firmware_bridge.images import Image, build_image
from firmware_bridge.layout import TYPES
from firmware_bridge.links import SerialLink
from firmware_bridge.messages import Ack

HERE = Path(__file__).parent / "firmware"
NONCE = bytes(range(16))
#: Lease, masks, limits and faults are tested with the ramp left out, so that every ordered pulse is seen at once and
#: whole; tests/test_envelope_*.py test the boards as they are.
NO_RAMP = ("-DSEA_TEST_BUILD", "-DSEA_BROKEN_RAMP")


def compiled(
    name: str, files: list[Path], flags: tuple[str, ...], extra: str = "", compiler: str | None = None
) -> Path:
    """A test program, compiled once for these sources."""
    compiler = compiler or find_compiler()
    key = hashlib.sha256(" ".join((compiler, extra, *flags)).encode())
    for path in (*files, *sorted(HERE.glob("*.h")), *sources(CORE)):
        key.update(path.read_bytes())
    target = cache_dir() / "tests" / key.hexdigest()[:16] / name
    if not target.exists():
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "harness_dump.h").write_text(extra)
            compile_c(target, [*files, *sources(CORE)], (*flags, "-I", folder), compiler)
    return target


def dump_source() -> str:
    """C that names every field of every message as JSON: it compiles only while both tables have the same names."""
    out = ["#include <inttypes.h>", "#include <stdio.h>", '#include "sea_messages.h"', ""]
    out += [
        "static bool dump(uint8_t type, const uint8_t *in, size_t n, char *json, size_t max, uint8_t *again,",
        "                 size_t *written)",
        "{",
    ]
    out += ["    size_t at = 0;", "    (void)again;", "    (void)written;"]
    for row in TYPES.values():
        name = row.name.lower()
        out += [f"    if (type == SEA_{row.name}) {{"]
        if not row.fields:
            out += [f'        return n == SEA_{row.name}_SIZE && snprintf(json, max, "{{}}") > 0;', "    }"]
            continue
        out += [f"        sea_msg_{name}_t m;", f"        if (!sea_unpack_{name}(&m, in, n)) {{ return false; }}"]
        for i, (field, wire) in enumerate(row.fields.items()):
            comma = "," if i else "{"
            out += [f'        at += (size_t)snprintf(json + at, max - at, "{comma}\\"{field}\\":");']
            if wire.format.endswith("s"):
                size = f"m.{field}_size" if wire.is_tail else f"sizeof m.{field}"
                out += ['        at += (size_t)snprintf(json + at, max - at, "\\"");']
                out += [f"        for (size_t i = 0; i < {size}; i++) {{"]
                out += [f'            at += (size_t)snprintf(json + at, max - at, "%02x", m.{field}[i]);', "        }"]
                out += ['        at += (size_t)snprintf(json + at, max - at, "\\"");']
            else:
                sign = "u" if wire.type.startswith("u") else "d"
                out += [
                    f'        at += (size_t)snprintf(json + at, max - at, "%" PRI{sign}{8 * wire.size}, m.{field});'
                ]
        out += [
            '        at += (size_t)snprintf(json + at, max - at, "}");',
            f"        {'*written = ' if row.tail else ''}sea_pack_{name}(again, &m);",
        ]
        out += ["        return at < max;", "    }"]
    return "\n".join([*out, "    return false;", "}", ""])


@cache
def harness() -> ctypes.CDLL:
    """The core in this process."""
    flags = (*WARNINGS, "-O1", "-fPIC", "-shared", *NO_RAMP)
    counted = os.environ.get("SEA_HARNESS")  # built by tests/analysis/coverage.py
    library = ctypes.CDLL(counted or str(compiled("harness.so", [HERE / "harness.c"], flags, dump_source())))
    library.harness_reset.argtypes = [ctypes.c_bool, ctypes.c_uint32, ctypes.c_uint32]
    library.harness_key.argtypes = [ctypes.c_char_p, ctypes.c_bool, ctypes.c_uint32]
    library.harness_to_decide.argtypes = [ctypes.POINTER(ctypes.c_void_p)]
    library.harness_decided.argtypes = [ctypes.c_void_p, ctypes.c_bool, ctypes.c_uint64]
    library.harness_init_policy.argtypes = [ctypes.c_uint16, ctypes.c_uint16]
    library.harness_core_size.restype = ctypes.c_size_t
    library.harness_flip.argtypes = [ctypes.c_uint, ctypes.c_size_t, ctypes.c_uint]
    library.harness_flip.restype = ctypes.c_size_t
    library.harness_feed.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]
    library.harness_run_before.argtypes = [ctypes.c_uint64]
    library.harness_take_out.argtypes = [ctypes.c_char_p]
    library.harness_take_out.restype = ctypes.c_size_t
    library.harness_pulses.argtypes = [ctypes.POINTER(ctypes.c_uint64)]
    library.harness_pulses.restype = ctypes.c_size_t
    library.harness_decode.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p]
    library.harness_decode.restype = ctypes.c_size_t
    library.harness_round_trip.argtypes = [
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_char_p,
    ]
    library.harness_round_trip.restype = ctypes.c_size_t
    return library


class CoreInProcess:
    """A board without a process: bytes in, bytes out, a clock in hand."""

    def __init__(
        self,
        *,
        policy: bool = False,
        amplitude_limit_uA: int = 2**32 - 1,
        area: int = 2**32 - 1,
        key: bytes | None = None,
        simulated: bool = True,
        boots: int = 1,
    ) -> None:
        """``policy``: it holds the tiny one, and decides at once unless ``thinking`` is set."""
        self.now_us = 0
        self.thinking = False
        self._core = harness()
        self._core.harness_key(key, simulated, boots)
        self._core.harness_reset(policy, amplitude_limit_uA, area)

    def __call__(self, data: bytes) -> bytes:
        self._core.harness_feed(data, len(data), self.now_us)
        if not self.thinking and (observation := self.take()) is not None:
            self.decided(observation)
        return self.take_out()

    def take(self) -> int | None:
        """Address of the observation that waits for the policy."""
        observation = ctypes.c_void_p()
        return observation.value if self._core.harness_to_decide(ctypes.byref(observation)) else None

    def decided(self, observation: int, *, elsewhere: bool = False) -> int:
        """The policy answers now; the core's status."""
        return int(self._core.harness_decided(observation, elsewhere, self.now_us))

    def take_out(self) -> bytes:
        """What the board has sent."""
        out = ctypes.create_string_buffer(65536)
        size = self._core.harness_take_out(out)
        return out.raw[:size]

    def advance(self, to_us: int) -> None:
        self._core.harness_run_before(to_us)
        self.now_us = to_us

    @property
    def pulses(self) -> list[int]:
        times = (ctypes.c_uint64 * 4096)()
        return list(times[: self._core.harness_pulses(times)])


def no_ramp() -> Image:
    """The host board as a test build that gives what is ordered at once."""
    return build_image("host", test_build=True, broken="ramp")


class Rig(NamedTuple):
    """A host board with its clock in our hand and a client on its link."""

    board: HostBoard
    bench: Bench
    client: BoardClient

    def order(
        self,
        decision_id: int,
        mask: list[int],
        start_us: int = 0,
        *,
        period_us: int = 20_000,
        amplitude_uA: int = 3000,
        width_us: int = 60,
        lease_ms: int = 300,
    ) -> Ack:
        """SET_STIM that must be accepted."""
        reply = self.client.set_stim(decision_id, start_us, period_us, mask, amplitude_uA, width_us, lease_ms)
        assert isinstance(reply, Ack), reply
        return reply

    def times(self, to_us: int) -> list[int]:
        """Start times of the pulses given until a time."""
        return [pulse.t_us for pulse in self.bench.advance(to_us)]


@contextmanager
def rig(
    *, armed: bool = True, electrode_log: Path | None = None, image: Image | None = None, **limits: Any
) -> Iterator[Rig]:
    """A board that stands at device time 0, shaken hands with and armed; without an image: one without the ramp."""
    with (
        HostBoard(electrode_log=electrode_log, image=image or no_ramp(), **limits) as board,
        Bench(board.electrode) as bench,
        BoardClient(SerialLink(board.port), nonce=NONCE) as client,
    ):
        if armed:
            client.hello()
            client.arm()
        yield Rig(board, bench, client)


def check_pulses(pulses: list[ElectrodePulse]) -> None:
    """Each pulse carries no net charge and stays inside the compiled ranges."""
    for pulse in pulses:
        assert pulse.amplitude_uA * pulse.width_us + pulse.second_amplitude_uA * pulse.second_width_us == 0
        assert pulse.residual_pC == 0
        assert 0 < -pulse.amplitude_uA <= 5000
        assert 60 <= pulse.width_us <= 120
