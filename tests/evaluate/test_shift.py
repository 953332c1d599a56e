"""Two test sets compared: the line, its intervals, what it says; and collecting a set anew."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from handful.errors import BadInput
from handful.evaluate.retest import Judged, nearest_pairs, resample_test_set
from handful.evaluate.shift import effective_robustness, gap, robustness_fit

OLD = np.array([0.55, 0.6, 0.65, 0.7, 0.75, 0.8])


@pytest.fixture(scope="module")
def imagenet(shared_data: Path) -> dict[str, np.ndarray]:
    """Columns of the table of 65 models; ImageNetV2 predictions by modestyachts/ImageNetV2 (MIT)."""
    with (shared_data / "imagenet_v2" / "accuracies.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {key: np.array([row[key] if key == "model" else float(row[key]) for row in rows]) for key in rows[0]}


PUBLISHED = {
    "matched-frequency": {"drop": 11.88, "slope": 0.9438, "intercept": -0.3098, "r2": 0.9974, "rho": 0.9965},
    "threshold-0.7": {"drop": 3.13, "slope": 1.0271, "r2": 0.9978},
    "top-images": {"drop": -2.17},
}


@pytest.mark.paper(136, oracle="a")
@pytest.mark.parametrize("name", PUBLISHED)
def test_imagenet_v2_to_the_printed_digit(imagenet: dict[str, np.ndarray], name: str) -> None:
    fit = robustness_fit(imagenet["original_top1"], imagenet[f"{name}_top1"], models=imagenet["model"].tolist())
    got = {
        "drop": round(100 * fit.drop.value, 2),
        "slope": round(fit.slope.value, 4),
        "intercept": round(fit.intercept.value, 4),
        "r2": round(fit.r2, 4),
        "rho": round(fit.rank_correlation, 4),
    }
    assert {key: got[key] for key in PUBLISHED[name]} == PUBLISHED[name]
    assert fit.verdict == ("no drop" if name == "top-images" else "harder")
    if name == "matched-frequency":
        linear = robustness_fit(imagenet["original_top1"], imagenet[f"{name}_top1"], "linear")
        assert round(linear.slope.value, 3) == 0.977 == round(fit.worth.value, 3) and round(linear.r2, 4) == 0.9844


@pytest.mark.paper(136, oracle="a")
def test_accuracies_from_the_predictions(shared_data: Path) -> None:
    sets = ("original", "threshold-0.7", "matched-frequency", "top-images")
    with np.load(shared_data / "imagenet_v2" / "correct.npz", allow_pickle=False) as file:
        models = file["models"].tolist()
        table = [np.unpackbits(file[f"{s}/top1"], axis=1)[:, : len(file[f"{s}/labels"])].mean(axis=1) for s in sets]
    points = dict(zip(models, np.round(100 * np.array(table), 2).T.tolist(), strict=True))
    assert points["resnet50"] == [76.13, 72.70, 63.33, 78.09]
    assert points["pnasnet_large_tf"] == [82.86, 80.16, 72.19, 83.89]
    assert points["alexnet"] == [56.52, 51.31, 43.98, 58.18]
    assert points["vgg16"] == [71.59, 67.95, 58.84, 73.88]


@pytest.mark.paper(136, oracle="b")
@pytest.mark.parametrize("scale", ["probit", "logit", "linear"])
def test_a_line_is_found_again(scale: str) -> None:
    law = {"probit": stats.norm, "logit": stats.logistic, "linear": stats.uniform}[scale]
    new = law.cdf(0.9 * law.ppf(OLD) - 0.04)
    fit = robustness_fit(OLD, new, scale)  # type: ignore[arg-type]
    for estimate, truth in ((fit.slope, 0.9), (fit.intercept, -0.04)):
        assert estimate.value == pytest.approx(truth)
        assert estimate.low == pytest.approx(truth) and estimate.high == pytest.approx(truth)
    assert fit.r2 == pytest.approx(1) and fit.rank_correlation == pytest.approx(1) and fit.rank_changes == 0
    assert fit.expected(0.7).value == pytest.approx(new[3])
    assert effective_robustness(0.7, new[3] + 0.02, fit).value == pytest.approx(0.02)


@pytest.mark.paper(136, oracle="b")
def test_the_same_set_twice() -> None:
    fit = robustness_fit(OLD, OLD)
    assert (fit.slope.value, fit.intercept.value, fit.r2) == pytest.approx((1, 0, 1))
    assert fit.drop.value == fit.smallest == fit.largest == 0 and fit.verdict == "no drop"


def test_intervals_hold_the_line_as_often_as_they_say() -> None:
    draw, held = np.random.default_rng(0), 0
    for _ in range(100):
        x = draw.normal(size=40)
        y = 0.8 * x - 0.3 + draw.normal(0, 0.1, 40)
        fit = robustness_fit(stats.norm.cdf(x), stats.norm.cdf(y), replicates=300)
        held += fit.slope.low <= 0.8 <= fit.slope.high
    assert 87 <= held <= 99


def test_a_worn_set_is_told_from_harder_items() -> None:
    noise = np.random.default_rng(0).normal(0, 0.002, 20)
    old = np.linspace(0.6, 0.9, 20)
    assert robustness_fit(old, old - 0.1 + noise).verdict == "harder"
    worn = robustness_fit(old, 0.55 + 0.5 * (old - 0.6) + noise)
    assert worn.verdict == "flattered" and "may be worn" in worn.sentence
    assert worn.worth.value == pytest.approx(0.5, abs=0.02)


def test_drop_in_its_parts() -> None:
    parts = gap(0.9, 0.8, 100)
    assert parts.drop == pytest.approx(0.1)
    exact = stats.binomtest(80, 100).proportion_ci(method="exact")
    assert (parts.rest.low, parts.rest.high) == pytest.approx((0.9 - exact.high, 0.9 - exact.low))
    assert parts.generalisation == pytest.approx(0.8 - exact.low)
    assert json.loads(json.dumps(parts.as_dict()))["rest"]["value"] == pytest.approx(0.1)


def test_accuracies_at_the_edge_are_moved_and_named() -> None:
    fit = robustness_fit([0.5, 0.8, 1.0], [0.4, 0.7, 0.9], models=["a", "b", "c"], n_old=50, n_new=50)
    assert fit.clipped == ("c",)
    same = robustness_fit([0.5, 0.8, 0.99], [0.4, 0.7, 0.9], n_old=50, n_new=50)
    assert fit.slope.value == pytest.approx(same.slope.value) and same.clipped == ()
    assert fit.models[2].old.high == 1 and 0.92 < fit.models[2].old.low < 0.94
    plain = json.loads(json.dumps(fit.as_dict()))
    assert plain["models"][0]["model"] == "a" and plain["clipped"] == ["c"] and "lines" not in plain


@pytest.mark.parametrize(
    ("old", "new", "more", "complaint"),
    [
        (100 * OLD, 100 * OLD, {}, "old accuracy of model 0 is 55.*percent: divide by 100"),
        (OLD, [0.5, np.nan, 0.5, 0.5, 0.5, 0.5], {}, "new accuracy of model 1 is nan"),
        (OLD[:2], OLD[:2], {}, "at least 3"),
        (OLD, OLD[:5], {}, "one row for each"),
        ([0.5, 0.7, 1.0], [0.5, 0.7, 0.9], {}, "infinite on the probit scale: give n_old"),
        (OLD, OLD, {"n_new": [10, 10, 10, 10, 10, 9]}, "n_new: models were judged on 9 to 10 items"),
        (OLD, OLD, {"n_old": 0}, "n_old is 0"),
        (OLD, OLD, {"scale": "log"}, "unknown scale"),
        (OLD, OLD, {"confidence": 2.0}, "confidence is between 0 and 1"),
        (OLD, OLD, {"replicates": 0}, "replicates at least 1"),
        ([0.5, 0.5, 0.5], [0.3, 0.4, 0.5], {}, "need.* models that differ|models that differ"),
        ([OLD], [OLD], {}, "not of shape"),
    ],
)
def test_refusals(old: object, new: object, more: dict[str, object], complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        robustness_fit(old, new, **more)  # type: ignore[arg-type]


def pool(n: int = 200, seed: int = 0) -> Judged:
    draw = np.random.default_rng(seed)
    return Judged(np.repeat(["cat", "dog"], n // 2), np.round(draw.beta(2, 1, n), 1), draw.integers(10, 20, n))


def per_class(items: Judged, rows: tuple[int, ...]) -> list[int]:
    return np.unique(np.asarray(items.labels)[list(rows)], return_counts=True)[1].tolist()


@pytest.mark.paper(136, oracle="b", part="benchmark")
def test_the_pool_matched_to_itself_has_its_own_histogram() -> None:
    old = Judged(["a"] * 10, [0.0, 0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0], [10] * 10)
    sample = resample_test_set(old, "matched", 10, seed=0, old=old)
    assert sample.rows == tuple(range(10)) and sample.from_other_bins == {}
    half = resample_test_set(old, "matched", 5, seed=0, old=old)
    bins = np.digitize(np.asarray(old.frequency)[list(half.rows)], [0.2, 0.4, 0.6, 0.8])
    # 2 2 1 2 3 of ten are 1 1 .5 1 1.5 of five: the last of equal remainders is rounded up
    assert np.bincount(bins, minlength=5).tolist() == [1, 1, 0, 1, 2]


def test_the_three_strategies_order_as_published() -> None:
    """Top is easiest, then threshold; matched has the frequencies of the old set."""
    old = Judged(np.repeat(["cat", "dog"], 50), np.tile([0.1, 0.3, 0.5, 0.7, 0.9], 20), np.full(100, 10))
    mean = {}
    for strategy in ("threshold", "matched", "top"):
        sample = resample_test_set(pool(), strategy, 10, seed=0, old=old)  # type: ignore[arg-type]
        assert per_class(pool(), sample.rows) == [10, 10]
        mean[strategy] = sample.frequency
    assert mean["top"] > mean["threshold"] > mean["matched"]
    assert mean["matched"] == pytest.approx(0.5, abs=0.1)
    f = np.asarray(pool().frequency)
    rows = resample_test_set(pool(), "threshold", 10, seed=0).rows
    assert f[list(rows)].min() >= 0.7
    top = resample_test_set(pool(), "top", 10, seed=0)
    assert top.lowest["cat"] == np.sort(f[:100])[-10]


def test_an_empty_bin_borrows_from_above_and_says_so() -> None:
    old = Judged(["a"] * 4, [0.1, 0.3, 0.5, 0.9], [10] * 4)
    some = Judged(["a"] * 6, [0.1, 0.5, 0.5, 0.5, 0.9, 0.9], [10] * 6)
    sample = resample_test_set(some, "matched", 4, seed=0, old=old)
    assert sample.from_other_bins == {"a": 1} and np.asarray(some.frequency)[list(sample.rows)].tolist() == [
        0.1, 0.5, 0.5, 0.9,
    ]  # fmt: skip


def test_revisions_keep_what_they_can() -> None:
    first = resample_test_set(pool(), "threshold", 10, seed=0)
    assert resample_test_set(pool(), "threshold", 10, seed=0) == first
    duplicate = np.zeros(200, bool)
    duplicate[first.rows[3]] = True
    second = resample_test_set(pool(), "threshold", 10, seed=1, duplicate=duplicate, previous=first.rows)
    assert set(first.rows) - set(second.rows) == {first.rows[3]} and len(second.kept) == 19
    assert second.left_out["duplicate"] == 1 and per_class(pool(), second.rows) == [10, 10]
    assert json.loads(json.dumps(second.as_dict()))["strategy"] == "threshold"


def test_a_class_may_have_a_threshold_of_its_own() -> None:
    low = Judged(["a"] * 4 + ["b"] * 4, [0.5] * 4 + [0.8] * 4, [10] * 8)
    with pytest.raises(BadInput, match="class a: 0 candidates are eligible, 2 are asked for"):
        resample_test_set(low, "threshold", 2, seed=0)
    assert per_class(low, resample_test_set(low, "threshold", 2, seed=0, thresholds={"a": 0.4}).rows) == [2, 2]


def test_nearest_pairs_find_the_copies() -> None:
    draw = np.random.default_rng(0)
    old = draw.random((20, 16, 16))
    new = np.concatenate([draw.random((5, 16, 16)), np.clip(old[[7]] + 0.02, 0, 1), old[[3]]])
    first = nearest_pairs(new, old, "dssim", closest=2)
    assert first[:, :2].tolist() == [[6, 3], [5, 7]] and first[0, 2] == pytest.approx(0) and first[1, 2] < 0.05
    flat = nearest_pairs(new.reshape(7, -1), old.reshape(20, -1), closest=2)
    assert flat[:, :2].tolist() == [[6, 3], [5, 7]]
    assert flat[1, 2] == pytest.approx(np.linalg.norm(new[5] - old[7]))


def test_refusals_of_samples() -> None:
    with pytest.raises(BadInput, match="did you mean 'matched'"):
        resample_test_set(pool(), "match", seed=0)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="previous rows 3 to 200 of 200 candidates"):
        resample_test_set(pool(), "top", seed=0, previous=[3, 200])
    with pytest.raises(BadInput, match="give old="):
        resample_test_set(pool(), "matched", seed=0)
    with pytest.raises(BadInput, match="shares from 0 to 1"):
        resample_test_set(Judged(["a"], [70], [10]), "top", 1, seed=0)
    with pytest.raises(BadInput, match="class dog: no old item"):
        resample_test_set(pool(), "matched", 2, seed=0, old=Judged(["cat"], [0.9], [10]))
    with pytest.raises(BadInput, match="one length"):
        resample_test_set(Judged(["a"], [0.5, 0.5], [10]), "top", 1, seed=0)
    with pytest.raises(BadInput, match="class fox of the old set has no candidates"):
        three = Judged(["cat", "dog", "fox"], [0.9] * 3, [10] * 3)
        resample_test_set(pool(), "matched", 2, seed=0, old=three)
    with pytest.raises(BadInput, match="edges of bins ascend"):
        resample_test_set(pool(), "matched", 2, seed=0, old=pool(seed=1), edges=(0.6, 0.2))
    with pytest.raises(BadInput, match="a whole number of items"):
        resample_test_set(pool(), "top", 2.5, seed=0)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="of one size"):
        nearest_pairs(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(BadInput, match="not finite"):
        nearest_pairs(np.full((2, 3), np.nan), np.ones((2, 3)))
    with pytest.raises(BadInput, match="closest is"):
        nearest_pairs(np.ones((2, 3)), np.ones((2, 3)), closest=0)
