"""Closed forms without one item against fits without it, for any grouping of rows into items."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from handful.core.gaussians import Discriminant, class_means, means_without_item
from handful.core.items import Items
from handful.core.kernels import Ridge, leave_out_path, rbf
from handful.core.lowrank import row_space
from handful.core.task import lowest, make_task


@st.composite
def supports(draw: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows, labels, weights and items; the rows of an item have one label."""
    seed, n, width = draw(st.integers(0, 10**6)), draw(st.integers(4, 9)), draw(st.integers(1, 12))
    rng = np.random.default_rng(seed)
    item = rng.integers(0, n, n) if draw(st.booleans()) else np.arange(n)
    labels = rng.integers(0, 3, n)[item]
    labels[item == item[0]], labels[item == item[-1]] = 0, 0 if item[0] == item[-1] else 1
    weight = rng.uniform(0.3, 2, n) * (rng.random(n) > 0.15)
    weight[0] = weight[-1] = 1
    return (
        torch.as_tensor(rng.normal(size=(n, width))),
        torch.as_tensor(labels),
        torch.as_tensor(weight),
        torch.as_tensor(item),
    )


@settings(max_examples=40, deadline=None)
@given(supports())
def test_class_means(case: Any) -> None:
    x, labels, weight, item = case
    task = make_task(x, labels, ways=3, weight=weight, item=item)
    cross, square, gone = means_without_item(task.x, task.y, task.items)
    for i in np.flatnonzero(weight > 0):
        rest = torch.where((item == item[i])[:, None], 0.0, task.y)
        mean, mass = class_means(x, rest)
        here = task.y.sum(0) > 0
        assert torch.equal(gone[i][here], mass[here] == 0)
        left = mass > 0
        torch.testing.assert_close(cross[i][left], (mean @ x[i])[left], atol=1e-9, rtol=1e-7)
        torch.testing.assert_close(square[i][left], mean.square().sum(-1)[left], atol=1e-9, rtol=1e-7)


def discriminant(x: torch.Tensor, y: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """The plain formula: P = D (S + tr(S) / (n - 1) I)^-1."""
    mean, mass = class_means(x, y)
    r = x[:, None, :] - mean
    scatter = torch.einsum("nc,ncd,nce->de", y, r, r)
    n, d = y.sum(), x.shape[-1]
    eye = torch.eye(d, dtype=x.dtype)
    flat = scatter.trace() <= 1e-6 * (y.sum(-1) * x.square().sum(-1)).sum()
    p = eye if flat else d * torch.linalg.inv(scatter + scatter.trace() / (n - 1).clamp_min(1) * eye)
    logits = q @ p @ mean.T - 0.5 * torch.einsum("cd,de,ce->c", mean, p, mean)
    return torch.where(mass > 0, logits, lowest(logits))


@settings(max_examples=40, deadline=None)
@given(supports())
def test_discriminants(case: Any) -> None:
    x, labels, weight, item = case
    task = make_task(x, labels, ways=3, weight=weight, item=item)
    left_out = Discriminant.of(task.x, task.y).without_item(task.items)
    for i in np.flatnonzero(weight > 0):
        rest = torch.where((item == item[i])[:, None], 0.0, task.y)
        want = discriminant(x, rest, x[i])
        there = task.y.sum(0) > 0  # of a class that was never there nothing is asked
        scale = torch.cat([want[there & (want > -1e30)].abs(), torch.ones(1, dtype=x.dtype)]).max()
        torch.testing.assert_close(left_out[i][there] / scale, want[there] / scale, atol=1e-6, rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(supports(), st.floats(0.05, 5), st.floats(0.1, 5))
def test_kernel_ridge(case: Any, lam: float, beta: float) -> None:
    x, labels, weight, item = case
    x = torch.nn.functional.normalize(x, dim=-1)
    task = make_task(x, labels, ways=3, weight=weight, item=item)
    kernel, strength = rbf(x, x, beta), torch.tensor(lam, dtype=x.dtype)
    left_out = Ridge.of(kernel, task.labels, weight, strength).leave_out(task.items)
    for i in np.flatnonzero(weight > 0):
        rest = torch.where(item == item[i], 0.0, weight)
        fitted = Ridge.of(kernel, task.labels, rest, strength).coefficients()
        torch.testing.assert_close(left_out[i], kernel[i] @ fitted, atol=1e-8, rtol=1e-6)


def test_items_as_blocks_and_as_a_diagonal_are_one_thing() -> None:
    draw = torch.Generator().manual_seed(0)
    a, b, v = (torch.randn(6, 3, generator=draw, dtype=torch.float64) for _ in range(3))
    real = torch.ones(6, dtype=torch.bool)
    thin, full = Items.of(None, real), Items.of(torch.arange(6), real)
    assert thin.same is None and full.same is not None
    for items in (thin, full):
        torch.testing.assert_close(items.times(items.gram(a, b), v), (a * b).sum(-1, keepdim=True) * v)
        torch.testing.assert_close(items.solve(items.gram(a, b), items.times(items.gram(a, b), v)), v)
        torch.testing.assert_close(items.total(v), v)
    together = Items.of(torch.tensor([0, 1, 0, 2, 1, 0]), torch.tensor([True] * 5 + [False]))
    assert together.first.tolist() == [True, True, False, True, False, False]
    torch.testing.assert_close(together.total(v)[0], v[0] + v[2])
    torch.testing.assert_close(together.total(v)[5], v[5])


def test_coordinates_of_the_span_keep_all_inner_products() -> None:
    draw = torch.Generator().manual_seed(0)
    for shape in ((2, 4, 30), (3, 30, 4)):
        x = torch.randn(*shape, generator=draw, dtype=torch.float64)
        rows, basis = row_space(x)
        assert rows.shape[-1] == min(shape[1:])
        torch.testing.assert_close(rows @ rows.mT, x @ x.mT)
        torch.testing.assert_close(rows if basis is None else rows @ basis.mT, x)


def test_one_eigendecomposition_serves_every_strength() -> None:
    g = torch.Generator().manual_seed(3)
    x = torch.nn.functional.normalize(torch.randn(2, 12, 5, generator=g, dtype=torch.float64), dim=-1)
    y, weight = torch.rand(2, 12, 3, generator=g, dtype=torch.float64), torch.ones(2, 12, dtype=torch.float64)
    weight[0, 3], weight[1, -2:] = 2.0, 0.0
    kernel, strengths = rbf(x, x, 3.0), torch.tensor([[0.01, 0.3], [1.0, 3.0]], dtype=torch.float64)
    items = Items.of(None, weight > 0)
    each = torch.stack([Ridge.of(kernel, y, weight, strength).leave_out(items) for strength in strengths])
    torch.testing.assert_close(leave_out_path(kernel, y, weight, strengths), each)
