"""How much the answers of a classifier, or the vectors of an encoder, lean towards a social group.

    TPR gap       TPR_a - TPR_b of each class, over the two groups; its root mean square over classes
    FPRD          sum_z |FPR_z - FPR| over words z that name a group, FPR_z among the texts with z
    WEAT, SEAT    s(w) = mean_a cos(w, a) - mean_b cos(w, b);
                  effect = (mean_x s - mean_y s) / deviation of s over X and Y (n - 1);
                  p = how often X and Y divided anew into halves have a sum of s over X as large
    ICAT          lm min(ss, 100 - ss) / 50: lm the share of contexts in which a fitting word is likelier than one that
                  makes no sense, ss in which the stereotype is likelier than its contrary; 100 is the ideal

The metrics of 188, PEFTDebias, 2023: De-Arteaga et al., Bias in Bios, 2019 (TPR gap); Dixon et al. 2018 (FPRD);
Caliskan et al. 2017 and May et al. 2019 (WEAT, SEAT); Nadeem et al., StereoSet, 2020 (ICAT).
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from handful.errors import BadInput

Labels = Sequence[Any] | np.ndarray


@dataclass(frozen=True)
class TprGap:
    """What `tpr_gap_rms` gives.

    Attributes:
        rms: over classes.
        gaps: by class the rate of the first group less that of the second.
        groups: the two, sorted.
        left_out: classes of which one group has no item.
    """

    rms: float
    gaps: dict[Any, float]
    groups: tuple[Any, Any]
    left_out: tuple[Any, ...]


def tpr_gap_rms(labels: Labels, answers: Labels, group: Labels) -> TprGap:
    """The gap between two groups in how often a class is found, see `handful.evaluate.bias`.

    Args:
        labels, answers, group: n values each.

    Raises:
        BadInput: not two groups; no class has items of both.
    """
    y, p, g = _columns(labels, answers, group)
    names = sorted(set(g.tolist()), key=str)
    if len(names) != 2:
        raise BadInput(f"a gap is between two groups, not {len(names)}: {', '.join(map(str, names[:5]))}")
    gaps: dict[Any, float] = {}
    left_out = []
    for c in sorted(set(y.tolist()), key=str):
        rows = [(y == c) & (g == name) for name in names]
        if all(row.any() for row in rows):
            first, second = (float((p[row] == c).mean()) for row in rows)
            gaps[c] = first - second
        else:
            left_out.append(c)
    if not gaps:
        raise BadInput("no class has items of both groups: there is no gap to measure")
    rms = math.sqrt(sum(gap**2 for gap in gaps.values()) / len(gaps))
    return TprGap(rms, gaps, (names[0], names[1]), tuple(left_out))


@dataclass(frozen=True)
class Fprd:
    """What `fprd` gives.

    Attributes:
        total: the sum of the differences.
        overall: false positive rate.
        rates: by word that of the texts with it.
        left_out: words without a text that counts.
    """

    total: float
    overall: float
    rates: dict[str, float]
    left_out: tuple[str, ...]


def fprd(
    labels: Labels, answers: Labels, texts: Sequence[str], terms: Sequence[str], *, positive: Any = 1,
    reference: bool = False,
) -> Fprd:  # fmt: skip
    """The false positive equality difference over words that name groups.

    Args:
        labels, answers: n of them.
        texts: n.
        terms: words; letters' case does not count.
        positive: the class that is answered wrongly.
        reference: as the authors' code has it: a rate is the share of all texts that are false positives, not of the
            negative ones, and a word is found inside others.

    Raises:
        BadInput: no negative text; no word is in one.
    """
    y, p = _columns(labels, answers)
    if len(texts) != len(y):
        raise BadInput(f"{len(y)} labels, but {len(texts)} texts")
    wrong, counts = (y != positive) & (p == positive), np.ones(len(y), bool) if reference else y != positive
    if not counts.any():
        raise BadInput(f"no text is of another class than {positive!r}: there is no false positive rate")
    overall = float(wrong[counts].mean())
    rates: dict[str, float] = {}
    left_out = []
    for term in terms:
        pattern = re.escape(term) if reference else rf"(?<!\w){re.escape(term)}(?!\w)"
        flags = re.RegexFlag(0) if reference else re.IGNORECASE
        rows = counts & np.array([re.search(pattern, text, flags) is not None for text in texts])
        if rows.any():
            rates[term] = float(wrong[rows].mean())
        else:
            left_out.append(term)
    if not rates:
        raise BadInput("no text that counts has one of the words")
    return Fprd(sum(abs(rate - overall) for rate in rates.values()), overall, rates, tuple(left_out))


@dataclass(frozen=True)
class Association:
    """What `weat` gives: the effect size, and the p-value of the permutation test."""

    effect: float
    p: float


def weat(
    x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, *, draws: int = 100_000, seed: int = 0
) -> Association:
    """Whether X goes with A and Y with B, see `handful.evaluate.bias`.

    Args:
        x, y: vectors of two sets of equally many targets, ``[n, d]`` each.
        a, b: vectors of two sets of attributes.
        draws: divisions tried; all of them, where there are no more, else random ones and the one that is.
        seed: of the draw.

    Raises:
        BadInput: sets of different sizes, or an empty one; a vector of zeros, or of what is no number; all
            targets are alike.
    """
    x, y, a, b = (np.atleast_2d(np.asarray(one, dtype=float)) for one in (x, y, a, b))
    n = len(x)
    if len(y) != n or n < 1 or not len(a) or not len(b):
        raise BadInput(f"the two sets of targets have {n} and {len(y)} members; they must be equally large")
    if len({one.shape[1] for one in (x, y, a, b)}) > 1:
        raise BadInput(f"vectors of {', '.join(str(one.shape[1]) for one in (x, y, a, b))} numbers do not fit together")
    norms = np.linalg.norm(np.concatenate([x, y, a, b]), axis=1)
    if not np.isfinite(norms).all() or not norms.all():
        raise BadInput("a vector is all zeros, or holds NaN or infinity: it has no angle to others")
    s = _cosine(np.concatenate([x, y]), a).mean(1) - _cosine(np.concatenate([x, y]), b).mean(1)
    deviation = float(s.std(ddof=1))
    gap = float(s[:n].mean() - s[n:].mean())
    if deviation < 1e-12:
        raise BadInput("all targets are equally near to both sets of attributes: there is no effect size")
    if math.comb(2 * n, n) <= draws:
        sums = np.array([s[list(rows)].sum() for rows in itertools.combinations(range(2 * n), n)])
        p = float((sums >= s[:n].sum() - 1e-12).mean())
    else:
        rng = np.random.default_rng(seed)
        sums = np.array([s[rng.permutation(2 * n)[:n]].sum() for _ in range(draws - 1)])
        p = float((1 + (sums >= s[:n].sum() - 1e-12).sum()) / draws)
    return Association(gap / deviation, p)


def seat(
    encode: Callable[[list[str]], np.ndarray], x: Sequence[str], y: Sequence[str], a: Sequence[str], b: Sequence[str],
    *, draws: int = 100_000, seed: int = 0,
) -> Association:  # fmt: skip
    """`weat` of sentences: ``encode`` gives their vectors ``[n, d]``."""
    return weat(*(encode(list(some)) for some in (x, y, a, b)), draws=draws, seed=seed)


@dataclass(frozen=True)
class Stereotypes:
    """What `stereotype_scores` gives, each from 0 to 100: language model score, stereotype score, and both in one."""

    lm: float
    ss: float
    icat: float


def stereotype_scores(
    stereotype: Sequence[float], contrary: Sequence[float], senseless: Sequence[float], terms: Labels = ()
) -> Stereotypes:
    """StereoSet's scores of how likely a model finds three words in each of n contexts.

    Args:
        stereotype, contrary, senseless: n scores each, larger for likelier.
        terms: the group that each context is about; means are taken over groups, as StereoSet does. Over contexts
            without.

    Raises:
        BadInput: numbers that do not fit; a score that is no number.
    """
    like, unlike, other = (np.asarray(one, dtype=float) for one in (stereotype, contrary, senseless))
    n = len(like)
    if not n or len(unlike) != n or len(other) != n or len(terms) not in (0, n):
        raise BadInput(f"{n}, {len(unlike)} and {len(other)} scores and {len(terms)} terms do not fit together")
    if np.isnan(np.concatenate([like, unlike, other])).any():
        raise BadInput("scores hold NaN")
    fits = 100 * ((like > other).astype(float) + (unlike > other)) / 2
    prefers = 100 * (like > unlike).astype(float)
    of = np.unique(np.asarray(terms), return_inverse=True)[1] if len(terms) else np.arange(n)
    size = np.bincount(of)
    lm, ss = (float((np.bincount(of, one) / size).mean()) for one in (fits, prefers))
    return Stereotypes(lm, ss, lm * min(ss, 100 - ss) / 50)


def _cosine(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    found: np.ndarray = (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (
        y / np.linalg.norm(y, axis=1, keepdims=True)
    ).T
    return found


def _columns(*columns: Labels) -> list[np.ndarray]:
    found = [np.asarray(column) for column in columns]
    if not len(found[0]) or len({len(column) for column in found}) > 1:
        raise BadInput(f"columns of {', '.join(str(len(column)) for column in found)} values do not fit together")
    return found
