"""What `auto` chooses: names only where the examples confirm them, transforms, blends and how sure it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from handful.adapt import head
from handful.adapt.base import Features
from handful.adapt.gda import GDA
from handful.adapt.logistic import stratified_folds
from handful.adapt.plans import FOLDS, unseen
from handful.core.task import Query, make_task
from handful.errors import BadInput

WAYS, WIDTH = 12, 32


def made_up(shots: int, seed: int = 0, noise: float = 0.25) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Unit class directions, items around them, and names that lie near the directions."""
    draw = np.random.default_rng(seed)
    directions = np.linalg.qr(draw.normal(size=(WIDTH, WIDTH)))[0][:WAYS]
    y = np.repeat([f"class {c:02d}" for c in range(WAYS)], shots)
    x = np.repeat(directions, shots, axis=0) + noise * draw.normal(size=(WAYS * shots, WIDTH))
    names = directions + 0.1 * draw.normal(size=directions.shape)
    return x, y, {label: name / np.linalg.norm(name) for label, name in zip(np.unique(y), names, strict=True)}


def test_names_help_at_one_shot() -> None:
    x, y, names = made_up(1, noise=0.4)
    q, answers, _ = made_up(40, noise=0.4)
    bare = head("auto").fit(x, y)
    named = head("auto", text=names, logit_scale=20.0).fit(x, y)
    assert (named.predict(q) == answers).mean() > (bare.predict(q) == answers).mean() + 0.05
    assert named.text_weight_ > 0.3 and "confirm" in named.text_why_
    assert named.candidates_ == [] and "single example" in named.why_


@pytest.mark.parametrize("shots", [1, 4])
def test_names_of_other_classes_change_nothing(shots: int) -> None:
    x, y, names = made_up(shots)
    wrong = dict(zip(names, np.roll(list(names.values()), 5, axis=0), strict=True))
    q, _, _ = made_up(20)
    named = head("auto", text=wrong, logit_scale=20.0).fit(x, y)
    assert named.text_weight_ == 0 and "do not confirm" in named.text_why_
    np.testing.assert_allclose(named.logits(q), head("auto").fit(x, y).logits(q), rtol=1e-5, atol=1e-4)


def test_copies_of_an_example_under_two_labels_leave_together() -> None:
    """They make an item of two classes, for which discriminant analysis has no closed form."""
    x, y, _ = made_up(3)
    both, labels = np.concatenate([x, x[:1]]), np.concatenate([y, y[-1:]])
    same = np.r_[np.arange(len(x)), 0]
    fitted = head("auto").fit(Features(both, {}, same), labels)
    q, answers, _ = made_up(20)
    assert (fitted.predict(q) == answers).mean() > 0.7
    g = torch.Generator().manual_seed(0)
    support = torch.randn(9, 4, generator=g, dtype=torch.float64)
    task = make_task(
        support, torch.tensor([0, 1, 2] * 3), ways=3, item=torch.tensor([0, 0, 1, 2, 3, 4, 5, 6, 7]),
        query=Query(support),
    )  # fmt: skip
    assert GDA().leave_one_out(task) is None
    found, folds = unseen(GDA(), task), stratified_folds(task, FOLDS)
    assert folds[0] == folds[1] and torch.isfinite(found).all()
    for row in range(9):
        rest = replace(task, weight=(folds != folds[row]).double())
        own = GDA().answer(GDA().adapt(rest), Query(support[row : row + 1]))[0]
        torch.testing.assert_close(found[row], own)


def test_a_telling_middle_layer_is_found() -> None:
    x, y, _ = made_up(6)
    q, answers, _ = made_up(20, noise=0.25)
    draw = np.random.default_rng(1)
    blind, blind_q = np.abs(draw.normal(size=x.shape)), np.abs(draw.normal(size=q.shape))
    fitted = head("auto").fit(Features(blind, {"middle": x}), y)
    assert "two layers" in fitted.choice_
    assert (fitted.predict(Features(blind_q, {"middle": q})) == answers).mean() > 0.5
    assert fitted.view_widths() == {"middle": WIDTH}
    fitted.check_state()


def test_probabilities_mean_what_they_say() -> None:
    x, y, _ = made_up(8, noise=0.35)
    q, answers, _ = made_up(100, noise=0.35)
    p = head("auto").fit(x, y).predict_proba(q)
    right = p.argmax(1) == np.searchsorted(np.unique(y), answers)
    assert abs(p.max(1).mean() - right.mean()) < 0.08


def test_candidates_are_sorted_and_finite() -> None:
    x, y, names = made_up(3)
    rows = head("auto", text=names).fit(x, y).candidates_
    assert len(rows) == 14  # seven blends, with and without names among the examples
    assert [row["accuracy"] for row in rows] == sorted((row["accuracy"] for row in rows), reverse=True)
    assert all(np.isfinite(row["log_loss"]) for row in rows)


def test_one_class_with_a_single_example_does_not_blind_it() -> None:
    x, y, _ = made_up(5)
    keep = np.r_[0, 5 : len(y)]
    fitted = head("auto").fit(x[keep], y[keep])
    assert fitted.candidates_ and set(fitted.predict(x)) <= set(y)


def test_balance_counts_every_class_the_same() -> None:
    x, y, _ = made_up(5)
    keep = np.flatnonzero((y < "class 02") | (np.arange(len(y)) % 5 < 2))
    a, b = (head("auto", metric=metric).fit(x[keep], y[keep]) for metric in ("accuracy", "balanced"))
    assert not np.allclose(a.logits(x), b.logits(x))


def test_an_unknown_metric_is_refused() -> None:
    x, y, _ = made_up(2)
    with pytest.raises(BadInput, match="metric is one of accuracy"):
        head("auto", metric="speed").fit(x, y)


def test_copies_that_are_known_as_such_do_not_judge_each_other() -> None:
    x, y, _ = made_up(4)
    rows = np.repeat(np.arange(len(y)), 3)
    copied = head("auto").fit(Features(x[rows], {}), y[rows])
    known = head("auto").fit(Features(x[rows], {}, rows), y[rows])
    best = {name: fitted.candidates_[0]["accuracy"] for name, fitted in (("copied", copied), ("known", known))}
    assert best["copied"] > 0.99 > best["known"]
    once = head("auto").fit(x, y)
    assert abs(best["known"] - once.candidates_[0]["accuracy"]) < 0.1


def test_items_are_one_a_row() -> None:
    x, y, _ = made_up(2)
    with pytest.raises(BadInput, match="items of shape"):
        head("auto").fit(Features(x, {}, np.arange(3)), y)
