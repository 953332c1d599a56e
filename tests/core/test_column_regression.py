"""Many two-sided fits at once, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from handful.core.column_regression import Loss, fit_columns

SIGNS = np.random.default_rng(1).random((3, 40, 4)) < 0.4


@pytest.mark.parametrize(("n", "width"), [(40, 6), (12, 30)])
@pytest.mark.parametrize(("loss", "intercept"), [("logistic", True), ("logistic", False), ("squared-hinge", False)])
def test_equals_scikit_learn_column_by_column(loss: Loss, intercept: bool, n: int, width: int) -> None:
    x = np.random.default_rng(0).normal(size=(3, n, width)) + 1
    yes = SIGNS[:, :n].copy()
    yes[:, :2] = [[[True], [False]]]
    w, b = fit_columns(
        torch.as_tensor(x),
        torch.as_tensor(yes).double(),
        torch.as_tensor(~yes).double(),
        0.5,
        loss=loss,
        intercept=intercept,
        tolerance=1e-9,
    )
    for i in range(3):
        for k in range(4):
            if loss == "logistic":
                want = LogisticRegression(C=0.5, fit_intercept=intercept, tol=1e-10, max_iter=5000)
            else:
                want = LinearSVC(C=0.5, loss="squared_hinge", dual=False, fit_intercept=intercept, tol=1e-10)
            want.fit(x[i], yes[i, :, k])
            np.testing.assert_allclose(w[i, k].numpy(), want.coef_[0], atol=1e-4)
            np.testing.assert_allclose(b[i, k].numpy(), want.intercept_ if intercept else 0.0, atol=1e-4)


def test_rows_without_weight_and_columns_without_rows_change_nothing() -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(10, 4, generator=draw, dtype=torch.float64)
    yes = (torch.rand(10, 2, generator=draw) < 0.5).double()
    w, b = fit_columns(x, yes, 1 - yes, 1.0)
    nothing = torch.zeros(10, 1, dtype=x.dtype)
    positive, negative = torch.cat([yes, nothing], -1), torch.cat([1 - yes, nothing], -1)
    garbage = torch.full((2, 4), torch.nan, dtype=x.dtype)
    none = torch.zeros(2, 3, dtype=x.dtype)
    got = fit_columns(torch.cat([x, garbage]), torch.cat([positive, none]), torch.cat([negative, none]), 1.0)
    torch.testing.assert_close(got[0][:2], w, atol=1e-4, rtol=0)
    torch.testing.assert_close(got[1][:2], b, atol=1e-4, rtol=0)
    assert not got[0][2].any() and got[1][2].abs() < 1e-6
