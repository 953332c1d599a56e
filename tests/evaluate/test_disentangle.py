"""Tables taken apart: additive ones, random ones, and the exponents that were put in."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from handful.errors import BadInput
from handful.evaluate.disentangle import disentangle, scaling_probe, takes_over
from handful.evaluate.sampling import draw


@pytest.mark.paper(111, oracle="c", part="study")
def test_an_additive_table_agrees_with_itself_and_a_random_one_does_not() -> None:
    rng = np.random.default_rng(0)
    u, v = rng.random(5), rng.random(7)
    found = disentangle(u[:, None] + v)
    assert (found.rows_spearman, found.rows_kendall) == pytest.approx((1, 1))
    assert (found.columns_spearman, found.columns_kendall, found.r2) == pytest.approx((1, 1, 1))
    assert found.rows == pytest.approx(u - u.mean()) and found.columns == pytest.approx(v - v.mean())
    chance = [disentangle(rng.random((8, 8))) for _ in range(20)]
    assert abs(np.mean([c.rows_spearman for c in chance])) < 0.2
    assert abs(np.mean([c.columns_kendall for c in chance])) < 0.2
    assert np.mean([c.r2 for c in chance]) == pytest.approx(14 / 63, abs=0.06)  # what 7 + 7 parameters explain of noise


@pytest.mark.paper(111, oracle="a")
def test_every_item_of_a_class_is_equally_likely_and_support_and_query_are_disjoint() -> None:
    labels = np.repeat(list("abcdef"), [7, 9, 12, 7, 30, 8])
    drawn = draw(labels, ways=5, shots=2, queries=3, episodes=20_000, seed=0)
    both = np.concatenate([drawn.support, drawn.query], axis=2)
    assert (np.diff(np.sort(both, axis=2), axis=2) > 0).all()  # no item twice
    for c in np.unique(labels):
        rows = np.flatnonzero(labels == c)
        seen = np.bincount(drawn.support.ravel(), minlength=len(labels))[rows]
        # Items of an episode are drawn without replacement: the counts vary less than independent ones by that factor.
        assert stats.chi2.sf(stats.chisquare(seen).statistic / (1 - 1 / (len(rows) - 1)), len(rows) - 1) > 0.01


def test_the_exponents_that_were_put_in_come_out() -> None:
    rng = np.random.default_rng(0)
    classes, images = rng.integers(10, 1000, 40), rng.integers(20, 600, 40)
    error = 0.9 * classes**-0.3 * images**-0.05
    found = scaling_probe(classes, images, error)
    assert found == pytest.approx((np.log(0.9), 0.3, 0.05, 1))
    with pytest.raises(BadInput, match="not together"):
        scaling_probe(classes, 2 * classes, error)
    with pytest.raises(BadInput, match="above 0"):
        scaling_probe(classes, images, error * 0)


def test_where_tuning_takes_over() -> None:
    rng = np.random.default_rng(0)
    frozen = {n: rng.normal(0.5, 0.1, 200) for n in (5, 25, 100, 500)}
    gain = {5: -0.1, 25: 0.0, 100: 0.05, 500: 0.2}
    tuned = {n: x + gain[n] + rng.normal(0, 0.02, 200) for n, x in frozen.items()}
    found = takes_over(frozen, tuned)
    assert found.items == 100
    assert found.differences[5].high < 0
    assert takes_over(frozen, frozen).items is None


@pytest.mark.parametrize("table", [[[1, 2]], [[1, np.nan], [1, 2]], [[1, 1], [1, 1]], [1, 2]])
def test_what_is_no_table_is_refused(table: list) -> None:
    with pytest.raises(BadInput):
        disentangle(table)
