"""Protocols on features: against what they are made of, by hand, and refused where they do not fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid

from handful.adapt import head_class
from handful.adapt.base import Features
from handful.core.intervals import mean_interval
from handful.errors import BadInput
from handful.evaluate.partition import few_shot_subset, partition
from handful.evaluate.suites import SUITES, Setting, SuiteData, feasible, find_suite, judge

NAMES = [f"c{i:02d}" for i in range(8)]


def make(spread: float = 0.9, n: int = 40, name: str = "toy", seed: int = 0, d: int = 12) -> SuiteData:
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(8, d))
    y = np.repeat(np.arange(8), n)
    x = (means[y] + spread * rng.normal(size=(len(y), d))).astype(np.float32)
    text = {name: means[i : i + 1].astype(np.float32) for i, name in enumerate(NAMES)}
    return SuiteData(name, "features", Features(x, {}), np.array(NAMES)[y], text)


DATA = make()


def at(key: str, head: str, setting: int = 0, data: SuiteData = DATA, episodes: int = 60, **params):
    suite = SUITES[key] if SUITES[key].kind != "episodes" else replace(SUITES[key], episodes=episodes)
    made = head_class(head)(text=data.text, **params)
    return judge(suite, suite.settings[setting], made, data)


@pytest.mark.paper(111, oracle="e", part="benchmark")
def test_nearest_mean_and_logistic_regression_are_those_of_scikit_learn() -> None:
    suite = SUITES["rsvlm-benchmark"]
    x, y, parts = DATA.features.x, DATA.labels, partition(DATA.labels)
    found = at("rsvlm-benchmark", "prototypes", 2)
    linear = at("rsvlm-benchmark", "logistic", 2, C=1.0)
    for s, seed in enumerate(suite.seeds):
        rows = few_shot_subset(y, parts.train, 4, seed)
        centroid = NearestCentroid().fit(x[rows], y[rows]).predict(x[parts.test])
        assert (found.scores[s] == (centroid == y[parts.test])).mean() > 0.99
        peer = LogisticRegression(C=1.0, tol=1e-8, max_iter=5000).fit(x[rows], y[rows])
        assert (linear.scores[s] == (peer.predict(x[parts.test]) == y[parts.test])).mean() > 0.97


@pytest.mark.paper(111, oracle="b", part="benchmark")
def test_the_interval_over_tasks_covers_the_mean_of_all_tasks() -> None:
    suite = replace(SUITES["closer-look"], episodes=3000)
    a = judge(suite, suite.settings[0], head_class("prototypes")(), DATA, seed=1).scores[0]
    rng = np.random.default_rng(0)
    held = [(lambda e: e.low <= a.mean() <= e.high)(mean_interval(a[rng.integers(0, len(a), 60)])) for _ in range(1000)]
    assert 0.93 <= np.mean(held) <= 0.97


@pytest.mark.paper(13, oracle="b", part="benchmark")
def test_methods_without_their_part_are_zero_shot() -> None:
    zero = at("rsvlm-benchmark", "zero-shot")
    tip = at("rsvlm-benchmark", "tip-adapter", alpha=0.0)
    assert (tip.scores == zero.scores).all()
    assert zero.deviation == pytest.approx(0)
    assert at("rsvlm-benchmark", "tip-adapter", alpha=50.0).deviation > 0


@pytest.mark.paper(13, oracle="c", part="benchmark")
def test_the_same_seeds_give_the_same_scores() -> None:
    one, two = (at("rsvlm-benchmark", "tip-adapter-f", 1) for _ in range(2))
    assert (one.scores == two.scores).all() and one.scores.shape == (3, len(partition(DATA.labels).test))


def test_elevater_takes_the_metric_of_the_data_set() -> None:
    keep = np.r_[0:320:1][(np.arange(320) % 40 < 20) | (np.arange(320) < 40)]  # the first class is twice as large
    cut = replace(DATA, features=DATA.features.take(keep), labels=DATA.labels[keep])
    plain, per_class = (at("elevater", "prototypes", 0, replace(cut, name=name)) for name in ("toy", "my-flowers"))
    test = cut.labels[partition(cut.labels).test]
    right = plain.scores > 0
    wanted = np.mean([[right[s][test == c].mean() for c in NAMES] for s in range(3)])
    assert per_class.value == pytest.approx(wanted)
    assert plain.value == pytest.approx(right.mean()) and plain.value != per_class.value
    with pytest.raises(BadInput, match="hateful-memes: ELEVATER judges it by roc-auc"):
        at("elevater", "prototypes", 0, replace(cut, name="hateful-memes"))


def test_classes_that_come_later() -> None:
    grown, again = at("fscil", "prototypes"), at("fscil", "logistic")
    assert grown.scores.shape == again.scores.shape == (3, len(partition(DATA.labels).test))
    for found in (grown, again):
        assert set(found.figures) == {"average", "drop", "base", "novel", "harmonic"}
        assert found.value == pytest.approx(found.scores.mean())
        assert 0 < found.figures["drop"] < 1


def test_classes_that_never_come() -> None:
    found = at("generalised", "eszsl")
    assert found.scores.size == 0  # H is no mean, so nothing is tested
    assert found.value == found.figures["H"] > 0
    with pytest.raises(BadInput, match="head 'prototypes' cannot answer for them"):
        at("generalised", "prototypes")
    with pytest.raises(BadInput, match="has no class text"):
        at("generalised", "eszsl", data=replace(DATA, text=None))


def test_what_cannot_be_run_is_said() -> None:
    small = make(n=12).labels
    assert feasible(SUITES["rsvlm-benchmark"], Setting(None, 4), small) is None
    assert "8-shot: class 'c00' has 6 of the 8 items" in (
        feasible(SUITES["rsvlm-benchmark"], Setting(None, 8), small) or ""
    )
    assert feasible(SUITES["elevater"], Setting(None, 8), small) is None  # validation items may be learnt from
    assert "there are 8 classes" in (feasible(SUITES["closer-look"], Setting(9, 1), small) or "")
    assert feasible(SUITES["closer-look"], Setting("any", "any"), small) is None
    assert feasible(SUITES["fscil"], Setting(5, 1), np.array(["a", "b", "b", "b", "b"])) == (
        "5-way 1-shot: class 'a' has 1 items: none is left to test on"
    )
    with pytest.raises(BadInput, match="no suite 'elevator'; did you mean 'elevater'"):
        find_suite("elevator")
    with pytest.raises(BadInput, match="leave out --shots"):
        SUITES["fewclue"].changed([1])
    with pytest.raises(BadInput, match="no such number"):
        SUITES["elevater"].changed(episodes=10)
    with pytest.raises(BadInput, match="numbers from 1 on"):
        SUITES["elevater"].changed(["any"])
    assert [s.name for s in SUITES["closer-look"].changed([2, "any"]).settings] == ["5-way 2-shot", "any-way any-shot"]
