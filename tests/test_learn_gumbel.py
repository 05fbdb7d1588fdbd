"""Gumbel-Softmax: binary forward, soft backward, Eq. 14's temperature."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sea_dbs.gumbel import gumbel_softmax, pulse_probability, sample_gumbel, straight_through, temperature


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), tau=st.floats(0.05, 20.0), scale=st.floats(0.0, 50.0))
def test_samples_are_binary_and_their_gradient_is_finite(seed: int, tau: float, scale: float) -> None:
    logits = (scale * torch.randn(4, 7, 2, generator=_generator(seed))).requires_grad_()
    sample = gumbel_softmax(logits, tau, _generator(seed))
    assert sample.shape == (4, 7)
    assert set(sample.detach().unique().tolist()) <= {0.0, 1.0}
    sample.sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[..., 1] >= 0).all()  # a larger pulse logit never lowers the relaxed pulse
    torch.testing.assert_close(logits.grad[..., 0], -logits.grad[..., 1])


def test_a_pulse_comes_as_often_as_the_softmax_says_at_any_temperature() -> None:
    logits = torch.tensor([[[0.0, 1.2], [0.5, -0.5]]])
    n = 20_000
    for tau in (0.1, 1.0, 5.0):
        mean = gumbel_softmax(logits.expand(n, 2, 2), tau, _generator()).mean(dim=0)
        expected = pulse_probability(logits)[0]
        assert (mean - expected).abs().max() < 4 * math.sqrt(0.25 / n)


def test_the_gradient_is_that_of_the_relaxed_sample() -> None:
    logits = torch.randn(3, 5, 2, generator=_generator(1)).requires_grad_()
    tau = 0.7
    noise = sample_gumbel(logits.shape, _generator(2))
    relaxed = torch.softmax((logits + noise) / tau, dim=-1)[..., 1]
    (expected,) = torch.autograd.grad(relaxed.sum(), logits)
    (found,) = torch.autograd.grad(gumbel_softmax(logits, tau, _generator(2)).sum(), logits)
    torch.testing.assert_close(found, expected)


def test_equal_generators_give_equal_samples_and_others_do_not() -> None:
    logits = torch.zeros(4, 50, 2)
    assert torch.equal(gumbel_softmax(logits, 1.0, _generator(3)), gumbel_softmax(logits, 1.0, _generator(3)))
    assert not torch.equal(gumbel_softmax(logits, 1.0, _generator(3)), gumbel_softmax(logits, 1.0, _generator(4)))


def test_without_noise_the_decision_is_the_larger_logit_and_a_tie_is_no_pulse() -> None:
    logits = torch.tensor([[[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]]])
    assert straight_through(logits).tolist() == [[1.0, 0.0, 0.0]]


def test_the_temperature_reaches_its_floor_at_step_2303() -> None:
    assert temperature(0, 1.0, 0.1, 0.001) == 1.0
    assert temperature(2302, 1.0, 0.1, 0.001) > 0.1
    assert temperature(2303, 1.0, 0.1, 0.001) == 0.1
    assert temperature(1000, 1.0, 0.1, 0.001) == pytest.approx(math.exp(-1.0))
