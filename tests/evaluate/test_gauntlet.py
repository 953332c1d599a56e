"""185: many benchmarks in one number, as the framework's own gauntlet counts them."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from handful.errors import BadInput
from handful.evaluate.gauntlet import Benchmark, Gauntlet, normalised_average, rescaled

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "gauntlet.json").read_text(encoding="utf-8"))
TWO = {"c": [Benchmark("a", chance=0.25), Benchmark("b", 2)]}


@pytest.mark.paper(185, oracle="a")
def test_a_guesser_scores_nothing_and_who_knows_all_one() -> None:
    assert rescaled(0.625, 0.25) == 0.5
    gauntlet = Gauntlet(TWO)
    assert gauntlet.score({"a/0-shot": [0.25], "b/2-shot": [0.0]}).categories["c"] == 0
    assert gauntlet.score({"a/0-shot": [1.0], "b/2-shot": [1.0, 1.0]}).averages["average"] == 1
    found = gauntlet.score({"a/0-shot": [0.5, 0.75], "b/2-shot": [0.1]})
    assert found.categories["c"] == pytest.approx(0.3)  # of 0.5 and 0.1


@pytest.mark.paper(185, oracle="b")
@pytest.mark.parametrize("run", GOLDEN["runs"])
def test_counts_as_the_gauntlet_of_the_framework(run: dict[str, Any]) -> None:
    categories = {
        one["name"]: [Benchmark(b["name"], b["num_fewshot"], b["random_baseline"]) for b in one["benchmarks"]]
        for one in run["categories"]
    }
    sizes: dict[str, int] = defaultdict(int)
    for name, n in run["sizes"].items():
        sizes["/".join(name.split("/")[:2])] += n
    weighting = {"EQUAL": "equal", "SAMPLE_SZ": "size", "LOG_SAMPLE_SZ": "log-size"}[run["weighting"]]
    averages = {"every": tuple(categories), "two": ("category1", "category2")}
    gauntlet = Gauntlet(categories, weighting, run["subtract"], run["rescale"], averages)  # type: ignore[arg-type]
    found = gauntlet.score(run["accuracies"], sizes)
    expected = run["scores"]
    assert found.categories == pytest.approx({k: v for k, v in expected.items() if k in categories}, abs=1e-9)
    assert found.averages == pytest.approx({k: v for k, v in expected.items() if k in averages}, abs=1e-9)
    assert set(found.missing) == set(categories) - set(expected)


def test_a_category_with_a_benchmark_missing_is_dropped_and_named() -> None:
    found = Gauntlet({**TWO, "d": [Benchmark("e")]}).score({"a/0-shot": [1.0], "e/0-shot": [0.5]})
    assert found.categories == {"d": 0.5} == {"d": found.averages["average"]}
    assert found.missing == {"c": ("b/2-shot",)}
    assert Gauntlet(TWO).score({}).averages == {"average": None}


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Gauntlet(TWO, subtract=False), "only with chance subtracted"),
        (lambda: Gauntlet({"c": [Benchmark("a", chance=1.0)]}), "has chance 1"),
        (lambda: Gauntlet({"c": []}), "has no benchmark"),
        (lambda: Gauntlet(TWO, "own"), "weighting is 'own'"),  # type: ignore[arg-type]
        (lambda: Gauntlet(TWO, averages={"c": ["c"]}), "a name of its own"),
        (lambda: Gauntlet(TWO, "size").score({"a/0-shot": [1.0], "b/2-shot": [1.0]}), "needs the number of items"),
        (lambda: Gauntlet(TWO).score({"a/0-shot": [], "b/2-shot": [1.0]}), "is empty"),
        (lambda: Gauntlet(TWO).score({"a/0-shot": [62.5], "b/2-shot": [1.0]}), "an accuracy is from 0 to 1"),
        (lambda: Gauntlet(TWO).score({"a/0-shot": [float("nan")], "b/2-shot": [1.0]}), "holds .nan.; an accuracy"),
        (lambda: rescaled(0.5, 1.0), "not below the best"),
        (lambda: normalised_average({}, {}), "no scores"),
        (
            lambda: normalised_average({"a": {"x": 75.2}}, {"a": 0.25}),
            "'x' in suite 'a' is 75.2; the best there is is 1",
        ),
        (lambda: normalised_average({"a": {"x": float("nan")}}, {"a": 0.25}), "'x' in suite 'a' is nan"),
        (lambda: normalised_average({"a": {"x": 1.0}}, {"b": 0}), "not given for all of suite 'a'"),
        (lambda: normalised_average({"a": {"x": 1.0}}, {"a": {"y": 0}}), "not given for all of suite 'a'"),
    ],
)
def test_bad_input(make: Any, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        make()
