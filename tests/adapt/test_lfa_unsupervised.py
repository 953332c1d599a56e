"""LFA without labels: the transport against POT, planted rotations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import expm

from handful.adapt import head
from handful.adapt.lfa_unsupervised import shared_out
from handful.core.distances import unit
from handful.core.task import make_task
from handful.errors import BadInput


def rows(*shape: int, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture
def turned() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Items of 40 classes around class text that was turned part of the way, their classes, the text."""
    draw = np.random.default_rng(2)
    text, skew = rows(40, 12), draw.normal(size=(12, 12))
    y = np.repeat(np.arange(40), 10)
    return text[y] @ expm(0.18 * (skew - skew.T)) + 0.1 * draw.normal(size=(400, 12)), y, text


@pytest.mark.paper(162, oracle="e", part="unsupervised")
def test_the_transport_is_that_of_pot(golden: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, expected = golden("lfa_transport")
    monkeypatch.setattr("handful.adapt.lfa_unsupervised.TOL", 1e-11)  # both run to convergence
    monkeypatch.setattr("handful.adapt.lfa_unsupervised.SWEEPS", 20_000)
    draw = np.random.default_rng(0)
    x, p = (unit(torch.as_tensor(draw.normal(size=(n, 32)))) for n in (60, 4))
    np.testing.assert_allclose(shared_out(x, p, make_task(x, torch.arange(60) % 4)), expected, atol=1e-4)
    longer, wider = torch.cat([x, x[:2]]), torch.cat([p, p[:1]])
    real, known = (torch.arange(62) < 60).double(), torch.arange(5) < 4
    padded = shared_out(longer, wider, make_task(longer, torch.arange(62) % 5, weight=real, class_mask=known))
    np.testing.assert_allclose(padded[:60, :4], expected, atol=1e-4)
    assert padded[60:].abs().sum() == padded[:, 4].abs().sum() == 0


@pytest.mark.paper(162, oracle="b", part="unsupervised")
def test_all_of_the_identity_is_zero_shot(turned: Any) -> None:
    x, _, text = turned
    given = {"text": dict(enumerate(text))}
    made = head("lfa-unsupervised", beta=1.0, n_iter=0, **given).fit_unlabelled(x)
    zero = head("zero-shot", logit_scale=1 / 0.07, **given).fit(x, np.arange(400) % 40)
    np.testing.assert_allclose(made.logits(x), zero.logits(x), atol=1e-9)


@pytest.mark.paper(162, oracle="c", part="unsupervised")
def test_finds_a_planted_rotation_without_labels(turned: Any) -> None:
    x, y, text = turned
    given = {"text": dict(enumerate(text))}
    zero = (head("zero-shot", **given).fit(x, y).predict(x) == y).mean()
    made = head("lfa-unsupervised", beta=0.0, n_iter=30, lr=5e-3, **given).fit_unlabelled(x)
    once = head("lfa-unsupervised", beta=0.0, rounds=0, **given).fit_unlabelled(x)
    right = [float((h.predict(x) == y).mean()) for h in (once, made)]
    assert zero < 0.6 and right[0] > 0.9 and right[1] > 0.98, (zero, right)


def test_labels_are_not_looked_at_and_the_pool_counts(turned: Any) -> None:
    x, y, text = turned
    made = head("lfa-unsupervised", text=dict(enumerate(text)), beta=0.1, n_iter=3, rounds=1)
    want = made.fit_unlabelled(x).logits(x)
    np.testing.assert_allclose(made.fit(x, y).logits(x), want, atol=1e-9)
    np.testing.assert_allclose(
        made.set_params(unlabelled=x[80:]).fit(x[:80], np.arange(80) % 40).logits(x), want, atol=1e-9
    )


@pytest.mark.parametrize("loss", ["csls", "contrastive", "triplet"])
def test_other_losses_go_the_same_way(turned: Any, loss: str) -> None:
    x, y, text = turned
    given = {"text": dict(enumerate(text)), "beta": 0.0, "n_iter": 20}
    made = head("lfa-unsupervised", loss=loss, **given).fit_unlabelled(x)
    assert (made.predict(x) == y).mean() > 0.8


def test_what_makes_no_sense_is_refused(turned: Any) -> None:
    x, _, text = turned
    with pytest.raises(BadInput, match=r"^rounds must be a whole number from 0"):
        head("lfa-unsupervised", text=dict(enumerate(text)), rounds=-1).fit_unlabelled(x)
    with pytest.raises(BadInput, match=r"^beta "):
        head("lfa-unsupervised", text=dict(enumerate(text)), beta=2.0).fit_unlabelled(x)
    with pytest.raises(BadInput, match="fewer than the 40 classes"):
        head("lfa-unsupervised", text=dict(enumerate(text))).fit_unlabelled(x[:39])
