"""A requirement, and whether labelled items prove it: ``recall[crack]>=0.95`` at 95 % confidence.

Proved is what Clopper and Pearson's one-sided bound (1934) says: a model that does not meet the requirement passes at
most 5 % of the time, whatever it is. Nothing is approximated.

Items of a group are not independent. With groups the bound is one for groups, and on the safe side: a group with any
error is an error, and where groups differ in size, only as many count as groups of equal size they are worth
(`handful.evaluate.proof`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from handful.errors import BadInput, nearest
from handful.evaluate.proof import Evidence
from handful.read.places import one_line, quoted

METRICS = ("accuracy", "recall", "precision", "false_alarm_rate")
_WRITTEN = re.compile(r"\s*(\w+)\s*(?:\[([^\]]+)\])?\s*(>=|<=)\s*(\S+)\s*")


@dataclass(frozen=True)
class Requirement:
    """What is asked of a model.

    Attributes:
        text: as it was written.
        metric: ``accuracy``; of one class: ``recall`` (of its items, how many are found), ``precision`` (of the answers
            that name it, how many are right), ``false_alarm_rate`` (of the items of other classes, how many get it).
        name: the class; ``None`` for accuracy.
        operator: whether the metric is to be at least or at most ``value``.
        value: a share.
    """

    text: str
    metric: str
    name: str | None
    operator: Literal[">=", "<="]
    value: float

    @property
    def of(self) -> str:
        """The metric in words."""
        words = self.metric.replace("_", " ")
        return words if self.name is None else f"{words} of {quoted(self.name)}"


@dataclass(frozen=True)
class Verdict:
    """Whether a requirement is proved.

    Attributes:
        requirement, confidence: what was asked.
        passed: whether it is proved.
        value: the metric as seen; ``None`` without any item to see it on.
        bound: what the metric is at least (at most), with that confidence.
        n: items it is judged on.
        errors: those of them that count against it; with groups, groups that hold one.
        groups: how many groups the n items come in; ``None`` when items stand for themselves.
        needed: how many further items (groups) without an error would prove it; 0 when it is proved, ``None`` when it
            is disproved, or when no number would.
    """

    requirement: Requirement
    confidence: float
    passed: bool
    value: float | None
    bound: float
    n: int
    errors: int
    groups: int | None
    needed: int | None

    @property
    def sentence(self) -> str:
        """All that in words, PASS or FAIL first."""
        upwards, of = self.requirement.operator == ">=", self.requirement.of
        head = f"{'PASS' if self.passed else 'FAIL'} {one_line(self.requirement.text)}"
        if self.value is None:
            return f"{head}: no item to judge the {of} by{self._outlook}"
        bound = f"at {'least' if upwards else 'most'} {_percent(self.bound, upwards)}"
        seen = f"{_percent(self.value, upwards)} of {_many(self.n, 'item')}"
        if self.groups is None:
            seen += f", {_many(self.errors, 'error' if upwards else 'case')}"
        else:
            seen += (
                f" in {_many(self.groups, 'group')}, {self.errors:,} of them with {'an error' if upwards else 'a case'}"
            )
        return f"{head}: the {of} is {bound} with {100 * self.confidence:g} % confidence ({seen}){self._outlook}"

    @property
    def _outlook(self) -> str:
        """What would prove it."""
        kind, upwards = "item" if self.groups is None else "group", self.requirement.operator == ">="
        if self.passed:
            return ""
        if self.needed is not None:
            further = f"further {kind}" if self.n else kind
            return f"; {_many(self.needed, further)} without {'an error' if upwards else 'a case'} would prove it"
        if self.requirement.value == upwards:
            return f"; no number of items proves {self.requirement.value:.0%}"
        return f"; it is disproved: {'less' if upwards else 'more'} than that with the same confidence"

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, the requirement as it was written."""
        return {**self.__dict__, "requirement": self.requirement.text, "sentence": self.sentence}


def parse_requirement(text: str) -> Requirement:
    """``recall[crack]>=0.95`` and its like; a class name may hold anything but ``]``.

    Raises:
        BadInput: it does not read like that, an unknown metric, a class too many or too few, or no share.
    """
    found = _WRITTEN.fullmatch(text)
    if found is None:
        raise BadInput(f"{quoted(text)} is no requirement; they read like recall[crack]>=0.95 or accuracy>=0.9")
    metric, name, operator, limit = found.groups()
    if metric not in METRICS:
        raise BadInput(f"{quoted(text)}: {metric} has no exact bound{nearest(metric, METRICS)}")
    if (name is None) != (metric == "accuracy"):
        wanted = (
            "accuracy is of all classes, without [" if name else f"of which class? {metric}[crack]{operator}{limit}"
        )
        raise BadInput(f"{quoted(text)}: {one_line(wanted)}")
    try:
        value = float(limit)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        hint = f"; write {value / 100:g}" if 1 < value <= 100 else ""
        raise BadInput(f"{quoted(text)}: {one_line(limit, 40)} is not a share between 0 and 1{hint}")
    return Requirement(text, metric, name, ">=" if operator == ">=" else "<=", value)


def check(
    requirement: Requirement,
    labels: Sequence[str] | np.ndarray,
    predicted: Sequence[str] | np.ndarray,
    groups: Sequence[Any] | np.ndarray | None = None,
    confidence: float = 0.95,
    classes: Sequence[str] | None = None,
) -> Verdict:
    """Whether n labelled items, which the model has never seen, prove a requirement.

    Args:
        requirement: as `parse_requirement` reads it.
        labels: the n true classes.
        predicted: the n answers.
        groups: n group names.
        confidence: of the one-sided bound.
        classes: of the model; by default those among labels and answers.

    Raises:
        BadInput: an unknown class, shapes that do not fit, or a confidence that is not between 0.5 and 1.
    """
    true, answer = np.asarray(labels).astype(str), np.asarray(predicted).astype(str)
    if true.shape != answer.shape or (groups is not None and len(groups) != len(true)):
        raise BadInput(f"{len(true)} labels, {len(answer)} answers and their groups do not fit together")
    if not 0.5 <= confidence < 1:
        raise BadInput(f"--confidence must be at least 0.5 and below 1, not {confidence:g}; 0.95 is usual")
    known = [*map(str, np.union1d(true, answer))] if classes is None else list(classes)
    if requirement.name is not None and requirement.name not in known:
        raise BadInput(
            f"{quoted(requirement.text)}: there is no class {quoted(requirement.name)}"
            f"{one_line(nearest(requirement.name, known))}"
        )
    among, hit = _judged(requirement, true, answer)
    upwards = requirement.operator == ">="
    units = None if groups is None else np.unique(np.asarray(groups)[among], return_inverse=True)[1]
    seen = Evidence.of(hit if upwards else ~hit, units)
    limit, least = requirement.value if upwards else 1 - requirement.value, seen.at_least(confidence)
    needed = seen.needed(limit, confidence)
    verdict = Verdict(
        requirement=requirement,
        confidence=confidence,
        passed=needed == 0,
        value=float(hit.mean()) if len(hit) else None,
        bound=least if upwards else 1 - least,
        n=len(hit),
        errors=seen.units - seen.clean,
        groups=None if units is None else seen.units,
        needed=needed,
    )
    return verdict


def _judged(requirement: Requirement, true: np.ndarray, answer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which items ``[n]`` the metric is a share of, and for which of them ``[m]`` it counts."""
    named, called = true == requirement.name, answer == requirement.name
    among, hit = {
        "accuracy": (np.ones(len(true), bool), true == answer),
        "recall": (named, called),
        "precision": (called, named),
        "false_alarm_rate": (~named, called),
    }[requirement.metric]
    return among, hit[among]


def _many(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def _percent(share: float, upwards: bool) -> str:
    """One decimal, rounded so that it never flatters."""
    tenths = math.floor(1000 * share + 1e-9) if upwards else math.ceil(1000 * share - 1e-9)
    return f"{tenths / 10:g} %"
