"""Unequal errors: how costs are read, what is answered then, and what it costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from handful.core.intervals import wilson
from handful.errors import BadInput
from handful.evaluate.cost import decide, mean_cost, read_costs

CLASSES = ["crack", "dent", "ok"]


def written(folder: Path, text: str, name: str = "costs.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_pairs_that_are_not_named_cost_one(tmp_path: Path) -> None:
    found = read_costs(written(tmp_path, "true,predicted,cost\ncrack,ok,20\nok,crack,0.5\n"), CLASSES)
    assert found.tolist() == [[0, 1, 20], [1, 0, 1], [0.5, 1, 0]]


@pytest.mark.parametrize("corner", ["", "true"])
def test_a_square_table(tmp_path: Path, corner: str) -> None:
    text = f"{corner},ok,crack,dent\ncrack,20,0,2\nok,0,0.5,\ndent,3,1,0.1\n"
    assert read_costs(written(tmp_path, text), CLASSES).tolist() == [[0, 2, 20], [1, 0.1, 3], [0.5, 1, 0]]


def test_classes_called_as_columns_are(tmp_path: Path) -> None:
    text = "true,predicted,cost\npredicted,cost,7\n"
    assert read_costs(written(tmp_path, text), ["cost", "predicted"]).tolist() == [[0, 1], [7, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("true,predicted,cost\ncrak,ok,2\n", "row 2: 'crak' is none of the classes; did you mean 'crack'"),
        ("true,predicted,cost\ncrack,ok,-2\n", "row 2, column 'cost' holds '-2'"),
        ("true,predicted,cost\ncrack,ok,nan\n", "holds 'nan'"),
        ("true,predicted,cost\ncrack,ok,inf\n", "holds 'inf'"),
        ("true,predicted,cost\ncrack,ok,\n", "holds nothing"),
        ("true,predicted,cost\ncrack,,3\n", "row 2: column 'predicted' is empty"),
        ("true,predicted,cost\ncrack,ok,2\ncrack,ok,3\n", "row 3: the cost of 'crack' answered as 'ok' is there twice"),
        ("what,cost\ncrack,2\n", "needs columns called true, predicted and cost"),
        (",crack,ok\ncrack,0,1\nscratch,1,0\n", "row 3: 'scratch' is none of the classes"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_costs(written(tmp_path, text), CLASSES)


def test_the_cheapest_answer_need_not_be_the_most_probable() -> None:
    costs = np.array([[0.0, 1, 20], [1, 0, 1], [1, 1, 0]])
    proba = np.array([[0.1, 0.2, 0.7], [0.01, 0.01, 0.98]])
    assert decide(proba, costs).tolist() == [1, 2]
    assert decide(proba, 1 - np.eye(3)).tolist() == proba.argmax(1).tolist()


def test_decisions_by_cost_cost_less() -> None:
    rng = np.random.default_rng(0)
    costs = np.array([[0.0, 10], [1, 0]])
    labels = rng.integers(0, 2, 4000)
    x = rng.normal(2.0 * labels - 1)
    proba = np.column_stack([1 / (1 + np.exp(2 * x)), 1 / (1 + np.exp(-2 * x))])
    ours, plain = (mean_cost(labels, answers, costs) for answers in (decide(proba, costs), proba.argmax(1)))
    assert ours.high < plain.low


def test_the_mean_and_its_interval() -> None:
    costs = np.array([[0.0, 3], [1, 0]])
    found = mean_cost(np.array([0, 0, 1, 1]), np.array([1, 0, 0, 1]), costs)
    assert found.value == 1
    assert found.low < 1 < found.high
    weighted = mean_cost(np.array([0, 0, 1, 1]), np.array([1, 0, 0, 1]), costs, weights=np.array([3.0, 3, 1, 1]))
    assert weighted.value == pytest.approx((3 * 3 + 1) / 8)


def test_no_error_in_few_items_is_no_proof_that_errors_cost_nothing() -> None:
    labels = np.repeat([0, 1], 10)
    found = mean_cost(labels, labels, 1 - np.eye(2))
    assert (found.value, found.low) == (0, 0)
    assert found.high == pytest.approx(wilson(0, 20).high, rel=0.2)
    dear = mean_cost(labels, labels, np.array([[0.0, 20], [1, 0]]))
    assert dear.high == pytest.approx(20 * found.high)


def test_groups_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros(40, int)
    decided = (rng.random(40) < 0.3).astype(int)
    costs, groups = np.array([[0.0, 2], [1, 0]]), np.repeat(np.arange(40), 3)
    once = mean_cost(labels, decided, costs)
    thrice = mean_cost(np.repeat(labels, 3), np.repeat(decided, 3), costs, groups=groups)
    blind = mean_cost(np.repeat(labels, 3), np.repeat(decided, 3), costs)
    assert thrice.high - thrice.low == pytest.approx(once.high - once.low, rel=0.15)
    assert blind.high - blind.low < 0.7 * (thrice.high - thrice.low)


@pytest.mark.parametrize("dear", [1, 20])
@pytest.mark.parametrize("each", [10, 40])
def test_the_interval_holds_the_truth(dear: float, each: int) -> None:
    rates = np.array([[0.87, 0.12, 0.01], [0.2, 0.7, 0.1], [0.01, 0.04, 0.95]])
    costs = np.array([[0.0, 1, dear], [1, 0, 4], [1, 1, 0]])
    truth, held = float((rates * costs).sum() / 3), []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        labels = np.repeat(np.arange(3), each)
        decided = np.array([rng.choice(3, p=rates[c]) for c in labels])
        found = mean_cost(labels, decided, costs)
        held.append(found.low <= truth <= found.high)
    assert np.mean(held) >= 0.93
