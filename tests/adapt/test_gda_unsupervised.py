"""Gaussian discriminants found without labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture

from handful.adapt import head
from handful.adapt.base import Features
from handful.errors import BadInput


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows of Gaussians with one covariance, their classes, text that is not quite their means; means, covariance."""
    draw = np.random.default_rng(5)
    means, root = 1.5 * draw.normal(size=(4, 12)), 0.5 * draw.normal(size=(12, 12))
    y = np.repeat(np.arange(4), 500)
    x = means[y] + draw.normal(size=(2000, 12)) @ root.T
    return x, y, means + 1.2 * draw.normal(size=means.shape), means, root @ root.T


def unsupervised(text: np.ndarray, **more: Any) -> Any:
    return head("gda-unsupervised", text=dict(enumerate(text)), normalize=False, **more)


@pytest.mark.paper(65, oracle="b", part="unsupervised")
def test_reaches_the_bayes_rule_on_gaussians(drawn: Any) -> None:
    x, y, text, means, covariance = drawn
    w = means @ np.linalg.inv(covariance)
    bayes = ((x @ w.T - 0.5 * (w * means).sum(1)).argmax(1) == y).mean()
    made = unsupervised(text, alpha=170.0, logit_scale=5.0, rounds=20).fit_unlabelled(x)  # (n - 1) / D: true posteriors
    zero = head("zero-shot", text=dict(enumerate(text))).fit(x, y)
    assert (zero.predict(x) == y).mean() < bayes - 0.05
    assert abs((made.predict(x) == y).mean() - bayes) < 0.01


@pytest.mark.paper(65, oracle="e", part="unsupervised")
def test_alpha_goes_from_zero_shot_to_a_mixture_of_gaussians(drawn: Any) -> None:
    x, y, text, _, _ = drawn
    zero = head("zero-shot", text=dict(enumerate(text))).fit(x, y)
    np.testing.assert_allclose(unsupervised(text, alpha=0.0).fit_unlabelled(x).logits(x), zero.logits(x), atol=1e-9)
    much = unsupervised(text, alpha=1e6, rounds=60).fit_unlabelled(x).predict(x)
    first = zero.predict(x)
    means = np.stack([x[first == c].mean(0) for c in range(4)])
    mixture = GaussianMixture(4, covariance_type="tied", means_init=means, random_state=0).fit(x)
    assert (much == mixture.predict(x)).mean() > 0.97


def test_one_round_is_the_discriminant_of_rows_weighted_by_zero_shot_probabilities(drawn: Any) -> None:
    x, y, text, _, _ = drawn
    zero = head("zero-shot", text=dict(enumerate(text)), logit_scale=5.0).fit(x, y)
    p, n, d = zero.predict_proba(x), len(x), x.shape[1]
    mu = p.T @ x / p.sum(0)[:, None]
    scatter = sum(((x - m) * r[:, None]).T @ (x - m) for m, r in zip(mu, p.T, strict=True))
    w = mu @ (d * np.linalg.inv(scatter + np.trace(scatter) / (n - 1) * np.eye(d)))
    made = unsupervised(text, rounds=1, logit_scale=5.0).fit_unlabelled(x)
    want = np.asarray(zero.logits(x)) + x @ w.T - (w * mu).sum(1) / 2
    np.testing.assert_allclose(made.logits(x), want, atol=1e-7)


def test_labels_are_not_looked_at_and_the_pool_counts_as_rows(drawn: Any) -> None:
    x, y, text, _, _ = drawn
    want = unsupervised(text).fit_unlabelled(x).logits(x[:9])
    np.testing.assert_allclose(unsupervised(text).fit(x, y[::-1]).logits(x[:9]), want, atol=1e-9)
    at = np.arange(2000) % 10 == 0
    few = unsupervised(text, unlabelled=x[~at]).fit(x[at], y[at])
    np.testing.assert_allclose(few.logits(x[:9]), want, atol=1e-6)
    narrow = {c: t[:5] for c, t in enumerate(text)}
    made = head("gda-unsupervised", text=narrow, unlabelled=Features(x[~at], {"aligned": x[~at][:, :5]}))
    assert made.fit(Features(x[at], {"aligned": x[at][:, :5]}), y[at]).state_["weight"].isfinite().all()


@pytest.mark.parametrize("bad", [{"alpha": "loo"}, {"alpha": -1.0}, {"rounds": 0}], ids=str)
def test_parameters_that_make_no_sense_are_refused(drawn: Any, bad: dict[str, Any]) -> None:
    x, _, text, _, _ = drawn
    with pytest.raises(BadInput, match=f"^{next(iter(bad))} "):
        unsupervised(text, **bad).fit_unlabelled(x)


def test_items_that_cannot_be_used_are_refused(drawn: Any) -> None:
    x, y, text, _, _ = drawn
    with pytest.raises(BadInput, match="3 items without labels are fewer than the 4 classes"):
        unsupervised(text).fit_unlabelled(x[:3])
    with pytest.raises(BadInput, match="GDAUnsupervised needs class text"):
        head("gda-unsupervised").fit_unlabelled(x)
    narrow = {c: t[:5] for c, t in enumerate(text)}
    made = head("gda-unsupervised", text=narrow, unlabelled=x[8:])
    with pytest.raises(BadInput, match="unlabelled items are not in a space with class text"):
        made.fit(Features(x[:8], {"aligned": x[:8, :5]}), y[::250])
