"""An audit: can a model be trusted on these data? Each check ends in a verdict in words.

accuracy     against the number quoted for the model: is the drop larger than chance allows?
calibration  is it as sure as it is right?
classes      are some classes found less often than the others; those it learnt few examples of?
gaps         does it serve some values of a column worse (`handful.evaluate.gaps`)?
leaning      do its answers follow a column beyond the class (`handful.evaluate.leaning`)?
overlap      were any of these items learnt from?

``problem`` says that chance alone seldom (one time in twenty, for each check) makes it look so; ``ok`` that nothing was
found, not that nothing is there: the sentences say how much the data leave open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import special

from handful.core.intervals import Estimate, difference
from handful.core.shares import Shares
from handful.errors import BadInput
from handful.evaluate.assessment import Assessment
from handful.evaluate.gaps import LEAST, Gaps, gaps
from handful.evaluate.leaning import Leaning, leaning
from handful.evaluate.metrics import assess
from handful.evaluate.significance import LEVEL
from handful.read.places import quoted as in_quotes

VALUES = 50
"""Values of a column at most."""
FEW = 0.5
"""Classes learnt from fewer examples than this share of the mean count as rare."""
NAMED = 3
"""How many groups a sentence names."""


@dataclass(frozen=True)
class Finding:
    """One check: ``ok``, ``problem``, or ``unknown`` where the data cannot tell; and why, in words."""

    check: str
    verdict: Literal["ok", "problem", "unknown"]
    sentence: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return dict(self.__dict__)


@dataclass(frozen=True)
class Overlap:
    """Items of the data that the model has seen.

    Attributes:
        same_file: whether the model learnt from this very file.
        against: what was compared with; ``None`` when nothing was given.
        copies: items (nearly) equal to one of it, or in its group.
        fresh: accuracy on the others.
        repeats: items that repeat another of the data.
    """

    same_file: bool
    against: str | None
    copies: int | None
    fresh: Estimate | None
    repeats: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**self.__dict__, "fresh": None if self.fresh is None else self.fresh.as_dict()}


@dataclass(frozen=True)
class Audit:
    """What `examine` finds.

    Attributes:
        n: items judged.
        units: independent groups of them; ``None`` when items stand for themselves.
        assessment: every metric.
        quoted: the accuracy that the model promises; ``None`` without one.
        drop: accuracy here minus ``quoted``.
        overconfidence: mean confidence minus accuracy.
        classes: accuracy of each class against the others.
        rare: of classes learnt from few examples against the others; ``None`` where all had about as many.
        missing: classes of the model without an item here.
        gaps, leanings: by column.
        overlap: items seen before; ``None`` when that was not looked into.
        findings: the verdicts.
    """

    n: int
    units: int | None
    assessment: Assessment
    quoted: Estimate | None
    drop: Estimate | None
    overconfidence: Estimate
    classes: Gaps | None
    rare: Gaps | None
    missing: tuple[str, ...]
    gaps: tuple[Gaps, ...]
    leanings: tuple[Leaning, ...]
    overlap: Overlap | None
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The checks that found something."""
        return tuple(finding for finding in self.findings if finding.verdict == "problem")

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        optional = ("quoted", "drop", "classes", "rare", "overlap")
        return {
            "n": self.n,
            "units": self.units,
            "findings": [finding.as_dict() for finding in self.findings],
            "accuracy": self.assessment.accuracy.as_dict(),
            "calibration_error": self.assessment.calibration_error.as_dict(),
            "overconfidence": self.overconfidence.as_dict(),
            **{k: None if getattr(self, k) is None else getattr(self, k).as_dict() for k in optional},
            "missing": list(self.missing),
            "gaps": [each.as_dict() for each in self.gaps],
            "leanings": [each.as_dict() for each in self.leanings],
        }


def examine(
    labels: Sequence[str] | np.ndarray,
    proba: np.ndarray,
    classes: Sequence[str],
    *,
    quoted: Estimate | None = None,
    columns: Mapping[str, Sequence[Any] | np.ndarray] | None = None,
    learnt: Mapping[str, int] | None = None,
    units: Sequence[Any] | np.ndarray | None = None,
    overlap: Overlap | None = None,
    seed: int = 0,
) -> Audit:
    """Audit the answers to n labelled items.

    Args:
        labels: the n true classes.
        proba: probabilities ``[n, C]``; the answer is the largest.
        classes: the C classes.
        quoted: the accuracy promised for the model.
        columns: n values for each attribute to look at.
        learnt: how many examples of each class the model learnt from.
        units: n names; items of one are not independent.
        overlap: what is known of items seen before.
        seed: of resampling and permutations.

    Raises:
        BadInput: as `handful.evaluate.assess`; a column of one value or of more than `VALUES`.
    """
    for name, values in (columns or {}).items():
        found = len({str(value) for value in values})
        if not 2 <= found <= VALUES:
            why = "there is nothing to compare" if found < 2 else f"at most {VALUES} are compared; join some of them"
            raise BadInput(f"--by: column {in_quotes(name)} has {found:,} {_s(found, 'value')}: {why}")
    assessment = assess(labels, proba, classes, groups=units, seed=seed)
    true = np.asarray([str(label) for label in labels])
    answers = np.asarray([str(c) for c in classes])[np.asarray(proba).argmax(axis=1)]
    right = true == answers
    drop = None if quoted is None else difference(assessment.accuracy, quoted)
    by = tuple(gaps(right, v, column=k, units=units) for k, v in (columns or {}).items())
    leans = tuple(leaning(true, answers, v, column=k, units=units, seed=seed) for k, v in (columns or {}).items())
    by_class = gaps(right, true, column="class", units=units) if len(set(true)) > 1 else None
    rare = _rare(right, true, learnt, units)
    missing = tuple(sorted(set(map(str, classes)) - set(true)))
    sure = _overconfidence(np.asarray(proba).max(axis=1), right, units)
    findings = [
        _accuracy(assessment.accuracy, quoted, drop, overlap),
        _calibration(sure),
        _of_classes(by_class, rare, missing),
        *(_of_gaps(each) for each in by),
        *(_of_leaning(each, LEVEL / len(leans)) for each in leans),
        *([] if overlap is None else [_of_overlap(overlap, len(true))]),
    ]
    return Audit(
        n=len(true),
        units=assessment.groups,
        assessment=assessment,
        quoted=quoted,
        drop=drop,
        overconfidence=sure,
        classes=by_class,
        rare=rare,
        missing=missing,
        gaps=by,
        leanings=leans,
        overlap=overlap,
        findings=tuple(findings),
    )


def _rare(right: np.ndarray, true: np.ndarray, learnt: Mapping[str, int] | None, units: Any) -> Gaps | None:
    if not learnt:
        return None
    limit = FEW * float(np.mean(list(learnt.values())))
    few = np.array([learnt.get(name, 0) < limit for name in true])
    if few.all() or not few.any():
        return None
    return gaps(right, np.where(few, "few examples", "others"), column="examples learnt from", units=units)


def _overconfidence(confidence: np.ndarray, right: np.ndarray, units: Any) -> Estimate:
    """Mean of confidence - right, with Student's interval for as many items as they are worth."""
    share = Shares(None if units is None else np.unique(np.asarray(units), return_inverse=True)[1])
    items = share.worth(right, np.ones(len(right), bool))
    gap = confidence - right
    mean = float(gap.mean())
    if items < 2:
        return Estimate(mean, -1.0, 1.0)
    half = float(special.stdtrit(items - 1, 0.975)) * float(gap.std(ddof=1)) / items**0.5
    return Estimate(mean, max(-1.0, mean - half), min(1.0, mean + half))


def _accuracy(seen: Estimate, quoted: Estimate | None, drop: Estimate | None, overlap: Overlap | None) -> Finding:
    here = f"accuracy is {_whole(seen)} here"
    if quoted is None or drop is None:
        return Finding("accuracy", "unknown", f"{here}; the model quotes no number to compare it with")
    both = f"{here}, {_whole(quoted)} was quoted"
    if drop.high < 0:
        return Finding("accuracy", "problem", f"{both}: the drop of {_points(drop, -1)} is larger than chance allows")
    if drop.low > 0:
        seen_before = overlap is not None and (overlap.same_file or bool(overlap.copies))
        why = "; items learnt from are among these" if seen_before else ""
        return Finding("accuracy", "ok", f"{both}: it is higher by {_points(drop)}, more than chance allows{why}")
    rest = f"a drop of {-100 * drop.low:.1f} points is not ruled out"
    return Finding("accuracy", "ok", f"{both}: the difference is within what chance allows; {rest}")


def _calibration(sure: Estimate) -> Finding:
    if sure.low > 0:
        return Finding("calibration", "problem", f"it is surer than it is right, by {_points(sure)}")
    if sure.high < 0:
        return Finding("calibration", "problem", f"it is less sure than it is right, by {_points(sure, -1)}")
    size = f"{100 * sure.value:+.1f} points [{100 * sure.low:+.1f}, {100 * sure.high:+.1f}]"
    return Finding("calibration", "ok", f"it is about as sure as it is right: confidence less accuracy is {size}")


def _of_classes(by_class: Gaps | None, rare: Gaps | None, missing: Sequence[str]) -> Finding:
    if by_class is None:
        return Finding("classes", "unknown", "all items are of one class")
    tail = ""
    if missing:
        tail += f"; {_names(missing)} {'has' if len(missing) == 1 else 'have'} no item here"
    if by_class.small:
        tail += f"; {_names(by_class.small)} {_s(len(by_class.small), 'has', 'have')} too few items (under {LEAST})"
    few = next((g for g in (rare.worse if rare else ()) if g.name == "few examples"), None)
    if few is not None:
        tail = f"; classes it learnt few examples of are found {_points(few.gap, -1)} less often than the others{tail}"
    if by_class.worse:
        return Finding("classes", "problem", f"found less often than the others: {_worse(by_class)}{tail}")
    if few is not None:
        return Finding("classes", "problem", tail.removeprefix("; "))
    if not by_class.groups:
        return Finding("classes", "unknown", f"no class has {LEAST} items{tail}")
    return Finding("classes", "ok", f"no class is found less often than chance allows{tail}")


def _of_gaps(found: Gaps) -> Finding:
    small = f"; too few items (under {LEAST}): {_names(found.small)}" if found.small else ""
    check = f"gaps by {found.column}"
    if found.worse:
        return Finding(check, "problem", f"accuracy is lower than for the others: {_worse(found)}{small}")
    if not found.groups:
        return Finding(check, "unknown", f"no value has {LEAST} items{small}")
    least = min(group.gap.low for group in found.groups)
    rest = f"a gap of {-100 * least:.1f} points is not ruled out" if least < 0 else "none is seen"
    return Finding(check, "ok", f"no gap among {len(found.groups)} values is larger than chance allows; {rest}{small}")


def _of_leaning(found: Leaning, level: float) -> Finding:
    check = f"leaning on {found.column}"
    if found.p >= level:
        return Finding(check, "ok", f"answers do not follow it beyond the class (p = {found.p:.2g})")
    told = f"answers follow it beyond the class (p = {found.p:.2g}): it explains {100 * found.share:.0f} % of what "
    told += "answers differ in within a class"
    if found.pull is not None and found.pull_by_chance is not None and found.pull.low > found.pull_by_chance:
        told += f"; {100 * found.pull.value:.0f} % of {found.errors:,} errors name the class that goes with it in "
        told += f"these data, {100 * found.pull_by_chance:.0f} % by chance"
    return Finding(check, "problem", told)


def _of_overlap(found: Overlap, n: int) -> Finding:
    again = (
        f"; {found.repeats:,} {_s(found.repeats, 'item repeats', 'items repeat')} another of these"
        if found.repeats
        else ""
    )
    if found.same_file:
        told = "the model learnt from this very file: nothing here speaks of new items"
        return Finding("overlap", "problem", told + again)
    if found.against is None or found.copies is None:
        why = "a model file holds no items, so that copies of what it learnt from cannot be seen; --against SOURCE, "
        return Finding("overlap", "unknown", f"{why}the data it learnt from, would tell{again}")
    source = in_quotes(found.against)
    if not found.copies:
        return Finding("overlap", "ok", f"none of {n:,} items (nearly) equals one of {source}{again}")
    rest = "none is left" if found.fresh is None else f"accuracy on the others is {_whole(found.fresh)}"
    told = f"{found.copies:,} of {n:,} items (nearly) equal one of {source}, or share its group; {rest}{again}"
    return Finding("overlap", "problem", told)


def _worse(found: Gaps) -> str:
    told = [f"{in_quotes(g.name)} {_whole(g.accuracy)} of {g.n:,}" for g in found.worse[:NAMED]]
    more = f" and {len(found.worse) - NAMED} more" if len(found.worse) > NAMED else ""
    return ", ".join(told) + more


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(in_quotes(name) for name in names[:NAMED]) + more


def _whole(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} % [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _points(estimate: Estimate, sign: int = 1) -> str:
    low, high = sorted((sign * estimate.low, sign * estimate.high))
    return f"{100 * sign * estimate.value:.1f} points [{100 * low:.1f}, {100 * high:.1f}]"


def _s(count: int, one: str, many: str | None = None) -> str:
    return one if count == 1 else many or one + "s"
