"""ALDC: what it reduces to, distribution calibration by its own formula, what it learns from a pool of all classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from handful.adapt import head
from handful.adapt.base_gaussians import drawn, principal_axes
from handful.adapt.lent import Calibration, Lent, OldRows, Shown, ambiguity
from handful.errors import BadInput

STILL = {"steps": 0, "samples": 0}
"""No training: what it starts from."""
SMALL = {"steps": 20, "samples": 20, "head_steps": 20}


@pytest.fixture
def growing(blobs: Any) -> Any:
    """Items of eight classes, five of them base: ``(base, labels), (new, labels), pool, its labels``."""

    def make(shots: int = 5, seed: int = 0, noise: float = 0.8, pool: int = 20) -> tuple[Any, ...]:
        x, y = blobs(ways=8, shots=20 + shots + pool, width=12, noise=noise, seed=seed)
        x = x.reshape(8, -1, 12)
        old, new = x[:5, :20].reshape(-1, 12), x[5:, :shots].reshape(-1, 12)
        rest = x[:, 20 + shots :].reshape(-1, 12)
        labels = (np.repeat(np.arange(5), 20), np.repeat(np.arange(5, 8), shots), np.repeat(np.arange(8), pool))
        assert len(y) == x.shape[0] * x.shape[1]
        return (old, labels[0]), (new, labels[1]), rest, labels[2]

    return make


def unit(x: np.ndarray) -> np.ndarray:
    out: np.ndarray = x / np.linalg.norm(x, axis=-1, keepdims=True)
    return out


@pytest.mark.paper(88, oracle="a", part="method")
@pytest.mark.filterwarnings("ignore:no unlabelled")
def test_without_pool_and_base_classes_it_is_the_nearest_mean(growing: Any) -> None:
    (x, y), (new, of), q, _ = growing()
    model: Any = head("aldc", eta=0.0, samples=0, steps=10, scale=20.0).fit(x, y).grow(new, of)
    means = np.stack(
        [unit(part[labels == c]).mean(0) for part, labels in ((x, y), (new, of)) for c in np.unique(labels)]
    )
    np.testing.assert_allclose(model.logits(q), 20 * unit(q) @ unit(means).T, atol=1e-9)


@pytest.mark.paper(88, oracle="b", part="method")
@pytest.mark.filterwarnings("ignore:no unlabelled")
@pytest.mark.parametrize("beta", [None, 0.5])
def test_it_starts_at_distribution_calibration(growing: Any, beta: float | None) -> None:
    """Yang, Liu, Xu, "Free Lunch for Few-Shot Learning", 2021: the mean of an example and the two nearest base means;
    the mean of their covariances, and 0.21."""
    (x, y), (new, of), _, _ = growing(shots=1, noise=0.3)
    if beta:
        x, new = np.abs(x), np.abs(new)
    model: Any = head("aldc", topk=2, sharpness=0.0, shrinkage=0.0, beta=beta, **STILL).fit(x, y).grow(new, of)
    z, n = (unit(np.abs(part) ** 0.5 if beta else part) for part in (x, new))
    means, covariances = (np.stack([f(z[y == c].T) for c in range(5)]) for f in (lambda r: r.mean(1), np.cov))
    spread = np.sqrt(np.mean([np.trace(s) / 12 for s in covariances]))
    state = {name: tensor.numpy() for name, tensor in model.state_.items()}
    for k, row in enumerate(n):
        near = np.argsort(-unit(means) @ row)[:2]
        np.testing.assert_allclose(state["mean"][5 + k], np.mean([*means[near], row], 0) / spread, atol=1e-6)
        axes = np.sqrt(state["mix"][5 + k])[:, None, None] * state["factor"]
        found = np.einsum("crd,cre->de", axes, axes) + state["level"][5 + k] * np.eye(12)
        np.testing.assert_allclose(found, covariances[near].mean(0) / spread**2 + 0.21 * np.eye(12), atol=1e-6)


@pytest.mark.paper(88, oracle="c", part="method")
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_shares_are_those_of_the_mix_that_the_class_is(share: float) -> None:
    draw = torch.Generator().manual_seed(0)
    base = 3 * torch.randn(3, 6, generator=draw, dtype=torch.float64)
    centre = torch.stack([*base, share * base[0] + (1 - share) * base[1]])
    code = torch.arange(4).repeat_interleave(300)
    x = centre[code] + torch.randn(1200, 6, generator=draw, dtype=torch.float64)
    start = Lent(
        base[None, :2], torch.zeros(1, 2).double(), torch.tensor([torch.inf]).double(), torch.zeros(1).double()
    )
    training = Calibration(300, 0.05, 400, consistency=1.0, entropy=0.1, likelihood=100.0, noise=0.5)
    shown = Shown(x, code, 0, x[:0], x[:0, 0])
    shared = torch.full((6,), 0.5).double(), torch.eye(6).double()
    lent = training.learn(start, base[:1], shown, OldRows(base, 5.0), shared, 0)
    assert lent.weight.softmax(-1)[0, 0] == pytest.approx(share, abs=0.05)
    assert lent.extra.exp().item() == pytest.approx(0.5, abs=0.1)  # the variance is 1, of which the base lends 0.5


@pytest.mark.paper(88, oracle="d", part="method")
def test_labels_taken_are_right_more_often_than_those_of_ambiguous_items(growing: Any) -> None:
    for seed in range(10):
        (x, y), (new, of), pool, true = growing(seed=seed, noise=1.0)
        with pytest.warns(UserWarning, match="no unlabelled items"):
            means: Any = head("aldc", eta=0.0, **STILL).fit(x, y).grow(new, of)
        p = means.predict_proba(pool)
        doubt = ambiguity(*(torch.tensor(part.max(1)) for part in (p[:, :5], p[:, 5:]))).numpy()
        right, sure = p.argmax(1) == true, doubt < 0.3
        assert 0 < sure.mean() < 1 and right[sure].mean() >= right[~sure].mean()
        grown: Any = head("aldc", eta=0.0, **STILL).fit(x, y).grow(new, of, unlabelled=pool)
        taken = np.bincount(p.argmax(1)[sure], minlength=8)[5:]
        np.testing.assert_array_equal(grown.state_["mass"][5:], 5 + taken)
        everything = np.concatenate([unit(new[of == 5]), unit(pool[sure & (p.argmax(1) == 5)])])
        np.testing.assert_allclose(grown.state_["mean"][5] * grown.state_["spread"], everything.mean(0), atol=1e-9)


def test_classes_that_are_mixes_of_base_classes_are_found_with_one_example() -> None:
    better = []
    for seed in range(8):
        draw = np.random.default_rng(seed)
        base = draw.normal(size=(6, 30))
        centre = np.concatenate([base, (base[[0, 1, 2]] + base[[3, 4, 5]]) / 2])

        def items(classes: list[int], each: int) -> tuple[np.ndarray, np.ndarray]:
            y = np.repeat(classes, each)
            return centre[y] + 0.8 * draw.normal(size=(len(y), 30)), y  # noqa: B023 (called in this round)

        learnt, new = items([*range(6)], 30), items([6, 7, 8], 1)
        pool, (q, true) = items([*range(9)], 20)[0], items([*range(9)], 40)
        grown: Any = head("aldc", random_state=seed).fit(*learnt).grow(*new, unlabelled=pool)
        plain: Any = head("teen", alpha=0.0).fit(*learnt).grow(*new)
        better.append(np.mean(grown.predict(q) == true) - np.mean(plain.predict(q) == true))
    assert np.mean(better) > 0.03 and np.mean(np.array(better) > 0) > 0.8


def test_ambiguous_items_take_part(growing: Any) -> None:
    (x, y), (new, of), pool, _ = growing(noise=1.0)
    first, second = (
        head("aldc", consistency=strength, entropy=0.0, **SMALL).fit(x, y).grow(new, of, unlabelled=pool).logits(pool)  # type: ignore[attr-defined]
        for strength in (0.0, 5.0)
    )
    assert np.abs(first - second).max() > 1e-3


def test_ambiguity_by_hand() -> None:
    found = ambiguity(torch.tensor([0.5, 0.9, 0.0, 0.3]), torch.tensor([0.5, 0.0, 0.4, 0.1]))
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0, 0.0, 0.5]))


def test_axes_and_draws_have_the_covariance_of_the_rows(blobs: Any) -> None:
    x, y = blobs(ways=3, shots=(9, 4, 1), width=5)
    factor = principal_axes(torch.tensor(x), torch.nn.functional.one_hot(torch.tensor(y)).double())
    for c in range(2):
        np.testing.assert_allclose(factor[c].T @ factor[c], np.cov(x[y == c].T), atol=1e-9)
    assert factor[2].abs().max() == 0
    mix = torch.tensor([[0.25, 0.75, 0.0], [0.0, 1.0, 0.0]]).double()
    rows = drawn(
        torch.ones(2, 5).double(), mix, torch.tensor([0.5, 0.0]).double(), factor, 40_000, 2, torch.Generator()
    )
    want = 0.25 * np.cov(x[y == 0].T) + 0.75 * np.cov(x[y == 1].T) + 0.5 * np.eye(5)
    np.testing.assert_allclose(np.cov(rows[0].T), want, atol=0.03)
    np.testing.assert_allclose(rows.mean(1), 1, atol=0.03)
    assert np.linalg.matrix_rank(np.cov(rows[1].T), tol=1e-6) == 3  # four examples span three directions


def test_a_class_of_one_example_has_the_spread_of_others(blobs: Any) -> None:
    x, y = blobs(ways=3, shots=(9, 4, 1))
    state = head("aldc").fit(x, y).state_
    assert state["level"][2] == 1 and (state["level"][:2] < 1).all()
    alone = head("aldc").fit(*blobs(ways=3, shots=1)).state_
    assert alone["level"].tolist() == [1, 1, 1] and alone["spread"] > 0.1


def test_growing_twice_keeps_rows_of_the_first_time(growing: Any) -> None:
    (x, y), (new, of), pool, _ = growing()
    model: Any = head("aldc", **SMALL).fit(x, y).grow(new[of == 5], of[of == 5], unlabelled=pool)
    before = model.logits(pool)
    model.grow(new[of > 5], of[of > 5], unlabelled=pool)
    np.testing.assert_allclose(model.logits(pool)[:, :6], before, atol=1e-9)
    np.testing.assert_allclose(model.state_["mix"].sum(1), 1, atol=1e-9)
    assert (model.state_["mix"][:, 5:] == 0).all()


def test_refusals(growing: Any) -> None:
    (x, y), (new, of), pool, _ = growing()
    with pytest.raises(BadInput, match=r"Negative values .* leave out beta"):
        head("aldc", beta=0.5).fit(x, y)
    fitted: Any = head("aldc", **SMALL).fit(x, y)
    with pytest.raises(BadInput, match="unlabelled must be features"):
        fitted.grow(new, of, unlabelled=pool[:, :3])
    with pytest.raises(BadInput, match=r"unlabelled feature at row 0, column 2 .* is NaN"):
        fitted.grow(new, of, unlabelled=np.where(np.arange(12) == 2, np.nan, pool))
    with pytest.warns(UserWarning, match="no unlabelled items"):
        head("aldc", **SMALL).fit(x, y).grow(new, of, unlabelled=pool[:0])  # type: ignore[attr-defined]
    with pytest.raises(BadInput, match="TEEN learns nothing from items without labels"):
        head("teen").fit(x, y).grow(new, of, unlabelled=pool)  # type: ignore[attr-defined]
    with pytest.raises(BadInput, match="cancel out"):
        fitted.grow(np.concatenate([new[:1], -new[:1]]), [5, 5], unlabelled=pool)
    assert len(fitted.classes_) == 5


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"topk": 0}, "topk must be"),
        ({"kappa": 0.0}, "kappa must be"),
        ({"scale": "auto"}, "scale is 'loo' or a number"),
        ({"ambiguity": 1.5}, "ambiguity must be"),
        ({"eta": -0.1}, "eta must be"),
        ({"shrinkage": -1.0}, "shrinkage must be"),
        ({"steps": 1.5}, "steps must be"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(blobs: Any, params: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        head("aldc", **params).fit(*blobs())
