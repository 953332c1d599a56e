"""The threshold is taken from items not learnt from, and what is quoted for it comes true."""

from __future__ import annotations

import numpy as np
import pytest

from handful.adapt import head
from handful.adapt.base import Features
from handful.adapt.reject import REJECTERS, rejecter
from handful.core.intervals import Estimate
from handful.errors import BadInput
from handful.evaluate.estimate import Quoted, estimate
from handful.evaluate.rejection import rejecting

WIDTH = 12
QUICK = {"gpam": {"steps": 10}, "dafos-net": {"episodes": 100}}


def draw(classes: list[int], each: int, seed: int, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Items of some of many classes."""
    labels = np.repeat(classes, each)
    centres = 3 * np.random.default_rng(99).normal(size=(12, WIDTH)) / WIDTH**0.5
    return centres[labels] + noise * np.random.default_rng(seed).normal(size=(len(labels), WIDTH)) / 2, labels


def judged(kind: str, seed: int = 0, each: int = 10, share: float = 0.1, **more: object) -> tuple:
    """What is found of a GDA on six classes, the scores of new known items and of unknown ones, and the threshold."""
    x, y = draw(list(range(6)), each, seed)
    features, fitted = Features(x, {}), head("gda").fit(x, y)
    quoted = estimate(fitted, features, y, seed=seed, budget_seconds=0)
    assert quoted is not None
    one = rejecter(kind, **QUICK.get(kind, {}))
    found = rejecting(one, fitted, features, y, None, quoted, share, seed=seed, **more)  # type: ignore[arg-type]
    state = one.fit(features, y)
    new = [draw(list(part), 80, 1000 + seed)[0] for part in (range(6), range(6, 12))]
    logits = [quoted.scale * fitted.spread(x, y) * fitted.logits(q) for q in new]
    scores = [one.scores(state, Features(q, {}), z) for q, z in zip(new, logits, strict=True)]
    return found, *scores


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow) if kind == "dafos-net" else kind for kind in REJECTERS]
)
def test_false_alarms_are_about_as_asked(kind: str) -> None:
    runs = [judged(kind, seed, budget_seconds=-1) for seed in range(2)]
    shares = [(known > found.threshold).mean() for found, known, _ in runs]
    assert 0.02 < np.mean(shares) < 0.16


def test_a_fold_less_would_raise_no_alarm_if_it_were_not_taken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    from handful.evaluate import rejection

    right = judged("distance", budget_seconds=-1)[0].threshold
    monkeypatch.setattr(rejection._Run, "surplus", lambda *_: 0.0)
    assert judged("distance", budget_seconds=-1)[0].threshold > right


def test_negatives_measure_what_is_found() -> None:
    alien, _ = draw(list(range(6, 12)), 20, 5)
    found, known, unknown = judged("distance", negatives=Features(alien, {}))
    assert (found.basis, found.known, found.unknown) == ("negatives", 60, 120)
    truth = {"found": (unknown > found.threshold).mean(), "false_alarms": (known > found.threshold).mean()}
    for name, value in truth.items():
        quoted = getattr(found, name)
        assert isinstance(quoted, Estimate) and quoted.low - 0.05 <= value <= quoted.high + 0.05, name
    assert found.auroc.low < found.auroc.value < found.auroc.high


def test_negatives_are_not_judged_by_what_learnt_from_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from handful.adapt.reject.base import Rejecter

    alien, _ = draw(list(range(6, 12)), 4, 5)
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    fit, scores, last = Rejecter.fit, Rejecter.scores, []

    def spied_fit(self, features, labels, negatives=None, seed=0):  # type: ignore[no-untyped-def]
        last[:] = [] if negatives is None else [negatives.x]
        return fit(self, features, labels, negatives, seed)

    def spied_scores(self, state, features, logits):  # type: ignore[no-untyped-def]
        seen.extend((x, features.x) for x in last)
        return scores(self, state, features, logits)

    monkeypatch.setattr(Rejecter, "fit", spied_fit)
    monkeypatch.setattr(Rejecter, "scores", spied_scores)
    x, y = draw(list(range(3)), 10, 0)
    features, fitted = Features(x, {}), head("prototypes").fit(x, y)
    quoted = estimate(fitted, features, y, folds=3, budget_seconds=0)
    assert quoted is not None
    rejecting(rejecter("gpam", steps=1), fitted, features, y, None, quoted, 0.1, negatives=Features(alien, {}))
    assert seen
    for learnt, asked in seen:
        assert not (learnt[:, None] == asked[None]).all(-1).any()


def test_without_negatives_classes_play_the_unknown() -> None:
    found, known, unknown = judged("distance")
    assert found.basis == "classes left out" and "each class in turn" in found.method
    assert found.unknown == 60
    truth = (known[:, None] < unknown).mean()
    assert abs(found.auroc.value - truth) < 0.15
    assert found.auroc.low <= found.auroc.value <= found.auroc.high


def test_two_classes_leave_nothing_to_leave_out() -> None:
    x, y = draw([0, 1], 20, 0)
    fitted = head("prototypes").fit(x, y)
    quoted = estimate(fitted, Features(x, {}), y, budget_seconds=0)
    assert quoted is not None
    found = rejecting(rejecter("energy"), fitted, Features(x, {}), y, None, quoted, 0.1)
    assert (found.basis, found.auroc, found.found) == ("none", None, None)
    assert "--negatives" in found.method


def test_no_time_leaves_classes_in() -> None:
    assert judged("distance", budget_seconds=-1.0)[0].basis == "none"


def test_too_few_items_are_refused() -> None:
    x, y = draw([0, 1, 2], 4, 0)
    fitted = head("prototypes").fit(x, y)
    quoted = estimate(fitted, Features(x, {}), y, budget_seconds=0)
    assert isinstance(quoted, Quoted)
    with pytest.raises(BadInput, match=r"--false-alarms 0.05 takes 19 labelled items .* there are 12"):
        rejecting(rejecter("energy"), fitted, Features(x, {}), y, None, quoted, 0.05)


def test_the_same_seed_gives_the_same_numbers() -> None:
    assert judged("energy", 1)[0] == judged("energy", 1)[0]
