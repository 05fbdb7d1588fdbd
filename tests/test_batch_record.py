"""What a block recorded, sorted by network: every line once, in its order, on its network's own clock."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from envs.plant import batch_kernel as bk
from envs.plant.batch_record import split

LANES = 8
kinds = st.sampled_from([0, 3, 7, bk.GPI_SPIKE, bk.RELAY, *range(bk.LFP, bk.LFP + LANES)])
lines = st.lists(st.tuples(st.integers(0, 10**9), kinds, st.integers(0, 10 * LANES - 1)), max_size=60)
clocks = st.lists(st.integers(-(10**6), 10**6), min_size=LANES, max_size=LANES)


@given(lines, clocks, st.integers(1, LANES))
def test_each_line_comes_to_its_network(rows: list[tuple[int, int, int]], origins: list[int], used: int) -> None:
    raw = np.array(rows, np.int64).reshape(-1, 3)
    raw[raw[:, 1] >= bk.LFP, 2] = np.arange((raw[:, 1] >= bk.LFP).sum()) - 7  # bits of a value, of any sign
    records = split(raw, np.array(origins, np.int64), used)
    assert len(records) == used
    for lane, (record, origin) in enumerate(zip(records, origins, strict=False)):
        spikes = [(s + origin, k, c // LANES) for s, k, c in raw.tolist() if k < bk.LFP and c % LANES == lane]
        assert record.events.tolist() == [[s, k, c] for s, k, c in spikes if k <= 7]
        assert record.gpi_spikes.tolist() == [[s, c] for s, k, c in spikes if k == bk.GPI_SPIKE]
        assert record.th_spikes.tolist() == [[s, c] for s, k, c in spikes if k == bk.RELAY]
        lfp = [(s + origin, bits) for s, k, bits in raw.tolist() if k == bk.LFP + lane]
        assert record.lfp_samples.tolist() == [s for s, _ in lfp]
        assert record.lfp.view(np.int64).tolist() == [bits for _, bits in lfp]
