"""The Gymnasium environment: a stimulation mask in, a trace of GPi beta power out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.biomarkers.multitaper import beta_trace
from envs.config import EnvConfig, env_config
from envs.errors import UserError
from envs.measures import Measures
from envs.plant.inputs import SmcQueue, SmcRenewal
from envs.plant.kernels import AnyPlant, plant_type
from envs.plant.network import Record
from envs.plant.pallidum import H
from envs.plant.ranges import check_seed
from envs.plant.single import FastPlant
from envs.plant.state import Network, draw_network
from envs.signals import LFP_BETA_SCALE, LFP_SCALE, RATE_SCALE_HZ, LfpTrack, slot_rates
from envs.slots import slot_edges, slot_samples, spaced
from envs.stimulation import CurrentBuilder, MaskSource, Pulse, PulseSource

OBSERVATION_SCALE = 1000.0  # P_beta per unit of observation, SEA-DBS paper Eq. 4
OBSERVATION_MAX = 100.0  # bound of the space: P_beta 100,000; the plant gives 0.1 to 0.8
STATE_VERSION = 4
Inputs = tuple[NDArray[np.float64], NDArray[np.float64]]  # SMC and stimulation current at each new sample (µA/cm²)
LfpListener = Callable[[NDArray[np.int64], NDArray[np.float64]], None]  # µs since the reset, (n,); µA/cm², (n,)
PULSE_MEMORY_MS = 20.0  # ms beyond the observed windows for which pulses are remembered, for artefacts


class BasalGangliaEnv(gymnasium.Env[NDArray[np.float32], NDArray[np.int8]]):
    """Closed-loop stimulation of a parkinsonian basal ganglia network.

    Observation: float32 (n_obs,), P_beta/1000 of sliding windows, oldest first (SEA-DBS paper Eq. 4). Action: int8
    (slots,), 1 = pulse in that slot (Eq. 6). Reward: minus the mean observation; Eq. 7 is the wrapper
    `BetaThresholdReward`. The plant ends no episode; it is truncated after ``episode_steps`` decisions.

    ``pulse_source`` says who delivers the pulses; None means that the mask does.

    Raises:
        UserError: wrong configuration, action or saved state.
    """

    plant_type: type[AnyPlant] | None = None  # None: by config.kernel; a subclass may watch more, see envs.watch

    metadata = {"render_modes": []}  # noqa: RUF012 (Gymnasium's own declaration)

    def __init__(self, config: EnvConfig | None = None) -> None:
        self.config = config or env_config()
        c = self.config
        self.observation_space = spaces.Box(0.0, OBSERVATION_MAX, (c.n_obs,), np.float32)
        self.action_space = spaces.MultiBinary(c.slots)
        self.pulse_source: PulseSource | None = None
        self.efficacy = 1.0  # share of the delivered current that reaches the cells (electrode impedance)
        self.amplitude_uA_cm2 = c.amplitude_uA_cm2  # of the coming pulses, see `set_amplitude`
        # (10,) µA/cm² that must reach a STN cell for it to feel a pulse (graded recruitment); None: all feel all
        self.thresholds: NDArray[np.float64] | None = None
        self._window = round(c.window_ms / c.dt_ms)
        self._stride = round(c.stride_ms / c.dt_ms)
        self._n_windows = c.n_obs if c.view == "trace" else 1  # windows of P_beta observed
        self._new_windows = min(round(c.decision_ms / c.stride_ms), c.n_obs) if c.view == "trace" else 1
        # samples that the observed windows (and slots) reach back
        self._history = self._window + (self._n_windows - 1) * self._stride
        if c.view != "trace":
            self._history = max(self._history, round(c.slots_observed * c.slot_ms / c.dt_ms))
        self._plant_type = type(self).plant_type or plant_type(c.kernel, c.precision, c.measures)
        self.plant: AnyPlant | None = None
        self.spikes: NDArray[np.int64] = np.zeros((0, 2), dtype=np.int64)  # GPi spikes that the windows can hold
        self._charge_now, self._began = 0.0, list[int]()  # of the decision under way
        self.pulse_samples: NDArray[np.int64] = np.zeros(0, dtype=np.int64)  # where pulses began, as far back
        self.trace: NDArray[np.float64] = np.zeros(0)  # P_beta of the observed windows, oldest first
        self.lfp: LfpTrack | None = None  # the LFP as a device records it, where it is observed or measured
        self.lfp_trace: NDArray[np.float64] = np.zeros(0)  # its 13-35 Hz power (µA/cm²)², windows as in trace
        self.measures: Measures | None = None  # with config.measures
        self.lfp_listener: LfpListener | None = None  # told the LFP proxy during each step, as the plant goes on

    # -- Gymnasium ---------------------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Draw a network (or take ``options["network"]``) and simulate ``settle_ms`` without stimulation.

        ``options["smc_rng"]`` replaces the generator of the sensorimotor train (to replay recorded draws).
        """
        network, inputs = self.begin_reset(check_seed(seed, "the seed"), options)
        plant = self._plant_type(network, self.config.dt_ms)
        return self.finish_reset(plant, plant.advance(*inputs))

    def begin_reset(self, seed: int | None, options: dict[str, Any] | None) -> tuple[Network, Inputs]:
        """First half of a reset: the network of the episode, and what it is to be advanced with."""
        super().reset(seed=seed)
        options = options or {}
        unknown = sorted(set(options) - {"network", "smc_rng"})
        if unknown:
            raise UserError(f"reset does not know the option '{unknown[0]}': allowed are network and smc_rng")
        c, rng = self.config, options.get("smc_rng", self.np_random)
        network = options.get("network")
        if network is not None and not isinstance(network, Network):
            raise UserError(f"options['network'] is a {type(network).__name__}: expected envs.plant.state.Network")
        if not isinstance(rng, np.random.Generator):
            raise UserError(f"options['smc_rng'] is a {type(rng).__name__}: expected numpy.random.Generator")
        n = round(c.settle_ms / c.dt_ms)
        # The released order of draws: the SMC train first, then the network.
        self._smc: SmcQueue | SmcRenewal
        if c.mode == "reference":
            self._smc = SmcQueue(rng, c.dt_ms)
            self._smc.append_train(n + 1)
            self._smc.take(1)  # input sample 0 is never read
        else:
            self._smc = SmcRenewal(rng, c.dt_ms)
        network = network or draw_network(self.np_random, c.pd)
        self.amplitude_uA_cm2 = c.amplitude_uA_cm2
        self.measures = Measures(c) if c.measures else None
        return network, (self._take_smc(n, 0), np.zeros(n))

    def finish_reset(self, plant: AnyPlant, record: Record) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Second half of a reset: the plant as advanced, and what happened in it."""
        c, self.plant, self.spikes = self.config, plant, record.gpi_spikes
        self._current = CurrentBuilder(c.dt_ms)
        self._origin = plant.sample  # time 0 of the stimulation clock
        self._step_count = self._pulses = 0
        self._charge = self._duty = 0.0
        self.pulse_samples = np.zeros(0, dtype=np.int64)
        self.lfp = LfpTrack(c) if c.obs == "lfp" or c.measures else None
        self.lfp_trace = np.zeros(0)
        self.trace = self._beta(self._n_windows)
        above = self._watch([record], self._n_windows)
        return self._observation(), {**self._info(0, 0.0, 0.0), **above}

    def set_amplitude(self, amplitude_uA_cm2: float) -> None:
        """Make the pulses from now on, to the next reset, this strong (µA/cm²).

        Raises:
            UserError: not above 0, more than the configuration's ``amplitude_uA_cm2``, or a pulse source gives pulses.
        """
        self.check_amplitude(amplitude_uA_cm2)
        self.amplitude_uA_cm2 = float(amplitude_uA_cm2)

    def check_amplitude(self, amplitude_uA_cm2: Any) -> None:
        """Raise UserError for what `set_amplitude` does not take."""
        most = self.config.amplitude_uA_cm2
        if self.pulse_source is not None:
            raise UserError("the pulse source decides how strong a pulse is: an amplitude cannot be set")
        is_number = isinstance(amplitude_uA_cm2, (int, float, np.integer, np.floating))
        if not is_number or not 0.0 < amplitude_uA_cm2 <= most:
            raise UserError(f"an amplitude of {amplitude_uA_cm2} µA/cm² was set: above 0 to {most:g} are allowed")

    def step(self, action: NDArray[np.int8]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Apply one decision: ``slots`` slots from now on."""
        plant = self.ready()
        records = []
        for inputs in self.begin_step(action):
            records.append(record := plant.advance(*inputs))
            if self.lfp_listener is not None and len(record.lfp):
                since_us = (record.lfp_samples - self._origin) * (1000.0 * self.config.dt_ms)
                self.lfp_listener(np.rint(since_us).astype(np.int64), record.lfp)
        return self.finish_step(records)

    def begin_step(self, action: NDArray[np.int8]) -> Iterator[Inputs]:
        """First half of a step: what the plant is to be advanced with, in pieces.

        With a pulse source a piece is a slot, since the source may watch the plant; else one piece is the whole.
        """
        plant = self.ready()
        mask = self.mask(action)
        slots = slot_samples(self.config, self._step_count)
        end = slots.pop()
        clock = plant.sample - self._origin
        source = self.pulse_source or MaskSource(self.amplitude_uA_cm2, self.config.width_ms)
        mask = spaced(self.config, mask, self._step_count, self._last_slot())
        source.begin(mask, self._us(clock), tuple(self._us(clock + slot) for slot in slots))
        self._before_step(plant, end)
        self._charge_now, self._began = 0.0, []
        cuts = [*slots[1:], end] if self.pulse_source is not None else [end]
        for start, stop in zip([0, *cuts[:-1]], cuts, strict=True):
            due = source.until(self._us(clock + stop))
            self._recruit(plant, due)
            for pulse in due:
                self._current.add(pulse)
                self._began.append(self._origin + round(pulse.t_us / (1000.0 * self.config.dt_ms)))
                self._charge_now += pulse.charge_nC_cm2
            yield (
                self._take_smc(stop - start, self._origin + clock + start),
                self.efficacy * self._current.take(stop - start),
            )

    def finish_step(self, records: Sequence[Record]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Second half of a step: the plant was advanced by all pieces, and this is what happened."""
        charge, pulses = self._charge_now, len(self._began)
        self.spikes = np.concatenate([self.spikes, *(record.gpi_spikes for record in records)])
        self.pulse_samples = np.concatenate([self.pulse_samples, np.array(self._began, dtype=np.int64)])
        self.trace = np.concatenate([self.trace, self._beta(self._new_windows)])[-self._n_windows :]
        above = self._watch(records, self._new_windows)
        self._forget()
        self._step_count += 1
        self._pulses += pulses
        self._charge += charge
        duty = pulses / self.config.slots
        self._duty += (duty - self._duty) / self._step_count
        truncated = self._step_count >= self.config.episode_steps
        info = {**self._info(pulses, charge, duty), **above}
        return self._observation(), -float(np.mean(self.beta)), False, truncated, info

    @property
    def time_ms(self) -> float:
        """Time since the end of the reset (ms).

        Raises:
            UserError: reset was never called.
        """
        return (self.ready().sample - self._origin) * self.config.dt_ms

    # -- time and slots ----------------------------------------------------------------------------------------------

    def _us(self, sample: int) -> int:
        """A sample of the stimulation clock in µs."""
        return round(sample * self.config.dt_ms * 1000.0)

    def _last_slot(self) -> int | None:
        """Slot of the last pulse that is remembered, from the first slot of the episode."""
        if not len(self.pulse_samples):
            return None
        return round((int(self.pulse_samples[-1]) - self._origin) * self.config.dt_ms / self.config.slot_ms)

    def _before_step(self, plant: AnyPlant, n_samples: int) -> None:
        if isinstance(self._smc, SmcQueue):
            plant.state.gpi[H] = plant.state.gpi_h_inf  # the released code reloads h∞ in place of h
            self._smc.append_train(n_samples)

    def _recruit(self, plant: AnyPlant, due: list[Pulse]) -> None:
        """Let the pulses of a slot reach the cells whose threshold the strongest of them passes."""
        if self.thresholds is None or not due:
            return
        if not isinstance(plant, FastPlant):
            raise UserError("graded recruitment needs a current for each STN cell: use kernel 'fast'")
        reaches = self.efficacy * max(abs(pulse.amplitude_uA_cm2) for pulse in due)
        plant.rows(0, "gain_stn")[0] = reaches >= self.thresholds

    # -- observation -------------------------------------------------------------------------------------------------

    def _beta(self, n_windows: int, spikes: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """P_beta of the newest ``n_windows`` windows; the last one ends with the current sample."""
        assert self.plant is not None
        ends = self.plant.sample - np.arange(n_windows - 1, -1, -1) * self._stride
        return beta_trace(
            self.spikes if spikes is None else spikes,
            ends - self._window,
            self._window,
            self.config.dt_ms,
            fixed_grid=self.config.spectral_grid == "fixed",
        )

    def _forget(self) -> None:
        """Drop spikes and pulses that no later window can hold."""
        assert self.plant is not None
        oldest = self.plant.sample - self._history - 1
        self.spikes = self.spikes[np.searchsorted(self.spikes[:, 0], oldest) :].copy()
        oldest -= round(PULSE_MEMORY_MS / self.config.dt_ms)
        self.pulse_samples = self.pulse_samples[np.searchsorted(self.pulse_samples, oldest) :].copy()

    @property
    def beta(self) -> NDArray[np.float32]:
        """P_beta/1000 of the observed windows, oldest first: what rewards are made of, whatever is observed."""
        return (self.trace / OBSERVATION_SCALE).astype(np.float32)

    def _observation(self) -> NDArray[np.float32]:
        if self.config.view != "trace":
            return self.slots_seen(self.spikes)
        if self.config.obs == "lfp":
            return (self.lfp_trace / LFP_BETA_SCALE).astype(np.float32)
        return self.beta

    def slots_seen(self, spikes: NDArray[np.int64]) -> NDArray[np.float32]:
        """The observation of views "slots" and "timing", (n_obs,), oldest first.

        "slots": the last n_obs - 1 slots, then the newest beta. "timing": the last n_obs/2 slots, then 1 or 0 for the
        pulse that was given in each. obs "gpi": rate of the GPi (per 100 Hz) in each slot, and P_beta/1000, from these
        spikes. obs "lfp": mean of the held LFP (per 50 µA/cm²) in each slot, and its 13-35 Hz power (per 160 of
        (µA/cm²)²).
        """
        c = self.config
        n = c.slots_observed
        edges = self._origin + slot_edges(c, self._step_count - n, n)
        lfp = self.lfp if c.obs == "lfp" else None
        seen = slot_rates(spikes, edges, c.dt_ms) / RATE_SCALE_HZ if lfp is None else lfp.slot_means(edges) / LFP_SCALE
        if c.view == "timing":
            given = np.diff(np.searchsorted(self.pulse_samples, edges))
            return np.concatenate([seen, given]).astype(np.float32)
        if lfp is not None:
            beta = self.lfp_trace[-1] / LFP_BETA_SCALE
        else:
            newest = self.trace if spikes is self.spikes else self._beta(1, spikes)
            beta = newest[-1] / OBSERVATION_SCALE
        return np.append(seen, beta).astype(np.float32)

    def _take_smc(self, n: int, start: int) -> NDArray[np.float64]:
        """The next ``n`` samples of the sensorimotor train, which follow sample ``start``."""
        smc = self._smc.take(n)
        if self.measures is not None:
            self.measures.give(smc, start + 1)
        return smc

    def _watch(self, records: Sequence[Record], n_windows: int) -> dict[str, Any]:
        """Take in the LFP and what is measured; the part of info that only measures give."""
        c, plant = self.config, self.ready()
        if self.lfp is None:
            return {}
        self.lfp.add(list(records), self.pulse_samples)
        if c.obs == "lfp" or self.measures is None or self.measures.due(plant.sample):
            windows = n_windows if c.obs == "lfp" else 1
            ends = plant.sample - np.arange(windows - 1, -1, -1) * self._stride
            self.lfp_trace = np.concatenate([self.lfp_trace, self.lfp.beta(ends)])[-self._n_windows :]
        if self.measures is None:
            return {"lfp_beta": float(self.lfp_trace[-1])}
        step_ms = c.stride_ms if c.view == "trace" else c.slot_ms
        above = self.measures.add(records, self.trace[-n_windows:], step_ms)
        told = self.measures.info(self.spikes, plant.sample, self._origin)
        return {"lfp_beta": float(self.lfp_trace[-1]), "above_share": above, **told}

    def _info(self, pulses: int, charge: float, duty: float) -> dict[str, Any]:
        return {
            "P_beta": float(np.mean(self.trace)),
            "P_beta_last": float(self.trace[-1]),
            "pulses": pulses,
            "charge_nC_cm2": charge,
            "duty": duty,
            "episode_pulses": self._pulses,
            "episode_charge_nC_cm2": self._charge,
            "episode_duty": self._duty,
            "step": self._step_count,
            "time_ms": self.time_ms,
        }

    # -- input -------------------------------------------------------------------------------------------------------

    def ready(self) -> AnyPlant:
        """The plant, once there is one.

        Raises:
            UserError: reset was never called.
        """
        if self.plant is None:
            raise UserError("the environment has no network yet: call reset() before step()")
        return self.plant

    def mask(self, action: Any, name: str = "the action") -> NDArray[np.int8]:
        """The action, if it is one: one bit a slot.

        Raises:
            UserError: wrong shape, type or value; ``name`` says of what.
        """
        expected = f"expected ({self.config.slots},), one bit a slot, each 0 or 1"
        try:
            mask = np.asarray(action)
        except ValueError:  # lists of different lengths
            raise UserError(f"{name} has no shape: {expected}") from None
        if mask.shape != (self.config.slots,):
            raise UserError(f"{name} has shape {mask.shape}: {expected}")
        if mask.dtype.kind not in "biu":
            raise UserError(f"{name} has dtype {mask.dtype}: expected integers 0 or 1 (int8)")
        if mask.min() < 0 or mask.max() > 1:
            raise UserError(f"{name} holds {mask[~np.isin(mask, (0, 1))][0]}: allowed are 0 (no pulse) and 1 (pulse)")
        return mask.astype(np.int8)

    # -- state -------------------------------------------------------------------------------------------------------

    def _load_plant(self, values: dict[str, Any]) -> AnyPlant:
        return self._plant_type.from_state(values)

    def get_state(self) -> dict[str, Any]:
        """Everything that the next step reads, as arrays, numbers, strings and dicts; the generator is included."""
        plant = self.ready()
        return {
            "version": STATE_VERSION,
            "config": self.config.model_dump(),
            "plant": plant.get_state(),
            "rng": self.np_random.bit_generator.state,
            "smc": self._smc.get_state(),
            "current": self._current.get_state(),
            "efficacy": self.efficacy,
            "amplitude_uA_cm2": self.amplitude_uA_cm2,
            "spikes": self.spikes.copy(),
            "pulse_samples": self.pulse_samples.copy(),
            "trace": self.trace.copy(),
            "lfp_trace": self.lfp_trace.copy(),
            "lfp": None if self.lfp is None else self.lfp.get_state(),
            "measures": None if self.measures is None else self.measures.get_state(),
            "origin": self._origin,
            "counts": [self._step_count, self._pulses, self._charge, self._duty],
        }

    def set_state(self, values: dict[str, Any]) -> None:
        """Continue from `get_state`, bit for bit.

        Raises:
            UserError: it was saved by another version or under another configuration.
        """
        if values.get("version") != STATE_VERSION:
            raise UserError(f"the saved environment has version {values.get('version')}, expected {STATE_VERSION}")
        if values["config"] != self.config.model_dump():
            raise UserError("the saved environment has another configuration than this one")
        c = self.config
        self.plant = self._load_plant(values["plant"])
        rng = np.random.Generator(np.random.PCG64())
        rng.bit_generator.state = values["rng"]
        self.np_random = rng
        train = SmcQueue if c.mode == "reference" else SmcRenewal
        self._smc = train(rng, c.dt_ms, values["smc"])
        self._current = CurrentBuilder(c.dt_ms)
        self._current.set_state(values["current"])
        self.efficacy = float(values["efficacy"])
        self.amplitude_uA_cm2 = float(values["amplitude_uA_cm2"])
        self.pulse_samples = np.array(values["pulse_samples"], dtype=np.int64)
        self.spikes, self.trace = np.array(values["spikes"]), np.array(values["trace"])
        self.lfp_trace = np.array(values["lfp_trace"])
        self.lfp = self.measures = None
        if values["lfp"] is not None:
            self.lfp = LfpTrack(c)
            self.lfp.set_state(values["lfp"])
        if values["measures"] is not None:
            self.measures = Measures(c)
            self.measures.set_state(values["measures"])
        self._origin = int(values["origin"])
        step_count, pulses, self._charge, self._duty = values["counts"]
        self._step_count, self._pulses = int(step_count), int(pulses)
