"""Is a compressed model any better than its cheap baseline? Only the items on which the baseline fails can tell.

Paper 132: Chenfei Liao et al., "Are We Using the Right Benchmark: An Evaluation Framework for Visual Token Compression
Methods" (VTC-Bench), 2025. The baseline there is the image made smaller by a whole factor r, both sides, which keeps
1/r^2 of the visual tokens; any compression with a cheap baseline fits (cut texts, dropped frames, 8 bits).

    A   items that the original gets right and the baseline gets wrong: difficult
    B   items that both get right: simple
    C   items that the original gets wrong: left out
    score of a method   its accuracy on A, and on B; an answer that is missing is wrong
    accuracy of all = (acc_A |A| + acc_B |B| + acc_C |C|) / N

A ranking takes |A| >= 30. How much the order turns is Kendall's tau between accuracies on all items and on A.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, TypeGuard

import numpy as np
from scipy import stats

from handful.core.intervals import Estimate, wilson
from handful.errors import BadInput

FLOOR = 30
"""Difficult items below which methods are not ranked."""
RIGHT = 0.5
"""A score from here on counts as right."""
BASELINE = "baseline"
"""What the baseline is called among the methods."""


@dataclass(frozen=True)
class Groups:
    """Ids of the difficult (A), the simple (B) and the other items (C), each sorted."""

    difficult: tuple[str, ...]
    simple: tuple[str, ...]
    unsolved: tuple[str, ...]

    @property
    def share(self) -> float:
        """|A| / |A u B|; NaN when the original gets nothing right."""
        solved = len(self.difficult) + len(self.simple)
        return len(self.difficult) / solved if solved else float("nan")

    def as_dict(self) -> dict[str, int]:
        """JSON-able: how many there are."""
        return {name: len(ids) for name, ids in self.__dict__.items()}


@dataclass(frozen=True)
class MethodScore:
    """One method.

    Attributes:
        name: of it.
        difficult, simple, unsolved, all: accuracy on A, B, C and all items; ``None`` for a group without items.
        drop: accuracy of the original on all items minus that of the method.
        missing: items without an answer, counted as wrong.
    """

    name: str
    difficult: Estimate | None
    simple: Estimate | None
    unsolved: Estimate | None
    all: Estimate
    drop: float
    missing: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {k: v.as_dict() if isinstance(v, Estimate) else v for k, v in self.__dict__.items()}


@dataclass(frozen=True)
class Comparison:
    """What `compare_methods` finds.

    Attributes:
        groups: the items.
        rows: the methods as given, the baseline first.
        ranking: names by accuracy on A, the best first, without the baseline; ``None`` where A is too small.
        tau: Kendall's tau (b) between accuracies on all items and on A; ``None`` without a ranking of two methods that
            differ.
        note: why there is no ranking.
    """

    groups: Groups
    rows: tuple[MethodScore, ...]
    ranking: tuple[str, ...] | None
    tau: float | None
    note: str | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "groups": self.groups.as_dict(),
            "share": None if np.isnan(self.groups.share) else self.groups.share,
            "methods": [row.as_dict() for row in self.rows],
            "ranking": None if self.ranking is None else list(self.ranking),
            "tau": self.tau,
            "note": self.note,
        }


def compression_groups(original: Mapping[str, Any], cheap: Mapping[str, Any]) -> Groups:
    """Sort items by what original and baseline get right.

    Args:
        original, cheap: by item id whether it is answered rightly (or a score, right from `RIGHT` on). Items that the
            original solves and the baseline has no answer to are in no group: nothing tells how difficult they are.

    Raises:
        BadInput: no item, or no id in common; what is neither a truth value nor a score between 0 and 1.
    """
    if not original or not original.keys() & cheap.keys():
        raise BadInput(f"original ({len(original)} items) and baseline ({len(cheap)} items) have no id in common")
    _check("original", original)
    _check(BASELINE, cheap)
    solved = [name for name in sorted(original, key=str) if _right(original, name)]
    return Groups(
        difficult=tuple(name for name in solved if name in cheap and not _right(cheap, name)),
        simple=tuple(name for name in solved if _right(cheap, name)),
        unsolved=tuple(sorted(original.keys() - set(solved), key=str)),
    )


def compare_methods(
    original: Mapping[str, Any],
    cheap: Mapping[str, Any],
    methods: Mapping[str, Mapping[str, Any]],
    *,
    floor: int = FLOOR,
) -> Comparison:
    """Judge methods on difficult and on simple items.

    Args:
        original, cheap: as in `compression_groups`; the baseline is judged as a method as well.
        methods: by name, what each gets right.
        floor: difficult items that a ranking takes.

    Raises:
        BadInput: as `compression_groups`; a method without an id in common, or called like the baseline.
    """
    groups = compression_groups(original, cheap)
    if BASELINE in methods:
        raise BadInput(f"a method is called {BASELINE!r}, which is the cheap baseline's name")
    for name, given in methods.items():
        if not original.keys() & given.keys():
            raise BadInput(f"method {name!r} has no id in common with the original")
        _check(f"method {name!r}", given)
    rows = tuple(_score(name, given, groups, original) for name, given in {BASELINE: cheap, **methods}.items())
    judged = rows[1:]
    if len(groups.difficult) < max(floor, 1):
        few = f"{len(groups.difficult)} difficult items are too few to rank by; {floor} are needed"
        return Comparison(groups, rows, None, None, few)
    hard = [row.difficult.value for row in judged if row.difficult is not None]
    order = sorted(range(len(judged)), key=lambda i: -hard[i])
    tau = (
        float(stats.kendalltau([row.all.value for row in judged], hard).statistic) if len(judged) > 1 else float("nan")
    )
    return Comparison(groups, rows, tuple(judged[i].name for i in order), None if np.isnan(tau) else tau, None)


def _score(name: str, given: Mapping[str, Any], groups: Groups, original: Mapping[str, Any]) -> MethodScore:
    def share(ids: Sequence[str]) -> Estimate | None:
        return wilson(sum(_right(given, i) for i in ids), len(ids)) if ids else None

    everything = wilson(sum(_right(given, i) for i in original), len(original))
    whole = sum(_right(original, i) for i in original) / len(original)
    return MethodScore(
        name=name,
        difficult=share(groups.difficult),
        simple=share(groups.simple),
        unsolved=share(groups.unsolved),
        all=everything,
        drop=whole - everything.value,
        missing=len(original.keys() - given.keys()),
    )


def _right(given: Mapping[str, Any], name: str) -> bool:
    return name in given and float(given[name]) >= RIGHT


def _check(whose: str, given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if not _is_score(value):
            raise BadInput(f"{whose}: {name!r} is {value!r}, neither a truth value nor a score between 0 and 1")


def _is_score(value: Any) -> TypeGuard[float]:
    return isinstance(value, (Real, np.bool_)) and 0 <= float(value) <= 1


def kept_share(factor: int) -> float:
    """The share of tokens that an image shrunk by a whole factor keeps, which methods are to be compared at: 1/r^2.

    Raises:
        BadInput: no whole factor of 2 or more.
    """
    if not isinstance(factor, Real) or not np.isfinite(factor) or factor != int(factor) or factor < 2:
        raise BadInput(f"images are made smaller by a whole factor of 2 or more, not {factor}")
    return 1 / factor**2


def matches_budget(factor: int, budget: float, tolerance: float = 0.01) -> bool:
    """Whether a method that keeps ``budget`` of the tokens may be compared with images ``factor`` times smaller.

    The two shares may differ by ``tolerance`` of `kept_share`.
    """
    return abs(budget - kept_share(factor)) <= tolerance * kept_share(factor)


def correct(
    answer: str, reference: str, rule: Literal["exact", "relaxed", "yes-no", "letter"] = "exact", slack: float = 0.05
) -> bool:
    """Whether an answer is right.

    Args:
        answer, reference: what was said and what is true.
        rule: ``exact``: equal but for case, blanks and a full stop; ``relaxed``: numbers within ``slack`` of the
            reference (5 % is 0.05, as in ChartQA's measure), else exact; ``yes-no``: the first of these words;
            ``letter``: the option, alone or with a sign behind it, ``"(B)."`` or ``"B: a dog"`` being ``b``.
        slack: relative, for ``relaxed``.

    Raises:
        BadInput: an unknown rule, or what is no text.
    """
    if not (isinstance(answer, str) and isinstance(reference, str)):
        raise BadInput(f"an answer and what is true are texts, not {answer!r} and {reference!r}")
    given, wanted = _normal(answer), _normal(reference)
    if rule == "exact":
        return given == wanted
    if rule == "yes-no":
        found = re.search(r"\b(yes|no)\b", given)
        return found is not None and found[1] == wanted
    if rule == "letter":
        found = re.match(r"\W*([a-z])\s*(?:$|[^\w\s'’])", given)  # "A dog" is no option, nor is "I'm not sure"
        return found is not None and found[1] == wanted.strip("() ")
    if rule != "relaxed":
        raise BadInput(f"rule is 'exact', 'relaxed', 'yes-no' or 'letter', not {rule!r}")
    numbers = [_number(text) for text in (given, wanted)]
    if numbers[0] is None or numbers[1] is None:
        return given == wanted
    return abs(numbers[0] - numbers[1]) <= slack * abs(numbers[1])


def _normal(text: str) -> str:
    return " ".join(text.split()).rstrip(".").strip().lower()


def _number(text: str) -> float | None:
    share = text.endswith("%")
    try:
        return float(text.rstrip("% ").replace(",", "")) / (100 if share else 1)
    except ValueError:
        return None


def read_correct(rows: Sequence[Mapping[str, Any]], *, field: str, id_field: str = "doc_id") -> dict[str, float]:
    """By id, the score of records such as those of a file of samples; a score may lie one mapping deeper.

    Args:
        rows: records.
        field: what holds the score: a number, a truth value, or ``{"score": …}``.
        id_field: what holds the id.

    Raises:
        BadInput: a record without one of the two (the fields seen are listed), an id that comes twice, or no number.
    """
    found: dict[str, float] = {}
    for at, row in enumerate(rows, 1):
        absent = next((name for name in (id_field, field) if name not in row), None)
        if absent is not None:
            raise BadInput(f"record {at} has no field {absent!r}; it has {', '.join(map(str, row)) or 'none'}")
        name, value = str(row[id_field]), row[field]
        if name in found:
            raise BadInput(f"record {at}: id {name!r} comes twice")
        value = value.get("score") if isinstance(value, Mapping) else value
        if not _is_score(value):
            raise BadInput(f"record {at}: {field} is a truth value or a score between 0 and 1, not {value!r}")
        found[name] = float(value)
    return found
