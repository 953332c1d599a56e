"""Conditional transport: plans between queries and prototypes that a small network learns for each task.

d_qk = network((z_q - m_k)^2, elementwise)             in -> h -> h/2 -> 1, leaky ReLU between
F = softmax over k of -d,  B = softmax over q of -d    forward and backward plan
L = theta L_bal + (1 - theta) L_CT
L_CT = rho mean_q sum_k c_qk F_qk + (1 - rho) mean_k sum_q c_qk B_qk,     c_qk = |z_q - m_k|^2
L_bal = mean_k (s_k / sum s - 1/K)^2,  s_k = sum_q (rho F + (1 - rho) B)_qk
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SLOPE = 0.01
"""Of the leaky ReLU below 0."""


def navigator(
    width: Tensor, most: int, hidden: int, *, seed: int, like: Tensor, runs: int | None = None
) -> list[Tensor]:
    """Weights and biases of the networks of all tasks: ``[*b, in, h], [*b, 1, h], [*b, h, h/2], …``.

    Every task draws from the same seed, the first rows of a matrix before later ones, so that neither the company of a
    task nor padding changes what it draws. Weights have deviation sqrt(2 / (in + out)), biases are 0.

    Args:
        width: how many inputs are real ``[*b]``; the matrix has ``most`` rows.
        hidden: h.
        runs: number of tasks in a batch, to reproduce the authors' deviation sqrt(2 / (out (in + runs))).
    """
    draw, parameters = np.random.default_rng(seed), []
    sizes = [(most, hidden), (hidden, hidden // 2), (hidden // 2, 1)]
    for rows, out in sizes[::-1]:
        drawn = torch.as_tensor(draw.standard_normal((rows, out))).to(like)
        fan = width.to(like) if rows == most and out == hidden else torch.full_like(width, rows).to(like)
        spread = (2 / (out * (fan + runs))) if runs is not None else 2 / (fan + out)
        parameters += [drawn * spread.sqrt()[..., None, None], like.new_zeros(*width.shape, 1, out)]
    return [*parameters[4:], *parameters[2:4], *parameters[:2]]


def distances(parameters: list[Tensor], square: Tensor) -> Tensor:
    """``d [*b, Q, K]`` of squared differences ``[*b, Q, K, in]``."""
    x = square.flatten(-3, -2)
    for at in range(0, len(parameters), 2):
        x = x @ parameters[at] + parameters[at + 1]
        x = torch.nn.functional.leaky_relu(x, SLOPE) if at + 2 < len(parameters) else x
    return x.reshape(square.shape[:-1])


@dataclass(frozen=True)
class ConditionalTransport:
    """The plans and their loss.

    Args:
        queries: which are real ``[*b, Q]``; ``classes``: ``[*b, K]``.
        rho, theta: see above.
        counts: compare s itself with 1/K, as the authors' script does, not its shares.
    """

    queries: Tensor
    classes: Tensor
    rho: float
    theta: float
    counts: bool = False

    def plans(self, d: Tensor) -> tuple[Tensor, Tensor]:
        """F, whose rows sum to 1, and B, whose columns do ``[*b, Q, K]``; both 0 for padding."""
        there = self.queries[..., :, None] & self.classes[..., None, :]
        logits = (-d).masked_fill(~there, torch.finfo(d.dtype).min / 4)
        return logits.softmax(-1) * there, logits.softmax(-2) * there

    def loss(self, cost: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
        """``L [*b]``."""
        q, k = self.queries.sum(-1).clamp_min(1), self.classes.sum(-1).clamp_min(1)
        transport = self.rho * (cost * forward).sum((-2, -1)) / q + (1 - self.rho) * (cost * backward).sum((-2, -1)) / k
        if not self.theta:
            return transport
        mass = (self.rho * forward + (1 - self.rho) * backward).sum(-2)
        mass = mass if self.counts else mass / mass.sum(-1, keepdim=True)
        off = (mass - 1 / k[..., None]) * self.classes
        return self.theta * off.square().sum(-1) / k + (1 - self.theta) * transport
