"""Named tasks: an environment's preset with some values changed, as tuning and benchmarks use them.

Each exists with ``-lfp`` behind its name too: there the controller sees what a device could measure. Any energy price
makes a task of its own: ``efficient-0.7``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from envs.config import EnvConfig, env_config, nearest
from envs.errors import UserError
from envs.patients import Patient, Recruitment, Variation, sample_cohort

COHORT = 20  # patients to train on, and as many others to test on
COHORT_SEED = 2026  # ours
LFP = "-lfp"
# Reward lost a decision by stimulating at 130 Hz. By Eq. 7 continuous 130 Hz earns 2.25, never -0.84, and 26 Hz in
# groups about 0 (docs/RESULTS.md): below a price of about 2.8 continuous stimulation is best, above 4.2 none at all.
PRICES = (1.0, 2.0, 3.0)


@dataclass(frozen=True)
class Task:
    """What is controlled; an environment is made with ``preset`` and ``overrides``."""

    preset: str
    overrides: dict[str, Any] = field(default_factory=dict)
    description: str = ""
    trained_on: str = ""  # the task that policies are trained on which are judged here; empty: this one
    training: str = ""  # the file of training settings; empty: the preset's
    cohort: Variation | None = None  # how patients differ who stand in place of networks drawn at each reset

    def config(self, **overrides: Any) -> EnvConfig:
        """The environment's configuration, some values changed once more.

        Raises:
            UserError: an unknown key or a value out of its range.
        """
        return env_config(self.preset, **{**self.overrides, **overrides})

    def patients(self, purpose: Literal["train", "test"]) -> tuple[Patient, ...]:
        """Whom a policy is trained on, or tested on, of a cohort: never the same; empty where there is none."""
        if self.cohort is None:
            return ()
        everyone = sample_cohort(2 * COHORT, COHORT_SEED, self.cohort).patients
        return everyone[:COHORT] if purpose == "train" else everyone[COHORT:]

    @property
    def graded(self) -> bool:
        """Whether a pulse's amplitude decides on the cells that it reaches."""
        return self.cohort is not None and self.cohort.recruitment is not None

    def with_lfp(self) -> Task:
        """The same task, seen through the STN's LFP."""
        return replace(
            self,
            overrides={**self.overrides, "obs": "lfp"},
            description=f"{self.description}, seen through the LFP",
            trained_on=self.trained_on and self.trained_on + LFP,
        )


#: Networks as the model draws them, but for a threshold of each STN cell (`envs.patients.Recruitment`).
GRADED = Variation(
    severity=(1.0, 1.0),
    conductance=(1.0, 1.0),
    electrode_gain=(1.0, 1.0),
    charge_efficacy=(1.0, 1.0),
    recruitment=Recruitment(),
)


def efficient(price: float) -> Task:
    """Beta against pulses, in 130 Hz slots: Eq. 7 less ``price`` times the share of 130 Hz's pulses."""
    return Task(
        "paper",
        {"stim_hz": 130.0, "slots": 130, "energy_price": price},
        f"130 Hz slots, a decision a second, continuous stimulation costs {price:g} of the reward",
        training="efficient",
    )


TASKS: dict[str, Task] = {
    "paper": Task("paper", {}, "Eq. 7, 50 Hz slots, a decision a second"),
    "paper-30": Task("paper-30", {}, "Eq. 7, 30 Hz slots, a decision a second"),
    "slots-130": Task(
        "paper", {"stim_hz": 130.0, "slots": 130}, "as paper with 130 Hz slots: any rate up to continuous stimulation"
    ),
    **{f"efficient-{price:g}": efficient(price) for price in PRICES},
    "pattern": Task("pattern", {}, "a decision every 1/130 s, any pattern of pulses"),
    "realtime": Task(
        "realtime",
        {"delay_steps": 2, "noise_sd": 0.02, "artefact": "blanked"},
        "a decision every 20 ms, 40 ms late, with sensing noise and blanked artefacts",
    ),
    "realtime-clean": Task("realtime", {}, "a decision every 20 ms, nothing in the way"),
    "healthy": Task("paper", {"pd": 0.0}, "the healthy plant: how much is stimulated for nothing", trained_on="paper"),
    "drift": Task(
        "paper",
        {"drift": "disease"},
        "severity falls during the episode, as when levodopa sets in",
        trained_on="paper",
    ),
    "cohort": Task("paper", {}, f"trained on {COHORT} patients, tested on {COHORT} unseen", cohort=Variation()),
    "graded": Task(
        "paper",
        {"stim_hz": 130.0, "slots": 130},
        "as slots-130, and a pulse reaches the STN cells whose threshold its amplitude passes",
        cohort=GRADED,
    ),
}
TASKS["efficient"] = TASKS["efficient-3"]
TASKS |= {name + LFP: task.with_lfp() for name, task in TASKS.items()}


def find_task(name: str) -> Task:
    """A task by its name; ``efficient-PRICE`` takes any price.

    Raises:
        UserError: an unknown name, or a price that is no number from 0 to 1000.
    """
    if name in TASKS:
        return TASKS[name]
    kind, _, rest = name.removesuffix(LFP).partition("-")
    if kind == "efficient":
        try:
            price = float(rest)
        except ValueError:
            price = math.nan
        if not 0.0 <= price <= 1000.0:
            raise UserError(f"the task '{name}' names the price '{rest}': a number from 0 to 1000 is expected")
        return efficient(price).with_lfp() if name.endswith(LFP) else efficient(price)
    shown = ", ".join(key for key in TASKS if not key.endswith(LFP))
    raise UserError(f"unknown task '{name}'{nearest(name, TASKS)}: tasks are {shown}, each with {LFP} too")
