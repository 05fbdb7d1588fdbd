"""Thalamic error index EI: how well the thalamus relays its sensorimotor input.

EI = (missed + bad + spurious) / inputs, averaged over the thalamic cells (Rubin & Terman 2004, J Comput Neurosci
16:211; with the 25 ms window of Kumaravelu et al. 2016). For an input that arrives at time p a cell should fire once in
[p, p + 25 ms): no spike there is a missed response, more than one a bad response, and every spike from p + 25 ms to
the next input (or the window's end) is spurious.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.plant.common import N_CELLS
from envs.plant.inputs import round_half_up

RESPONSE_MS = 25.0  # ms after an input in which a relay spike counts, Kumaravelu 2016 (released code)
CELL_APART = 1 << 40  # samples, more than any simulation has (eight months at 0.02 ms)
RELAY_THRESHOLD_MV = -40.0  # mV, upward crossing that is a thalamic spike here, Kumaravelu 2016 (released code)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class ErrorIndex(NamedTuple):
    """Error index of each window and its three parts; all per input and averaged over cells, shape (windows,).

    A window without a counted input is NaN.
    """

    ei: Floats  # missed + bad + spurious
    missed: Floats
    bad: Floats
    spurious: Floats
    inputs: Ints  # counted inputs


def input_onsets(current: Floats, first_sample: int = 0, before: float = 0.0) -> Ints:
    """Samples at which the sensorimotor current switches on, shape (m,).

    Args:
        current: the input current, shape (n,).
        first_sample: sample of current[0].
        before: current at the sample before.
    """
    on = np.concatenate([[before], current]) > 0.0
    return np.flatnonzero(on[1:] & ~on[:-1]).astype(np.int64) + first_sample


def error_index(
    spikes: NDArray[Any],
    onsets: NDArray[Any],
    starts: NDArray[Any],
    length: int,
    dt_ms: float,
    *,
    reference: bool = False,
) -> ErrorIndex:
    """Error index of sliding windows; a window holds samples start .. start + length.

    Inputs strictly inside the window count if 25 ms of it are left after them.

    Args:
        spikes: thalamic spikes in any order, shape (n, 2): first sample above -40 mV, cell (0..9).
        onsets: samples of the inputs' onsets, sorted, shape (m,).
        starts: first sample of each window, shape (windows,).
        length: window length in samples.
        dt_ms: plant step (ms).
        reference: the released form, in which the last counted input of a window has no 25 ms limit: a spike late
            after it counts as its response too. (The released reset moreover dates onsets one sample early; hand
            over ``onsets - 1`` to repeat that.)

    Raises:
        UserError: wrong shapes, a cell out of range, or unsorted onsets.
    """
    keys = _keys(spikes)
    onsets, starts = np.asarray(onsets, dtype=np.int64), np.asarray(starts, dtype=np.int64)
    if np.any(np.diff(onsets) < 0):
        raise UserError("the onsets of the thalamic inputs must be sorted")
    limit = round_half_up(RESPONSE_MS / dt_ms)
    ends = starts + length
    first = np.searchsorted(onsets, starts, side="right")  # strictly after the window's first sample
    stop = np.maximum(np.searchsorted(onsets, ends - limit, side="right"), first)
    inputs = stop - first
    n = len(starts)
    parts = np.full((3, n), np.nan)
    counted = inputs > 0
    if counted.any():
        # All counted inputs but the last of a window look no further than the next one: one sum serves all windows.
        first, last = first[counted], stop[counted] - 1
        lowest = int(first.min())  # those before and after are of no window
        begin, following = onsets[lowest : last.max()], onsets[lowest + 1 : last.max() + 1]
        settled = _errors(keys, begin, begin + limit, begin + limit, following)
        total = np.concatenate([np.zeros((3, 1)), np.cumsum(settled, axis=1)], axis=1)
        tail = _tail(keys, onsets, last, ends[counted], limit, reference)
        parts[:, counted] = total[:, last - lowest] - total[:, first - lowest] + tail
        parts[:, counted] /= inputs[counted] * N_CELLS
    missed, bad, spurious = parts
    return ErrorIndex(missed + bad + spurious, missed, bad, spurious, inputs.astype(np.int64))


def _keys(spikes: NDArray[Any]) -> Ints:
    """The spikes of all cells in one sorted array, cell · CELL_APART + sample, so that one search serves all cells."""
    spikes = np.asarray(spikes)
    if spikes.ndim != 2 or spikes.shape[1] != 2:
        raise UserError(f"thalamic spikes have shape {spikes.shape}: expected (n, 2), sample and cell")
    if len(spikes) and not (spikes[:, 1].min() >= 0 and spikes[:, 1].max() < N_CELLS):
        raise UserError(f"a thalamic spike names a cell outside 0..{N_CELLS - 1}")
    keys: Ints = spikes[:, 1].astype(np.int64) * CELL_APART + spikes[:, 0].astype(np.int64)
    keys.sort()
    return keys


def _count(keys: Ints, begin: Ints, end: Ints) -> Ints:
    """Spikes of each cell in each begin .. end - 1 (0 where that is empty), shape (cells, inputs)."""
    offset = np.arange(N_CELLS)[:, np.newaxis] * CELL_APART
    counts: Ints = np.searchsorted(keys, offset + end) - np.searchsorted(keys, offset + begin)
    return np.maximum(counts, 0)


def _errors(keys: Ints, response: Ints, response_end: Ints, late: Ints, late_end: Ints) -> Floats:
    """Missed, bad and spurious responses of all cells to each input, shape (3, inputs)."""
    answers, extra = _count(keys, response, response_end), _count(keys, late, late_end)
    return np.array([(answers == 0).sum(axis=0), (answers > 1).sum(axis=0), extra.sum(axis=0)], dtype=np.float64)


def _tail(keys: Ints, onsets: Ints, last: Ints, ends: Ints, limit: int, reference: bool) -> Floats:
    """Errors of the last counted input of each window."""
    p = onsets[last]
    following = onsets[np.minimum(last + 1, len(onsets) - 1)]
    is_final = (last + 1 == len(onsets)) | (following >= ends)  # no later onset strictly inside the window
    if reference:
        response_end = np.where(is_final, ends, following)
        return _errors(keys, p, response_end, np.where(is_final, ends, p + limit), response_end)
    return _errors(keys, p, p + limit, p + limit, np.where(is_final, ends + 1, following))
