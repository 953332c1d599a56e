"""The bound and its terms: distances of domains against loops, and terms that go the way they should."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from handful.errors import BadInput
from handful.evaluate.bound import a_distance, bound, diagnose, mmd2, modality_gap, sample_term, stable_rank


def sample(seed: int, n: int = 200, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 6)) + shift


@pytest.mark.paper(125, oracle="a")
def test_two_halves_are_alike_and_two_worlds_are_not() -> None:
    same = sample(0, 1200)
    assert a_distance(same[:600], same[600:]) == pytest.approx(0, abs=0.2)
    assert a_distance(sample(0), sample(1, shift=4)) == pytest.approx(2, abs=0.2)


@pytest.mark.paper(125, oracle="b")
def test_mmd_is_a_double_loop_and_centred_at_0() -> None:
    a, b = sample(0, 22), sample(1, 25, 0.3)
    k = lambda x, y: np.exp(-((x - y) ** 2).sum() / (2 * 1.5**2))  # noqa: E731
    m, n = len(a), len(b)
    same = sum(k(a[i], a[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    same += sum(k(b[i], b[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    across = sum(k(x, y) for x in a for y in b) / (m * n)
    assert mmd2(a, b, 1.5) == pytest.approx(same - 2 * across)
    null = [mmd2(sample(2 * i, 40), sample(2 * i + 1, 40)) for i in range(100)]
    assert stats.ttest_1samp(null, 0).pvalue > 0.01
    assert mmd2(a, b + 2) > max(null)


@pytest.mark.paper(125, oracle="c")
def test_the_term_falls_with_examples_and_grows_with_parameters() -> None:
    assert [sample_term(100, n) for n in (10, 100, 1000)] == sorted([sample_term(100, n) for n in (10, 100, 1000)])[
        ::-1
    ]
    assert sample_term(10, 50) < sample_term(100, 50) < sample_term(1000, 50)
    assert bound(0.1, 1.0, 0, 100) == pytest.approx(0.6 + np.sqrt(np.log(20) / 100))


@pytest.mark.paper(125, oracle="d")
def test_a_larger_shift_is_a_larger_gap() -> None:
    shifts = (0.0, 0.3, 0.6, 1.2)
    for distance in (a_distance, mmd2):
        gaps = [distance(sample(0, 400), sample(1, 400, shift)) for shift in shifts]
        assert gaps == sorted(gaps)


def test_what_limits_is_named_with_what_helps() -> None:
    y = np.repeat([0, 1], 40)
    far = diagnose(sample(1, 80, 3), y, parameters=10, reference=sample(0), error=0.0)
    assert far.limits == ("gap",) and "encoder" in far.reasons[0]
    assert far.bound == pytest.approx(far.gap / 2 + far.term)
    assert diagnose(sample(1, 80), y, parameters=10**6).limits == ("capacity",)
    few = diagnose(sample(1, 4), [0, 0, 1, 1], parameters=0)
    assert few.limits == ("samples",) and few.gap is None and few.bound is None
    assert diagnose(sample(1, 80), y, parameters=20, reference=sample(0)).limits == ()


def test_gaps_and_ranks_by_hand() -> None:
    assert modality_gap([[2.0, 0]], [[0, 3.0]]) == pytest.approx(2**0.5)
    assert stable_rank(np.eye(4)) == pytest.approx(4)
    assert stable_rank(np.outer([1, 2], [3, 4])) == pytest.approx(1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: a_distance(sample(0, 19), sample(1)), "20 items on each side, not 19"),
        (lambda: mmd2(np.ones((30, 2)), np.ones((30, 2))), "all items are the same"),
        (lambda: a_distance(sample(0), sample(0)[:, :3]), "one width"),
        (lambda: diagnose(sample(0, 9), [1] * 9, parameters=1), "one class only"),
        (lambda: diagnose(np.full((4, 2), np.nan), [0, 0, 1, 1], parameters=1), "finite"),
        (lambda: bound(1.5, 0, 1, 10), "from 0 to 1"),
        (lambda: sample_term(-1, 10), "parameters >= 0"),
    ],
)
def test_what_says_nothing_is_refused(call, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        call()
