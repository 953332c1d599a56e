"""The report of a model of several labels an item."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from report_cards import DATE, HOSTILE, SPELT, Page, make_card

from handful.errors import BadInput
from handful.evaluate.label_sets import assess_label_sets
from handful.ship.report import render

LABELS = ["refund", "login", HOSTILE]


def found(seed: int) -> dict[str, Any]:
    """An assessment of sixty items; the second label is hard."""
    rng = np.random.default_rng(seed)
    y = (rng.random((60, 3)) < 0.5).astype(int)
    scores = y + rng.normal(size=y.shape) * np.array([0.2, 1.5, 0.2])
    return assess_label_sets(y, scores, scores > 0.5, LABELS).as_dict()


def sets_card(test: bool = True) -> dict[str, Any]:
    """A card as `handful fit --multi-label` makes it."""
    card = copy.deepcopy(make_card())
    card["task"]["classes"] = [{"name": name, "count": 30} for name in LABELS]
    card |= {
        "estimate": None,
        "test": None,
        "metric": "micro-f1",
        "shots_curve": [],
        "selective": None,
        "suspicious": [],
    }
    card["label_sets"] = {
        "separator": ";",
        "none": None,
        "labels_per_item": 1.5,
        "without": 7,
        "not_judged": ["rare"],
        "estimate": {
            "method": "10 fits",
            "groups": {"count": 41, "largest": 3, "by": "'customer'"},
            "assessment": found(0),
        },
        "test": {"source": "test.csv", "note": None, "assessment": found(1)} if test else None,
    }
    return card


def shown(estimate: dict[str, float]) -> str:
    value, low, high = (f"{100 * estimate[key]:.0f}" for key in ("value", "low", "high"))
    return f"{value} % [{low}, {high}]"


def test_the_test_comes_first_and_the_estimate_beside_it() -> None:
    card = sets_card()
    page = Page(render(card, date=DATE))
    test, estimate = (card["label_sets"][part]["assessment"] for part in ("test", "estimate"))
    assert f"Micro-F1 on new items {shown(test['micro_f1'])}" in page.text
    assert "Measured on test.csv: 60 labelled items it never learnt from" in page.text
    assert f"Beside it, 10 fits: {shown(estimate['micro_f1'])}" in page.text.replace("estimated by ", "")
    for name, key in (("Macro-F1", "macro_f1"), ("Mean average precision", "mean_average_precision")):
        assert f"{name} {shown(test[key])}" in page.text
    assert "A text classifier for 3 labels, several an item, from" in page.text
    assert "Not judged, for want of a second example: rare." in page.text


def test_labels_stand_the_weakest_first_and_harmless() -> None:
    card = sets_card(test=False)
    text = render(card, date=DATE)
    page = Page(text)
    rows = [row for row in card["label_sets"]["estimate"]["assessment"]["per_label"] if row["label"] == "login"]
    table = page.text[page.text.index("Labels, the weakest first") :]
    assert table.index("login") < table.index("refund")
    assert shown(rows[0]["f1"]) in table and shown(rows[0]["average_precision"]) in table
    assert f"login has the lowest F1, {shown(rows[0]['f1'])}" in page.text
    assert "<script>" not in text and SPELT[:40] in page.text
    assert "The interval rests on 41 groups ('customer'), the largest with 3 items." in page.text


def test_another_metric_comes_first() -> None:
    card = sets_card() | {"metric": "exact-match"}
    page = Page(render(card, date=DATE))
    assert f"Exact match on new items {shown(card['label_sets']['test']['assessment']['exact_match'])}" in page.text


def test_without_an_estimate_it_says_why() -> None:
    card = sets_card(test=False)
    card["label_sets"]["estimate"] = {"method": "not estimated: too few", "groups": None, "assessment": None}
    page = Page(render(card, date=DATE))
    assert "How good it is, nobody knows yet Not estimated: too few." in page.text


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, part in steps:
        yield from places(part, (*path, step))


@pytest.mark.parametrize("odd", [None, "x", -1, 1e300, float("nan"), [], {}, True])
def test_an_odd_value_gives_a_page_or_one_line(odd: Any) -> None:
    whole = sets_card()
    pages, refused = 0, 0
    for path in places(whole["label_sets"], ("label_sets",)):
        card = copy.deepcopy(whole)
        part = card
        for step in path[:-1]:
            part = part[step]
        part[path[-1]] = odd
        try:
            Page(render(card, date=DATE))
            pages += 1
        except BadInput as error:
            assert "label_sets" in str(error)
            refused += 1
    assert pages + refused > 80 and (refused > 10 or odd is None)
