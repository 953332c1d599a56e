"""The membership audit against the authors' numbers, against theory, and against private heads."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from handful.adapt.private import PrivateLogistic
from handful.adapt.prototypes import Prototypes
from handful.errors import BadInput
from handful.evaluate.membership import (
    dp_bound,
    judge_scores,
    lira_audit,
    lira_scores,
    lira_statistic,
    shadow_heads,
)
from handful.evaluate.price_of_privacy import shot_multipliers


@pytest.mark.paper(3, oracle="e", part="audit")
@pytest.mark.filterwarnings("error")
def test_the_authors_numbers() -> None:
    golden = json.loads((Path(__file__).parents[1] / "golden" / "lira.json").read_text(encoding="utf-8"))
    given, wanted = golden["inputs"], golden["expected"]
    statistic = lira_statistic(np.asarray(given["logits"]), np.asarray(given["labels"]))
    np.testing.assert_allclose(statistic, wanted["statistic"], atol=1e-10)
    assert statistic.max() > 100  # a probability of 1 stays finite
    np.testing.assert_allclose(lira_scores(statistic, np.asarray(given["inside"])), wanted["scores"], atol=1e-10)


@pytest.mark.paper(3, oracle="e", part="audit")
@pytest.mark.parametrize("shift", [0.5, 1.5])
def test_normal_statistics_are_told_apart_as_well_as_theory_says(shift: float) -> None:
    draw = np.random.default_rng(0)
    inside = draw.random((257, 100)) < 0.5  # with few shadows their medians are blurred
    found = judge_scores(lira_scores(draw.normal(size=inside.shape) + shift * inside, inside), inside)
    assert found.auc == pytest.approx(stats.norm.cdf(shift / math.sqrt(2)), abs=0.02)
    assert found.advantage == pytest.approx(2 * stats.norm.cdf(shift / 2) - 1, abs=0.02)
    assert found.tpr[0.1] == pytest.approx(stats.norm.cdf(stats.norm.ppf(0.1) + shift), abs=0.03)


@pytest.mark.paper(3, oracle="f", part="audit")
@pytest.mark.paper(3, oracle="f", part="private-head")
def test_the_attack_on_a_private_head_stays_below_the_bound() -> None:
    x, y = blobs_far_apart()
    epsilon, members = 1.0, 24 * len(x) / 2
    learner = PrivateLogistic(epsilon=epsilon, delta=0.01, epochs=40, lr=0.02, noise="seeded", random_state=0)
    found = lira_audit(shadow_heads(learner), x, y, 24)
    fpr, tpr = found.rates()
    bound = dp_bound(fpr, epsilon, 0.01)
    assert (tpr <= bound + 3 * np.sqrt(bound * (1 - bound) / members) + 3 / members).all()
    assert found.auc < 0.65


def blobs_far_apart() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(3)
    return draw.normal(size=(40, 60)), np.arange(40) % 4


def test_a_head_that_remembers_is_found_out() -> None:
    x, y = blobs_far_apart()
    found = lira_audit(shadow_heads(Prototypes()), x, y, 32)
    assert found.auc > 0.95
    assert found.tpr[0.01] > 0.5 > dp_bound(0.01, 1.0, 0.01)
    assert found.as_dict()["models"] == 32


def test_counting_ties_and_members_by_hand() -> None:
    inside = np.asarray([[True, False], [True, False]])
    found = judge_scores(np.asarray([[-1.0, 0.0], [0.0, 1.0]]), inside)
    assert found.auc == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert found.advantage == 0.5
    assert found.tpr == {0.001: 0.5, 0.01: 0.5, 0.1: 0.5}


def test_the_bound_and_its_relations() -> None:
    assert dp_bound(0.1, 1.0, 0.0) == pytest.approx(math.e * 0.1)
    assert dp_bound(0.9, 1.0, 0.05) == pytest.approx(1 - math.exp(-1) * 0.05)
    assert dp_bound(0.05, 1.0, 0.01, "replace-one") == pytest.approx(
        min(math.exp(2) * 0.05 + (1 + math.e) * 0.01, 1 - math.exp(-2) * (1 - (1 + math.e) * 0.01 - 0.05))
    )
    np.testing.assert_allclose(dp_bound(np.linspace(0, 1, 5), 0.0, 0.0), np.linspace(0, 1, 5))
    assert dp_bound([0.0, 0.1, 1.0], 900.0, 0.2).tolist() == [0.2, 1.0, 1.0]


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: lira_scores(np.zeros((2, 3)), np.ones((2, 3))), "at least 3 models"),
        (lambda: lira_scores(np.zeros((4, 3)), np.ones((4, 3))), "learnt from everything"),
        (lambda: judge_scores(np.zeros((2, 2)), np.ones((2, 2))), "nothing to tell apart"),
        (lambda: judge_scores(np.full((2, 2), np.nan), np.eye(2)), "finite"),
        (lambda: dp_bound(0.1, -1.0, 0.1), "epsilon is at least 0"),
        (lambda: dp_bound(0.1, 1.0, 0.1, "swap"), "relation"),  # type: ignore[arg-type]
        (lambda: lira_audit(lambda X, y, inside: X, np.zeros((4, 2)), np.arange(4) % 2, 3), "at least 4"),
        (lambda: lira_audit(lambda X, y, inside: X, np.zeros((4, 2)), np.arange(4) % 2, 8), "train gave logits"),
        (lambda: lira_audit(lambda X, y, inside: X, np.zeros(4), np.arange(4) % 2, 8), "features"),
    ],
)
def test_what_cannot_be_attacked(act: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        act()


class TestShotMultipliers:
    """Medians, lines between them, and the first number of shots that is enough."""

    def test_by_hand(self) -> None:
        plain = {1: [0.1, 0.2, 0.9], 5: [0.6], 10: [0.8], 20: [0.8]}
        private = {1: [0.0], 11: [0.5, 0.5], 31: [0.7]}
        found = shot_multipliers({math.inf: plain, 1.0: private}, (5, 10))
        assert found == {5: {1.0: 21 / 5, math.inf: 1.0}, 10: {1.0: None, math.inf: 1.0}}

    @pytest.mark.parametrize(
        ("runs", "base", "message"),
        [
            ({1.0: {1: [0.1]}}, (5,), "without privacy"),
            ({math.inf: {1: [0.1], 4: [0.2]}}, (5,), "outside the 1 to 4"),
            ({math.inf: {1: [0.1], 9: [0.2]}, 1.0: {}}, (5,), "no accuracies at epsilon 1"),
        ],
    )
    def test_refused(self, runs: Any, base: Any, message: str) -> None:
        with pytest.raises(BadInput, match=message):
            shot_multipliers(runs, base)
