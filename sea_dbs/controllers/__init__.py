"""Everything that decides on pulses, behind one interface: classical controllers and the trained policy.

An ONNX session (``export``) and a board (``firmware_bridge``) answer the same two calls, so the one rollout loop
serves them all.
"""

from __future__ import annotations

from sea_dbs.controllers.base import Action, Controller, Observation, Policy, SetsAmplitude, check_observation, decide
from sea_dbs.controllers.catalogue import (
    AMPLITUDE,
    CLASSICAL,
    FEEDBACK,
    HEALTHY_P75,
    KINDS,
    NAMES,
    NEED_FILE,
    TESTING,
    TUNED,
    Parameter,
    build,
    make_controller,
    split_name,
)
from sea_dbs.controllers.feedback import DualThreshold, OnOff, PIAmplitude, PIFrequency, Proportional
from sea_dbs.controllers.open_loop import Always, Never, Pattern, Periodic, RandomDuty, RandomTrains, Replayed
from sea_dbs.controllers.policy import TorchPolicy
from sea_dbs.controllers.titration import Titration

__all__ = [
    "AMPLITUDE",
    "CLASSICAL",
    "FEEDBACK",
    "HEALTHY_P75",
    "KINDS",
    "NAMES",
    "NEED_FILE",
    "TESTING",
    "TUNED",
    "Action",
    "Always",
    "Controller",
    "DualThreshold",
    "Never",
    "Observation",
    "OnOff",
    "PIAmplitude",
    "PIFrequency",
    "Parameter",
    "Pattern",
    "Periodic",
    "Policy",
    "Proportional",
    "RandomDuty",
    "RandomTrains",
    "Replayed",
    "SetsAmplitude",
    "Titration",
    "TorchPolicy",
    "build",
    "check_observation",
    "decide",
    "make_controller",
    "split_name",
]
