"""Configuration of the environment, its presets, and the sentence for a wrong key."""

from __future__ import annotations

import difflib
from typing import Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from envs.errors import UserError
from envs.plant.network import check_dt
from envs.stimulation import PULSE_AMPLITUDE, PULSE_WIDTH_MS

MAX_PULSE_HZ = 185.0  # Hz, the board's limit (SLOT_PERIOD_MIN_US of firmware_bridge/limits.py)
Model = TypeVar("Model", bound=BaseModel)


class AsBefore(BaseModel):
    """A configuration that is described as before there were own duties, where it has none: its hash stays."""

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        if not values.get("own_duties"):
            values.pop("own_duties", None)
        return values


class EnvConfig(AsBefore):
    """One environment, in full. The presets of `PRESETS` are sets of these values."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: str = "paper"
    mode: Literal["recommended", "reference"] = "recommended"  # reference: with the oddities of the released code
    spectral_grid: Literal["fixed", "spikes"] = "fixed"  # of the window, or from the first to the last spike (released)
    dt_ms: float = 0.02  # ms, SEA-DBS paper
    kernel: Literal["fast", "reference"] = "fast"  # of the plant: same spikes; the scalar reference is ten times slower
    precision: Literal["float64", "float32"] = "float64"  # of kernel fast; float32 keeps the statistics, not the spikes
    pd: float = Field(1.0, ge=0.0, le=1.0)  # 0 healthy, 1 parkinsonian
    slots: int = Field(50, ge=1, le=256)  # pulse slots a decision
    stim_hz: float = Field(50.0, ge=2.0, le=500.0)  # Hz, slot rate; pulses come at most at 185 Hz
    gap_slots: int = Field(1, ge=1, le=100)  # slots from a pulse to the earliest next one; an earlier one is not given
    window_ms: float = Field(1000.0, ge=150.0, le=3600.0)  # ms of a spectrum, released code
    stride_ms: float = Field(1.0, gt=0.0)  # ms between two observed windows, released code
    n_obs: int = Field(1000, ge=1, le=5000)  # windows observed, released code
    settle_ms: float = Field(2000.0, gt=0.0, le=60000.0)  # ms simulated without stimulation in a reset, released code
    episode_steps: int = Field(30, ge=1, le=1_000_000)  # decisions, SEA-DBS paper
    amplitude_uA_cm2: float = Field(PULSE_AMPLITUDE, gt=0.0, le=400.0)  # µA/cm², released code; 500 diverges
    width_ms: float = Field(PULSE_WIDTH_MS, gt=0.0, le=2.0)  # ms, released code
    beta_threshold: float = Field(0.35, gt=0.0, le=100.0)  # P_beta/1000, SEA-DBS paper Eq. 7
    reward_signal: Literal["mean", "newest"] = "mean"  # Eq. 7 on the mean of the observed windows, or on the newest
    energy_price: float = Field(0.0, ge=0.0, le=1000.0)  # reward lost by stimulating at 130 Hz; a pulse costs its share
    obs: Literal["gpi", "lfp"] = "gpi"  # what is observed: the GPi's spikes, or the STN's LFP, blanked around pulses
    # beta of n_obs windows; or n_obs - 1 slots and the newest beta; or n_obs/2 slots and the pulses given in them
    view: Literal["trace", "slots", "timing"] = "trace"
    measures: bool = (
        False  # info tells thalamic relay, 7-35 Hz beta, LFP beta and excursions too; the plant runs slower
    )
    measures_every_ms: float = Field(0.0, ge=0.0, le=60_000.0)  # ms after which they are taken anew; 0: each decision
    delay_steps: int = Field(0, ge=0, le=1000)  # decisions by which the observation comes late
    noise_sd: float = Field(0.0, ge=0.0, le=10.0)  # sd of sensing noise, in units of the observation (P_beta/1000)
    artefact: Literal["none", "raw", "blanked"] = "none"  # of a pulse in the recorded spikes, see SpikeArtefact
    artefact_ms: float = Field(2.0, gt=0.0, le=20.0)  # ms for which a pulse hides the spikes, ours
    missing_share: float = Field(0.0, ge=0.0, le=0.95)  # share of observed values that never arrive
    missing_run: float | None = Field(None, ge=1.0, le=10_000.0)  # mean values a run of losses; None: independent
    missing_fill: Literal["hold", "interpolate"] = "hold"  # what stands in for a lost value
    drift: Literal["none", "impedance", "disease", "circadian"] = "none"  # of the patient, see envs.patients.DRIFTS
    own_duties: int = Field(0, ge=0, le=64)  # decisions whose duty stands before the observed windows, ours

    @property
    def n_seen(self) -> int:
        """Values of an observation."""
        return self.n_obs + self.own_duties

    @property
    def decision_ms(self) -> float:
        """Length of a decision (ms); reference mode adds one sample."""
        return self.slots * 1000.0 / self.stim_hz

    @property
    def slot_ms(self) -> float:
        """Length of a slot (ms)."""
        return 1000.0 / self.stim_hz

    def share_asked(self, duty: float) -> float:
        """Share of slots in which a random train must ask for a pulse, for ``duty`` of all slots to have one.

        The slots after a pulse, `gap_slots` less one, are lost to it: duty = p / (1 + p (gap_slots - 1)).

        Raises:
            UserError: more than a pulse each ``gap_slots`` slots.
        """
        if not 0.0 <= duty * self.gap_slots <= 1.0 + 1e-9:
            raise UserError(f"a duty of {duty:g} was asked for: from 0 to 1/{self.gap_slots} of the slots are allowed")
        return min(1.0, duty / (1.0 - duty * (self.gap_slots - 1)))

    @property
    def new_samples(self) -> int:
        """Samples that a decision brings: of beta, or of slots (`view`)."""
        return round(self.decision_ms / self.stride_ms) if self.view == "trace" else self.slots

    @property
    def slots_observed(self) -> int:
        """Slots that an observation reaches back; none in view "trace"."""
        return {"trace": 0, "slots": self.n_obs - 1, "timing": self.n_obs // 2}[self.view]

    @model_validator(mode="after")
    def _consistent(self) -> EnvConfig:
        check_dt(self.dt_ms)
        if self.kernel == "reference" and self.precision != "float64":
            raise UserError(f"precision {self.precision} needs the kernel 'fast': the reference kernel is float64")
        span = self.window_ms + (self.n_obs - 1) * self.stride_ms
        if self.view != "trace":
            span = max(self.window_ms, self.slots_observed * self.slot_ms)
            self._slots_fit()
        if self.stim_hz / self.gap_slots > MAX_PULSE_HZ:
            raise UserError(
                f"stim_hz {self.stim_hz:g} with gap_slots {self.gap_slots} lets pulses come at up to "
                f"{self.stim_hz / self.gap_slots:g} Hz: at most {MAX_PULSE_HZ:g} Hz are allowed"
            )
        if self.own_duties and self.view != "trace":
            raise UserError(f"own_duties is {self.own_duties}: view '{self.view}' has none, allowed is 0")
        if self.gap_slots > 1 and self.gap_slots * self.slot_ms > self.window_ms:  # pulses are forgotten after it
            raise UserError(
                f"gap_slots {self.gap_slots} of {self.slot_ms:g} ms each are longer than window_ms {self.window_ms:g}"
            )
        if self.obs == "lfp":
            self._lfp_fits()
        if self.kernel == "reference" and (self.obs == "lfp" or self.measures):
            raise UserError(
                "obs 'lfp' and measures need the kernel 'fast': 'reference' records neither LFP nor thalamus"
            )
        if span + self.dt_ms > self.settle_ms:
            raise UserError(
                f"settle_ms is {self.settle_ms:g}: the first observation of {self.n_obs} values needs over {span:g} ms"
            )
        new = self.decision_ms / self.stride_ms
        if self.view == "trace" and abs(new - round(new)) > 1e-9:
            raise UserError(f"stride_ms {self.stride_ms:g} must divide the decision of {self.decision_ms:g} ms")
        if self.mode == "reference" and self.window_ms > self.decision_ms:
            raise UserError(
                f"window_ms {self.window_ms:g} is longer than the decision of {self.decision_ms:g} ms (released code)"
            )
        episode = self.episode_steps * self.decision_ms / self.dt_ms
        if self.mode == "recommended" and abs(episode - round(episode)) > 1e-6:
            raise UserError(
                f"dt_ms {self.dt_ms:g} must divide an episode of {self.episode_steps} × {self.decision_ms:g} ms: "
                "change episode_steps"
            )
        for name in ("window_ms", "settle_ms", "width_ms", "stride_ms"):
            samples = getattr(self, name) / self.dt_ms
            if abs(samples - round(samples)) > 1e-6:
                raise UserError(f"{name} {getattr(self, name):g} is no whole number of samples of {self.dt_ms:g} ms")
        if self.amplitude_uA_cm2 > 200.0 and self.width_ms > PULSE_WIDTH_MS + 1e-9:
            raise UserError(  # measured: forward Euler diverges at 300 × 0.6 ms, holds at 200 × 2 ms and 450 × 0.3 ms
                f"width_ms {self.width_ms:g} is too long for amplitude_uA_cm2 {self.amplitude_uA_cm2:g}: allowed are "
                f"{PULSE_WIDTH_MS:g} ms, and longer pulses up to 200 µA/cm²"
            )
        if self.width_ms >= self.slot_ms:
            raise UserError(f"width_ms {self.width_ms:g} is not shorter than the slot of {self.slot_ms:g} ms")
        return self

    def _slots_fit(self) -> None:
        if self.slots != 1 or self.mode != "recommended" or self.n_obs < 2:
            raise UserError(
                f"view '{self.view}' needs slots 1, mode recommended and n_obs from 2: given are slots {self.slots}, "
                f"mode {self.mode} and n_obs {self.n_obs}"
            )
        if self.view == "timing" and (self.n_obs % 2 or self.artefact == "raw" or self.noise_sd > 0.0):
            raise UserError(
                f"view 'timing' needs an even n_obs, noise_sd 0 and artefact none or blanked: given are n_obs "
                f"{self.n_obs}, noise_sd {self.noise_sd:g} and artefact {self.artefact}"
            )
        if self.reward_signal != "newest":
            raise UserError(
                f"reward_signal is '{self.reward_signal}': view '{self.view}' holds one beta, so allowed is 'newest'"
            )
        if self.missing_share > 0.0:
            raise UserError(
                f"missing_share is {self.missing_share:g}: view '{self.view}' knows no losses, allowed is 0"
            )

    def _lfp_fits(self) -> None:
        if self.artefact == "raw":
            raise UserError("artefact is 'raw': the LFP is always blanked around pulses, allowed are none and blanked")
        if self.artefact_ms >= self.slot_ms:
            raise UserError(f"artefact_ms {self.artefact_ms:g} hides whole slots of {self.slot_ms:g} ms from the LFP")
        for name in ("window_ms", "stride_ms") if self.view == "trace" else ("window_ms",):
            if abs(getattr(self, name) - round(getattr(self, name))) > 1e-9:
                raise UserError(f"{name} {getattr(self, name):g} is no whole number of LFP samples of 1 ms")


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "paper-released": {"mode": "reference", "spectral_grid": "spikes"},
    "realtime": {
        "slots": 1,
        "stride_ms": 20.0,
        "n_obs": 50,
        "episode_steps": 1500,
        "reward_signal": "newest",
    },
    "paper-30": {"slots": 30, "stim_hz": 30.0},
    "pattern": {
        "slots": 1,
        "stim_hz": 130.0,
        "view": "slots",
        "n_obs": 64,
        "episode_steps": 1300,
        "reward_signal": "newest",
        "energy_price": 2.0,
    },
    "timing": {
        "slots": 1,
        "stim_hz": 370.0,
        "gap_slots": 2,
        "view": "timing",
        "n_obs": 480,
        "episode_steps": 3700,
        "reward_signal": "newest",
    },
}


def env_config(preset: str = "paper", **overrides: Any) -> EnvConfig:
    """The configuration of a preset with some values changed.

    Raises:
        UserError: unknown preset, unknown key, or a value out of range.
    """
    if preset not in PRESETS:
        raise UserError(f"unknown preset '{preset}'{nearest(preset, PRESETS)}: presets are {', '.join(PRESETS)}")
    return validated(EnvConfig, {"preset": preset, **PRESETS[preset], **overrides}, "the environment")


def validated(model: type[Model], values: dict[str, Any], place: str) -> Model:
    """Validate values against a pydantic model; the first error becomes one sentence.

    Raises:
        UserError: naming the key, the value, the allowed range, and for an unknown key the nearest valid one.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "configuration"
        if first["type"] == "extra_forbidden":
            sentence = f"unknown key '{key}' in {place}{nearest(key, model.model_fields)}"
        elif first["type"] == "missing":
            sentence = f"the key '{key}' is missing in {place}"
        else:
            message = first["msg"][0].lower() + first["msg"][1:]
            sentence = f"'{key}' in {place} is {first['input']!r}: {message}"
        raise UserError(sentence) from None


def nearest(word: str, valid: Any) -> str:
    """', did you mean …?' with the nearest valid word, or nothing."""
    close = difflib.get_close_matches(word, list(valid), n=1, cutoff=0.4)
    return f"; did you mean '{close[0]}'?" if close else ""
