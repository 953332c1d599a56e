"""Requirements: how they are written, and that what is called proved is proved."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from handful.errors import BadInput
from handful.evaluate.proof import Evidence
from handful.evaluate.require import Verdict, check, parse_requirement


def verdict(text: str, right: int, n: int, groups: np.ndarray | None = None, confidence: float = 0.95) -> Verdict:
    """Of n items of class crack, ``right`` of which are found."""
    labels, answers = np.full(n, "crack"), np.array(["crack"] * right + ["ok"] * (n - right))
    return check(parse_requirement(text), labels, answers, groups, confidence, classes=["crack", "ok"])


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("recall[crack]>=0.95", ("recall", "crack", ">=", 0.95)),
        (" precision [ a b ] >= .9 ", ("precision", " a b ", ">=", 0.9)),
        ("false_alarm_rate[x>=y[0]<=0.02", ("false_alarm_rate", "x>=y[0", "<=", 0.02)),
        ("accuracy>=1e-1", ("accuracy", None, ">=", 0.1)),
    ],
)
def test_requirements_as_they_are_written(text: str, parts: tuple[object, ...]) -> None:
    found = parse_requirement(text)
    assert (found.metric, found.name, found.operator, found.value) == parts
    assert found.text == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recall[crack]>0.95", "read like"),
        ("recall[]>=0.95", "read like"),
        ("", "read like"),
        ("precison[x]>=0.9", "did you mean 'precision'"),
        ("macro_f1>=0.9", "no exact bound; there are: accuracy"),
        ("recall>=0.9", "of which class"),
        ("accuracy[crack]>=0.9", "of all classes"),
        ("recall[crack]>=95", "write 0.95"),
        ("recall[crack]>=-1", "not a share"),
        ("recall[crack]>=nan", "not a share"),
        ("recall[crack]>=high", "not a share"),
    ],
)
def test_what_is_no_requirement_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message) as error:
        parse_requirement(text)
    assert "\n" not in str(error.value)


def test_each_metric_is_the_share_it_says() -> None:
    labels = np.array(["crack"] * 10 + ["dent"] * 20 + ["ok"] * 70)
    answers = labels.copy()
    answers[[0, 1]], answers[[10, 30, 31]] = "ok", "crack"
    found = {
        text: check(parse_requirement(text), labels, answers)
        for text in ("recall[crack]>=0.5", "precision[crack]>=0.5", "accuracy>=0.5", "false_alarm_rate[crack]<=0.5")
    }
    counts = [(v.value, v.errors, v.n) for v in found.values()]
    assert counts == [(0.8, 2, 10), (8 / 11, 3, 11), (0.95, 5, 100), (3 / 90, 3, 90)]


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
@pytest.mark.parametrize(("right", "n"), [(0, 5), (57, 60), (60, 60), (1, 1), (299, 300)])
def test_the_bound_is_clopper_and_pearsons(right: int, n: int, confidence: float) -> None:
    wanted = stats.binomtest(right, n, alternative="greater").proportion_ci(confidence, method="exact")
    assert verdict("recall[crack]>=0.9", right, n, confidence=confidence).bound == pytest.approx(wanted.low, abs=1e-9)
    wanted = stats.binomtest(n - right, n, alternative="less").proportion_ci(confidence, method="exact")
    labels, answers = np.full(n, "ok"), np.array(["ok"] * right + ["crack"] * (n - right))
    found = check(parse_requirement("false_alarm_rate[crack]<=0.1"), labels, answers, None, confidence, ["crack", "ok"])
    assert found.bound == pytest.approx(wanted.high, abs=1e-9)


@pytest.mark.parametrize("n", [59, 80, 93, 200])
def test_a_model_that_just_fails_hardly_ever_passes(n: int) -> None:
    passed = np.array([verdict("recall[crack]>=0.95", right, n).passed for right in range(n + 1)])
    assert stats.binom.pmf(np.arange(n + 1), n, 0.95) @ passed <= 0.05
    assert passed.any()


def test_59_items_without_an_error_prove_95_percent_and_58_do_not() -> None:
    assert verdict("recall[crack]>=0.95", 59, 59).passed
    short = verdict("recall[crack]>=0.95", 58, 58)
    assert not short.passed
    assert short.needed == 1


@settings(max_examples=60)
@given(
    n=st.integers(1, 60),
    wrong=st.integers(0, 4),
    limit=st.sampled_from([0.5, 0.8, 0.9, 0.95]),
    confidence=st.sampled_from([0.8, 0.95, 0.99]),
    size=st.integers(1, 4),
)
def test_needed_is_what_brute_force_finds(n: int, wrong: int, limit: float, confidence: float, size: int) -> None:
    def passes(more: int) -> Verdict:
        items = size * (n + more)
        groups = np.arange(items) // size if size > 1 else None
        labels = np.full(items, "crack")
        labels[: min(wrong, n) * size : size] = "no"  # one error a group
        answers = np.full(items, "crack")
        return check(parse_requirement(f"precision[crack]>={limit}"), labels, answers, groups, confidence)

    found = passes(0).needed
    tried = next((more for more in range(600) if passes(more).passed), None)
    if found is None:
        assert stats.beta.ppf(confidence, n * size - min(wrong, n) + 1, min(wrong, n)) < limit or size > 1
    else:
        assert found == tried


def test_what_is_disproved_cannot_be_made_up_for() -> None:
    found = verdict("recall[crack]>=0.95", 30, 60)
    assert (found.passed, found.needed) == (False, None)
    assert "disproved" in found.sentence
    certain = verdict("recall[crack]>=1", 60, 60)
    assert (certain.passed, certain.needed) == (False, None)
    assert "no number of items proves 100%" in certain.sentence


def test_a_class_without_items_proves_nothing() -> None:
    labels = answers = np.full(5, "ok")
    found = check(parse_requirement("recall[crack]>=0.95"), labels, answers, classes=["crack", "ok"])
    assert (found.passed, found.value, found.bound, found.n, found.needed) == (False, None, 0.0, 0, 59)
    assert "59 items without an error would prove it" in found.sentence
    upper = check(parse_requirement("false_alarm_rate[ok]<=0.05"), labels, answers)
    assert (upper.passed, upper.bound, upper.needed) == (False, 1.0, 59)


def test_groups_of_one_are_items_and_groups_of_copies_count_once() -> None:
    single = verdict("recall[crack]>=0.9", 57, 60)
    assert verdict("recall[crack]>=0.9", 57, 60, np.arange(60)).bound == single.bound
    labels, answers = np.full(180, "crack"), np.repeat(["crack"] * 57 + ["ok"] * 3, 3)
    copies = check(parse_requirement("recall[crack]>=0.9"), labels, answers, np.repeat(np.arange(60), 3))
    assert (copies.bound, copies.n, copies.errors, copies.groups) == (single.bound, 180, 3, 60)
    assert "60 groups, 3 of them with an error" in copies.sentence


def test_one_large_group_of_errors_is_not_outvoted_by_many_small_groups() -> None:
    labels, answers = np.full(199, "crack"), np.array(["ok"] * 100 + ["crack"] * 99)
    found = check(parse_requirement("recall[crack]>=0.5"), labels, answers, np.r_[np.zeros(100), np.arange(1, 100)])
    assert not found.passed
    assert found.bound < 0.4


def test_only_groups_with_such_items_count() -> None:
    labels = np.array(["crack"] * 4 + ["ok"] * 6)
    found = check(parse_requirement("recall[crack]>=0.1"), labels, labels, [1, 1, 2, 2, 3, 3, 4, 4, 5, 5])
    assert (found.groups, found.n) == (2, 4)


@pytest.mark.parametrize("spread", [1, 8])
def test_grouped_bounds_hold(spread: int) -> None:
    rng, above = np.random.default_rng(0), []
    sizes = rng.integers(1, 1 + spread, 20_000)
    truth = np.average(rng.beta(18, 2, 20_000), weights=sizes)
    for _ in range(400):
        size = rng.integers(1, 1 + spread, 40)
        right = [rng.random(n) < p for n, p in zip(size, rng.beta(18, 2, 40), strict=True)]
        bound = Evidence.of(np.concatenate(right), np.repeat(np.arange(40), size)).at_least(0.95)
        above.append(bound > truth)
    assert np.mean(above) <= 0.06


def test_the_sentence_never_flatters() -> None:
    found = verdict("recall[crack]>=0.9", 58, 60)
    assert found.bound < 0.9
    assert "at least 89.8 %" in found.sentence
    assert "96.6 % of 60 items, 2 errors" in found.sentence
    assert found.sentence.endswith("1 further item without an error would prove it")
    assert verdict("recall[crack]>=0.9", 60, 60).sentence.startswith("PASS recall[crack]>=0.9: the recall of 'crack'")


def test_the_dictionary_is_json() -> None:
    found = json.loads(json.dumps(verdict("recall[crack]>=0.9", 58, 60).as_dict(), allow_nan=False))
    keys = ["requirement", "confidence", "passed", "value", "bound", "n", "errors", "groups", "needed", "sentence"]
    assert list(found) == keys
    assert found["requirement"] == "recall[crack]>=0.9"


def test_what_cannot_be_checked_is_refused() -> None:
    wanted = parse_requirement("recall[crak]>=0.9")
    with pytest.raises(BadInput, match="no class 'crak'; did you mean 'crack'"):
        check(wanted, ["crack"], ["ok"])
    with pytest.raises(BadInput, match="do not fit"):
        check(parse_requirement("accuracy>=0.9"), ["a", "b"], ["a"])
    for confidence in (0.3, 1.0, 95):
        with pytest.raises(BadInput, match="--confidence"):
            check(parse_requirement("accuracy>=0.9"), ["a"], ["a"], confidence=confidence)
