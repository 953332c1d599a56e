"""GPAM: what it reduces to, what its radius does, and what it is for."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.naive_bayes import GaussianNB

from handful.adapt import head
from handful.adapt.base import Features
from handful.core.mixtures import Mixtures
from handful.errors import BadInput
from handful.evaluate.open_set import score_open_set

INF = float("inf")


def spread(x: np.ndarray, y: np.ndarray, step: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    """A step in each direction from each row: classes that all have the same isotropic variance."""
    steps = step * np.concatenate([np.eye(x.shape[1]), -np.eye(x.shape[1])])
    return (x[:, None] + steps).reshape(-1, x.shape[1]), np.repeat(y, len(steps))


@pytest.mark.paper(58, oracle="a")
@pytest.mark.parametrize("shots", ["one", "isotropic"])
def test_equal_isotropic_variances_make_it_a_prototypical_network(blobs: Any, shots: str) -> None:
    x, y = blobs(ways=5, shots=1)
    if shots == "isotropic":
        x, y = spread(x, y)
    q, _ = blobs(ways=5, shots=60, noise=1.5, seed=1)
    fitted = head("gpam", margin=INF).fit(x, y)
    want = head("prototypes").fit(x, y)
    assert (fitted.predict_open(q) == want.predict(q)).all()
    gaps = [h.logits(q) - h.logits(q)[:, :1] for h in (fitted, want)]  # the same up to one factor
    ratio = gaps[0][:, 1:] / gaps[1][:, 1:]
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-6)


@pytest.mark.paper(58, oracle="b")
def test_without_shrinkage_it_is_naive_bayes(blobs: Any) -> None:
    x, y = blobs(ways=4, shots=80, noise=1.0)
    x = x * np.linspace(0.5, 2, x.shape[1])
    q, _ = blobs(ways=4, shots=20, noise=2.0, seed=2)
    bayes = GaussianNB(priors=np.full(4, 0.25), var_smoothing=0).fit(x, y)
    want = bayes.predict_joint_log_proba(q) - np.log(0.25)
    np.testing.assert_allclose(head("gpam", shrinkage=0.0, steps=0).fit(x, y).logits(q), want, rtol=1e-5)


@pytest.mark.paper(58, oracle="c")
def test_a_larger_margin_never_makes_a_known_item_unknown(blobs: Any) -> None:
    x, y = blobs(ways=4, shots=5)
    q = np.concatenate([blobs(ways=4, shots=50, noise=1.5, seed=s)[0] for s in range(3)])
    known = [head("gpam", margin=m).fit(x, y).unknownness(q) <= 0 for m in (0.0, 0.05, 0.2, 0.6, 2.0, INF)]
    assert all((more[less]).all() for less, more in itertools.pairwise(known))
    shares = [k.mean() for k in known]
    assert shares[0] < shares[2] < shares[4] <= shares[5] == 1


def test_an_infinite_margin_leaves_nothing_unknown_even_between_equal_classes(blobs: Any) -> None:
    x, _ = blobs(ways=2, shots=5)
    twins = head("gpam", margin=INF).fit(np.concatenate([x, x]), np.repeat([0, 1], len(x)))
    assert (twins.unknownness(100 * x) <= 0).all()


@pytest.mark.paper(58, oracle="d")
def test_uniform_outliers_are_told_as_well_as_the_densities_tell_them() -> None:
    rng, d, ways = np.random.default_rng(0), 6, 4
    centres, y = 2 * rng.normal(size=(ways, d)), np.repeat(np.arange(ways), 60)
    x = centres[y] + 0.7 * rng.normal(size=(len(y), d))
    which = rng.integers(ways, size=800)
    known, alien = centres[which] + 0.7 * rng.normal(size=(800, d)), rng.uniform(-6, 6, size=(800, d))
    q, truth = np.concatenate([known, alien]), np.repeat([0, 1], 800)
    density = -np.square(q[:, None] - centres).sum(-1) / (2 * 0.49)
    best = roc_auc_score(truth, -np.log(np.exp(density).sum(1) + 1e-300))
    found = roc_auc_score(truth, -head("gpam").fit(x, y).logits(q).max(1))
    assert abs(best - found) < 0.02
    assert roc_auc_score(truth, head("gpam").fit(x, y).unknownness(q)) > best - 0.02


@pytest.mark.paper(58, oracle="e")
def test_without_unknown_items_and_a_limit_it_is_closed_set(blobs: Any) -> None:
    x, y = blobs(ways=4, shots=5)
    q, true = blobs(ways=4, shots=40, noise=1.5, seed=1)
    fitted = head("gpam", margin=INF).fit(x, y)
    judged = score_open_set(true, fitted.predict_open(q), fitted.unknownness(q))
    assert judged.accuracy == judged.known_accuracy == (fitted.predict(q) == true).mean()
    assert (judged.unknown, judged.auroc, judged.unknown_recall, judged.none_f1) == (0, None, None, None)


def test_the_margin_is_learnt_from_negatives() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(3), 8)
    centres = 3 * np.eye(3, 6)
    x = centres[y] + 0.5 * rng.normal(size=(24, 6))
    steps = rng.normal(size=(60, 6))
    near = centres[rng.integers(3, size=60)] + 1.8 * steps / np.linalg.norm(steps, axis=1, keepdims=True)
    fitted = [head("gpam", background=background).fit(x, y) for background in (None, near)]
    assert (fitted[1].state_["radius"] < fitted[0].state_["radius"]).all()
    found = [(h.unknownness(near) > 0).mean() for h in fitted]
    assert found[1] > found[0]


def test_negatives_outside_are_found_after_learning() -> None:
    rng = np.random.default_rng(1)
    y = np.repeat(np.arange(3), 8)
    centres = 3 * np.eye(3, 6)
    x, q = (centres[np.repeat(np.arange(3), n)] + 0.5 * rng.normal(size=(3 * n, 6)) for n in (8, 40))
    alien = 3 * np.eye(3, 6, 3) + 0.5 * rng.normal(size=(30, 3, 6)).reshape(30, 3, 6)
    asked, true = np.concatenate([q, alien.reshape(-1, 6)]), np.repeat([0, 1, 2, -1], [40, 40, 40, 90])
    judged = []
    for margin in (0.0, "adaptive"):
        fitted = head("gpam", margin=margin).fit(x, y)
        judged.append(score_open_set(true, fitted.predict_open(asked), fitted.unknownness(asked)))
    bare, learnt = judged
    assert bare.known_accuracy > 0.5  # the mean distance of items left out is that of new ones
    assert learnt.known_accuracy > bare.known_accuracy + 0.19
    assert learnt.unknown_recall > 0.9 and learnt.auroc > 0.98


def test_a_component_of_one_row_has_the_pooled_variance_whatever_the_rounding() -> None:
    draw, y = np.random.default_rng(2), np.repeat(range(4), [1, 2, 5, 3])
    x = 2 * draw.normal(size=(4, 12))[y] + 0.7 * draw.normal(size=(11, 12))
    for dtype in (np.float64, np.float32):
        state = head("gpam", n_components=2, shrinkage=1.0).fit(x.astype(dtype), y).state_
        alone = (state["share"] * state["mass"][:, None] - 1).abs() < 1e-5
        assert int(alone.sum()) >= 4
        lone = state["variance"][alone]
        torch.testing.assert_close(lone, lone[:1].expand_as(lone), rtol=1e-5, atol=0)


def test_two_components_follow_a_class_in_two_parts() -> None:
    rng = np.random.default_rng(0)
    parts = np.array([[4.0, 0, 0], [-4, 0, 0], [0, 6, 0]])
    x = parts[np.repeat([0, 1, 2], 6)] + 0.3 * rng.normal(size=(18, 3))
    y = np.repeat([0, 0, 1], 6)
    middle = np.zeros((1, 3))
    one, two = (head("gpam", n_components=j, margin=0.02).fit(x, y) for j in (1, 2))
    assert one.unknownness(middle) < 0 < two.unknownness(middle)
    means = np.sort(two.state_["mean"][0, :, 0].numpy())
    np.testing.assert_allclose(means, [-4, 4], atol=0.3)


def test_variants_pull_an_item_towards_what_matters(blobs: Any) -> None:
    x, y = blobs(ways=3, shots=2)
    variants = x[:, None] + 0.5 * np.random.default_rng(0).normal(size=(len(x), 4, x.shape[1]))
    fitted = head("gpam").fit(Features(x, {"variants": variants}), y)
    plain = 0.5 * x + 0.5 * variants.mean(1)
    rows = np.concatenate([plain[:, None], variants], 1)
    np.testing.assert_allclose(fitted.state_["mean"][0, 0].numpy(), rows[y == 0].reshape(-1, x.shape[1]).mean(0))
    assert fitted.predict(x).shape == y.shape
    with pytest.raises(BadInput, match=r"'variants' must be \[n, V, 10\]"):
        head("gpam").fit(Features(x, {"variants": variants[..., :3]}), y)


def test_a_batch_is_what_a_loop_gives(blobs: Any) -> None:
    tasks = [blobs(ways=3, shots=(4, 3, 2), seed=s) for s in range(3)]
    x, y = torch.as_tensor(np.stack([t[0] for t in tasks])), torch.as_tensor(tasks[0][1])
    onehot = torch.nn.functional.one_hot(y).double()
    for components in (1, 2):
        many = Mixtures.of(x, onehot.expand(3, -1, -1), components, 1.0)
        for i in range(3):
            one = Mixtures.of(x[i], onehot, components, 1.0)
            torch.testing.assert_close(many.distances(x)[i], one.distances(x[i]))


@pytest.mark.parametrize("shrinkage", [0.0, 1.0, INF])
def test_left_out_is_the_distance_to_the_class_without_the_row(blobs: Any, shrinkage: float) -> None:
    x, y = blobs(ways=3, shots=(6, 2, 1))
    rows, onehot = torch.as_tensor(x), torch.nn.functional.one_hot(torch.as_tensor(y)).double()
    fitted = Mixtures.of(rows, onehot, 1, shrinkage)
    got = fitted.distances_left_out(rows, onehot, shrinkage).numpy()
    spread = [np.square(x[y == c] - x[y == c].mean(0)).sum(0) for c in range(3)]
    pool = sum(spread) / (9 - 3)
    for i in range(8):
        rest = x[(y == y[i]) & (np.arange(9) != i)]
        n, nu = (len(rest), shrinkage) if shrinkage < INF else (0, 1.0)  # the pooled one alone
        variance = (n * rest.var(0) + nu * pool) / (n + nu) if n > 1 else pool
        if len(rest) == 1 and shrinkage == 0:
            variance = fitted.variance[1, 0].numpy()  # of one row nothing is known, and nothing is shrunk to
        want = (np.log(2 * np.pi * variance) + np.square(x[i] - rest.mean(0)) / variance).sum() / 2
        assert got[i, y[i]] == pytest.approx(want)
    plain = fitted.distances(rows).numpy()
    np.testing.assert_array_equal(got[8], plain[8])  # alone, it stays
    others = np.arange(3) != y[:, None]
    np.testing.assert_array_equal(got[others], plain[others])


def test_new_items_of_wide_features_are_no_farther_than_those_left_out(blobs: Any) -> None:
    x, y = blobs(ways=4, shots=50, width=300)
    learn = np.arange(len(x)) % 50 < 6
    known = (head("gpam", margin=0.0).fit(x[learn], y[learn]).unknownness(x[~learn]) <= 0).mean()
    assert 0.3 < known < 0.99


def test_a_padded_class_is_infinitely_far(blobs: Any) -> None:
    x, y = (torch.as_tensor(part) for part in blobs(ways=3, shots=4))
    onehot = torch.nn.functional.one_hot(y, 4).double()  # nobody has the fourth
    found = Mixtures.of(x, onehot, 1, 1.0)
    assert (found.distances(x)[:, 3] > 1e300).all()
    torch.testing.assert_close(found.distances(x)[:, :3], Mixtures.of(x, onehot[:, :3], 1, 1.0).distances(x))
    assert replace(found).mass[3] == 0


class TestBadInput:
    def test_a_class_named_like_no_class(self, blobs: Any) -> None:
        x, y = blobs()
        with pytest.raises(BadInput, match="nota_label 2 is one of the classes"):
            head("gpam").fit(x, y).predict_open(x, nota_label=2)

    def test_no_class_of_any_name(self, blobs: Any) -> None:
        x, y = blobs()
        names = np.array(["a", "b", "c", "d"])[y]
        asked, fitted = np.concatenate([x, 10 * x]), head("gpam", margin=0.0).fit(x, names)
        found, mixed = fitted.predict_open(asked, nota_label="none"), fitted.predict_open(asked)
        assert set(found) <= {"a", "b", "c", "d", "none"} and "none" in found and set(found) != {"none"}
        np.testing.assert_array_equal(mixed == -1, found == "none")

    def test_before_fit(self) -> None:
        with pytest.raises(NotFittedError):
            head("gpam").unknownness(np.zeros((1, 3)))

    def test_one_class(self) -> None:
        with pytest.raises(BadInput, match="one class only"):
            head("gpam").fit(np.eye(3), ["a"] * 3)

    def test_no_spread_and_no_shrinkage(self) -> None:
        noise = np.random.default_rng(0).normal(size=(12, 3))
        x = np.repeat(np.eye(3), 4, 0) + np.repeat([0, 0, 1], 4)[:, None] * noise
        y = np.repeat([0, 1, 2], 4)
        with pytest.warns(UserWarning, match="without spread"):
            raised = head("gpam", shrinkage=0.0).fit(x, y)
        assert np.isfinite(raised.logits(x)).all()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            head("gpam").fit(x, y)

    @pytest.mark.parametrize(
        "params",
        [
            {"n_components": 0},
            {"shrinkage": -1.0},
            {"margin": "wide"},
            {"margin": -0.1},
            {"margin": float("nan")},
            {"debias": 1.5},
            {"l1": -1.0},
            {"l2": INF},
            {"temperature": 0.0},
            {"steps": -1},
            {"lr": 0.0},
        ],
        ids=str,
    )
    def test_parameters(self, blobs: Any, params: dict[str, Any]) -> None:
        with pytest.raises(BadInput, match=rf"^{next(iter(params))}\b"):
            head("gpam", **params).fit(*blobs())
