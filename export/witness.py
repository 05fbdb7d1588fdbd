"""A policy that reacts, to show what a precision does to one: taught by a rule, not learnt from the plant.

A policy that gives the same decision whatever it sees survives any rounding. This one does not: slot k is stimulated
while the mean of the observation exceeds the slot's own threshold, thresholds spread from 0.28 to 0.46 (P_beta/1000):
the duty rises with beta, and some slot is always close to its threshold. It is no therapy.

``python -m export.witness --out runs/witness`` writes a run folder that ``sea-dbs export`` takes (10 s on one core).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from envs.errors import UserError
from export.observations import gather
from export.plants import EnvFactory
from sea_dbs.checkpoint import save_policy
from sea_dbs.config import TrainConfig, load_config
from sea_dbs.controllers import make_controller
from sea_dbs.files import prepare_output_dir
from sea_dbs.networks import build_actor, state_size
from sea_dbs.progress import progress
from sea_dbs.seeds import search_seeds
from sea_dbs.train import make_env

THRESHOLDS = (0.28, 0.46)  # P_beta/1000: from below 50 Hz stimulation to above untreated
SOFTNESS = 0.01  # P_beta/1000: distance to a threshold at which the taught margin is 1
SPREAD = (0.6, 1.4)  # factors by which the teaching observations are scaled
PLANTS = search_seeds(208)[200:]  # neither observations.npz nor calibration.npz comes from them
STEPS, BATCH, RATE = 400, 64, 2e-3
MEMORY = 0.5  # weight of the newest mean in what a recurrent witness follows
SEQUENCE = 4  # decisions of a recurrent witness's lessons


def teach(
    config: TrainConfig, actor: str, *, seed: int = 0, env_factory: EnvFactory = make_env, quiet: bool = False
) -> nn.Module:
    """A network taught by the rule, on observations of the config's plant; equal arguments, equal weights."""
    slots, n_obs = config.slots or 1, config.n_obs or 1
    slot_us = 1e6 / (config.stim_hz or 1.0)
    controller = make_controller("periodic", slots, round(slot_us), hz=20.0)
    decision_s = slots * slot_us / 1e6
    seconds = max(4.0, decision_s)
    seen, _ = gather(config, controller, seconds, env_factory, seeds=PLANTS, name="teaching observations", quiet=quiet)
    observations = torch.from_numpy(seen)
    thresholds = torch.linspace(*THRESHOLDS, slots) if slots > 1 else torch.tensor([sum(THRESHOLDS) / 2])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        thresholds = thresholds[torch.randperm(slots)]
        network = build_actor(actor, n_obs, slots)
        optimiser = torch.optim.Adam(network.parameters(), lr=RATE)
        with progress("teaching", STEPS, quiet=quiet) as bar:
            for _ in range(STEPS):
                rows = torch.randint(len(observations), (BATCH,))
                low, high = SPREAD
                scale = low + (high - low) * torch.rand(SEQUENCE if state_size(network) else 1, BATCH, 1)
                loss = _lesson(network, observations[rows] * scale, thresholds)
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                bar.update(1, f"loss {loss.item():.4f}")
    return network.eval()


def _lesson(network: nn.Module, series: Tensor, thresholds: Tensor) -> Tensor:
    """Cross-entropy over a series (decisions, batch, n_obs); a recurrent network follows a running mean."""
    state = torch.zeros(series.shape[1], state_size(network))
    followed: Tensor | None = None
    losses = []
    for observation in series:
        mean = observation.mean(dim=1, keepdim=True)
        followed = mean if followed is None else (1 - MEMORY) * followed + MEMORY * mean
        if state.shape[1]:
            logits, state = network(observation, state)
        else:
            logits = network(observation)
        wanted = torch.sigmoid((followed - thresholds) / SOFTNESS)
        losses.append(nn.functional.binary_cross_entropy_with_logits(logits[..., 1] - logits[..., 0], wanted))
    return torch.stack(losses).mean()


def write(run: Path, preset: str = "paper", actor: str = "compact", **settings: Any) -> None:
    """Teach a witness and write it as a run folder; ``settings`` are those of `teach`.

    Raises:
        UserError: the folder is in use, an unknown preset, or one with own duties, which no rule is taught for.
    """
    config = load_config(preset)
    if config.own_duties:
        raise UserError(f"the preset '{preset}' has own_duties={config.own_duties}: a witness is taught with 0 alone")
    prepare_output_dir(run)
    torch.set_num_threads(1)
    network = teach(config, actor, **settings)
    spec = {
        "actor": actor,
        "n_obs": config.n_obs,
        "slots": config.slots,
        "preset": config.preset,
        "step": 0,
        "config": config.model_dump(mode="json"),
    }
    save_policy(run, network, spec)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m export.witness", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, metavar="RUN_DIR")
    parser.add_argument("--preset", default="paper", help="paper (default) or realtime")
    parser.add_argument("--actor", default="compact", choices=("compact", "small", "tiny", "paper", "recurrent"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    write(given.out, given.preset, given.actor, seed=given.seed)


if __name__ == "__main__":
    main()
