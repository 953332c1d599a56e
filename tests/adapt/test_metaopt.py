"""MetaOptNet's machine against liblinear's of Crammer and Singer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVC

from handful.adapt.metaopt import MetaOpt, crammer_singer
from handful.core.simplex import onto_simplex
from handful.core.task import make_task


def reference(x: np.ndarray, y: np.ndarray, c: float, ridge: float, weight: np.ndarray | None = None) -> np.ndarray:
    """W by liblinear: the ridge is a column of each row's own, which nothing that is asked has."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    each = 1.0 if weight is None else weight**-0.5  # a row that counts twice is two rows, each with a column of its own
    own = np.concatenate([unit, ridge**0.5 * each * np.eye(len(x))], axis=1)
    machine = LinearSVC(C=c, multi_class="crammer_singer", fit_intercept=False, tol=1e-10, max_iter=100_000)
    return machine.fit(own, y, weight).coef_[:, : x.shape[1]]


@pytest.mark.parametrize(("c", "ridge"), [(0.1, 1.0), (5.0, 1.0), (2.0, 0.05)])
def test_it_is_liblinears_machine_with_the_ridge_as_columns(blobs: Any, c: float, ridge: float) -> None:
    x, y = blobs(ways=5, shots=(8, 3, 1, 2, 6), width=30, noise=1.5)
    head = MetaOpt(C=c, ridge=ridge).fit(x, y)
    np.testing.assert_allclose(head.state_["weight"].numpy(), reference(x, y, c, ridge), atol=2e-5)
    q = blobs(ways=5, shots=20, width=30, noise=1.5, seed=1)[0]
    assert (head.logits(q).argmax(1) == head.predict(q)).all()


def test_the_weight_of_an_example_multiplies_its_cost(blobs: Any) -> None:
    x, y = blobs(ways=3, shots=5, width=4, noise=2.0)
    weight = np.linspace(0.2, 3, len(x))
    head = MetaOpt(C=1.0).fit(x, y, weight)
    np.testing.assert_allclose(head.state_["weight"].numpy(), reference(x, y, 1.0, 1.0, weight), atol=2e-5)


def test_far_inside_the_bounds_it_is_ridge_regression() -> None:
    """Where no bound is met the dual is (K + rho I) a = Y - mean of the row: the sum over classes is 0."""
    x = torch.nn.functional.normalize(torch.randn(6, 9, generator=torch.Generator().manual_seed(0)), dim=-1).double()
    labels = torch.eye(2, dtype=torch.float64)[torch.tensor([0, 1, 0, 1, 1, 0])]
    w = crammer_singer(x, labels, 1e3, torch.ones(2, dtype=torch.bool), 20.0)
    a = torch.linalg.solve(x @ x.mT + 20 * torch.eye(6), labels - 0.5)
    assert (a * (1 - labels) <= 0).all()
    torch.testing.assert_close(w, a.mT @ x, atol=1e-8, rtol=0)


def test_out_of_fold_logits_are_those_of_fits_without_the_fold(blobs: Any) -> None:
    x, y = blobs(shots=5)
    task = make_task(torch.as_tensor(x), torch.as_tensor(y))
    got = MetaOpt().leave_one_out(task)
    assert got is not None
    fold = task.items.dealt(task.y.argmax(-1), 5).numpy()
    for f in range(5):
        without = MetaOpt().fit(x[fold != f], y[fold != f])
        np.testing.assert_allclose(got[fold == f].numpy(), without.logits(x[fold == f]), atol=1e-6)


def test_the_nearest_point_of_a_simplex() -> None:
    z = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)).double()
    there = torch.tensor([True] * 5 + [False])
    p = onto_simplex(z, there, 0.3)
    torch.testing.assert_close(p.sum(-1), torch.full((50,), 0.3).double())
    assert (p >= 0).all() and (p[:, 5] == 0).all()
    slope = (z - p)[:, :5]  # the same where p is above 0, at most that elsewhere: what makes it the nearest
    top = slope.amax(-1, keepdim=True)
    assert ((top - slope) * p[:, :5]).abs().max() < 1e-12
