"""AMU-Tuning: doubts and fusion against the authors' numbers, and what they mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from handful.adapt import head
from handful.adapt.amu import KINDS, complementarity, doubt, standardised
from handful.adapt.base import Features
from handful.core.task import make_task
from handful.errors import BadInput
from handful.testing import check_head


@pytest.fixture
def case(blobs: Any) -> tuple[Features, np.ndarray, dict[int, np.ndarray]]:
    x, y = blobs(noise=2.0)
    aux, _ = blobs(width=7, seed=1)
    return Features(x, {"aux": aux}), y, dict(enumerate(np.random.default_rng(0).normal(size=(4, 10))))


@pytest.mark.paper(122, oracle="a")
def test_without_correction_it_is_zero_shot(case: Any) -> None:
    x, y, text = case
    fitted = head("amu-tuning", text=text, alpha=0.0, epochs=2).fit(x, y)
    np.testing.assert_allclose(fitted.logits(x), head("zero-shot", text=text).fit(x, y).logits(x), atol=1e-9)


@pytest.mark.paper(122, oracle="b")
def test_correction_is_standardised_so_that_scale_and_offset_of_the_predictor_do_not_count(case: Any) -> None:
    x, y, text = case
    fitted = head("amu-tuning", text=text, epochs=2).fit(x, y)
    before = fitted.logits(x)
    weight = fitted.state_["weight"]
    fitted.state_ = {**fitted.state_, "weight": 3.0 * weight + torch.linspace(0, 1, 7)}
    np.testing.assert_allclose(fitted.logits(x), before, atol=1e-5)
    rows = standardised(torch.randn(5, 4, dtype=torch.float64), torch.ones(4, dtype=torch.bool))
    torch.testing.assert_close(rows.mean(-1), torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close(rows.std(-1), torch.ones(5, dtype=torch.float64))


@pytest.mark.paper(122, oracle="c")
def test_before_training_the_correction_is_the_nearest_class_mean(case: Any) -> None:
    x, y, text = case
    fitted = head("amu-tuning", text=text, epochs=0).fit(x, y)
    aux = x.views["aux"] / np.linalg.norm(x.views["aux"], axis=1, keepdims=True)
    means = np.stack([aux[y == c].mean(0) for c in range(4)])
    np.testing.assert_allclose(fitted.state_["weight"], means, atol=1e-12)
    correction = fitted.logits(x) - head("zero-shot", text=text).fit(x, y).logits(x)
    assert (correction.argmax(1) == (aux @ means.T).argmax(1)).all()


@pytest.mark.paper(122, oracle="d")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("none", "std")])
def test_doubt_falls_as_confidence_grows(kind: Any) -> None:
    logits = torch.linspace(0.2, 6, 20, dtype=torch.float64)[:, None] * torch.tensor([3.0, 1, 0, -1, -1, -2, -2, -3])
    doubts = doubt(logits, torch.ones(8, dtype=torch.bool), kind, 0.4)[:, 0]
    assert (doubts.diff() < 0).all()


@pytest.mark.paper(122, oracle="e")
def test_equals_the_authors_code(golden: Any) -> None:
    inputs, expected = golden("amu")
    text, query = np.asarray(inputs["text"]), np.asarray(inputs["query"])
    for kind, numbers in expected["doubts"].items():
        found = doubt(torch.as_tensor(5 * query @ text.T), torch.ones(6, dtype=torch.bool), kind, 0.4, 250.0)[:, 0]
        np.testing.assert_allclose(found, numbers, rtol=1e-7, err_msg=kind)
    training = {name: inputs[name] for name in ("epochs", "lr", "kurtosis_scale", "batch_size")}
    fitted = head("amu-tuning", text=dict(enumerate(text)), **training)
    fitted.fit(
        Features(np.asarray(inputs["support"]), {"aux": np.asarray(inputs["aux"])}), np.asarray(inputs["labels"])
    )
    asked = Features(query, {"aux": np.asarray(inputs["query_aux"])})
    np.testing.assert_allclose(fitted.logits(asked), expected["logits"], atol=1e-6)


def test_two_classes_have_no_kurtosis() -> None:
    logits = torch.tensor([[3.0, 0.0], [0.1, 0.0]], dtype=torch.float64)
    real = torch.ones(2, dtype=torch.bool)
    torch.testing.assert_close(doubt(logits, real, "kurtosis", 0.4), doubt(logits, real, "max", 0.4))


def test_a_good_second_encoder_helps(case: Any) -> None:
    x, y, text = case
    fitted = head("amu-tuning", text=text, alpha=5.0, logit_scale=5.0).fit(x, y)
    assert (fitted.predict(x) == y).mean() > 0.95 > (head("zero-shot", text=text).fit(x, y).predict(x) == y).mean()


def test_complementarity_says_how_good_the_second_encoder_is_and_how_often_it_agrees(case: Any) -> None:
    x, y, _ = case
    draw = np.random.default_rng(0)
    aux = torch.as_tensor(x.views["aux"])
    prior = torch.as_tensor(draw.normal(size=(len(y), 4)))
    task = make_task(torch.as_tensor(x.x), torch.as_tensor(y), ways=4, prior=prior, views={"aux": aux})
    alone, same = complementarity(task)
    unit = aux / aux.norm(dim=1, keepdim=True)
    hits, agree = [], []
    for i, label in enumerate(y):
        rest = np.arange(len(y)) != i
        means = torch.stack([unit[rest & (y == c)].mean(0) for c in range(4)])
        best = int((unit[i] @ (means / means.norm(dim=1, keepdim=True)).T).argmax())
        hits.append(best == label)
        agree.append(best == int(prior[i].argmax()))
    assert float(alone) == pytest.approx(np.mean(hits))
    assert float(same) == pytest.approx(np.mean(agree))


@pytest.mark.parametrize("kind", ["entropy", "energy", "max-min", "std"])
def test_other_doubts_keep_the_contract_in_one_batch(kind: str) -> None:
    check_head(head("amu-tuning", uncertainty=kind, epochs=3, batch_size=64))


@pytest.mark.parametrize(
    "bad",
    [
        {"uncertainty": "doubtful"},
        {"alpha": -1.0},
        {"lam": 1.5},
        {"rho": float("nan")},
        {"kurtosis_scale": 0.0},
        {"lr": 0.0},
        {"epochs": -1},
        {"batch_size": 0},
        {"uncertainty": "top5"},
    ],
)
def test_parameters_that_make_no_sense_are_refused(case: Any, bad: dict[str, Any]) -> None:
    x, y, text = case
    with pytest.raises(BadInput, match=f"^{next(iter(bad))} "):
        head("amu-tuning", text=text, **bad).fit(x, y)


def test_features_without_the_second_encoder_are_refused(case: Any) -> None:
    x, y, text = case
    with pytest.raises(BadInput, match="view 'aux'"):
        head("amu-tuning", text=text).fit(x.x, y)
    aux = x.views["aux"]
    with pytest.raises(BadInput, match=r"view 'aux' holds numbers \[n, d\]"):
        head("amu-tuning", text=text).fit(Features(x.x, {"aux": aux[:, 0]}), y)
    fitted = head("amu-tuning", text=text, epochs=1).fit(x, y)
    with pytest.raises(BadInput, match="needs features with a view 'aux'"):
        fitted.predict(x.x)
    with pytest.raises(BadInput, match="view 'aux' has width"):
        fitted.predict(Features(x.x, {"aux": aux[:, 1:]}))


def test_steps_that_run_away_are_refused(case: Any) -> None:
    x, y, text = case
    with pytest.raises(BadInput, match="AMUTuning learnt numbers that are not finite"):
        head("amu-tuning", text=text, lr=1e300, epochs=3).fit(x, y)


@pytest.mark.parametrize("ways", [4, 8])
def test_a_flat_zero_shot_answer_is_in_doubt_but_not_without_bound(ways: int) -> None:
    """Where all class texts are alike nothing is said for any class: no kurtosis is below ((C - 1) / C)^2."""
    flat = doubt(torch.zeros(1, ways), torch.ones(ways, dtype=torch.bool), "kurtosis", 0.4)
    assert float(flat) == pytest.approx((((ways - 1) / ways) ** 2 / (ways / 4)) ** -0.4, rel=1e-5)
