"""The fast kernel: a block of networks, lane by lane in neighbouring entries, advanced update by update.

Order of an update from sample s-1 to s, as in `envs.plant.reference`: arrivals of sample s-1 enter the filters; every
nucleus advances from old state (its filters decay in the same pass); then what fired is worked off: event log, records,
the increments of the continuous synapses. No nucleus sees another's new value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from envs.jit import kernel, rate
from envs.plant import batch_rates as rates
from envs.plant import cortex, stn, synapses
from envs.plant.batch_layout import CONNECTIONS, N_CONNECTIONS, ROW, Decay
from envs.plant.batch_vector import bits, load, lowest_bit, select, store, vector_rate
from envs.plant.common import (
    CE,
    CI,
    D1,
    D2,
    EVENT_THRESHOLD_MV,
    GPE,
    GPI,
    GPI_SPIKE_THRESHOLD_MV,
    N_CELLS,
    N_POPULATIONS,
    STN,
    TH,
)

OK, EVENTS_FULL, RECORD_FULL, NON_FINITE = 0, 1, 2, 3

# Integer state of a block: sample, next sample with an arrival, next sample at which a network's LFP is recorded, input
# switches done, events logged (by source), events served (by connection).
SAMPLE, NEXT_DUE, LFP_DUE, SWITCH, HEAD, TAIL = 0, 1, 2, 3, 4, 4 + 7
N_INTEGERS = TAIL + N_CONNECTIONS
NEVER = np.iinfo(np.int64).max

# What a vector of cells did, in the order in which it is recorded: events of the eight populations, then
GPI_SPIKE, RELAY, CE_CROSSING, CI_CROSSING, D2_OPENING, D1_OPENING = 8, 9, 10, 11, 12, 13
N_KINDS = 14
LFP = 16  # in a record, 16 + lane: the value's bits stand in place of the cell

# mV, driving forces of the LFP proxy, at the holding voltage of envs.biomarkers.lfp
LFP_GABA_MV, LFP_EXC_MV = abs(stn.E_LEAK - synapses.E_GABA), abs(stn.E_LEAK - synapses.E_EXC)

RELAY_MV = -40.0  # mV, upward crossing that is a thalamic spike for the error index, as envs.biomarkers.error_index

GABA_CUT_MV = -55.0  # mV; below, a striatal GABA gate opens at less than 5e-12/ms and only decays

TINY = 1e-30  # added where something decays, so that it never becomes denormal, which is slow on many processors

_SOURCE = np.array([c.source for c in CONNECTIONS], dtype=np.int64)


def _rows(*names: str) -> tuple[int, ...]:
    return tuple(ROW[name] for name in names)


V0 = ROW["V0"]
TH0, STN0, STN_CA, GPE0, GPE_CA, GPI0, GPI_CA, D20, D10 = _rows(
    "th0", "stn0", "stn_ca", "gpe0", "gpe_ca", "gpi0", "gpi_ca", "d20", "d10"
)
U0, GABA0, IN_D2, IN_D1, CE_S, CE_Z, CI_S, CI_Z = _rows("u0", "gaba0", "in_d2", "in_d1", "ce_s", "ce_z", "ci_s", "ci_z")
GPI_TH, TH_CE, GPE_INH, GPI_INH, GPI_EXC, D2_EXC, D1_EXC = _rows(
    "gpi_th_s", "th_ce_s", "gpe_inh_s", "gpi_inh_s", "gpi_exc_s", "d2_exc_s", "d1_exc_s"
)
GPE_AMPA, GPE_NMDA, STN_INH, STN_AMPA, STN_NMDA = _rows(
    "gpe_ampa_d", "gpe_nmda_d", "stn_inh_d", "stn_ampa_d", "stn_nmda_d"
)
I_TH, I_STN, GAIN_TH, G_M, OLD_GPI = _rows("i_th", "i_stn", "gain_th", "g_m", "old_gpi")


@vector_rate
def _alpha(S: Any, row: int, size: int, x: int, decay: float) -> Any:
    """S of an alpha filter, which then decays by a step."""
    at = row * size + x
    s = load(S, at)
    y = load(S, at + size)
    store(S, at, decay * (s + y))
    store(S, at + size, decay * y + TINY)
    return s


@vector_rate
def _biexp(S: Any, row: int, size: int, x: int, decay: float, rise: float) -> Any:
    """S of a double exponential filter, which then decays by a step."""
    at = row * size + x
    d = load(S, at)
    r = load(S, at + size)
    store(S, at, decay * d + TINY)
    store(S, at + size, rise * r + TINY)
    return d - r


@vector_rate
def _note(pending: Any, kind: int, x: int, mask: int) -> None:
    """Remember that these entries did something; it is worked off at the end of the update."""
    if mask != 0:
        n = pending[0]
        pending[n + 1] = kind
        pending[n + 2] = x
        pending[n + 3] = mask
        pending[0] = n + 3


@vector_rate
def _crossing(pending: Any, kind: int, x: int, old: Any, new: Any) -> None:
    if bits(new > EVENT_THRESHOLD_MV) != 0:
        _note(pending, kind, x, bits((old < EVENT_THRESHOLD_MV) & (new > EVENT_THRESHOLD_MV)))


@vector_rate
def _thalamic_cell(S: Any, size: int, x: int, V: Any, c: Decay) -> Any:
    at = TH0 * size + x
    I_in = load(S, I_TH * size + x) - _alpha(S, GPI_TH, size, x, c.alpha) * (V - synapses.E_GABA)
    new, h, r = rates.thalamus(V, load(S, at), load(S, at + size), I_in, c.dt)
    store(S, at, h)
    store(S, at + size, r)
    store(S, (V0 + TH) * size + x, new)
    return new


@vector_rate
def _thalamus(S: Any, size: int, width: int, c: Decay, pending: Any) -> None:
    for x in range(0, size, width):
        V = load(S, (V0 + TH) * size + x)
        new = _thalamic_cell(S, size, x, V, c)
        _crossing(pending, TH, x, V, new)


@vector_rate
def _thalamus_relay(S: Any, size: int, width: int, c: Decay, pending: Any) -> None:
    """`_thalamus` that also notes what the error index counts."""
    for x in range(0, size, width):
        V = load(S, (V0 + TH) * size + x)
        new = _thalamic_cell(S, size, x, V, c)
        if bits(new > RELAY_MV) != 0:
            _note(pending, RELAY, x, bits((V < RELAY_MV) & (new > RELAY_MV)))
            _crossing(pending, TH, x, V, new)


@vector_rate
def _stn(S: Any, size: int, width: int, c: Decay, pending: Any) -> None:
    for x in range(0, size, width):
        V = load(S, (V0 + STN) * size + x)
        exc = _biexp(S, STN_AMPA, size, x, c.stn_ampa_d, c.stn_ampa_r)
        exc += _biexp(S, STN_NMDA, size, x, c.stn_nmda_d, c.stn_nmda_r)
        inh = _biexp(S, STN_INH, size, x, c.stn_inh_d, c.stn_inh_r)
        I_in = load(S, I_STN * size + x) - exc * (V - synapses.E_EXC) - inh * (V - synapses.E_GABA)
        a = STN0 * size + x
        new, n, m, h, ga, b, gc, d1, d2, p, q, r, ca = rates.stn(
            V,
            load(S, a),
            load(S, a + size),
            load(S, a + 2 * size),
            load(S, a + 3 * size),
            load(S, a + 4 * size),
            load(S, a + 5 * size),
            load(S, a + 6 * size),
            load(S, a + 7 * size),
            load(S, a + 8 * size),
            load(S, a + 9 * size),
            load(S, a + 10 * size),
            load(S, STN_CA * size + x),
            I_in,
            c.dt,
        )
        store(S, a, n)
        store(S, a + size, m)
        store(S, a + 2 * size, h)
        store(S, a + 3 * size, ga)
        store(S, a + 4 * size, b)
        store(S, a + 5 * size, gc)
        store(S, a + 6 * size, d1)
        store(S, a + 7 * size, d2)
        store(S, a + 8 * size, p)
        store(S, a + 9 * size, q)
        store(S, a + 10 * size, r)
        store(S, STN_CA * size + x, ca)
        store(S, (V0 + STN) * size + x, new)
        _crossing(pending, STN, x, V, new)


@vector_rate
def _pallidal_cell(S: Any, gates: int, ca: int, size: int, x: int, V: Any, I_in: Any, dt: float) -> Any:
    a = gates * size + x
    new, n, h, r, calcium = rates.pallidum(
        V, load(S, a), load(S, a + size), load(S, a + 2 * size), load(S, ca * size + x), I_in, dt
    )
    store(S, a, n)
    store(S, a + size, h)
    store(S, a + 2 * size, r)
    store(S, ca * size + x, calcium)
    return new


@vector_rate
def _gpe(S: Any, size: int, width: int, c: Decay, pending: Any) -> None:
    for x in range(0, size, width):
        V = load(S, (V0 + GPE) * size + x)
        exc = _biexp(S, GPE_AMPA, size, x, c.gpe_ampa_d, c.gpe_ampa_r)
        exc += _biexp(S, GPE_NMDA, size, x, c.gpe_nmda_d, c.gpe_nmda_r)
        inh = _alpha(S, GPE_INH, size, x, c.alpha)
        I_in = -exc * (V - synapses.E_EXC) - inh * (V - synapses.E_GABA)
        new = _pallidal_cell(S, GPE0, GPE_CA, size, x, V, I_in, c.dt)
        store(S, (V0 + GPE) * size + x, new)
        _crossing(pending, GPE, x, V, new)


@vector_rate
def _gpi(S: Any, size: int, width: int, c: Decay, pending: Any) -> None:
    for x in range(0, size, width):
        V = load(S, (V0 + GPI) * size + x)
        exc = _alpha(S, GPI_EXC, size, x, c.alpha)
        inh = _alpha(S, GPI_INH, size, x, c.alpha)
        I_in = -exc * (V - synapses.E_EXC) - inh * (V - synapses.E_GABA)
        new = _pallidal_cell(S, GPI0, GPI_CA, size, x, V, I_in, c.dt)
        store(S, OLD_GPI * size + x, V)
        store(S, (V0 + GPI) * size + x, new)
        if bits(new > GPI_SPIKE_THRESHOLD_MV) != 0:
            _crossing(pending, GPI, x, V, new)
            _note(pending, GPI_SPIKE, x, bits((V <= GPI_SPIKE_THRESHOLD_MV) & (new > GPI_SPIKE_THRESHOLD_MV)))


@vector_rate
def _striatum(
    S: Any,
    size: int,
    width: int,
    c: Decay,
    pending: Any,
    population: int,
    gates: int,
    exc_row: int,
    gaba_row: int,
    in_row: int,
    g_gaba: float,
    opening: int,
    increment: Any,
) -> None:
    for x in range(0, size, width):
        V = load(S, (V0 + population) * size + x)
        exc = _alpha(S, exc_row, size, x, c.alpha)
        total = load(S, in_row * size + x)
        store(S, in_row * size + x, total * c.gaba + TINY)
        I_in = -exc * (V - synapses.E_EXC) - g_gaba * total * (V - synapses.E_GABA_STR)
        a = gates * size + x
        new, m, h, n, p = rates.striatum(
            V,
            load(S, a),
            load(S, a + size),
            load(S, a + 2 * size),
            load(S, a + 3 * size),
            load(S, G_M * size + x),
            I_in,
            c.dt,
        )
        store(S, a, m)
        store(S, a + size, h)
        store(S, a + 2 * size, n)
        store(S, a + 3 * size, p)
        store(S, (V0 + population) * size + x, new)
        gate = load(S, gaba_row * size + x)
        open_ = V > GABA_CUT_MV
        mask = bits(open_)
        if mask != 0:
            rise = c.dt * rates.gaba_opening(V) * (1.0 - gate)
            rise = select(open_, rise, 0.0)
            store(increment, (opening - D2_OPENING) * size + x, rise)
            store(S, gaba_row * size + x, gate * c.gaba + (rise + TINY))
            _note(pending, opening, x, mask)
            _crossing(pending, population, x, V, new)
        else:
            store(S, gaba_row * size + x, gate * c.gaba + TINY)


@vector_rate
def _izhikevich(
    S: Any, size: int, x: int, population: int, u_row: int, a: float, d: float, I_in: Any, dt: float
) -> Any:
    v = load(S, (V0 + population) * size + x)
    u = load(S, u_row * size + x)
    fired = v >= cortex.V_PEAK
    new = select(fired, cortex.V_RESET, v + dt * (cortex.dv(v, u) + I_in))
    store(S, u_row * size + x, select(fired, u + d, u + dt * (a * (cortex.B_REC * v - u))))
    store(S, (V0 + population) * size + x, new)
    return new


@vector_rate
def _intracortical(S: Any, row: int, size: int, x: int, dt: float) -> Any:
    """S (old) of an intracortical sum at its target; S then Z go one step on, kicks come later."""
    at = row * size + x
    s = load(S, at)
    z = load(S, at + size)
    new = s + dt * z
    store(S, at, new)
    decay = (2.0 / synapses.TAU_CTX) * z + (1.0 / (synapses.TAU_CTX * synapses.TAU_CTX)) * new
    store(S, at + size, z - dt * decay + TINY)
    return s


@vector_rate
def _cortex(S: Any, size: int, width: int, c: Decay, pending: Any) -> None:
    for x in range(0, size, width):
        v = load(S, (V0 + CE) * size + x)
        inh = _intracortical(S, CE_S, size, x, c.dt)
        exc = _alpha(S, TH_CE, size, x, c.alpha)
        I_in = -synapses.G_CI_CE * (v - synapses.E_GABA) * inh - exc * (v - synapses.E_EXC)
        new = _izhikevich(S, size, x, CE, U0, cortex.A_EXC, cortex.D_EXC, I_in, c.dt)
        if bits(v >= cortex.V_PEAK) != 0:
            _note(pending, CE, x, bits(v >= cortex.V_PEAK))
        _crossing(pending, CE_CROSSING, x, v, new)
    for x in range(0, size, width):
        v = load(S, (V0 + CI) * size + x)
        exc = _intracortical(S, CI_S, size, x, c.dt)
        I_in = -synapses.G_CE_CI * v * exc
        new = _izhikevich(S, size, x, CI, U0 + 1, cortex.A_INH, cortex.D_INH, I_in, c.dt)
        if bits(v >= cortex.V_PEAK) != 0:
            _note(pending, CI, x, bits(v >= cortex.V_PEAK))
        _crossing(pending, CI_CROSSING, x, v, new)


# -- events: scalar code, rarely run ----------------------------------------------------------------------------------


@rate
def _arrivals(S: Any, I: Any, log: Any, net: Any, lanes: int, size: int, capacity: int) -> None:  # noqa: E741
    """Serve every connection that has an event due at this sample; find the next due sample."""
    due = NEVER
    for c in range(N_CONNECTIONS):
        source = _SOURCE[c]
        while I[TAIL + c] < I[HEAD + source]:
            slot = source * capacity + (I[TAIL + c] & (capacity - 1))
            at = log[2 * slot] + net.age[c]
            if at > I[SAMPLE]:
                due = min(due, at)
                break
            I[TAIL + c] += 1
            entry = log[2 * slot + 1]
            cell, lane = entry // lanes, entry % lanes
            for port in range(net.first_port[c], net.first_port[c + 1]):
                for j in range(net.n_targets[port]):
                    k = cell + net.offset[port, j]
                    target = (k - N_CELLS if k >= N_CELLS else k) * lanes + lane
                    w = net.weight[port * size + target]
                    S[net.row_a[port] * size + target] += w * net.add_a[port]
                    S[net.row_b[port] * size + target] += w * net.add_b[port]
    I[NEXT_DUE] = due


@rate
def _log_event(
    I: Any,  # noqa: E741
    log: Any,
    source: int,
    entry: int,
    sample: int,
    first_age: Any,
    lanes: int,
    capacity: int,
) -> bool:
    """Log an event; whether the log still has room for a whole update, so that nothing is ever overwritten."""
    head = I[HEAD + source]
    slot = source * capacity + (head & (capacity - 1))
    log[2 * slot] = sample
    log[2 * slot + 1] = entry
    I[HEAD + source] = head + 1
    I[NEXT_DUE] = min(I[NEXT_DUE], sample + first_age[source])
    room = True
    for c in range(N_CONNECTIONS):
        room &= _SOURCE[c] != source or head + 1 - I[TAIL + c] <= capacity - N_CELLS * lanes
    return room


@rate
def _work_off(
    S: Any,
    I: Any,  # noqa: E741
    log: Any,
    net: Any,
    pending: Any,
    increment: Any,
    record: Any,
    lanes: int,
    size: int,
    capacity: int,
) -> int:
    """What fired in this update: event log, records, kicks and openings of the continuous synapses."""
    sample = I[SAMPLE]
    status = OK
    for i in range(1, pending[0] + 1, 3):
        kind, x, mask = pending[i], pending[i + 1], pending[i + 2]
        while mask != 0:
            entry = x + lowest_bit(mask)
            mask &= mask - 1
            if entry >= N_CELLS * lanes:
                continue  # padding
            if kind <= RELAY:
                n = record[0]
                record[n + 1] = sample - 1 if kind == GPI_SPIKE else sample
                record[n + 2] = kind
                record[n + 3] = entry
                record[0] = n + 3
                if kind < CI and not _log_event(I, log, kind, entry, sample, net.first_age, lanes, capacity):
                    status = EVENTS_FULL
            elif kind <= CI_CROSSING:
                row = CI_Z if kind == CE_CROSSING else CE_Z
                for q in range(4):
                    S[row * size + net.reach[kind - CE_CROSSING, q, entry]] += synapses.CTX_KICK
            else:
                row = IN_D2 if kind == D2_OPENING else IN_D1
                add = increment[(kind - D2_OPENING) * size + entry]
                for q in range(4 if kind == D2_OPENING else 3):
                    S[row * size + net.reach[kind - CE_CROSSING, q, entry]] += add
    pending[0] = 0
    return status


@rate
def _lfp(S: Any, I: Any, origin: Any, record: Any, lanes: int, size: int, every: int) -> None:  # noqa: E741
    """Record the LFP proxy of `envs.biomarkers.lfp`, Σ|I| of the STN, of each network whose own clock says so."""
    due = NEVER
    for lane in range(lanes):
        own = I[SAMPLE] + origin[lane]
        if own % every == 0:
            total = 0.0
            for at in range(lane, N_CELLS * lanes, lanes):
                total += LFP_GABA_MV * abs(S[STN_INH * size + at] - S[(STN_INH + 1) * size + at])
                total += LFP_EXC_MV * abs(S[STN_AMPA * size + at] - S[(STN_AMPA + 1) * size + at])
                total += LFP_EXC_MV * abs(S[STN_NMDA * size + at] - S[(STN_NMDA + 1) * size + at])
            n = record[0]
            record[n + 1], record[n + 2], record[n + 3] = I[SAMPLE], LFP + lane, np.float64(total).view(np.int64)
            record[0] = n + 3
        due = min(due, I[SAMPLE] + every - own % every)
    I[LFP_DUE] = due


@rate
def _switch(S: Any, net: Any, inputs: Any, i: int, lanes: int, size: int) -> None:
    """An applied current takes another value."""
    row, lane = inputs.row[i], inputs.lane[i]
    for cell in range(N_CELLS):
        at = cell * lanes + lane
        S[row * size + at] = inputs.value[i] * S[(row + GAIN_TH - I_TH) * size + at]


@rate
def _non_finite(V_bits: Any, exponent: int, alive: Any, lanes: int, size: int) -> bool:
    """Whether a voltage of a living lane is infinite or NaN, by its bits."""
    bad = False
    for population in range(N_POPULATIONS):
        for i in range(N_CELLS * lanes):
            if (V_bits[population * size + i] & exponent) == exponent and alive[i % lanes]:
                bad = True
    return bad


@vector_rate
def _update(S: Any, size: int, width: int, c: Decay, pending: Any, increment: Any, relay: bool) -> None:
    if relay:
        _thalamus_relay(S, size, width, c, pending)
    else:
        _thalamus(S, size, width, c, pending)
    _stn(S, size, width, c, pending)
    _gpe(S, size, width, c, pending)
    _gpi(S, size, width, c, pending)
    _striatum(S, size, width, c, pending, D2, D20, D2_EXC, GABA0, IN_D2, synapses.G_D2_D2, D2_OPENING, increment)
    _striatum(S, size, width, c, pending, D1, D10, D1_EXC, GABA0 + 1, IN_D1, synapses.G_D1_D1, D1_OPENING, increment)
    _cortex(S, size, width, c, pending)


@vector_rate
def _advance(
    block: Any,
    net: Any,
    inputs: Any,
    c: Decay,
    stop: int,
    check: int,
    lfp_every: int,
    lanes: int,
    size: int,
    width: int,
    capacity: int,
    relay: bool,
) -> int:
    S, I, log, record = block.S, block.I, block.log, block.record  # noqa: E741
    pending, increment = block.pending, block.increment
    room = record.shape[0] - 3 * (RELAY + 1) * size - 3 * lanes - 1
    left = 0
    while I[SAMPLE] < stop:
        if record[0] > room:
            return RECORD_FULL
        s = I[SAMPLE]
        if left == 0:
            if _non_finite(block.S_bits, block.exponent, block.alive, lanes, size):
                return NON_FINITE
            block.S_before[:] = S
            block.I_before[:] = I
            left = check - s % check
        left -= 1
        if I[NEXT_DUE] <= s:
            _arrivals(S, I, log, net, lanes, size, capacity)
        if I[LFP_DUE] <= s:
            _lfp(S, I, block.origin, record, lanes, size, lfp_every)
        while I[SWITCH] < inputs.sample.shape[0] and inputs.sample[I[SWITCH]] <= s + 1:
            _switch(S, net, inputs, I[SWITCH], lanes, size)
            I[SWITCH] += 1
        _update(S, size, width, c, pending, increment, relay)
        I[SAMPLE] = s + 1
        if pending[0] != 0:
            status = _work_off(S, I, log, net, pending, increment, record, lanes, size, capacity)
            if status != OK:
                return status
    return NON_FINITE if _non_finite(block.S_bits, block.exponent, block.alive, lanes, size) else OK


def make_advance(lanes: int, size: int, width: int, capacity: int, relay: bool = False) -> Callable[..., int]:
    """The kernel for blocks of ``lanes`` networks; sizes are constants of the compiled code, and so is ``relay``, which
    records the thalamic crossings of -40 mV.

    Its arguments: block (`envs.plant.batch_block.Block`), net (`Wiring`), inputs (`Switches`), decay factors, last
    sample, samples between two looks for non-finite voltages, samples between two values of the LFP. Returns OK,
    EVENTS_FULL or RECORD_FULL (nothing lost: make room and call again) or NON_FINITE (S_before and I_before are the
    state at the last look; unless a voltage was not finite when the call began, which leaves them older).
    """

    @kernel
    def advance(block: Any, net: Any, inputs: Any, c: Decay, stop: int, check: int, lfp_every: int) -> int:
        status: int = _advance(block, net, inputs, c, stop, check, lfp_every, lanes, size, width, capacity, relay)
        return status

    return advance
