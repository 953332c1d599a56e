"""Multinomial logistic regression, many at once.

    min_(w, b)  sum_i m_i CE(y_i, softmax(w x_i + b)) + |w|^2 / (2 c),   the objective of scikit-learn's
    LogisticRegression

by limited-memory BFGS (Liu and Nocedal 1989) in the eigenbasis of the rows' scatter X'MX. There the Hessian at w = 0,
X'MX / C + I / c, is diagonal and is where the approximation starts. Logits are linear in the weights, so trying shorter
steps costs no matrix product. Every problem of a batch takes its own steps.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from handful.core.lowrank import row_space


def fit_softmax(
    x: Tensor,
    y: Tensor,
    class_mask: Tensor,
    c: Tensor | float,
    *,
    tolerance: float = 1e-5,
    max_steps: int = 1000,
    memory: int = 10,
) -> tuple[Tensor, Tensor]:
    """Weights ``[*b, C, D]`` and intercepts ``[*b, C]``; the intercepts of a problem sum to 0.

    Args:
        x: rows ``[*b, N, D]``.
        y: labels times weights ``[*b, N, C]``; a zero row is not there.
        class_mask: ``[*b, C]``.
        c: inverse strength, ``[*b]`` or a number; the intercept is free.
        tolerance: stop when no entry of a step exceeds this share of the largest weight.
        max_steps: and at the latest after this many.
        memory: steps the Hessian is remembered from.
    """
    mass = y.sum(-1)
    total = mass.sum(-1).clamp_min(1e-30)[..., None, None]
    there = mass[..., None] > 0
    x = torch.where(there, x, 0.0)
    centre = (mass[..., None, :] @ x) / total
    rows, span = row_space(torch.where(there, x - centre, 0.0))  # centred: the intercept decouples from the weights
    scatter, vectors = torch.linalg.eigh((rows * mass[..., None]).mT @ rows)
    span = vectors if span is None else span @ vectors
    rows = torch.cat([rows @ vectors, torch.ones_like(mass)[..., None]], -1)  # the last column carries the intercept

    ridge = torch.ones_like(total) / torch.as_tensor(c, dtype=x.dtype, device=x.device)[..., None, None]
    penalty = torch.cat([ridge.expand(*ridge.shape[:-2], scatter.shape[-1], 1), torch.zeros_like(ridge)], -2)
    ways = class_mask.sum(-1)[..., None, None].to(x.dtype)
    curvature = torch.cat([scatter[..., None].clamp_min(0), total], -2) / ways + penalty  # [*b, r + 1, 1]
    problem = _Problem(rows, y, mass[..., None], class_mask[..., None, :], penalty)
    b = minimise(problem, curvature, tolerance, max_steps, memory)

    weights, bias = span @ b[..., :-1, :], b[..., -1:, :]
    return weights.mT, (bias - centre @ weights)[..., 0, :]


@dataclass(frozen=True)
class _Problem:
    """The objective of weights ``b [*b, r, C]`` whose logits are ``rows b``."""

    rows: Tensor
    y: Tensor
    mass: Tensor
    mask: Tensor
    penalty: Tensor

    def value(self, b: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The objective ``[*b, 1, 1]`` and its derivative by the logits ``[*b, N, C]``."""
        log_p = logits.masked_fill(~self.mask, -torch.inf).log_softmax(-1)
        fit = -_sum(torch.where(self.y > 0, self.y * log_p, 0.0))
        return fit + 0.5 * _sum(self.penalty * b.square()), self.mass * log_p.exp() - self.y


class Problem(Protocol):
    """An objective of weights ``b [*b, r, C]`` through the logits ``rows b [*b, N, C]``.

    Attributes:
        rows: ``[*b, N, r]``.
        y: anything of the shape of the logits.
        mass: weights of the rows ``[*b, N, 1]``.
        penalty: strength of ``|b|^2 / 2`` by row of b ``[*b, r, 1]``.
    """

    @property
    def rows(self) -> Tensor: ...
    @property
    def y(self) -> Tensor: ...
    @property
    def mass(self) -> Tensor: ...
    @property
    def penalty(self) -> Tensor: ...

    def value(self, b: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The objective ``[*b, 1, 1]`` and its derivative by the logits ``[*b, N, C]``."""


def minimise(problem: Problem, curvature: Tensor, tolerance: float, max_steps: int, memory: int = 10) -> Tensor:
    """The weights ``b`` at which ``problem`` is least; ``curvature [*b, r, 1]`` guesses its Hessian."""
    b = curvature.new_zeros(*curvature.shape[:-1], problem.y.shape[-1])
    logits = problem.rows @ b
    value, error = problem.value(b, logits)
    gradient = _gradient(problem, b, error)
    history: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=memory)
    busy = torch.ones_like(value, dtype=torch.bool)
    for _ in range(max_steps):
        direction = -_times_inverse_hessian(gradient, curvature, history)
        moving = problem.rows @ direction
        step, value, error = _search(problem, b, logits, direction, moving, value, _sum(direction * gradient), busy)
        move = step * direction
        b, logits = b + move, logits + step * moving
        busy = busy & (_max(move) > tolerance * _max(b))
        if not busy.any():
            break
        following = _gradient(problem, b, error)
        change = following - gradient
        bend = _sum(move * change)
        # A problem that stands still has nothing to remember: its pair counts for nothing.
        history.append((move, change, torch.where(bend > 0, 1 / bend.clamp_min(1e-30), 0.0)))
        gradient = following
    return b


def _gradient(problem: Problem, b: Tensor, error: Tensor) -> Tensor:
    """By the weights ``[*b, r, C]``, ``error`` being the derivative by the logits."""
    return problem.rows.mT @ error + problem.penalty * b


def _times_inverse_hessian(
    gradient: Tensor, curvature: Tensor, history: deque[tuple[Tensor, Tensor, Tensor]]
) -> Tensor:
    out, shares = gradient, []
    for move, change, rho in reversed(history):
        share = rho * _sum(move * out)
        out = out - share * change
        shares.append(share)
    out = out / curvature
    for (move, change, rho), share in zip(history, reversed(shares), strict=True):
        out = out + (share - rho * _sum(change * out)) * move
    return out


def _search(
    problem: Problem,
    b: Tensor,
    logits: Tensor,
    direction: Tensor,
    moving: Tensor,
    value: Tensor,
    slope: Tensor,
    busy: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Step lengths, and the value and error where they lead.

    Steps are halved until the value falls enough (Armijo) or, where its digits no longer tell, until the slope at the
    end is small (Hager and Zhang 2005); 0 where no step does.
    """
    step = busy.to(value.dtype)
    digits = value.abs() + _sum(problem.mass * logits.abs().amax(-1, keepdim=True))
    noise = 10 * torch.finfo(value.dtype).eps * digits
    for _ in range(30):
        end = b + step * direction
        new, error = problem.value(end, logits + step * moving)
        end_slope = _sum(error * moving) + _sum(problem.penalty * end * direction)
        good = (new <= value + 1e-4 * step * slope) | ((new <= value + noise) & (end_slope.abs() <= -0.5 * slope))
        if (good | ~busy).all():
            break
        step = torch.where(good, step, step / 2)
    return torch.where(good, step, 0.0), new, error


def _sum(t: Tensor) -> Tensor:
    return t.sum((-2, -1), keepdim=True)


def _max(t: Tensor) -> Tensor:
    return t.abs().amax((-2, -1), keepdim=True)
