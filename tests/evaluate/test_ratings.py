"""Paper 156, ImagenHub: scores from raters' sheets, and how far raters agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handful.errors import BadInput
from handful.evaluate.ratings import (
    Sheet,
    aggregate,
    agreement,
    check_claims,
    consistency,
    fleiss_kappa,
    geometric,
    krippendorff_alpha,
    metric_correlation,
    read_sheet,
    weighted,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "imagenhub.json").read_text(encoding="utf-8"))


def sheets(model: str) -> list[Sheet]:
    return [
        {model: {str(i): (int(sc) / 2, int(pq) / 2) for i, (sc, pq) in enumerate(zip(*rater, strict=True))}}
        for rater in GOLDEN["ratings"][model]
    ]


def made(seed: int, images: int = 40, raters: int = 3) -> list[dict[str, dict[str, tuple[float, float]]]]:
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 3, (images, 2))
    values = np.where(rng.random((raters, images, 2)) < 0.6, true, rng.integers(0, 3, (raters, images, 2))) / 2
    return [{"m": {str(i): (float(sc), float(pq)) for i, (sc, pq) in enumerate(rater)}} for rater in values]


@pytest.mark.paper(156, oracle="a")
@pytest.mark.parametrize(
    ("model", "published"),
    [
        ("DALLE3", {"SC": 0.79, "PQ": 0.79, "O": 0.76, "alpha O": 0.34}),
        ("Midjourney", {"SC": 0.67, "PQ": 0.92, "O": 0.73, "alpha O": 0.51}),
        ("SD", {"SC": 0.56, "PQ": 0.53, "O": 0.50, "alpha O": 0.50}),
        ("InstructPix2Pix", {"O": 0.27, "alpha O": 0.74}),
        ("ControlNet", {"SC": 0.42, "PQ": 0.19, "O": 0.23, "alpha SC": 0.64, "kappa SC": 0.42}),
    ],
)
def test_the_published_tables(model: str, published: dict[str, float]) -> None:
    (row,) = aggregate(sheets(model))
    found: dict[str, float] = dict(row.mean)
    for name, value in row.agreement.items():
        found |= {f"alpha {name}": value.alpha, f"kappa {name}": value.kappa}
    assert {name: round(found[name], 2) for name in published} == published


@pytest.mark.paper(156, oracle="b")
@pytest.mark.parametrize("case", GOLDEN["random"], ids=["3", "4", "5", "6"])
def test_agreement_is_that_of_the_usual_packages(case: dict[str, Any]) -> None:
    table = np.array(case["table"]) / 2
    assert fleiss_kappa(table) == pytest.approx(case["kappa"], abs=1e-10)
    for level, alpha in case["alpha"].items():
        assert krippendorff_alpha(table, level) == pytest.approx(alpha, abs=1e-10)
    table[0, :5] = np.nan
    assert krippendorff_alpha(table) == pytest.approx(case["alpha_missing"], abs=1e-10)


@pytest.mark.paper(156, oracle="c")
def test_perfect_and_no_agreement() -> None:
    rng = np.random.default_rng(0)
    same = np.tile(rng.integers(0, 3, 50), (3, 1))
    assert fleiss_kappa(same) == pytest.approx(1) and krippendorff_alpha(same) == pytest.approx(1)
    chance = rng.integers(0, 3, (3, 2000))
    assert abs(fleiss_kappa(chance)) < 0.05 and abs(krippendorff_alpha(chance)) < 0.05


@pytest.mark.paper(156, oracle="d")
def test_overall_lies_between_nothing_and_the_root_of_the_means() -> None:
    for seed in range(5):
        (row,) = aggregate(made(seed))
        assert 0 <= row.mean["O"] <= np.sqrt(row.mean["SC"] * row.mean["PQ"]) + 1e-12
    assert (geometric(np.array([0, 0.5, 1]), np.array([1, 0, 0])) == 0).all()


@pytest.mark.paper(156, oracle="e")
def test_the_order_of_raters_and_images_does_not_matter() -> None:
    first = made(1)
    turned = [{"m": dict(reversed(sheet["m"].items()))} for sheet in reversed(first)]
    (a,), (b,) = aggregate(first), aggregate(turned)
    assert a.mean == pytest.approx(b.mean) and a.sd == pytest.approx(b.sd)
    assert a.agreement["O"].alpha == pytest.approx(b.agreement["O"].alpha)


def test_the_spread_is_that_of_the_raters_as_a_population() -> None:
    (row,) = aggregate([{"m": {"a": (0.0, 1.0)}}, {"m": {"a": (1.0, 1.0)}}])
    assert (row.mean["SC"], row.sd["SC"], row.sd["PQ"]) == (0.5, 0.5, 0.0)
    found = json.loads(json.dumps(row.as_dict(), allow_nan=False))
    assert found["agreement"]["PQ"] == {"kappa": None, "alpha": None, "reason": "all values are 1"}
    assert agreement(np.ones((3, 4))).reason == "all values are 1"
    (other,) = aggregate(made(0), weighted)
    assert other.mean["O"] == pytest.approx(0.7 * other.mean["SC"] + 0.3 * other.mean["PQ"])


def test_claims_that_hold_and_do_not() -> None:
    both = [{**b["m"]} for b in made(0)], [{**b["m"]} for b in made(1)]
    raters: list[Sheet] = [{"a": a, "b": b} for a, b in zip(*both, strict=True)]
    first, second = aggregate(raters)
    claim, other = check_claims(raters, [("a", "b"), ("b", "a")])
    assert claim.test.difference.value == pytest.approx(first.mean["O"] - second.mean["O"])
    assert claim.holds is (first.mean["O"] > second.mean["O"]) is not other.holds
    assert claim.test.difference.low < claim.test.difference.value < claim.test.difference.high
    best = [{"best": dict.fromkeys(a, (1.0, 1.0)), "a": a} for a in both[0]]
    (sure,) = check_claims(best, [("best", "a")])
    assert sure.holds and sure.test.difference.low > 0 and sure.test.p < 1e-6
    with pytest.raises(BadInput, match="'c' was not rated; there are: a, b"):
        check_claims(raters, [("a", "c")])
    with pytest.raises(BadInput, match="same images"):
        check_claims([{"a": {"x": (0.0, 0.0)}, "b": {"y": (0.0, 0.0)}}] * 2, [("a", "b")])


def test_the_lowest_condition_counts() -> None:
    assert consistency([1, 0.5, 1]) == 0.5
    with pytest.raises(BadInput, match="conditions are rated"):
        consistency([0.7])


def test_correlation_of_a_metric() -> None:
    rng = np.random.default_rng(0)
    human = rng.random(200)
    found = metric_correlation(human + rng.normal(size=200), human)
    assert found.low < found.value < found.high and 0 < found.value < 0.5
    assert metric_correlation(human**3, human).value == pytest.approx(1)
    with pytest.raises(BadInput, match="one value only"):
        metric_correlation(np.ones(5), human[:5])
    with pytest.raises(BadInput, match="four pairs"):
        metric_correlation([1, 2, 3], [1, 2, 3])


@pytest.mark.parametrize("wrong", [None, (1.0,), (0.0, 0.5, 1.0), ("good", 1.0)])
def test_ratings_that_are_no_pairs_of_numbers(wrong: Any) -> None:
    with pytest.raises(BadInput, match="ratings of 'm' are pairs of numbers"):
        aggregate([{"m": {"a": wrong}}, {"m": {"a": wrong}}])


def test_an_overall_score_of_ones_own_is_checked() -> None:
    for own in (lambda sc, pq: 1.0, lambda sc, pq: np.where(sc > 0.4, np.nan, pq)):
        with pytest.raises(BadInput, match="overall gave"):
            aggregate(made(0), own)  # type: ignore[arg-type, return-value]
        with pytest.raises(BadInput, match="overall gave"):
            check_claims([{"a": s["m"], "b": s["m"]} for s in made(0)], [("a", "b")], own)  # type: ignore[arg-type, return-value]
    for wrong in (krippendorff_alpha, fleiss_kappa):
        with pytest.raises(BadInput, match="each category, must be numbers"):
            wrong(np.array([["good", "bad"], ["good", "good"]]))  # type: ignore[operator]
    with pytest.raises(BadInput, match="finite values"):
        krippendorff_alpha(np.array([[1, np.inf], [1, 2]]))


def test_sheets() -> None:
    text = "uid\tA\tB\nx.jpg\t[0,0.5]\t[1, 1]\ny.jpg\t(0.5, 0)\t[0,0]\n"
    assert read_sheet(text)["A"] == {"x.jpg": (0.0, 0.5), "y.jpg": (0.5, 0.0)}
    for wrong, complaint in [
        ("uid\tA\nx\t__import__('os').getcwd()", "line 2, A: a cell reads"),
        ("uid\tA\nx\t[1]", "a cell reads"),
        ("uid\tA\n\n\nx\t[1]", "line 4, A: a cell reads"),  # as an editor counts lines
        ("uid\tA\nx\t[1" + "0" * 400 + ", 0]", "a cell reads"),
        ("uid\tA\nx\t[0,0]\nx\t[0,0]", "'x' comes twice"),
        ("uid\tA\tA\nx\t[0,0]\t[1,1]", "model 'A' has two columns"),
        ("uid\tA\nx", "0 cells for 1 models"),
        ("uid", "no sheet"),
    ]:
        with pytest.raises(BadInput, match=complaint):
            read_sheet(wrong)


def test_bad_input() -> None:
    one: Sheet = {"m": {"a": (0.0, 1.0)}}
    for other, complaint in [
        ({"n": {"a": (0.0, 1.0)}}, "rater 2 rated other models"),
        ({"m": {"b": (0.0, 1.0)}}, "rater 2 rated other images of 'm'"),
        ({}, "rater 2 rated other models"),
        ({"m": {"a": (0.0, 0.7)}}, "rater 2: 'm', image 'a' is rated 0.7"),
    ]:
        with pytest.raises(BadInput, match=complaint):
            aggregate([one, other])
    with pytest.raises(BadInput, match="two raters or more"):
        aggregate([one])
    with pytest.raises(BadInput, match="no model"):
        aggregate([{}, {}])
    with pytest.raises(BadInput, match="no image of 'm'"):
        aggregate([{"m": {}}, {"m": {}}])
    with pytest.raises(BadInput, match="value of each rater"):
        fleiss_kappa(np.array([[1, np.nan], [1, 0]]))
    with pytest.raises(BadInput, match="not 'ratio'"):
        krippendorff_alpha(np.eye(2), "ratio")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="two raters at least"):
        krippendorff_alpha(np.array([[1, np.nan], [np.nan, 0]]))
