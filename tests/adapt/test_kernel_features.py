"""ProKeR by few features of the kernel, against the exact regression."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.preprocessing import normalize as unit

from handful.adapt import head
from handful.adapt.kernel_features import fourier, frequencies, landmarks
from handful.core.distances import unit as unit_rows
from handful.core.kernels import rbf
from handful.errors import BadInput
from handful.testing import check_head

PART = "large-n"
APPROXIMATE = ("nystroem", "rff")


def kernel(a: np.ndarray, b: np.ndarray, beta: float) -> np.ndarray:
    return np.asarray(rbf_kernel(unit(a), unit(b), beta / 2))


@pytest.fixture
def shots() -> tuple[int, ...]:
    return (15, 13, 12, 20)


def proker(text: np.ndarray, **params: Any) -> Any:
    return head("proker", text=dict(enumerate(text)), **params)


@pytest.mark.paper(140, oracle="a", part=PART)
@pytest.mark.parametrize(
    ("solver", "n", "tolerance"), [("nystroem", 60, 1e-5), ("nystroem", 40, 0.05), ("rff", 20000, 0.05)]
)
def test_equals_scikit_learn_on_what_zero_shot_gets_wrong(problem: Any, solver: str, n: int, tolerance: float) -> None:
    x, y, q, text = problem
    beta, lam = 2.0, 0.3
    f0, start = unit(q) @ unit(text).T, unit(x) @ unit(text).T
    exact = KernelRidge(kernel="precomputed", alpha=lam).fit(kernel(x, x, beta), np.eye(4)[y] - start)
    want = f0 + lam * exact.predict(kernel(q, x, beta))
    got = proker(text, beta=beta, lam=lam, solver=solver, n_components=n, random_state=1).fit(x, y).logits(q)
    np.testing.assert_allclose(got, want, atol=tolerance)


@pytest.mark.paper(140, oracle="c", part=PART)
@pytest.mark.parametrize("solver", APPROXIMATE)
def test_a_large_ridge_ends_at_zero_shot(problem: Any, solver: str) -> None:
    x, y, q, text = problem
    made = proker(text, beta=2.0, lam=1e9, convention="krr", solver=solver, n_components=30).fit(x, y)
    np.testing.assert_allclose(made.logits(q), unit(q) @ unit(text).T, atol=1e-5)


@pytest.mark.paper(140, oracle="d", part=PART)
@pytest.mark.parametrize("solver", APPROXIMATE)
def test_a_flat_kernel_shifts_all_queries_alike(problem: Any, solver: str) -> None:
    x, y, q, text = problem
    exact = proker(text, beta=0.0, lam=0.5).fit(x, y).logits(q)
    got = proker(text, beta=0.0, lam=0.5, solver=solver, n_components=30).fit(x, y).logits(q)
    shift = np.asarray(got) - unit(q) @ unit(text).T
    np.testing.assert_allclose(shift, np.repeat(shift[:1], len(q), 0), atol=1e-9)
    np.testing.assert_allclose(got, exact, atol=1e-6)


def test_landmarks_give_the_best_regression_on_them(problem: Any) -> None:
    """min_a |W^(1/2) (Y - f0 - K_NL a)|^2 + lambda a'K_LL a, solved as one least squares problem."""
    x, y, q, text = problem
    beta, lam, weight = 2.0, 0.3, np.arange(60) % 3 + 0.5
    made = proker(text, beta=beta, lam=lam, convention="krr", solver="nystroem", n_components=9, random_state=4)
    made.fit(x, y, sample_weight=weight)
    keys = made.state_["keys"].numpy()
    root = np.linalg.cholesky(kernel(keys, keys, beta)).T
    rows = np.concatenate([np.sqrt(weight)[:, None] * kernel(x, keys, beta), np.sqrt(lam) * root])
    target = np.concatenate([np.sqrt(weight)[:, None] * (np.eye(4)[y] - unit(x) @ unit(text).T), np.zeros((9, 4))])
    a = np.linalg.lstsq(rows, target, rcond=None)[0]
    np.testing.assert_allclose(made.logits(q), unit(q) @ unit(text).T + kernel(q, keys, beta) @ a, atol=1e-6)


def test_orthogonal_frequencies_approximate_the_kernel_better() -> None:
    x = unit_rows(torch.randn(40, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    beta, exact = torch.tensor(3.0, dtype=torch.float64), rbf(x, x, 3.0)
    orthogonal, independent = [], []
    for seed in range(20):
        phi = fourier(x, frequencies(16, 64, beta, seed))
        orthogonal.append(float((phi @ phi.mT - exact).square().mean()))
        w = 3**0.5 * torch.randn(32, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        phi = fourier(x, torch.cat([w, w]))
        independent.append(float((phi @ phi.mT - exact).square().mean()))
    assert sum(orthogonal) < 0.9 * sum(independent)
    w = frequencies(16, 64, beta, 0)[:16]
    gram = w @ w.mT
    assert (gram - gram.diagonal().diag()).abs().max() < 1e-9


def test_padded_rows_are_no_landmarks() -> None:
    x = torch.randn(9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    real = torch.arange(9) < 5
    found = landmarks(x, real, 7, 0)
    assert (found.abs().sum(-1) > 0).sum() == 5
    assert torch.equal(found, landmarks(torch.where(real[:, None], x, torch.nan), real, 7, 0))


@pytest.mark.parametrize("solver", APPROXIMATE)
def test_the_contract_of_heads(solver: str) -> None:
    check_head(head("proker", solver=solver, n_components=40))


def test_what_makes_no_sense_is_refused(problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, _, text = problem
    with pytest.raises(BadInput, match=r"^solver is one of 'cholesky'"):
        proker(text, solver="lu").fit(x, y)
    with pytest.raises(BadInput, match=r"^n_components must be a whole number from 1"):
        proker(text, solver="rff", n_components=0).fit(x, y)
    with pytest.raises(BadInput, match=r"^lam 'loo' needs solver='cholesky'"):
        proker(text, solver="nystroem", lam="loo").fit(x, y)
    with pytest.raises(BadInput, match=r"too small for torch\.float32"):
        twice = np.concatenate([x, x]).astype(np.float32)
        proker(text, solver="rff", n_components=500, lam=1e-12).fit(twice, np.concatenate([y, y]))
    monkeypatch.setattr("handful.adapt.kernel.LIMIT", 10000)
    with pytest.raises(BadInput, match="'proker' with solver='nystroem'"):
        proker(text).fit(x, y)
    proker(text, solver="nystroem", n_components=9).fit(x, y)
    with pytest.raises(BadInput, match="60 rows needs several matrices"):
        proker(text, solver="nystroem", n_components=50).fit(x, y)
