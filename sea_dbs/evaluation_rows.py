"""From episodes to a row of the table, and the words for a policy that does not close a loop."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from envs.errors import UserError
from envs.stimulation import CONTINUOUS_HZ
from sea_dbs.closed_loop import CONSTANT, CONSTANT_DUTY, OPEN_LOOP
from sea_dbs.config import TrainConfig
from sea_dbs.files import read_json
from sea_dbs.measures import excess, field_measures
from sea_dbs.rollout import Transition
from sea_dbs.statistics import interval, iqm, mean_interval, surely_greater

TRANSIENT_MS = 1000.0  # ms in which the first pulses change the network, as `paper` leaves them out
MOST_VALUES = 400  # of a series of an episode in evaluation.json
#: What an evaluation may change of the environment that a policy was trained in.
WORLD_KEYS = ("pd", "drift", "delay_steps", "noise_sd", "artefact", "missing_share", "amplitude_uA_cm2", "width_ms")
OPEN_LOOP_BY_DESIGN = ("never", "periodic", "random", "random-trains", "replayed", "pattern", "policy, silenced")


@dataclass
class Episode:
    """One controller on one plant: a value a decision; ``P_beta`` begins with the reset's."""

    controller: str
    seed: int
    P_beta: list[float] = field(default_factory=list)
    reward: list[float] = field(default_factory=list)
    duty: list[float] = field(default_factory=list)
    pulses: list[int] = field(default_factory=list)
    charge_nC_cm2: list[float] = field(default_factory=list)
    observed: list[float] = field(default_factory=list)  # mean of the observation decided on, P_beta/1000
    decisions: list[str] = field(default_factory=list)  # the slots as "0110..."
    diverged: str = ""  # where and when the plant diverged: nothing of the episode is counted

    def add(self, transition: Transition, k: int, own: int = 0) -> None:
        """Append environment ``k`` of a transition, whose observation begins with ``own`` duties."""
        info = transition.infos[k]
        self.diverged = str(info.get("diverged", ""))
        self.P_beta.append(float(info["P_beta"]))
        self.reward.append(float(transition.reward[k]))
        self.duty.append(float(info["duty"]))
        self.pulses.append(int(info["pulses"]))
        self.charge_nC_cm2.append(float(info["charge_nC_cm2"]))
        self.observed.append(float(transition.observation[k, own:].mean()))
        self.decisions.append("".join(map(str, transition.action[k])))

    def thinned(self, block: int) -> dict[str, Any]:
        """As a dict, its series as means of ``block`` decisions (pulses and charge: sums); decisions as they are."""
        own = asdict(self)
        if block == 1:
            return own
        starts = np.arange(0, len(self.reward), block)
        sizes = np.diff(np.append(starts, len(self.reward)))
        for name in ("reward", "duty", "observed", "pulses", "charge_nC_cm2", "P_beta"):
            values = np.asarray(own[name][1:] if name == "P_beta" else own[name], np.float64)
            total = np.add.reduceat(values, starts)
            own[name] = (total if name in ("pulses", "charge_nC_cm2") else total / sizes).tolist()
        own["P_beta"] = [self.P_beta[0], *own["P_beta"]]
        return own

    def mean_duty(self) -> float:
        """Share of slots stimulated over the episode."""
        return float(np.mean(self.duty))

    def mean_reward(self) -> float:
        """Reward a decision."""
        return float(np.mean(self.reward))


def settle_steps(config: TrainConfig) -> int:
    """Decisions until the observation holds nothing of the time before the first one (2 of 1 s, 99 of 20 ms).

    With views of single slots: until the newest window holds nothing of the first second, as in `paper`.
    """
    span_ms = (config.window_ms or 0) + ((config.n_obs or 1) - 1) * (config.stride_ms or 0)
    if config.world().view != "trace":
        span_ms = (config.window_ms or 0) + TRANSIENT_MS
    return math.ceil(span_ms * (config.stim_hz or 0) / (1000.0 * (config.slots or 1)) - 1e-9)


def table_row(
    controller: str, episodes: Sequence[Episode], untreated: Sequence[Episode], config: TrainConfig
) -> dict[str, Any]:
    """One row: P_beta and its percentage after settling, reward over all decisions, duty, pulses and charge an episode.

    ``*_iqm`` is the interquartile mean over plants and ``*_ci95`` its bootstrap interval (None for one plant);
    ``percent_of_untreated`` compares each plant with itself untreated (``plants`` has it plant by plant); the field's
    measures (`measures.field_measures`) are of the time after settling, but for pulses. A plant that diverged, here or
    untreated, is left out of all (None in ``plants``) and counted in ``diverged``.

    Raises:
        UserError: all plants diverged.
    """
    settled, n = settle_steps(config), len(episodes)
    # one reference for all rows, whatever plant diverged in this one
    reference = excess([one.P_beta[settled + 1 :] for one in untreated if not one.diverged] or [[0.0]])
    good = [k for k in range(n) if not (episodes[k].diverged or untreated[k].diverged)]
    if not good:
        raise UserError(f"{episodes[0].controller}: all {n} plants diverged ({episodes[0].diverged or 'untreated'})")
    episodes, untreated = [episodes[k] for k in good], [untreated[k] for k in good]
    beta = [float(np.mean(one.P_beta[settled + 1 :])) for one in episodes]
    without = [float(np.mean(one.P_beta[settled + 1 :])) for one in untreated]
    errors = [excess(one.P_beta[settled + 1 :]) for one in episodes]
    percent = [100.0 * a / b for a, b in zip(beta, without, strict=True)]
    reward = [one.mean_reward() for one in episodes]
    steps = len(episodes[0].reward)
    seconds = steps * (config.slots or 0) / (config.stim_hz or 1)
    charge = float(np.mean([sum(one.charge_nC_cm2) for one in episodes]))
    continuous = CONTINUOUS_HZ * seconds * (config.amplitude_uA_cm2 or 0) * (config.width_ms or 0)  # nC/cm²
    duty = float(np.mean([one.mean_duty() for one in episodes]))
    constant = share_of_most(duty, config) > CONSTANT_DUTY
    measured = field_measures(
        [one.P_beta[settled + 1 :] for one in episodes],
        [one.P_beta[settled + 1 :] for one in untreated],
        [one.pulses for one in episodes],
        [one.charge_nC_cm2 for one in episodes],
        decision_s=seconds / steps,
        amplitude_uA_cm2=config.amplitude_uA_cm2 or 0.0,
        width_ms=config.width_ms or 0.0,
    )
    return {
        "controller": controller,
        "detail": episodes[0].controller,
        "seeds": len(episodes),
        "steps": steps,
        "P_beta_mean": float(np.mean(beta)),
        "P_beta_iqm": iqm(beta),
        "P_beta_ci95": interval(beta),
        "percent_of_untreated": iqm(percent),
        "percent_of_untreated_ci95": interval(percent),
        "diverged": n - len(good),
        "plants": {
            "percent_of_untreated": _at(good, percent, n),
            "pulses": _at(good, [sum(one.pulses) for one in episodes], n),
            "reward": _at(good, reward, n),
            "tracking_error_percent": (
                _at(good, [100.0 * one / reference for one in errors], n) if reference else [None] * n
            ),
        },
        "below_untreated": surely_greater(without, beta),
        "reward_mean": float(np.mean(reward)),
        "reward_iqm": iqm(reward),
        "reward_ci95": interval(reward),
        "duty": duty,
        "pulses": float(np.mean([sum(one.pulses) for one in episodes])),
        "charge_nC_cm2": charge,
        "charge_percent_of_130Hz": 100.0 * charge / continuous,
        **measured,
        "label": CONSTANT if constant else OPEN_LOOP if controller in OPEN_LOOP_BY_DESIGN else "",
    }


def share_of_most(duty: float, config: TrainConfig) -> float:
    """Pulses as a share of the most that can be given, or of 130 Hz where more can: what "constant" is judged by."""
    world = config.world()
    return duty * world.stim_hz / min(CONTINUOUS_HZ, world.stim_hz / world.gap_slots)


def _at(places: Sequence[int], values: Sequence[float], n: int) -> list[float | None]:
    """The values at their places among n; None elsewhere."""
    known = dict(zip(places, values, strict=True))
    return [known.get(k) for k in range(n)]


#: By how much the policy lies below a row, plant by plant: in beta and tracking error (% of untreated), and in pulses.
COMPARED = {
    "policy_below_points": "percent_of_untreated",
    "policy_error_below_points": "tracking_error_percent",
    "policy_pulses_below": "pulses",
}


def compare(rows: Sequence[dict[str, Any]]) -> None:
    """Give each row the keys of `COMPARED`.

    ``iqm`` over plants of the paired difference, and its 95 % bootstrap interval (None for one plant). Without a
    policy among the rows nothing is compared. ``policy_reward_above`` is the policy's reward a decision less the row's,
    where both are of one reward: its interquartile mean, and the mean (``mean``, ``mean_ci95``), which alone sees what
    a policy gains on a few plants.
    """
    policy = next((row for row in rows if row["controller"] == "policy"), None)
    if policy is None:
        return
    for row in rows:
        for key, column in COMPARED.items() if row is not policy else ():
            pairs = zip(*(one["plants"][column] for one in (row, policy)), strict=True)
            below = [theirs - own for theirs, own in pairs if theirs is not None and own is not None]
            if below:
                row[key] = {"iqm": iqm(below), "ci95": interval(below)}
        if row is not policy and "reward" in row["plants"]:
            pairs = zip(policy["plants"]["reward"], row["plants"]["reward"], strict=True)
            above = [own - theirs for own, theirs in pairs if own is not None and theirs is not None]
            if above:
                spread = {"mean": float(np.mean(above)), "mean_ci95": mean_interval(above)}
                row["policy_reward_above"] = {"iqm": iqm(above), "ci95": interval(above), **spread}


#: Rows of another evaluation that stand beside: not those that were matched to its own policy.
BESIDE = ("always", "on-off", "dual-threshold", "proportional", "pi", "pattern")
SAME_WORLD = (*(key for key in WORLD_KEYS if key != "delay_steps"), "dt_ms", "window_ms", "beta_threshold")


def rows_beside(folder: Path, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of another evaluation, of other slots, on the same plants in the same world for as long.

    Raises:
        UserError: it is no evaluation, or one of other plants, another world or another length.
    """
    path = folder / "evaluation.json" if folder.is_dir() else folder
    other = read_json(path)
    try:
        pairs = [
            ("held-out plants", facts["held_out_seeds"], other["held_out_seeds"]),
            ("seconds on each", _seconds(facts), _seconds(other)),
            ("a cohort", facts["plan"]["cohort"], other["plan"]["cohort"]),
            ("ms of delay", _delay_ms(facts), _delay_ms(other)),
            ("the released code's plant", _released(facts), _released(other)),
            *((key, facts["config"][key], other["config"][key]) for key in SAME_WORLD),
        ]
        rows = [row for row in other["rows"] if row["controller"] in BESIDE and row["plants"]]
        if any(column not in row["plants"] for row in rows for column in COMPARED.values()):
            raise KeyError(path)
    except (KeyError, TypeError):
        raise UserError(f"{path} holds no evaluation of this version: the --out of another one is expected") from None
    for what, own, found in pairs:
        if own != found:
            raise UserError(f"{path} cannot stand beside this evaluation: {what} {found} there, {own} here")
    decision = f"decisions of {1000.0 * other['config']['slots'] / other['config']['stim_hz']:g} ms"
    left_out = (*COMPARED, "policy_reward_above")
    kept = [{key: value for key, value in row.items() if key not in left_out} for row in rows]
    for row in kept:  # of another reward, with another price
        row["plants"] = {key: value for key, value in row["plants"].items() if key != "reward"}
    return [{**row, "detail": f"{row['detail']}, {decision}"} for row in kept]


def _delay_ms(facts: Mapping[str, Any]) -> float:
    """By how much the observation comes late (ms)."""
    config = facts["config"]
    return round(float(1000.0 * config["delay_steps"] * config["slots"] / config["stim_hz"]), 6)


def _released(facts: Mapping[str, Any]) -> bool:
    """Whether the plant has the oddities of the released code."""
    return bool(facts["config"]["preset"] == "paper-released")


def _seconds(facts: Mapping[str, Any]) -> float:
    """Simulated seconds on each plant."""
    config = facts["config"]
    return round(float(facts["plan"]["steps"] * config["slots"] / config["stim_hz"]), 6)
