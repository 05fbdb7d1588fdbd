"""Networks: their sizes are part of what is claimed, and the head's meaning is fixed."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from sea_dbs.networks import PaperActor, StateActionNetwork, build_actor, parameter_count
from sea_dbs.trunk import OBS_CENTRE, OBS_SCALE, centre

SHAPES = [(1000, 50), (1000, 30), (50, 1)]


def _cost(actor: nn.Module, n_obs: int) -> tuple[int, int]:
    """Multiplications of one decision, and the values in the two largest neighbouring layers."""
    macs, sizes = 0, [n_obs]

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal macs
        if isinstance(module, nn.Conv1d):
            macs += output.numel() * module.in_channels * module.kernel_size[0]
        elif isinstance(module, nn.Linear):
            macs += module.in_features * module.out_features
        sizes.append(output.numel())

    leaves = [module for module in actor.modules() if not list(module.children())]
    hooks = [module.register_forward_hook(count) for module in leaves]
    actor(torch.rand(1, n_obs))
    for hook in hooks:
        hook.remove()
    return macs, max(a + b for a, b in pairwise(sizes))


def test_the_paper_actor_has_the_papers_size() -> None:
    count = parameter_count(build_actor("paper", 1000, 50))
    assert count == 17_018_384
    assert round(4 * count / 2**20, 1) == 64.9  # MiB in FP32: the paper's "65 MB"


@pytest.mark.parametrize(("n_obs", "slots"), SHAPES)
def test_the_compact_actor_fits_a_small_controller(n_obs: int, slots: int) -> None:
    actor = build_actor("compact", n_obs, slots)
    macs, activations = _cost(actor, n_obs)
    assert parameter_count(actor) <= 65_536  # 64 kB in INT8
    assert macs <= 200_000
    assert activations <= 16_384  # bytes in INT8, two layers at once


@pytest.mark.parametrize("name", ["compact", "small", "tiny", "paper"])
@pytest.mark.parametrize(("n_obs", "slots"), SHAPES)
def test_an_actor_gives_two_logits_a_slot_each_row_for_itself(name: str, n_obs: int, slots: int) -> None:
    torch.manual_seed(0)
    actor = build_actor(name, n_obs, slots).eval()
    observation = 0.3 + 0.2 * torch.rand(3, n_obs)
    with torch.no_grad():
        logits = actor(observation)
        assert logits.shape == (3, slots, 2)
        torch.testing.assert_close(actor(observation[1:2]), logits[1:2], atol=1e-6, rtol=1e-5)
        assert not torch.equal(logits[0], logits[1])


def test_the_paper_head_means_500_positions_for_each_of_the_two_logits() -> None:
    actor = PaperActor(1000, 50)
    with torch.no_grad():
        actor.head.weight.zero_()
        actor.head.bias.zero_()
        actor.head.bias[7 * 1000 : 7 * 1000 + 500] = 2.0  # slot 7, no pulse
        actor.head.bias[9 * 1000 + 500 : 10 * 1000] = 3.0  # slot 9, pulse
        logits = actor(torch.rand(2, 1000))
    expected = torch.zeros(2, 50, 2)
    expected[:, 7, 0] = 2.0
    expected[:, 9, 1] = 3.0
    torch.testing.assert_close(logits, expected)


def test_the_raw_observation_is_centred_inside() -> None:
    raw = torch.tensor([[0.35, 0.45, 0.25]])
    torch.testing.assert_close(centre(raw), torch.tensor([[[0.0, 1.0, -1.0]]]), atol=1e-5, rtol=0)
    assert (OBS_CENTRE, OBS_SCALE) == (0.35, 0.1)


@pytest.mark.parametrize(("n_obs", "slots"), SHAPES)
def test_a_fresh_critic_prefers_no_slot(n_obs: int, slots: int) -> None:
    torch.manual_seed(0)
    critic = StateActionNetwork(n_obs, slots, 64)
    action = torch.ones(1, slots, requires_grad=True)
    value = critic(torch.full((1, n_obs), 0.43), action)
    assert value.shape == (1,)
    (gradient,) = torch.autograd.grad(value.sum(), action)
    inner = gradient[0, 4:-4] if slots > 8 else gradient[0]  # a convolution sees less at the ends
    torch.testing.assert_close(inner, inner[:1].expand_as(inner), atol=1e-6, rtol=1e-3)
    assert inner.abs().min() > 0


def test_the_critic_tells_patterns_of_one_duty_apart() -> None:
    torch.manual_seed(0)
    critic = StateActionNetwork(1000, 50, 64)
    every_other, blocks = torch.zeros(50), torch.zeros(50)
    every_other[::2] = 1.0
    blocks[:25] = 1.0
    value = critic(torch.full((2, 1000), 0.43), torch.stack([every_other, blocks])).detach()
    assert abs(float(value[0] - value[1])) > 1e-4


@pytest.mark.parametrize("name", ["compact", "small", "tiny", "paper"])
def test_an_actor_in_half_precision_centres_in_single(name: str) -> None:
    actor = build_actor(name, 100, 2).half().eval()
    with torch.no_grad():
        assert actor(torch.full((2, 100), 0.4)).dtype == torch.float16
