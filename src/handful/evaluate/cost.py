"""Errors that do not all cost the same: what each costs, the cheapest answer, and what answers cost on average.

The answer that costs least is not always the most probable class (Elkan, "The foundations of cost-sensitive learning",
2001):  argmin over j of  sum over i of  p(i | x) cost(i, j).  It is only as good as the probabilities are calibrated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from handful.core.intervals import Estimate, skewed_mean
from handful.core.shares import checked_weights
from handful.errors import BadInput, nearest
from handful.evaluate.written import filled, is_blank, number, written_table
from handful.read.columns import first_usual
from handful.read.places import columns_are, one_line, quoted
from handful.read.tables import Table

TRUE = ("true", "actual", "truth", "given", "true_class", "true_label", "label", "class")
PREDICTED = ("predicted", "answer", "answered", "prediction", "predicted_class", "predicted_label", "as")
COST = ("cost", "costs", "price", "loss", "weight")
"""Usual names of the three columns, the first that is there."""

Z = 1.96
"""95 % of a normal variable lie within so many standard deviations."""


def read_costs(path: str | Path, classes: Sequence[str]) -> np.ndarray:
    """What it costs to answer class j when i is true: ``[C, C]``, rows true, columns predicted.

    The file is a table (csv, tsv, jsonl, parquet, xlsx) with columns true, predicted and cost, or a square one: a row
    for each true class, named in the first column, and a column for each predicted one. Pairs that it does not name
    cost 1, right answers 0.

    Raises:
        BadInput: a class the model does not know, a pair named twice, or a cost that is no number of at least 0.
    """
    table, position = written_table(path), {name: i for i, name in enumerate(classes)}
    costs, named = 1.0 - np.eye(len(classes)), set()
    for true, predicted, cost, place in _pairs(table) or _square(table, position):
        for name in (true, predicted):
            if name not in position:
                raise BadInput(f"{place}: {quoted(name)} is none of the classes{one_line(nearest(name, classes))}")
        if (true, predicted) in named:
            raise BadInput(f"{place}: the cost of {quoted(true)} answered as {quoted(predicted)} is there twice")
        named.add((true, predicted))
        costs[position[true], position[predicted]] = cost
    return costs


def _pairs(table: Table) -> list[tuple[str, str, float, str]]:
    """Rows of a table with columns true, predicted and cost; none of another table."""
    columns = table.frame.columns
    cost, predicted = first_usual(COST, columns), first_usual(PREDICTED, columns)
    true = first_usual(TRUE, [name for name in columns if name not in (cost, predicted)])
    if true is None or predicted is None or cost is None:
        return []
    numbers = [
        number(cell, f"{place}, column {quoted(cost)}")
        for cell, place in zip(table.frame[cost].to_list(), table.where, strict=True)
    ]
    return list(zip(filled(table, true), filled(table, predicted), numbers, table.where, strict=True))


def _square(table: Table, position: dict[str, int]) -> list[tuple[str, str, float, str]]:
    """Cells of a table whose columns, after the first, are classes; empty ones are not named."""
    first, *rest = table.frame.columns
    if not rest or any(name not in position for name in rest):
        raise BadInput(
            f"{table.name} needs columns called true, predicted and cost, or a column for each class; "
            f"{columns_are(table.frame.columns)}"
        )
    cells = [(name, table.frame[name].to_list()) for name in rest]
    return [
        (true, predicted, number(column[row], f"{place}, column {quoted(predicted)}"), place)
        for row, (true, place) in enumerate(zip(filled(table, first), table.where, strict=True))
        for predicted, column in cells
        if not is_blank(column[row])
    ]


def decide(proba: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """The answer ``[n]`` of least expected cost, the first of equals, by ``proba [n, C]`` and ``costs [C, C]``."""
    answers: np.ndarray = (np.asarray(proba, dtype=float) @ costs).argmin(axis=1)
    return answers


def mean_cost(
    labels: np.ndarray,
    decided: np.ndarray,
    costs: np.ndarray,
    groups: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> Estimate:
    """What an answer costs on average, with a 95 % interval.

    The interval is the bootstrap-t's. Costs that were not seen cannot be drawn, so it reaches at least up to where the
    normal limit of one item (group) more would be, with the dearest error there is for any of the items.

    Args:
        labels: true class of each item, integers ``[n]``.
        decided: answered class ``[n]``.
        costs: ``[C, C]``, rows true.
        groups: ``[n]``; items of a group are not independent.
        weights: ``[n]``, see `handful.evaluate.assess`.
    """
    labels, cost = np.asarray(labels), costs[labels, decided]
    n = len(labels)
    if not n:
        raise BadInput("nothing to judge: no items")
    weight = np.ones(n) if weights is None else checked_weights(weights, n)
    units = np.arange(n) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    total, many = np.bincount(units, weight * cost), np.bincount(units, weight)
    total, many = total[many > 0], many[many > 0]
    estimate, dearest = skewed_mean(total, many), float(costs[labels[weight > 0]].max())
    return replace(estimate, high=max(estimate.high, _one_more(total, many, dearest)))


def _one_more(total: np.ndarray, n: np.ndarray, cost: float) -> float:
    """Upper normal limit of the mean of groups ``[G]`` and one more of the usual size whose items all have ``cost``."""
    total, n = np.append(total, n.mean() * cost), np.append(n, n.mean())
    mean = total.sum() / n.sum()
    return float(mean + Z * np.sqrt(np.square(total - mean * n).sum()) / n.sum())
