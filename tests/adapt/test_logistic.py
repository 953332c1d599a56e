"""Logistic regression against scikit-learn's, which paper 103's head is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from handful.adapt.logistic import RFS, Logistic, stratified_folds
from handful.core.task import make_task
from handful.errors import BadInput


def reference(x: np.ndarray, y: np.ndarray, c: float = 1.0) -> LogisticRegression:
    return LogisticRegression(C=c, max_iter=20000, tol=1e-9).fit(x, y)


@pytest.mark.paper(103, oracle="a")
@pytest.mark.parametrize("shots", [1, 5, (8, 3, 1, 2, 2)])
def test_rfs_is_scikit_learn_on_unit_rows(blobs: Any, shots: Any) -> None:
    x, y = blobs(ways=5, shots=shots, width=40, noise=1.2)
    q, _ = blobs(ways=5, shots=60, width=40, noise=1.2, seed=1)
    unit = lambda z: z / np.linalg.norm(z, axis=1, keepdims=True)  # noqa: E731
    want = reference(unit(x), y)
    head = RFS().fit(x, y)
    np.testing.assert_allclose(head.state_["weight"].numpy(), want.coef_, atol=1e-3)
    np.testing.assert_allclose(head.predict_proba(q), want.predict_proba(unit(q)), atol=1e-3)
    assert np.array_equal(head.predict(q), want.predict(unit(q)))


@pytest.mark.paper(103, oracle="b")
def test_the_interval_of_its_protocol_is_students(blobs: Any) -> None:
    from scipy import stats

    from handful.core.intervals import mean_interval

    right = np.array(
        [np.mean(RFS().fit(*blobs(seed=s)).predict(blobs(seed=s)[0]) == blobs(seed=s)[1]) for s in range(6)]
    )
    right = right - np.linspace(0, 0.3, 6)
    estimate = mean_interval(right)
    want = stats.t.interval(0.95, len(right) - 1, loc=right.mean(), scale=stats.sem(right))
    np.testing.assert_allclose([estimate.low, estimate.high], want, atol=1e-9)


@pytest.mark.parametrize("c", [0.1, 1.0, 100.0])
def test_two_classes_as_scikit_learn_has_them(blobs: Any, c: float) -> None:
    x, y = blobs(ways=2, shots=12, noise=2.0)
    want, head = reference(x, y, c), Logistic(C=c, tolerance=1e-6).fit(x, y)
    np.testing.assert_allclose(head.decision_function(x), want.decision_function(x), atol=1e-3)
    np.testing.assert_allclose(head.predict_proba(x), want.predict_proba(x), atol=1e-4)


def test_out_of_fold_logits_are_those_of_fits_without_the_fold(blobs: Any) -> None:
    x, y = blobs(shots=6)
    task = make_task(torch.as_tensor(x), torch.as_tensor(y))
    fold = stratified_folds(task, 3).numpy()
    got = Logistic(folds=3, tolerance=1e-6).leave_one_out(task)
    assert got is not None
    for k in range(3):
        fitted = Logistic(tolerance=1e-6).fit(x[fold != k], y[fold != k])
        np.testing.assert_allclose(got.numpy()[fold == k], fitted.logits(x[fold == k]), atol=1e-4)


def test_folds_are_stratified_and_keep_items_together() -> None:
    labels = torch.tensor([0] * 6 + [1] * 4 + [2] * 3)
    item = torch.tensor([0, 0, 1, 2, 3, 3, 10, 11, 12, 13, 20, 20, 21])
    task = make_task(torch.zeros(13, 2), labels, item=item)
    fold = stratified_folds(task, 2)
    for i in item.unique():
        assert len(fold[item == i].unique()) == 1
    items_of_first = torch.tensor([fold[item == i][0] for i in (0, 1, 2, 3)])
    assert items_of_first.bincount().tolist() == [2, 2]
    rows = stratified_folds(make_task(torch.zeros(13, 2), labels), 3)
    for c in range(3):
        counts = rows[labels == c].bincount(minlength=3)
        assert counts.max() - counts.min() <= 1


def test_padding_does_not_move_the_folds() -> None:
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    plain = make_task(torch.zeros(6, 2), labels)
    weight = torch.ones(9)
    weight[:3] = 0
    padded = make_task(torch.zeros(9, 2), torch.cat([torch.tensor([0, 1, 0]), labels]), weight=weight)
    assert torch.equal(stratified_folds(padded, 3)[3:], stratified_folds(plain, 3))


def test_the_strength_is_chosen_like_a_search_over_the_same_folds(blobs: Any) -> None:
    x, y = blobs(ways=3, shots=8, width=6, noise=2.0)
    head = Logistic(C="cv", folds=4).fit(x, y)
    chosen = float(head.state_["strength"])
    task = make_task(torch.as_tensor(x), torch.as_tensor(y))
    right = (
        Logistic(folds=4).out_of_fold(task, torch.tensor([0.1, 1.0, 10.0, 100.0]).double()).argmax(-1).numpy() == y
    ).sum(1)
    assert right[[0.1, 1.0, 10.0, 100.0].index(chosen)] == right.max()
    assert float(Logistic(C="cv").fit(x[[0, 8, 16, 17]], y[[0, 8, 16, 17]]).state_["strength"]) == 1.0


@pytest.mark.parametrize(
    "bad", [{"C": None}, {"C": 0.0}, {"folds": 2.5}, {"folds": 1}, {"tolerance": "small"}, {"tolerance": 0.0}], ids=str
)
def test_parameters_that_make_no_sense_are_refused(blobs: Any, bad: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=f"^{next(iter(bad))} "):
        Logistic(**bad).fit(*blobs())
