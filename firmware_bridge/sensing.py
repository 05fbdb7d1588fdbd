"""Is an observation fit to act on? Where the host decides, it asks the board's own C function (``sea_sensing.c``)."""

from __future__ import annotations

import ctypes
import hashlib
from functools import cache

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.build import CORE, WARNINGS, cache_dir, compile_c, find_compiler
from firmware_bridge.codes import Sensing
from firmware_bridge.messages import ObserveHead
from firmware_bridge.observation import Sampling

_FILES = (CORE / "sea_sensing.c", CORE / "sea_sensing.h", CORE / "sea_messages.h", CORE / "sea_limits.h",
          CORE / "sea_codes.h", CORE / "sea_bytes.h")  # fmt: skip
_U16, _U32 = 2**16 - 1, 2**32


@cache
def _library() -> ctypes.CDLL:
    compiler = find_compiler()
    key = hashlib.sha256(compiler.encode() + b"".join(path.read_bytes() for path in _FILES)).hexdigest()[:16]
    target = cache_dir() / "sensing" / f"{key}.so"
    if not target.exists():
        compile_c(target, _FILES, (*WARNINGS, "-O2", "-fPIC", "-shared"), compiler)
    library = ctypes.CDLL(str(target))
    library.sea_sensing_judge.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    library.sea_sensing_judge.restype = ctypes.c_uint8
    return library


def head_of(values: NDArray[np.int8] | NDArray[np.float32], sampling: Sampling) -> ObserveHead:
    """What OBSERVE would say of an observation, (n_obs,).

    Of a controller without int8 values only whether they differ is said: their range has no ends.
    """
    low, high = float(values.min()), float(values.max())
    if values.dtype != np.int8:
        low, high = 0, int(low != high)
    return ObserveHead(
        start_us=0,
        lease_ms=0,
        sample_first=sampling.first % _U32,
        sample_last=sampling.last % _U32,
        valid=min(len(values) - sampling.blanked, _U16),
        blanked=sampling.blanked,
        minimum=int(low),
        maximum=int(high),
        age_us=min(max(sampling.age_us, 0), _U32 - 1),
    )


def judge_sensing(head: ObserveHead, previous: ObserveHead | None = None) -> Sensing:
    """Why nothing may be done on an observation; no bit: it is fit.

    Raises:
        UserError: no C compiler, or it failed.
    """
    return Sensing(_library().sea_sensing_judge(head.pack(), None if previous is None else previous.pack()))
