"""Comparison with reference runs ("oracle" files) of the released code's equations: spikes, voltages, P_beta,
environment.

Two kinds of file: ``s*_dt*.npz``, one run of a network with given draws and inputs; ``env_*.npz``, a reset and
chained steps of the
environment. Equal means: every event of every population, every biomarker spike, |ΔV| ≤ 1e-5 mV, P_beta within 1e-6
relative (the reference grid), observations and rewards within 1e-6 relative.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.basal_ganglia import BasalGangliaEnv
from envs.biomarkers.multitaper import spectrum
from envs.config import env_config
from envs.errors import UserError
from envs.npz import read_npz
from envs.plant.common import POPULATIONS
from envs.plant.inputs import SMC_AMPLITUDE, SMC_WIDTH_MS
from envs.plant.kernels import KERNELS
from envs.plant.network import Record
from envs.plant.state import Network, disease_parameters
from envs.stimulation import PULSE_AMPLITUDE, PULSE_WIDTH_MS
from envs.wrappers import beta_reward

MAX_DV_MV = 1e-5  # mV, largest allowed voltage difference
MAX_RELATIVE = 1e-6  # largest allowed relative difference of P_beta, observations and rewards

Arrays = dict[str, NDArray[Any]]
_DRAWS = ("g_ctx_stn_ampa", "g_ctx_stn_nmda", "g_ctx_d1", "g_gpe_gpe", "g_stn_gpe_ampa", "g_stn_gpe_nmda", "g_stn_gpi")
RUN_KEYS = (
    *("pd", "dt_ms", "n_samples", "v0", "perm", *_DRAWS, "smc_onset", "dbs_onset", "ap_gpi", "v_full_5ms"),
    *("v_cell0_05ms", "beta_13_35", *(f"spk_{name}" for name in POPULATIONS)),
)
ENV_KEYS = (
    "dt_ms",
    "freq",
    "len_ms",
    "window_ms",
    "stride_ms",
    "v0",
    "perm",
    "smc_freq_hz",
    *_DRAWS,
    "actions",
    "obs_0",
)


@dataclass(frozen=True)
class Row:
    """The comparison of one file."""

    file: str
    kernel: str  # of the plant: fast or reference
    equal: bool
    spikes_equal: bool
    max_dv_mV: float
    beta_relative: float  # largest relative difference of P_beta (of the observations, for an environment file)
    first_difference: str  # empty when equal

    def to_dict(self) -> dict[str, Any]:
        """The row as plain values."""
        return asdict(self)


def oracle_files(folder: Path) -> list[Path]:
    """The oracle files of a folder, sorted.

    Raises:
        UserError: there is no such folder, or it holds none.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder} with oracle files")
    files = sorted([*folder.glob("s[0-9]*_dt*.npz"), *folder.glob("env_*.npz")])
    if not files:
        raise UserError(f"the folder {folder} holds no oracle file (s*_dt*.npz or env_*.npz)")
    return files


def verify(files: list[Path], kernels: tuple[str, ...] = tuple(KERNELS)) -> Iterator[Row]:
    """Compare each file with each kernel, one row after the other.

    Raises:
        UserError: a file cannot be read or lacks a field.
    """
    for file in files:
        check = _verify_env if file.name.startswith("env_") else _verify_run
        for kernel in kernels:
            yield check(file, kernel)


def oracle_network(data: Arrays, pd: float) -> Network:
    """The network whose draws an oracle file holds."""
    values: dict[str, Any] = {name: np.asarray(data[name], dtype=np.float64) for name in (*_DRAWS, "v0")}
    values.update(disease_parameters(pd))
    return Network(perm=np.asarray(data["perm"], dtype=np.int64), **values)


def oracle_inputs(data: Arrays) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """SMC and stimulation current (µA/cm²) at samples 1..n-1 of an oracle run."""
    n, dt = int(data["n_samples"]), float(data["dt_ms"])

    def train(onsets: NDArray[Any], width_ms: float, amplitude: float) -> NDArray[np.float64]:
        width = round(width_ms / dt)
        current = np.zeros(n + width)
        for onset in onsets:
            current[onset : onset + width] = amplitude
        return current[1:n]  # input sample 0 is never read

    return (
        train(data["smc_onset"], SMC_WIDTH_MS, SMC_AMPLITUDE),
        train(data["dbs_onset"], PULSE_WIDTH_MS, PULSE_AMPLITUDE),
    )


def _verify_run(file: Path, kernel: str) -> Row:
    data = read_npz(file, RUN_KEYS)
    dt = float(data["dt_ms"])
    plant = KERNELS[kernel](oracle_network(data, float(data["pd"])), dt)
    smc, dbs = oracle_inputs(data)
    records: list[Record] = []
    max_dv = 0.0
    start = 0
    full, cell0, half_ms = data["v_full_5ms"], data["v_cell0_05ms"], round(0.5 / dt)
    while start < len(smc):
        stop = start + (1 if start < len(full) else half_ms)
        records.append(plant.advance(smc[start:stop], dbs[start:stop]))
        if start < len(full):
            max_dv = max(max_dv, float(np.abs(plant.state.V - full[start]).max()))
        if plant.sample % half_ms == 0 and plant.sample // half_ms <= len(cell0):
            max_dv = max(max_dv, float(np.abs(plant.state.V[:, 0] - cell0[plant.sample // half_ms - 1]).max()))
        start = stop
    events = np.concatenate([record.events for record in records])
    gpi_spikes = np.concatenate([record.gpi_spikes for record in records])
    difference = _first_difference("biomarker", gpi_spikes, data["ap_gpi"], dt)
    for population, name in enumerate(POPULATIONS):
        of_population = events[events[:, 1] == population][:, [0, 2]]
        difference = difference or _first_difference(name, of_population, data[f"spk_{name}"], dt)
    _, _, beta = spectrum(gpi_spikes, 0, len(smc), dt, fixed_grid=False)
    relative = abs(beta / float(data["beta_13_35"]) - 1.0)
    return _row(file, kernel, difference, max_dv, relative)


def _first_difference(name: str, ours: NDArray[Any], theirs: NDArray[Any], dt_ms: float) -> str:
    """Empty when two sorted spike lists are equal, else where they part."""
    ours = ours[np.lexsort((ours[:, 1], ours[:, 0]))]
    theirs = theirs[np.lexsort((theirs[:, 1], theirs[:, 0]))]
    n = min(len(ours), len(theirs))
    unequal = np.flatnonzero((ours[:n] != theirs[:n]).any(axis=1))
    if len(unequal) == 0 and len(ours) == len(theirs):
        return ""
    at = int(unequal[0]) if len(unequal) else n
    sample = min(int(spikes[at, 0]) for spikes in (ours, theirs) if at < len(spikes))
    return f"{name}: {len(ours)} spikes against {len(theirs)}, first difference at {sample * dt_ms:.2f} ms"


def _row(file: Path, kernel: str, difference: str, max_dv: float, relative: float) -> Row:
    spikes_equal = not difference
    if not difference and not max_dv <= MAX_DV_MV:
        difference = f"voltages differ by {max_dv:.3g} mV (allowed {MAX_DV_MV:g})"
    if not difference and not relative <= MAX_RELATIVE:
        difference = f"P_beta or observations differ by {relative:.3g} relative (allowed {MAX_RELATIVE:g})"
    return Row(file.name, kernel, not difference, spikes_equal, max_dv, relative, difference)


class _ReplayedDraws(np.random.Generator):
    """A generator whose gamma draws are the recorded rates of the SMC train."""

    def __init__(self, rates_hz: NDArray[np.float64]) -> None:
        super().__init__(np.random.PCG64(0))
        self._rates = iter(rates_hz)

    def gamma(self, *_args: Any, **_kwargs: Any) -> Any:
        """The next recorded rate (Hz)."""
        return next(self._rates)


def oracle_env(
    data: Arrays, env_type: type[BasalGangliaEnv] = BasalGangliaEnv, kernel: str = "reference"
) -> tuple[BasalGangliaEnv, dict[str, Any]]:
    """The environment of an environment file, and the options of the reset that replay its draws."""
    slots = data["actions"].shape[1]
    window = float(data["window_ms"])
    config = env_config(
        "paper-released",
        kernel=kernel,
        dt_ms=float(data["dt_ms"]),
        slots=slots,
        stim_hz=slots * 1000.0 / float(data["len_ms"]),
        window_ms=window,
        stride_ms=float(data["stride_ms"]),
        n_obs=len(data["obs_0"]),
        settle_ms=float(data["len_ms"]) + window,
        episode_steps=len(data["actions"]),
    )
    options = {"network": oracle_network(data, 1.0), "smc_rng": _ReplayedDraws(data["smc_freq_hz"])}
    return env_type(config), options


def _verify_env(file: Path, kernel: str) -> Row:
    data = read_npz(file, ENV_KEYS)
    env, options = oracle_env(data, kernel=kernel)
    observation, _ = env.reset(seed=0, options=options)
    difference, max_dv, relative = "", 0.0, 0.0
    for step in range(len(data["actions"]) + 1):
        if step:
            observation = env.step(data["actions"][step - 1])[0]
            beta = float(np.mean(env.trace)) / 1000.0
            reward = float(data[f"reward_{step}"])
            relative = max(relative, abs(beta_reward(beta) / reward - 1.0))
            max_dv = max(max_dv, float(np.abs(env.ready().state.V - data[f"v_end_{step}"]).max()))
        obs = data[f"obs_{step}"]
        relative = max(relative, float(np.abs(observation / obs - 1.0).max()))
        array_start = env.ready().sample + 1 - int(data[f"n_samples_{step}"])
        spikes = env.spikes - [array_start, 0]
        spikes = spikes[spikes[:, 0] >= 0]
        theirs = data[f"ap_gpi_{step}"]
        # The environment keeps spikes only as far back as its windows reach.
        theirs = theirs[theirs[:, 0] >= (spikes[0, 0] if len(spikes) else 0)]
        difference = difference or _first_difference(f"step {step}, biomarker", spikes, theirs, env.config.dt_ms)
    return _row(file, kernel, difference, max_dv, relative)
