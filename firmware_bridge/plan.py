"""What a session was asked for, and the parts that this resolves to, before any board is touched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from envs import make_env
from envs.config import EnvConfig, env_config
from envs.errors import UserError
from envs.registration import base_env
from envs.stimulation import DEVICE_AMPLITUDE_UA, DEVICE_WIDTH_US
from export.chain import Chain
from export.policy import OnnxPolicy
from firmware_bridge.chain import no_policy
from firmware_bridge.integer_policy import IntegerPolicy, check_format
from firmware_bridge.limits import LIMITS
from firmware_bridge.permit import Permit, check_shadow, permit
from firmware_bridge.security.keys import read_key
from firmware_bridge.sources import open_source
from sea_dbs.controllers import AMPLITUDE, Controller, make_controller, split_name
from sea_dbs.files import sha256_json
from sea_dbs.rollout import Env

REALTIME_LATENCY_US = 100_000  # µs from sample to slot 0 with --realtime: a `paper` decision takes about 60 ms here
EMULATED_LATENCY_US = 400_000  # µs, where an emulated board decides: its UART alone takes about 0.1 s for 1,000 values


@dataclass(frozen=True)
class SessionPlan:
    """What ``sea-dbs session`` was asked for."""

    out: Path
    policy: Path | None = None  # an export folder
    precision: str | None = None
    controller: str | None = None  # a classical controller decides in the policy's place
    preset: str | None = None  # None: the policy's
    hz: float = 50.0
    duty: float = 0.5
    board: str | None = None  # kind of board to start; None: the host board
    shadow: str | None = None  # a classical controller drives, the policy decides in its shadow
    decide_on: str = "host"  # or "board": it is told what was observed
    source: str = "plant"  # or file:RECORDING, lsl:NAME
    port: str | None = None  # None: start a board
    electrode: str | None = None  # None: the host board's own
    steps: int = 30
    seed: int = 0
    realtime: bool = False
    latency_ms: float | None = None
    prelude: bool = True  # the set point climbs before the first decision, under orders without a pulse
    key: Path | None = None  # file of the board's device key; None: bench mode
    lsl: bool = False  # stream what is recorded
    overwrite: bool = False
    quiet: bool = False

    @property
    def inputs(self) -> tuple[Path | None, ...]:
        """What is read and must outlive ``overwrite``."""
        kind, _, name = self.source.partition(":")
        return (self.policy, self.key, Path(name) if kind == "file" else None)


@dataclass(frozen=True)
class Parts:
    """What a plan resolves to before any board is touched."""

    env: Env
    controller: Controller
    permit: Permit
    chain: Chain
    hashes: dict[str, str]
    amplitude_uA: int
    width_us: int
    slot_us: int
    latency_us: int
    board_format: str | None = None  # of the policy that the board holds; None: it holds none
    shadow: Controller | None = None  # decides beside the controller, and is not applied

    @property
    def model_hash(self) -> bytes:
        """What the board is to be bound to."""
        return self.permit.model_hash


def prepare(plan: SessionPlan) -> Parts:
    """Load and check everything that needs no board.

    Raises:
        UserError: a missing or damaged policy, a broken hash chain, an unknown controller or preset, or values that do
            not fit together.
    """
    check_shadow(plan.shadow, plan.policy, plan.controller)
    if plan.policy is None and plan.controller is None:
        raise UserError("a session needs --policy EXPORT_DIR, or --controller NAME for a baseline")
    if plan.steps < 1:
        raise UserError(f"--steps is {plan.steps}: at least 1 decision is needed")
    for name in (plan.controller, plan.shadow):
        if name is not None and split_name(name)[0] in AMPLITUDE:
            raise UserError(f"'{name}' sets amplitudes: a board has one for the whole session, so it cannot drive one")
    key = None if plan.key is None else read_key(plan.key)
    board_format = _check_board(plan)
    chain = no_policy() if plan.policy is None else Chain.of_folder(plan.policy)
    policy = (
        None if plan.policy is None else OnnxPolicy(plan.policy, None if plan.decide_on == "board" else plan.precision)
    )
    preset = plan.preset or (policy.manifest.preset if policy else "paper")
    overrides = dict(policy.manifest.environment) if policy and preset == policy.manifest.preset else {}
    episode = env_config(preset, **overrides).episode_steps
    overrides["episode_steps"] = -(-plan.steps // episode) * episode  # whole episodes: dt divides them
    if plan.source == "plant":
        env = make_env(preset, **overrides)
    else:
        env = open_source(plan.source, env_config(preset, **overrides), steps=plan.steps, realtime=plan.realtime)
    config = base_env(env).config
    if config.n_obs < config.new_samples:
        raise UserError(
            f"an observation holds {config.n_obs} samples and a decision lasts {config.new_samples}: every second one "
            "would be refused, because samples between them are missing; let n_obs be "
            f"{config.new_samples} or more"
        )
    slot_us = round(config.slot_ms * 1000)
    check_slots(slot_us)
    if plan.decide_on == "board":
        check_decides(config)
    hashes = {"env": sha256_json(config.model_dump(mode="json"))}
    if policy is not None:
        m = policy.manifest
        wanted, found = (m.n_obs, m.slots, round(m.slot_us)), (config.n_seen, config.slots, slot_us)
        if wanted != found:
            raise UserError(
                f"the policy {plan.policy} takes (n_obs, slots, slot_us) = {wanted}, the preset '{preset}' has {found}"
            )
        hashes |= {"config": m.hashes.config, "weights": m.hashes.weights, "onnx": policy.model_hash}
        hashes["model"] = chain.model_hash.hex()
    decides: Controller | None = None
    if policy is not None and plan.controller is None:
        integers = plan.decide_on == "board" or policy.precision == "int8"
        decides = IntegerPolicy.of_export(policy.folder) if integers else policy
    drives = plan.controller or plan.shadow
    controller = decides
    if drives is not None:
        controller = make_controller(drives, config.slots, slot_us, hz=plan.hz, duty=plan.duty, seed=plan.seed)
    assert controller is not None
    return Parts(
        env=env,
        controller=controller,
        permit=permit(
            plan.policy,
            chain,
            key,
            drives=drives is None,
            precision=_precision(plan, board_format, policy),
            shadow_of=plan.shadow,
        ),
        chain=chain,
        hashes=hashes,
        amplitude_uA=round(DEVICE_AMPLITUDE_UA if policy is None else policy.manifest.amplitude_uA),
        width_us=round(DEVICE_WIDTH_US if policy is None else policy.manifest.width_us),
        slot_us=slot_us,
        latency_us=_latency(plan, slot_us * config.slots),
        board_format=board_format,
        shadow=decides if plan.shadow is not None else None,
    )


def check_slots(slot_us: int) -> None:
    """Raise UserError for slots that are shorter than a board takes."""
    least = LIMITS["SLOT_PERIOD_MIN_US"].value
    if slot_us < least:
        raise UserError(
            f"the policy decides in slots of {slot_us} µs: a board takes slots from {least} µs on; such a policy can "
            "be evaluated, not yet driven"
        )


def check_decides(config: EnvConfig) -> None:
    """Raise UserError for a policy that no board can decide by: a board judges all that it is told as sensed."""
    if config.own_duties:
        raise UserError(
            f"the policy is shown the duties of its own last {config.own_duties} decisions: a board could no more tell "
            "that what it senses stands still, so it decides on the host (sea-dbs session --decide-on host) "
            "and cannot be released"
        )


def _precision(plan: SessionPlan, board_format: str | None, policy: OnnxPolicy | None) -> str:
    """In which the policy decides; "": there is none."""
    if plan.decide_on == "board":
        return board_format or ""
    return "" if policy is None else policy.precision


def _check_board(plan: SessionPlan) -> str | None:
    """The format of the policy that the board of this session holds; None: it holds none.

    Raises:
        UserError: options that do not go together, or an export without what the board needs.
    """
    if plan.decide_on not in ("host", "board"):
        raise UserError(f"--decide-on is '{plan.decide_on}': host or board is expected")
    if plan.controller is not None and plan.decide_on == "board":
        raise UserError(f"--controller {plan.controller} decides on the host, a board by its policy: give one of them")
    if plan.board is not None and plan.port is not None:
        raise UserError(
            f"--board {plan.board} starts a board, --port {plan.port} names a running one: give one of them"
        )
    if plan.decide_on == "host" and (plan.policy is None or not emulated(plan)):
        return None  # a host board is bound to the model by an option, and needs no policy
    if plan.policy is None:
        raise UserError("--decide-on board needs --policy EXPORT_DIR: a board decides by an exported policy")
    # An emulated board is bound to the model by its image, so that it holds the policy whoever decides.
    return check_format(plan.policy, plan.precision if plan.decide_on == "board" else None)


def emulated(plan: SessionPlan) -> bool:
    """Whether the session starts a board that can only keep real time."""
    return plan.board not in (None, "host")


def _latency(plan: SessionPlan, decision_us: int) -> int:
    """From the newest sample to slot 0 (µs of device time)."""
    if not plan.realtime:
        if plan.latency_ms is not None:
            raise UserError("--latency-ms belongs to --realtime: in lockstep the clock stands while the host decides")
        return 0
    # One next mask can wait on the board, so that a decision starts at the latest when the next one is taken.
    usual_us = EMULATED_LATENCY_US if emulated(plan) and plan.decide_on == "board" else REALTIME_LATENCY_US
    latency_us = min(usual_us, decision_us) if plan.latency_ms is None else plan.latency_ms * 1000
    if latency_us != 0 and not 1 <= latency_us <= decision_us:  # before rounding: nan is refused here too
        raise UserError(
            f"--latency-ms is {latency_us / 1000:g}: 0 (slot 0 as soon as it is decided), or 0.001 to "
            f"{decision_us / 1000:g} (a decision)"
        )
    return round(latency_us)
