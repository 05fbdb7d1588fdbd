"""Which controllers stand on which tasks, and the jobs that this makes, in the order of their worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

from envs.config import EnvConfig
from envs.errors import UserError
from sea_dbs.benchmark.jobs import Job
from sea_dbs.benchmark.play import CONTINUOUS
from sea_dbs.config import ENV_KEYS, TrainConfig, load_config
from sea_dbs.controllers.catalogue import AMPLITUDE, FEEDBACK, TESTING, read_tuned
from sea_dbs.files import read_json
from sea_dbs.pulse_trains import ONE_GROUP, TRAINS, masks
from sea_dbs.seeds import BLOCK, HELD_OUT
from sea_dbs.tasks import COHORT, Task, find_task

SUITES: dict[str, tuple[str, ...]] = {
    "paper": ("paper", "paper-30", "paper-lfp"),
    "pattern": ("pattern", "pattern-lfp"),
    "efficient": ("efficient-1", "efficient-2", "efficient-3", "efficient-3-lfp"),
    "trains": ("efficient-3", "efficient-2"),
    "amplitude": ("graded",),
    "robust": ("realtime", "realtime-lfp", "healthy", "drift", "cohort"),
}
FIXED = ("never", "always", CONTINUOUS)
LEARNED = ("sea-dbs", "gs-only", "pm-only", "ddpg", "ppo")
ONE_SLOT = ("dqn", "qr-dqn")  # where the action is one slot
#: SEA-DBS that chooses among whole trains, and its ablations, in one configuration: where a pulse has a price.
OF_TRAINS = ("trains", "trains-st", "trains-slots")
#: The same where it is shown its own last duties, and without them: again one configuration.
WITH_MEMORY = ("trains-memory", "trains-flat")
#: What they must beat: each of their trains alone, and one of the first five drawn by chance for each decision.
TRAINS_ALONE = {f"train-{one.name}": one for one in (*TRAINS, ONE_GROUP[-1]) if one.name not in ("none", "130-hz")}
BESIDE_TRAINS = (*TRAINS_ALONE, "random-trains")
TRAINS_FILE = {"efficient": "efficient-trains"}  # a task's file of training settings -> theirs
MEMORY_FILE = {"efficient": "efficient-memory"}
#: Controllers with parameters that come with the package, tuned/NAME-SLOTRATE.json: name -> kind.
TUNED = {
    "pi-tuned": "pi",
    "pi-amplitude-tuned": "pi-amplitude",
    "pattern-45": "pattern",
    "pattern-26": "pattern",
    "titration": "titration",
}
PLANTS = 8  # a seed, unless told otherwise; a block of the kernel
MOST_PLANTS = 64  # they run together
MEASURED_EVERY_MS = 100.0  # ms; relay, wide beta and LFP beta are of windows of a second: a slot needs none of its own


@dataclass(frozen=True)
class Options:
    """What a benchmark may change; the defaults are what docs/RESULTS.md is made with."""

    seeds: int = 10
    plants: int = PLANTS
    steps: int | None = None  # decisions on each plant; None: the task's episode
    settings: tuple[str, ...] = ()  # KEY=VALUE of the training
    controllers: tuple[str, ...] = ()  # these alone; empty: all
    tasks: tuple[str, ...] = ()  # these alone; empty: the suite's

    def check(self) -> None:
        """Raise UserError for a number out of range."""
        for name, value, low, high in (
            ("seeds", self.seeds, 1, 1000),
            ("plants", self.plants, 2, MOST_PLANTS),
            ("steps", self.steps or 1, 1, 100_000),
        ):
            if not low <= value <= high:
                raise UserError(f"--{name} is {value}: from {low} to {high} are allowed")
        if (all_plants := self.seeds * max(PLANTS, self.plants)) > BLOCK:
            raise UserError(
                f"--seeds {self.seeds} with --plants {self.plants} are {all_plants} plants: at most {BLOCK} are there"
            )


@dataclass(frozen=True)
class Entry:
    """A cell of the table: one controller on one task with one seed."""

    task: str
    controller: str
    seed: int
    job: Job


def entries(suite: str, options: Options) -> list[Entry]:
    """Every cell of a suite, task by task, seed by seed.

    Raises:
        UserError: an unknown suite, task or controller, or an option out of range.
    """
    if suite not in SUITES:
        raise UserError(f"unknown suite '{suite}': one of {', '.join(SUITES)} is expected")
    options.check()
    tasks = options.tasks or SUITES[suite]
    if options.plants > COHORT and (of_patients := [task for task in tasks if find_task(task).cohort]):
        raise UserError(f"--plants is {options.plants}: the task '{of_patients[0]}' has {COHORT} patients to test on")
    known = {name for task in tasks for name in controllers_of(task)}
    if wrong := [name for name in options.controllers if name not in known]:
        raise UserError(f"unknown controller '{wrong[0]}' in the suite '{suite}': it has {', '.join(sorted(known))}")
    return [
        Entry(task, name, seed, job_of(task, name, seed, options))
        for task in tasks
        for seed in range(options.seeds)
        for name in controllers_of(task)
        if (name == "never" or name in options.controllers if options.controllers else _default(suite, name))
    ]


def _default(suite: str, controller: str) -> bool:
    """Whether a suite has a controller that was not asked for: SEA-DBS over trains has a suite of its own."""
    return controller not in (*OF_TRAINS, *WITH_MEMORY, *BESIDE_TRAINS) or suite == "trains"


@lru_cache
def controllers_of(task: str) -> tuple[str, ...]:
    """The controllers that a task is for, classical ones first."""
    world = find_task(task).config()
    names = list(FIXED)
    graded, over_trains = find_task(task).graded, find_task(task).training in TRAINS_FILE
    names += (*FEEDBACK, *(AMPLITUDE if graded else ())) if world.obs == "gpi" else ()
    for name, kind in TUNED.items():
        reads = kind in (*FEEDBACK, *AMPLITUDE, *TESTING)
        if (kind in AMPLITUDE and not graded) or (kind in TESTING and not over_trains):
            continue
        if tuned(name, world.stim_hz, world.decision_ms if reads else None) and (world.obs == "gpi" or not reads):
            names.append(name)
    if graded:  # a learner has no amplitude to choose: on this task it would be one of `slots-130`
        return tuple(names)
    names += BESIDE_TRAINS if over_trains else ()
    names += LEARNED
    if world.slots == 1:
        names += ONE_SLOT
    names += (*OF_TRAINS, *WITH_MEMORY) if over_trains else ()
    if world.preset == "realtime":
        names.append("recurrent")
    return tuple(names)


@lru_cache
def tuned(name: str, slot_hz: float, decision_ms: float | None = None) -> dict[str, Any] | None:
    """The parameters that come with the package for a controller in slots of this rate.

    With ``decision_ms``, only if they were found with decisions of this length: gains of a second are none of 20 ms.
    """
    with resources.as_file(resources.files("sea_dbs.benchmark") / "tuned" / f"{name}-{slot_hz:g}.json") as file:
        if not file.is_file():
            return None
        if decision_ms is not None and find_task(read_json(file)["plan"]["task"]).config().decision_ms != decision_ms:
            return None
        return read_tuned(file, TUNED[name])


def job_of(task: str, controller: str, seed: int, options: Options) -> Job:
    """The job behind one cell.

    Raises:
        UserError: an unknown task, or a training config that does not fit it.
    """
    if controller in (*LEARNED, *ONE_SLOT, *OF_TRAINS, *WITH_MEMORY, "recurrent"):
        return play_of(task, controller, seed, options)
    own: dict[str, Any] = {"kind": TUNED.get(controller, controller)}
    if controller in TRAINS_ALONE:
        world = find_task(task).config()
        mask = masks(world.slots, [TRAINS_ALONE[controller]])[0]
        own = {"kind": "pattern", "mask": "".join("1" if pulse else "0" for pulse in mask), "slot_hz": world.stim_hz}
    if controller in TUNED:
        own |= tuned(controller, find_task(task).config().stim_hz) or {}
    needs = () if controller == "never" else (job_of(task, "never", seed, options),)
    return Job("play", f"{task}, {controller}, seed {seed}", _spec(task, own, seed, options), needs)


def play_of(
    task: str,
    variant: str,
    seed: int,
    options: Options,
    *,
    precision: str = "fp32",
    tests: bool = True,
    settings: Sequence[str] = (),
    training: str = "",
    label: str = "",
) -> Job:
    """A trained policy on the plants of its seed."""
    trained = train_of(find_task(task).trained_on or task, variant, seed, options, settings=settings, training=training)
    own = {"kind": "policy", "precision": precision}
    needs = (trained, job_of(task, "never", seed, options))
    duties = trained.spec["world"].get("own_duties", 0)
    spec = _spec(task, own, seed, options, tests=tests, own_duties=duties)
    return Job("play", f"{task}, {label or variant}, seed {seed}", spec, needs)


def train_of(
    task: str, variant: str, seed: int, options: Options, *, settings: Sequence[str] = (), training: str = ""
) -> Job:
    """The training of one learner on one task with one seed."""
    own = find_task(task)
    config = training_config(own, variant, seed, (*settings, *options.settings), training)
    world = own.config(**{key: getattr(config, key) for key in ENV_KEYS}, precision="float32")
    spec = {"task": task, "config": config.model_dump(mode="json"), "world": world.model_dump(mode="json")}
    return Job("train", f"{task}, training {variant}, seed {seed}", spec)


def training_config(
    task: Task, variant: str, seed: int, settings: Sequence[str] = (), training: str = ""
) -> TrainConfig:
    """The configuration that a learner has on a task: the preset's file, the task's world, the learner's switches."""
    world = [f"{key}={value}" for key, value in task.overrides.items() if key in ENV_KEYS]
    file = training or task.training or task.preset
    if variant in OF_TRAINS:
        file = TRAINS_FILE.get(file, file)
    if variant in WITH_MEMORY:
        file = MEMORY_FILE.get(file, file)
    return load_config(file, [*world, f"variant={variant}", f"seed={seed}", *settings])


def _spec(
    task: str, controller: dict[str, Any], seed: int, options: Options, *, tests: bool = True, own_duties: int = 0
) -> dict[str, Any]:
    own = find_task(task)
    steps = options.steps or own.config().episode_steps
    world: EnvConfig = own.config(
        measures=True, measures_every_ms=MEASURED_EVERY_MS, episode_steps=steps, own_duties=own_duties
    )
    return {
        "task": task,
        "world": world.model_dump(mode="json"),
        "controller": controller,
        "plants": [HELD_OUT + seed * max(PLANTS, options.plants) + k for k in range(options.plants)],
        "steps": steps,
        "tests": tests and controller["kind"] == "policy",
    }
