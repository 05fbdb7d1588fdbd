"""Named tasks: an environment's preset with some values changed, as tuning and benchmarks use them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from envs.config import PRESETS, EnvConfig, env_config, nearest
from envs.errors import UserError


@dataclass(frozen=True)
class Task:
    """What is controlled; an environment is made with ``preset`` and ``overrides``."""

    preset: str
    overrides: dict[str, Any] = field(default_factory=dict)
    description: str = ""

    def config(self, **overrides: Any) -> EnvConfig:
        """The environment's configuration, some values changed once more.

        Raises:
            UserError: an unknown key or a value out of its range.
        """
        return env_config(self.preset, **{**self.overrides, **overrides})


TASKS: dict[str, Task] = {
    "paper": Task("paper", {}, "Eq. 7, 50 Hz slots, a decision a second"),
    "slots-130": Task(
        "paper", {"stim_hz": 130.0, "slots": 130}, "as paper with 130 Hz slots: any rate up to continuous stimulation"
    ),
    "realtime": Task(
        "realtime",
        {"delay_steps": 2, "noise_sd": 0.02, "artefact": "blanked"},
        "a decision every 20 ms, 40 ms late, with sensing noise and blanked artefacts",
    ),
    "realtime-clean": Task("realtime", {}, "a decision every 20 ms, nothing in the way"),
    "healthy": Task("paper", {"pd": 0.0}, "the healthy plant: how much is stimulated for nothing"),
    "drift": Task("paper", {"drift": "disease"}, "severity falls during the episode, as when levodopa sets in"),
}
# Every other preset is a task as it stands; the released code's oddities are for comparison, not for control.
TASKS |= {
    name: Task(name, {}, f"the preset {name}")
    for name, values in PRESETS.items()
    if name not in TASKS and values.get("mode") != "reference"
}


def find_task(name: str) -> Task:
    """A task by its name.

    Raises:
        UserError: an unknown name.
    """
    if name not in TASKS:
        raise UserError(f"unknown task '{name}'{nearest(name, TASKS)}: tasks are {', '.join(TASKS)}")
    return TASKS[name]
