"""Gaussian discriminant analysis against what paper 065's sheet says it must equal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.covariance import OAS, ledoit_wolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from handful.adapt.gda import GDA
from handful.adapt.zero_shot import ZeroShot


def drawn(n: int, seed: int, ways: int = 3, width: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Balanced draws from Gaussians with one covariance; means and covariance too."""
    draw = np.random.default_rng(7)
    means, root = 1.3 * draw.normal(size=(ways, width)), draw.normal(size=(width, width))
    y = np.arange(n) % ways
    return means[y] + np.random.default_rng(seed).normal(size=(n, width)) @ root.T, y, means, root @ root.T


@pytest.mark.paper(65, oracle="a")
def test_without_shrinkage_and_text_is_scikit_learns_lda() -> None:
    x, y, _, _ = drawn(300, 0)
    q = drawn(2000, 1)[0]
    lda = LinearDiscriminantAnalysis(solver="lsqr", priors=np.full(3, 1 / 3)).fit(x, y)
    assert np.array_equal(GDA(shrinkage="none", normalize=False).fit(x, y).predict(q), lda.predict(q))


@pytest.mark.paper(65, oracle="b")
def test_reaches_the_bayes_rule_on_gaussians() -> None:
    x, y, means, covariance = drawn(3000, 0)
    q, truth, _, _ = drawn(6000, 1)
    weight = means @ np.linalg.inv(covariance)
    bayes = (q @ weight.T - 0.5 * (weight * means).sum(1)).argmax(1)
    for shrinkage in ("ks", "none", "ledoit-wolf", "oas"):
        got = GDA(shrinkage=shrinkage, normalize=False).fit(x, y).predict(q)
        assert abs((got == truth).mean() - (bayes == truth).mean()) < 0.01, shrinkage


@pytest.mark.paper(65, oracle="c")
@pytest.mark.parametrize("scale", [0.01, 30.0])
def test_scaling_the_features_leaves_logit_differences(blobs: Any, scale: float) -> None:
    x, y = blobs()
    small, large = GDA(normalize=False).fit(x, y), GDA(normalize=False).fit(scale * x, y)
    gap = large.logits(scale * x) - small.logits(x)
    np.testing.assert_allclose(gap - gap[:, :1], 0, atol=1e-5 * np.abs(small.logits(x)).max())
    np.testing.assert_allclose(large.state_["weight"] * scale, small.state_["weight"], rtol=1e-6)


@pytest.mark.paper(65, oracle="d")
def test_equals_the_authors_code(golden: Any) -> None:
    inputs, expected = golden("gda")
    head = GDA(alpha=inputs["alpha"], text=dict(enumerate(np.asarray(inputs["text"]))))
    head.fit(np.asarray(inputs["support"], dtype=np.float64), np.asarray(inputs["labels"]))
    gap = head.logits(np.asarray(inputs["query"])) - np.asarray(expected)
    # The reference adds log(1/C) to every class, times alpha: the same for all.
    np.testing.assert_allclose(gap, -inputs["alpha"] * np.log(1 / 4), rtol=1e-3)


@pytest.mark.paper(65, oracle="e")
def test_alpha_goes_from_zero_shot_to_lda(blobs: Any) -> None:
    x, y = blobs(noise=1.5)
    q, _ = blobs(shots=50, noise=1.5, seed=1)
    text = {c: x[y == c][0] for c in range(4)}
    zero = ZeroShot(text=text).fit(x, y)
    plain = GDA().fit(x, y)
    np.testing.assert_allclose(GDA(text=text, alpha=0.0).fit(x, y).logits(q), zero.logits(q), atol=1e-9)
    assert np.array_equal(GDA(text=text, alpha=1e9).fit(x, y).predict(q), plain.predict(q))
    assert not np.array_equal(zero.predict(q), plain.predict(q))


def test_few_rows_in_many_dimensions_equal_the_full_formula(blobs: Any) -> None:
    x, y = blobs(ways=3, shots=3, width=30)
    means = np.stack([x[y == c].mean(0) for c in range(3)])
    r = x - means[y]
    sigma = np.cov(r.T)
    p = 30 * np.linalg.pinv((len(x) - 1) * sigma + np.trace(sigma) * np.eye(30))
    want = x @ (means @ p).T - 0.5 * np.einsum("cd,de,ce->c", means, p, means)
    np.testing.assert_allclose(GDA(normalize=False).fit(x, y).logits(x), want, rtol=1e-7)


@pytest.mark.parametrize("kind", ["ledoit-wolf", "oas"])
def test_shrinkage_is_scikit_learns(blobs: Any, kind: str) -> None:
    x, y = blobs(shots=20, width=6)
    means = np.stack([x[y == c].mean(0) for c in range(4)])
    r = x - means[y]
    if kind == "oas":
        covariance = OAS(assume_centered=True).fit(r).covariance_
    else:
        covariance = ledoit_wolf(r, assume_centered=True)[0]
    weight = means @ np.linalg.inv(covariance)
    got = GDA(normalize=False, shrinkage=kind).fit(x, y).state_["weight"].numpy()  # type: ignore[arg-type]
    np.testing.assert_allclose(got, weight, rtol=1e-6 if kind == "ledoit-wolf" else 2e-2, atol=1e-8)


def test_empirical_priors_move_the_bias_by_their_logarithm(blobs: Any) -> None:
    x, y = blobs(shots=(9, 3, 3, 1))
    shift = GDA(priors="empirical").fit(x, y).logits(x) - GDA().fit(x, y).logits(x)
    np.testing.assert_allclose(shift, np.repeat(np.log([[9, 3, 3, 1]]) - np.log(16), len(x), 0), atol=1e-9)


def test_one_row_a_class_falls_back_to_the_nearest_mean(blobs: Any) -> None:
    x, y = blobs(shots=1)
    q, _ = blobs(shots=20, seed=1)
    unit = lambda z: z / np.linalg.norm(z, axis=1, keepdims=True)  # noqa: E731
    assert np.array_equal(GDA().fit(x, y).predict(q), (unit(q) @ unit(x).T).argmax(1))


def test_alpha_is_what_leaving_one_out_finds_best() -> None:
    draw = np.random.default_rng(0)
    y = np.arange(40) % 4
    centres = draw.normal(size=(4, 8))
    x = centres[y] + 0.6 * draw.normal(size=(40, 8))
    good = GDA(text=dict(enumerate(centres))).fit(x, y)
    bad = GDA(text=dict(enumerate(centres[::-1]))).fit(x, y)
    assert float(bad.state_["alpha"]) > float(good.state_["alpha"])  # text that contradicts the shots is talked over
    assert (bad.predict(x) == y).mean() > 0.9
    one = GDA(text=dict(enumerate(centres))).fit(x[:4], y[:4])
    assert torch.isclose(one.state_["alpha"], torch.tensor(0.1, dtype=torch.float64))
