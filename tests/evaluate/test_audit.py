"""The verdicts of an audit, on answers where it is known what is wrong."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from handful.core.intervals import Estimate, wilson
from handful.errors import BadInput
from handful.evaluate.audit import Audit, Overlap, examine

CLASSES = ("a", "b", "c")
QUOTED = Estimate(0.9, 0.87, 0.93)


def answers(
    n: int = 600, accuracy: float | np.ndarray = 0.9, sure: float = 0.9, seed: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities of a model that is right with a chance and always equally sure."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 3, n)
    given = np.where(rng.random(n) < accuracy, true, (true + rng.integers(1, 3, n)) % 3)
    proba = np.full((n, 3), (1 - sure) / 2)
    proba[np.arange(n), given] = sure
    return np.array(CLASSES)[true], proba


def verdicts(audit: Audit) -> dict[str, str]:
    return {finding.check: finding.verdict for finding in audit.findings}


def of(check: str, audit: Audit) -> str:
    return next(finding.sentence for finding in audit.findings if finding.check == check)


def test_a_model_that_keeps_its_promises() -> None:
    site = np.random.default_rng(1).choice(["x", "y"], 600)
    audit = examine(*answers(), CLASSES, quoted=QUOTED, columns={"site": site})
    assert set(verdicts(audit).values()) == {"ok"} and not audit.problems
    assert "within what chance allows" in of("accuracy", audit)
    json.dumps(audit.as_dict(), allow_nan=False)


def test_a_drop() -> None:
    audit = examine(*answers(accuracy=0.8, sure=0.8), CLASSES, quoted=QUOTED)
    assert [f.check for f in audit.problems] == ["accuracy"]
    assert "larger than chance allows" in of("accuracy", audit)
    few = examine(*answers(20, accuracy=0.8, sure=0.8), CLASSES, quoted=QUOTED)
    assert verdicts(few)["accuracy"] == "ok" and "is not ruled out" in of("accuracy", few)


def test_no_quoted_number() -> None:
    assert verdicts(examine(*answers(), CLASSES))["accuracy"] == "unknown"


@pytest.mark.parametrize(("sure", "told"), [(0.98, "surer than it is right"), (0.8, "less sure than it is right")])
def test_confidence(sure: float, told: str) -> None:
    audit = examine(*answers(sure=sure), CLASSES, quoted=QUOTED)
    assert told in of("calibration", audit) and [f.check for f in audit.problems] == ["calibration"]


def test_a_group_and_a_class() -> None:
    rng = np.random.default_rng(0)
    site = rng.choice(["x", "<b>y</b>"], 600)
    audit = examine(*answers(accuracy=np.where(site == "x", 0.95, 0.7)), CLASSES, columns={"site": site})
    assert "lower than for the others: '<b>y</b>'" in of("gaps by site", audit)
    true, proba = answers()
    proba[true == "c"] = proba[true == "c"][:, [1, 2, 0]]
    audit = examine(true, proba, CLASSES, learnt={"a": 20, "b": 20, "c": 2})
    assert "found less often than the others: 'c'" in of("classes", audit)
    assert "it learnt few examples of" in of("classes", audit)


def test_what_is_not_there_is_said() -> None:
    true, proba = answers(40)
    audit = examine(true, np.pad(proba, ((0, 0), (0, 1))), (*CLASSES, "d"))
    assert audit.missing == ("d",) and "'d' has no item here" in of("classes", audit)
    one = examine(true[true == "a"], proba[true == "a"], CLASSES)
    assert verdicts(one)["classes"] == "unknown"


def test_a_leaning() -> None:
    rng = np.random.default_rng(0)
    true, proba = answers(accuracy=1.0)
    site = np.where(rng.random(600) < 0.7, true, rng.choice(CLASSES, 600))
    follow = rng.random(600) < 0.2
    proba[follow] = np.eye(3)[np.searchsorted(CLASSES, site[follow])] * 0.85 + 0.05
    audit = examine(true, proba, CLASSES, columns={"site": site})
    assert verdicts(audit)["leaning on site"] == "problem"
    assert "errors name the class that goes with it" in of("leaning on site", audit)


@pytest.mark.parametrize(
    ("given", "verdict", "told"),
    [
        ({"same_file": True}, "problem", "this very file"),
        ({}, "unknown", "--against SOURCE"),
        ({"against": "t.csv", "copies": 0}, "ok", "none of 600 items"),
        ({"against": "t.csv", "copies": 9, "fresh": wilson(8, 10)}, "problem", "accuracy on the others is 80.0 %"),
        ({"repeats": 1}, "unknown", "1 item repeats another"),
    ],
)
def test_overlap(given: dict[str, Any], verdict: str, told: str) -> None:
    known: dict[str, Any] = {"same_file": False, "against": None, "copies": None, "fresh": None, "repeats": 0}
    audit = examine(*answers(), CLASSES, overlap=Overlap(**(known | given)))
    assert verdicts(audit)["overlap"] == verdict and told in of("overlap", audit)


def test_bad_columns() -> None:
    with pytest.raises(BadInput, match="column 'id' has 600 values: at most 50"):
        examine(*answers(), CLASSES, columns={"id": np.arange(600)})
    with pytest.raises(BadInput, match="column 'x' has 1 value: there is nothing"):
        examine(*answers(), CLASSES, columns={"x": ["y"] * 600})
