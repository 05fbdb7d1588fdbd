"""Every classical controller by name, its parameters with unit, range and source, and how one is made.

A name may carry a file, as in ``pi:DIR/tuned.json``: the parameters that ``sea-dbs tune`` found, the mask of a
pattern, or the decisions to replay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from envs.errors import UserError
from sea_dbs.controllers.base import Controller
from sea_dbs.controllers.feedback import DualThreshold, OnOff, PIAmplitude, PIFrequency, Proportional
from sea_dbs.controllers.open_loop import Always, Never, Pattern, Periodic, RandomDuty, RandomTrains, Replayed
from sea_dbs.controllers.titration import Titration
from sea_dbs.files import read_json

# P_beta/1000 of the healthy plant (pd 0), single windows of 1 s, 32 search plants of 8 s, float32:
HEALTHY_P20 = 0.258  # 20th percentile
HEALTHY_P75 = 0.340  # 75th percentile: the target of Fleming 2020, measured on this plant


@dataclass(frozen=True)
class Parameter:
    """One number of a controller.

    ``value`` stands in the literature (``source``); ``low`` to ``high`` is what the tuner searches, on a logarithmic
    scale where ``log`` is set.
    """

    value: float
    low: float
    high: float
    unit: str
    source: str
    log: bool = False


_TARGET = "Fleming 2020: 75th percentile of healthy beta, measured on this plant"
_BOUND = "of the slot rate: ours; Fleming 2020 bounds the rate at 250 Hz"

#: The parameters of each classical controller that has some. "periodic" and "random" take what they are compared with.
KINDS: dict[str, dict[str, Parameter]] = {
    "periodic": {"hz": Parameter(50.0, 5.0, 185.0, "Hz", _BOUND)},
    "random": {"duty": Parameter(0.5, 0.05, 1.0, "share of slots", "ours")},
    "on-off": {
        "low": Parameter(0.33, 0.15, 0.45, "P_beta/1000", "ours: around Eq. 7's 0.35 (SEA-DBS paper)"),
        "high": Parameter(0.40, 0.15, 0.50, "P_beta/1000", "ours: around Eq. 7's 0.35 (SEA-DBS paper)"),
    },
    "dual-threshold": {
        "low": Parameter(HEALTHY_P20, 0.15, 0.45, "P_beta/1000", "ours: 20th percentile of healthy beta"),
        "high": Parameter(HEALTHY_P75, 0.15, 0.50, "P_beta/1000", _TARGET),
        "ramp_s": Parameter(0.25, 0.1, 8.0, "s", "Fleming 2020: a ramp of 250 ms", log=True),
    },
    "proportional": {
        "target": Parameter(HEALTHY_P75, 0.15, 0.45, "P_beta/1000", _TARGET),
        "kp": Parameter(416.7, 10.0, 1000.0, "Hz", "Fleming 2020, P control of the frequency", log=True),
    },
    "pi": {
        "target": Parameter(HEALTHY_P75, 0.15, 0.45, "P_beta/1000", _TARGET),
        "kp": Parameter(19.3, 1.0, 500.0, "Hz", "Fleming 2020, PI control of the frequency", log=True),
        "ti": Parameter(0.2, 0.05, 20.0, "s", "Fleming 2020, PI control of the frequency", log=True),
    },
    "titration": {
        "test_s": Parameter(2.0, 1.0, 6.0, "s", "ours: beta is of the last second, and settles in the first"),
        "keep_below": Parameter(0.25, 0.10, 0.45, "P_beta/1000", "ours: below the healthy 20th percentile"),
        "group_pulses": Parameter(16.0, 4.0, 32.0, "pulses", "ours: found as a fixed train (docs/RESULTS.md)"),
    },
    "pi-amplitude": {
        "target": Parameter(HEALTHY_P75, 0.15, 0.45, "P_beta/1000", _TARGET),
        "kp": Parameter(0.23, 0.02, 10.0, "mA", "Fleming 2020, PI control of the amplitude", log=True),
        "ti": Parameter(0.2, 0.05, 20.0, "s", "Fleming 2020, PI control of the amplitude", log=True),
    },
}

FEEDBACK = ("on-off", "dual-threshold", "proportional", "pi")  # they read the newest beta
TESTING = ("titration",)  # so do these, after a test
AMPLITUDE = ("pi-amplitude",)  # so do these, and set the pulses' amplitude: for graded recruitment
NEED_FILE = ("replayed", "pattern")  # names that mean nothing without a file
CLASSICAL = ("never", "always", "periodic", "random", *FEEDBACK, *TESTING)
NAMES = (*CLASSICAL, *AMPLITUDE, "random-trains", *NEED_FILE)
TUNED = "tuned.json"  # what `sea-dbs tune` writes


def split_name(name: str) -> tuple[str, Path | None]:
    """``pi:FILE`` -> the kind and its file.

    Raises:
        UserError: an unknown kind.
    """
    kind, colon, file = name.partition(":")
    if kind not in NAMES:
        raise UserError(f"unknown controller '{kind}': one of {', '.join(NAMES)}, policy")
    if colon and not file:
        raise UserError(f"'{name}' names no file: {kind}:FILE is expected")
    return kind, Path(file) if colon else None


def read_tuned(file: Path, kind: str) -> dict[str, Any]:
    """The parameters in a file (or folder) of ``sea-dbs tune``.

    Raises:
        UserError: no such file, or one of another controller or format.
    """
    path = file / TUNED if file.is_dir() else file
    found = read_json(path)
    if not isinstance(found, dict) or found.get("kind") != "tuned" or not isinstance(found.get("parameters"), dict):
        raise UserError(f"{path} holds no tuned controller: a file written by 'sea-dbs tune' is expected")
    if found.get("controller") != kind:
        raise UserError(f"{path} holds a tuned '{found.get('controller')}', not a '{kind}'")
    return dict(found["parameters"])


def make_controller(
    name: str, slots: int, slot_us: int | Fraction, *, hz: float = 50.0, duty: float = 0.5, seed: int = 0
) -> Controller:
    """A classical controller by name, ``KIND`` or ``KIND:FILE``.

    Without a file it has the parameters of `KINDS`; "periodic" takes ``hz``, "random" ``duty`` and ``seed``,
    "random-trains" ``seed``.

    Raises:
        UserError: an unknown name, a file that does not fit, or a parameter out of its range.
    """
    kind, file = split_name(name)
    given: dict[str, Any] = {}
    if kind == "replayed":
        if file is None:
            raise UserError("'replayed' needs the decisions to replay: replayed:FILE, an evaluation.json")
        return Replayed(slots, read_decisions(file))
    if file is not None:
        given = read_tuned(file, kind)
    elif kind == "pattern":
        raise UserError("'pattern' needs its mask: pattern:FILE, written by 'sea-dbs tune pattern'")
    return build(
        kind, slots, slot_us, {"hz": hz, "duty": duty, **given} if kind in ("periodic", "random") else given, seed
    )


def build(kind: str, slots: int, slot_us: int | Fraction, given: Mapping[str, Any], seed: int = 0) -> Controller:
    """A controller with some parameters given and the others from `KINDS`.

    Raises:
        UserError: an unknown kind or parameter, or one out of its range.
    """
    values: dict[str, Any] = {key: own.value for key, own in KINDS.get(kind, {}).items()}
    if kind in ("periodic", "random"):
        given = {key: value for key, value in given.items() if key in values}
    allowed = {
        *values,
        *(("mask", "slot_hz") if kind == "pattern" else ()),
        *(("most_hz",) if "low" in values or "kp" in values else ()),
        *(("period_s", "retest_s") if kind == "titration" else ()),
    }
    if wrong := sorted(set(given) - allowed):
        raise UserError(f"'{kind}' has no parameter '{wrong[0]}': it takes {', '.join(sorted(allowed)) or 'none'}")
    values |= given
    try:
        match kind:
            case "never":
                return Never(slots)
            case "always":
                return Always(slots)
            case "periodic":
                return Periodic(slots, slot_us, **values)
            case "random":
                return RandomDuty(slots, seed=seed, **values)
            case "random-trains":
                return RandomTrains(slots, seed)
            case "pattern":
                return Pattern(slots, slot_us, **values)
            case "on-off":
                return OnOff(slots, **values)
            case "dual-threshold":
                return DualThreshold(slots, slot_us, **values)
            case "proportional":
                return Proportional(slots, slot_us, **values)
            case "pi":
                return PIFrequency(slots, slot_us, **values)
            case "titration":
                return Titration(slots, slot_us, **values)
            case "pi-amplitude":
                return PIAmplitude(slots, slot_us, **values)
    except (TypeError, OverflowError) as error:  # a file with a word, or 400 digits, in a number's place
        raise UserError(f"the parameters of '{kind}' do not fit: {values}") from error
    raise UserError(f"'{kind}' cannot be made from parameters alone")


def read_decisions(file: Path) -> list[list[str]]:
    """The policy's decisions of an evaluation.json, plant by plant.

    Raises:
        UserError: no such file, or no policy in it.
    """
    found = read_json(file)
    episodes = found.get("episodes", []) if isinstance(found, dict) else []
    sequences = [one["decisions"] for one in episodes if one.get("controller") == "policy"]
    if not sequences:
        raise UserError(f"{file} holds no decisions of a policy: an evaluation.json is expected")
    return sequences
