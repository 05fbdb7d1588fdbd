"""Gumbel-Softmax exploration: Eqs. 11-14 of the paper (arXiv 2507.06326)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softmax

PULSE = 1  # index of "pulse" in the last axis of the logits; 0 is "no pulse"


def temperature(t: int, tau_0: float, tau_min: float, tau_lambda: float) -> float:
    """Eq. 14: τ(t) = max(τ_min, τ_0 e^(-λt)), t in environment steps."""
    return max(tau_min, tau_0 * math.exp(-tau_lambda * t))


def sample_gumbel(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Standard Gumbel noise -ln(-ln U), Eq. 11; U is kept off 0 and 1, where it would be infinite."""
    uniform = torch.rand(shape, generator=generator).clamp_(1e-7, 1 - 1e-7)
    return -torch.log(-torch.log(uniform))


def gumbel_softmax(logits: Tensor, tau: float, generator: torch.Generator) -> Tensor:
    """Binary samples, differentiable: the hard 0/1 sample forward, the soft sample's gradient backward.

    Args:
        logits: (n, slots, 2), index 1 of the last axis is a pulse.
        tau: temperature above 0; small is close to one-hot, large to uniform.
        generator: source of the noise.

    Returns:
        (n, slots), exactly 0.0 or 1.0, with the gradient of the relaxed sample (straight-through, Eqs. 12-13).
    """
    return straight_through((logits + sample_gumbel(logits.shape, generator)) / tau)


def straight_through(logits: Tensor) -> Tensor:
    """The decision itself (argmax, a tie is no pulse) forward, the softmax's gradient backward. (n, slots)."""
    soft = softmax(logits, dim=-1)[..., PULSE]
    hard = (logits[..., PULSE] > logits[..., 1 - PULSE]).to(soft.dtype)
    return hard + (soft - soft.detach())


def pulse_probability(logits: Tensor) -> Tensor:
    """Chance of a pulse in each slot, (n, slots): a Gumbel-Softmax sample is 1 with softmax(logits)[1] at any τ."""
    return softmax(logits, dim=-1)[..., PULSE]
