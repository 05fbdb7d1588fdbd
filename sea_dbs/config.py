"""Every setting of a training run: typed, flat, frozen, and refused in one sentence when it is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from envs.config import PRESETS, AsBefore, EnvConfig, env_config
from envs.errors import UserError
from envs.untrusted import MAX_YAML_BYTES, load_yaml, read_bounded
from sea_dbs.config_rules import check_together
from sea_dbs.files import sha256_json
from sea_dbs.pulse_trains import BANKS, min_slots
from sea_dbs.variants import expand_variant, variant_of

Preset = Literal["paper", "paper-released", "realtime", "paper-30", "pattern", "timing"]
Learner = Literal["sea-dbs", "ppo", "dqn", "qr-dqn", "evolution"]
ActorName = Literal[
    "compact", "small", "tiny", "linear", "gated", "relative", "paper", "recurrent", "trains", "trains-flat"
]
CriticTarget = Literal["printed", "mean", "none"]
Exploration = Literal["gumbel", "epsilon"]
WarmupActions = Literal["uniform-duty", "bernoulli"]

Rate = Annotated[float, Field(gt=0, le=1)]  # learning rates and Polyak weights
Share = Annotated[float, Field(ge=0, le=1)]


# Keys of the environment that a run may set. Where a run is silent its preset decides; their ranges are EnvConfig's.
ENV_KEYS = (
    "dt_ms",
    "pd",
    "slots",
    "stim_hz",
    "gap_slots",
    "window_ms",
    "stride_ms",
    "n_obs",
    "episode_steps",
    "amplitude_uA_cm2",
    "width_ms",
    "beta_threshold",
    "energy_price",
    "obs",
    "reward_signal",
    "delay_steps",
    "noise_sd",
    "artefact",
    "missing_share",
    "drift",
    "own_duties",
)


# Keys that learner=evolution alone reads.
EVOLUTION_KEYS = (
    "pulse_budget_hz",
    "start",
    "group_pulses",
    "healthy_price",
    "generations",
    "population",
    "candidate_plants",
    "healthy_plants",
    "milder_plants",
    "milder_pd",
    "gate_hz",
    "candidate_s",
    "sigma_0",
)


class TrainConfig(AsBefore):
    """One training run. The defaults are ours; what the paper states stands in the preset ``paper``.

    `load_config` fills what the environment's preset decides, so that a loaded config holds no None. Times named
    ``*_steps`` count environment steps (decisions of one environment), the ``t`` of Eq. 14.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    # -- the world -------------------------------------------------------------------------------------------------
    preset: Preset = "paper"  # environment preset
    dt_ms: float | None = None  # ms
    pd: float | None = None  # 0 healthy, 1 parkinsonian
    slots: int | None = None  # pulse slots a decision
    stim_hz: float | None = None  # slots a second
    gap_slots: int | None = None  # slots from a pulse to the earliest next one
    window_ms: float | None = None  # ms of a spectrum
    stride_ms: float | None = None  # ms between two observed windows
    n_obs: int | None = None  # windows observed
    episode_steps: int | None = None  # decisions of an episode
    amplitude_uA_cm2: float | None = None  # µA/cm²
    width_ms: float | None = None  # ms
    beta_threshold: float | None = None  # b of Eq. 7, P_beta/1000
    energy_price: float | None = None  # reward lost by stimulating at 130 Hz
    obs: Literal["gpi", "lfp"] | None = None  # what is observed: GPi spikes, or the STN's LFP blanked around pulses
    reward_signal: Literal["mean", "newest"] | None = None  # Eq. 7 on the mean of the observed windows or the newest
    delay_steps: int | None = None  # decisions by which the observation comes late
    noise_sd: float | None = None  # sd of sensing noise, P_beta/1000
    artefact: Literal["none", "raw", "blanked"] | None = None  # of a pulse in the recorded spikes
    missing_share: float | None = None  # share of observed values that never arrive
    drift: Literal["none", "impedance", "disease", "circadian"] | None = None  # of the patient
    own_duties: int | None = None  # actor=trains-flat: decisions whose duty the policy is shown, before the windows

    # -- the run ---------------------------------------------------------------------------------------------------
    learner: Learner = "sea-dbs"  # an outsider of Stable-Baselines3, or an evolution strategy
    seed: int = Field(0, ge=0, le=99_999)  # all randomness of a run comes from this number
    episodes: int = Field(150, ge=1, le=10_000)
    n_envs: int = Field(8, ge=1, le=64)  # environments in lockstep; 1 is the sequential variant
    checkpoint_steps: int = Field(240, ge=1, le=10_000_000)  # environment steps between two checkpoints
    plant_precision: Literal["float32", "float64"] = "float32"  # of the plant in training; evaluation takes float64

    # -- networks --------------------------------------------------------------------------------------------------
    actor: ActorName = "compact"
    hidden: int = Field(64, ge=8, le=1024)  # width of the critic's and the reward model's layers

    # -- learning --------------------------------------------------------------------------------------------------
    actor_lr: Rate = 5e-4
    critic_lr: Rate = 1e-3
    reward_model_lr: Rate = 1e-3
    gamma: float = Field(0.99, ge=0, lt=1)
    polyak: Rate = 0.05  # weight of the new value in a target: θ' <- (1 - polyak) θ' + polyak θ
    buffer_size: int = Field(8192, ge=32, le=1_000_000)
    batch_size: int = Field(32, ge=2, le=4096)
    updates_per_step: int = Field(1, ge=1, le=64)  # gradient updates each time
    steps_per_update: int = Field(1, ge=1, le=1000)  # environment steps between: a slot of a few ms brings little
    critic_target: CriticTarget = "mean"
    grad_clip: float = Field(10.0, gt=0, le=1e6)  # largest L2 norm of a network's gradient

    # -- beyond the paper, off by default --------------------------------------------------------------------------
    n_step: int = Field(1, ge=1, le=1000)  # rewards summed before the target's value
    twin_critics: bool = False  # the smaller of two critics' values in the target (clipped double Q)
    priority: Share = 0.0  # exponent of prioritised replay; 0 samples uniformly
    entropy: float = Field(0.0, ge=0, le=100)  # reward for an undecided actor, per nat of a slot's choice or a train's
    actor_gradient: Literal["straight-through", "expected"] = "straight-through"  # actor=trains: of a sample, or of all
    burn_in: int = Field(20, ge=0, le=1000)  # actor=recurrent: decisions that only warm the memory up
    unroll: int = Field(16, ge=1, le=1000)  # actor=recurrent: decisions learnt from in a sequence

    # -- exploration -----------------------------------------------------------------------------------------------
    warmup_steps: int = Field(240, ge=0, le=1_000_000)  # random actions, no update
    warmup_actions: WarmupActions = "uniform-duty"
    warmup_hold_steps: int = Field(1, ge=1, le=10_000)  # decisions for which uniform-duty keeps a drawn duty
    exploration: Exploration = "gumbel"
    tau_0: float = Field(1.0, gt=0, le=100)  # Gumbel-Softmax temperature at step 0, Eq. 14
    tau_min: float = Field(0.1, gt=0, le=100)
    tau_lambda: float = Field(0.001, ge=0, le=10)  # 1/environment step
    epsilon_0: Share = 1.0  # exploration=epsilon: chance that a slot is drawn at random
    epsilon_min: Share = 0.05
    epsilon_lambda: float = Field(0.001, ge=0, le=10)  # 1/environment step

    # -- learner=evolution: a search for the weights of a timing policy, see sea_dbs.evolution ----------------------
    pulse_budget_hz: float = Field(45.5, ge=5, le=130)  # pulses a second that cost nothing; 45.5 is 35 % of 130 Hz
    start: Literal["train", "earlier"] = "train"  # a train of the budget's rate, or what an earlier search had found
    group_pulses: int = Field(22, ge=1, le=100)  # pulses of a group of that train; 1: a regular one
    healthy_price: float = Field(0.5, ge=0, le=100)  # % of untreated beta for each pulse a second on a healthy plant
    generations: int = Field(120, ge=1, le=100_000)
    population: int = Field(16, ge=4, le=1024)  # candidates a generation
    candidate_plants: int = Field(6, ge=1, le=64)  # on which each candidate of a generation is judged
    healthy_plants: int = Field(2, ge=0, le=64)  # and healthy ones, on which its pulses are counted
    milder_plants: int = Field(0, ge=0, le=64)  # and of a milder disease, judged as the others
    milder_pd: float = Field(0.1, ge=0, le=1)  # their severity; 0.1: where drift=disease ends
    gate_hz: float = Field(26.3, ge=0, le=100)  # actor=relative: GPi spikes a second a cell above which it may pulse
    candidate_s: float = Field(6.0, ge=3, le=600)  # s on each plant; the first is not judged
    sigma_0: float = Field(0.1, gt=0, le=10)  # first standard deviation of a candidate's numbers

    @model_validator(mode="after")
    def _fits_together(self) -> TrainConfig:
        check_together(self)
        return self

    @property
    def variant(self) -> str:
        """The word of `VARIANTS` for this run's switches."""
        return variant_of(
            self.learner,
            self.actor,
            self.exploration,
            self.critic_target,
            self.actor_gradient,
            self.own_duties or 0,
        )

    def env_overrides(self) -> dict[str, Any]:
        """Keyword arguments for ``envs.make_env`` beside the preset."""
        values = {key: value for key in ENV_KEYS if (value := getattr(self, key)) is not None}
        if not self.own_duties:  # as before there were any
            values.pop("own_duties", None)
        return values

    def world(self, **overrides: Any) -> EnvConfig:
        """The environment's configuration of the run, some values changed once more.

        Raises:
            UserError: values that do not fit together.
        """
        return env_config(self.preset, **{**self.env_overrides(), **overrides})

    def to_yaml(self) -> str:
        """All keys with their values, one a line, in the order of this class."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    def sha256(self) -> str:
        """Hash of all values that the run's learner reads: equal configs, equal hash."""
        unread = set() if self.learner == "evolution" else set(EVOLUTION_KEYS)
        if self.milder_plants == 0:  # as a search of before there were any
            unread |= {"milder_plants", "milder_pd"}
        if self.actor != "relative":
            unread |= {"gate_hz"}
        if self.learner != "evolution":  # where these change nothing, a run of before there were any keeps its hash
            unread |= {key for key in ("steps_per_update", "gap_slots") if getattr(self, key) == 1}
        if self.actor_gradient == "straight-through":
            unread |= {"actor_gradient"}
        return sha256_json(self.model_dump(mode="json", exclude=unread))


def preset_names() -> list[str]:
    """Names of the configurations shipped in the package."""
    folder = resources.files("sea_dbs.presets")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_config(source: str | Path | None = None, overrides: Iterable[str] = ()) -> TrainConfig:
    """Read a YAML file (or a shipped preset by its name), lay ``KEY=VALUE`` over it and check everything.

    Raises:
        UserError: no such file or preset, not flat YAML, an unknown key, or a value out of its range.
    """
    values: dict[str, Any] = {}
    place = "the defaults"
    if source is not None:
        text, place = _read_source(source)
        values = _parse_yaml(text, place)
        values = expand_variant(values, values)
        _check(values, place)
    given: dict[str, Any] = {}
    for item in overrides:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise UserError(f"'{item}' is not KEY=VALUE, for example episodes=20")
        given[key] = parse_value(value, item)
    values = expand_variant({**values, **given}, given)
    return _check(values, "the command line" if overrides else place)


def config_from_mapping(values: Mapping[str, Any], place: str) -> TrainConfig:
    """Check a mapping of all or some keys; ``place`` is named in an error.

    Raises:
        UserError: an unknown key or a value out of its range.
    """
    return _check(expand_variant(dict(values), values), place)


def differing_keys(old: TrainConfig, new: TrainConfig) -> list[str]:
    """``key: old -> new`` for every key on which two configs differ."""
    a, b = old.model_dump(mode="json"), new.model_dump(mode="json")
    keys = [key for key in type(old).model_fields if key in {**a, **b}]
    return [f"{key} ({a.get(key)} there, {b.get(key)} now)" for key in keys if a.get(key) != b.get(key)]


def _read_source(source: str | Path) -> tuple[str, str]:
    path = Path(source)
    try:
        if path.is_file():
            return read_bounded(path, MAX_YAML_BYTES, "the config").decode(), str(path)
        shipped = resources.files("sea_dbs.presets") / f"{source}.yaml"
        if str(source) in preset_names():
            return shipped.read_text(), f"preset {source}"
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the config {source}: {error}") from error
    raise UserError(f"there is no config file {source} (and the presets are {', '.join(preset_names())})")


class _UniqueKeys(yaml.SafeLoader):
    """A loader that refuses a key given twice, where YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"the key '{key}' stands twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _parse_yaml(text: str, place: str) -> dict[str, Any]:
    try:
        values = load_yaml(text, _UniqueKeys)
    except (yaml.YAMLError, TypeError) as error:
        raise UserError(f"{place} is not flat YAML of KEY: VALUE lines: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"{place} is not flat YAML of KEY: VALUE lines")
    return values


def parse_value(text: str, item: str) -> Any:
    """A value of the command line, as YAML reads it; ``item`` is named in an error.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return load_yaml(text)
    except yaml.YAMLError:
        raise UserError(f"the value of '{item}' cannot be read") from None


def _check(values: dict[str, Any], place: str) -> TrainConfig:
    for key, value in values.items():
        if key not in TrainConfig.model_fields:
            near = _nearest(key)
            raise UserError(
                f"unknown key '{key}' (value {value}) in {place}: the nearest valid key is '{near}', "
                f"which takes {allowed_range(near)}"
            )
    try:
        config = TrainConfig.model_validate(values)
        return _resolve(config)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:  # of check_together
            raise UserError(f"{first['ctx']['error']} ({place})") from None
        key = str(first["loc"][0])
        raise UserError(f"{key}={values[key]} in {place} is not allowed: '{key}' takes {allowed_range(key)}") from None


def _resolve(config: TrainConfig) -> TrainConfig:
    """Fill what the environment's preset decides, and let the environment check all of it together."""
    chosen = {"preset": config.preset, **PRESETS[config.preset], **config.env_overrides()}
    world = EnvConfig.model_validate(chosen)
    if config.learner in ("dqn", "qr-dqn") and world.slots != 1:
        raise UserError(f"learner={config.learner} chooses one of two actions: it needs slots=1, not {world.slots}")
    if config.actor in BANKS and world.slots < (least := min_slots(BANKS[config.actor])):
        raise UserError(
            f"actor={config.actor} gives trains of up to {least} slots: it needs slots from there on, not {world.slots}"
        )
    return config.model_copy(update={key: getattr(world, key) for key in ENV_KEYS})


def _nearest(key: str) -> str:
    known = list(TrainConfig.model_fields)
    return difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.0)[0]


def allowed_range(key: str) -> str:
    """The allowed values of a key in words, such as ``a number above 0 up to 1``."""
    field = (EnvConfig if key in ENV_KEYS else TrainConfig).model_fields[key]
    annotation = field.annotation
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(map(str, get_args(annotation)))
    if annotation is bool:
        return "true or false"
    kind = "a whole number" if annotation is int else "a number"
    return " ".join([kind, *_bounds(field)])


def _bounds(field: FieldInfo) -> list[str]:
    words = {"ge": "from", "gt": "above", "le": "up to", "lt": "and below"}
    bounds = {name: getattr(item, name) for item in field.metadata for name in words if hasattr(item, name)}
    return [f"{words[name]} {bounds[name]:g}" for name in ("ge", "gt", "le", "lt") if name in bounds]
