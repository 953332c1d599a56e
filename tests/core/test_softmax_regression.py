"""Batched multinomial logistic regression against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegression

from handful.core.softmax_regression import fit_softmax


def blobs(
    ways: int, shots: int | list[int], width: int, spread: float = 0.5, *, unit: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    counts = [shots] * ways if isinstance(shots, int) else shots
    y = np.repeat(np.arange(ways), counts)
    x = spread * draw.normal(size=(ways, width))[y] + draw.normal(size=(len(y), width))
    return (x / np.linalg.norm(x, axis=1, keepdims=True) if unit else x), y


def digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return x[::4] / 16, y[::4]


CASES = {
    "iris": (load_iris(return_X_y=True), 1.0),
    "digits": (digits(), 1.0),
    "one shot, 77 ways": (blobs(77, 1, 384, 1.0), 1.0),
    "eight shots, 77 ways": (blobs(77, 8, 384), 1.0),
    "weak penalty": (blobs(10, 8, 64), 100.0),
    "separable": (blobs(3, 10, 20, 5.0, unit=False), 10.0),
    "unbalanced": (blobs(4, [40, 20, 5, 1], 30), 1.0),
    "far from the origin": ((blobs(4, 10, 12)[0] + 20.0, blobs(4, 10, 12)[1]), 1.0),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", CASES)
def test_equals_scikit_learn(name: str, dtype: torch.dtype) -> None:
    (x, y), c = CASES[name]
    want = LogisticRegression(C=c, max_iter=20000, tol=1e-9).fit(x, y)
    onehot = torch.nn.functional.one_hot(torch.as_tensor(y)).to(dtype)
    mask = torch.ones(onehot.shape[1], dtype=torch.bool)
    w, b = fit_softmax(torch.as_tensor(x, dtype=dtype), onehot, mask, c, tolerance=1e-5)
    np.testing.assert_allclose(w, want.coef_, atol=1e-3)
    assert np.array_equal((torch.as_tensor(x, dtype=dtype) @ w.T + b).argmax(1), want.predict(x))
    assert abs(float(b.sum())) < 1e-2


def gradient(x: torch.Tensor, y: torch.Tensor, w: torch.Tensor, b: torch.Tensor, c: float) -> torch.Tensor:
    error = (x @ w.mT + b[..., None, :]).softmax(-1) * y.sum(-1, keepdim=True) - y
    return error.mT @ x + w / c


def test_each_problem_of_a_batch_reaches_its_own_optimum() -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(5, 12, 30, generator=draw, dtype=torch.float64)
    y = torch.nn.functional.one_hot(torch.randint(0, 3, (5, 12), generator=draw), 3).double()
    c = torch.tensor([0.1, 1.0, 10.0, 100.0, 1000.0], dtype=torch.float64)
    w, b = fit_softmax(x, y, torch.ones(5, 3, dtype=torch.bool), c, tolerance=1e-9)
    for i in range(5):
        assert gradient(x[i], y[i], w[i], b[i], float(c[i])).abs().max() < 1e-5
        alone = fit_softmax(x[i], y[i], torch.ones(3, dtype=torch.bool), float(c[i]), tolerance=1e-9)
        torch.testing.assert_close(w[i], alone[0], atol=1e-7, rtol=0)


def test_soft_labels_and_weights_enter_the_objective() -> None:
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(9, 4, generator=draw, dtype=torch.float64)
    y = torch.rand(9, 3, generator=draw, dtype=torch.float64) * torch.rand(9, 1, generator=draw, dtype=torch.float64)
    w, b = fit_softmax(x, y, torch.ones(3, dtype=torch.bool), 2.0, tolerance=1e-9)
    assert gradient(x, y, w, b, 2.0).abs().max() < 1e-5


def test_a_masked_class_and_a_zero_row_are_not_there() -> None:
    (x, y), c = CASES["unbalanced"]
    onehot = torch.nn.functional.one_hot(torch.as_tensor(y), 4).double()
    rows = torch.as_tensor(x)
    plain = fit_softmax(rows, onehot, torch.ones(4, dtype=torch.bool), c)
    padded = fit_softmax(
        torch.cat([rows, torch.full((2, 30), torch.nan, dtype=torch.float64)]),
        torch.nn.functional.pad(onehot, (0, 1, 0, 2)),
        torch.tensor([True] * 4 + [False]),
        c,
    )
    torch.testing.assert_close(padded[0][:4], plain[0], atol=1e-8, rtol=0)
    assert (padded[0][4] == 0).all()
