"""Human ratings of generated images: scores of models, and how far the raters agree.

Paper 156: Max Ku et al., "ImagenHub: Standardizing the evaluation of conditional image generation models", 2023. Each
rater gives each image of each model two values of 0, 0.5, 1: SC, how well it keeps its conditions (the lowest of them),
and PQ, how natural it looks.

    O = sqrt(SC PQ)         of an image by a rater; the mean over images, then over raters, is a model's
    sd                      of the means of the raters, as of a population
    kappa (Fleiss 1971)     (P - P_e) / (1 - P_e),  P the mean share of pairs of raters that agree on an image,
                            P_e = sum_k p_k^2, p_k the share of value k
    alpha (Krippendorff)    1 - D_o / D_e over the coincidences o_ck of pairs of values within images, with the distance
                            (sum_{g=c..k} n_g - (n_c + n_k) / 2)^2 of ordinal values, n_g how often value g comes
    claim "A beats B"       the mean over images and raters of O_A - O_B is above 0
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import stats

from handful.adapt.parameters import numbers
from handful.core.intervals import Estimate
from handful.errors import BadInput
from handful.evaluate.significance import Test, paired_test

VALUES = (0.0, 0.5, 1.0)
"""What a rater may give."""

Sheet = Mapping[str, Mapping[str, tuple[float, float]]]
"""One rater: by model and image, (SC, PQ)."""


@dataclass(frozen=True)
class Agreement:
    """Fleiss' kappa and Krippendorff's alpha; NaN, with a reason, where all values are the same."""

    kappa: float
    alpha: float
    reason: str | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; ``None`` for NaN."""
        numbers = {"kappa": self.kappa, "alpha": self.alpha}
        return {name: None if np.isnan(v) else v for name, v in numbers.items()} | {"reason": self.reason}


@dataclass(frozen=True)
class ModelRating:
    """One model: mean over images and raters, standard deviation of the raters' means, agreement; each of SC, PQ, O."""

    model: str
    images: int
    raters: int
    mean: Mapping[str, float]
    sd: Mapping[str, float]
    agreement: Mapping[str, Agreement]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        agreement = {name: value.as_dict() for name, value in self.agreement.items()}
        return {**self.__dict__, "mean": dict(self.mean), "sd": dict(self.sd), "agreement": agreement}


class Claim(NamedTuple):
    """Whether one model beats another: ``test`` holds the difference of O with its 95 % interval."""

    better: str
    worse: str
    holds: bool
    test: Test


def geometric(sc: np.ndarray, pq: np.ndarray) -> np.ndarray:
    """O = sqrt(SC PQ)."""
    out: np.ndarray = np.sqrt(sc * pq)
    return out


def weighted(sc: np.ndarray, pq: np.ndarray) -> np.ndarray:
    """O = 0.7 SC + 0.3 PQ."""
    return 0.7 * sc + 0.3 * pq


def consistency(conditions: Sequence[float]) -> float:
    """SC of an image from the values of its conditions: the lowest one.

    Raises:
        BadInput: no condition, or a value that is none of `VALUES`.
    """
    if not len(conditions) or any(value not in VALUES for value in conditions):
        raise BadInput(f"conditions are rated 0, 0.5 or 1, at least one of them, not {list(conditions)}")
    return float(min(conditions))


def aggregate(
    sheets: Sequence[Sheet], overall: Callable[[np.ndarray, np.ndarray], np.ndarray] = geometric
) -> list[ModelRating]:
    """Scores of each model, in the order of the first sheet.

    Args:
        sheets: one a rater, at least two; images are matched by name, whatever their order.
        overall: O from SC and PQ; `weighted` is the other one in use.

    Raises:
        BadInput: fewer than two sheets, other models or images than in the first one, or a value that is none of 0,
            0.5 and 1.
    """
    made = []
    for model, (names, values) in _tables(sheets).items():
        scores = {"SC": values[..., 0], "PQ": values[..., 1], "O": _overall(overall, values)}
        means = {name: table.mean(axis=1) for name, table in scores.items()}
        made.append(
            ModelRating(
                model=model,
                images=len(names),
                raters=len(sheets),
                mean={name: float(each.mean()) for name, each in means.items()},
                sd={name: float(each.std()) for name, each in means.items()},
                agreement={name: agreement(table) for name, table in scores.items()},
            )
        )
    return made


def check_claims(
    sheets: Sequence[Sheet],
    claims: Sequence[tuple[str, str]],
    overall: Callable[[np.ndarray, np.ndarray], np.ndarray] = geometric,
) -> list[Claim]:
    """Whether published claims hold, each that the first of two models beats the second, on the same images.

    Args:
        sheets: see `aggregate`.
        claims: pairs of models, the better one first.
        overall: see `aggregate`.

    Raises:
        BadInput: as `aggregate`; a model that was not rated, or two that were rated on other images.
    """
    tables, found = _tables(sheets), []
    for pair in claims:
        if unknown := [model for model in pair if model not in tables]:
            raise BadInput(f"model {unknown[0]!r} was not rated; there are: {', '.join(tables)}")
        (names, one), (others, other) = (tables[model] for model in pair)
        if names != others:
            raise BadInput(f"{pair[0]!r} and {pair[1]!r} were not rated on the same images")
        test = paired_test(_overall(overall, one), _overall(overall, other))
        found.append(Claim(*pair, test.difference.value > 0, test))
    return found


def _overall(overall: Callable[[np.ndarray, np.ndarray], np.ndarray], values: np.ndarray) -> np.ndarray:
    found = np.asarray(overall(values[..., 0], values[..., 1]), float)
    if found.shape != values.shape[:-1] or not np.isfinite(found).all():
        raise BadInput(
            f"overall gave {found.shape}, or what is no finite number; it takes and gives {values.shape[:-1]}"
        )
    return found


def _tables(sheets: Sequence[Sheet]) -> dict[str, tuple[list[str], np.ndarray]]:
    """By model the images, sorted, and the values ``[raters, images, (SC, PQ)]``; see `aggregate` for what is wrong."""
    if len(sheets) < 2:
        raise BadInput(f"agreement takes two raters or more, not {len(sheets)}")
    if not sheets[0]:
        raise BadInput("rater 1 rated no model")
    found = {}
    for model, images in sheets[0].items():
        names = sorted(images)
        if not names:
            raise BadInput(f"rater 1 rated no image of {model!r}")
        for rater, sheet in enumerate(sheets, 1):
            if sheet.keys() != sheets[0].keys():
                other = sorted(sheet.keys() ^ sheets[0].keys())
                raise BadInput(f"rater {rater} rated other models than rater 1: {', '.join(other[:3])}")
            if sheet[model].keys() != images.keys():
                other = sorted(sheet[model].keys() ^ images.keys())
                raise BadInput(f"rater {rater} rated other images of {model!r} than rater 1: {', '.join(other[:3])}")
        try:
            values = np.array([[sheet[model][name] for name in names] for sheet in sheets], float)
        except (TypeError, ValueError) as error:
            raise BadInput(f"ratings of {model!r} are pairs of numbers, (SC, PQ); one is not") from error
        if values.ndim != 3 or values.shape[-1] != 2:
            raise BadInput(f"ratings of {model!r} are pairs of numbers, (SC, PQ); one is not")
        wrong = ~np.isin(values, VALUES)
        if wrong.any():
            rater, image = np.argwhere(wrong)[0][:2]
            told = values[wrong][0]
            raise BadInput(f"rater {rater + 1}: {model!r}, image {names[image]!r} is rated {told:g}, not 0, 0.5 or 1")
        found[str(model)] = names, values
    return found


def agreement(table: np.ndarray) -> Agreement:
    """Of values ``[raters, images]``."""
    if np.ptp(table) == 0:
        return Agreement(float("nan"), float("nan"), f"all values are {float(np.ravel(table)[0]):g}")
    return Agreement(fleiss_kappa(table), krippendorff_alpha(table), None)


def fleiss_kappa(table: np.ndarray) -> float:
    """Kappa of values ``[raters, items]``, each its own category; NaN when all are the same.

    Raises:
        BadInput: fewer than two raters, or a value that is missing.
    """
    table = _table(table)
    if np.isnan(table).any():
        raise BadInput("Fleiss' kappa takes a value of each rater for each item; alpha allows for missing ones")
    counts = _counts(table)
    raters, items = table.shape
    agree = (np.square(counts).sum(1) - raters) / (raters * (raters - 1))
    by_chance = float(np.square(counts.sum(0) / (raters * items)).sum())
    return float((agree.mean() - by_chance) / (1 - by_chance)) if by_chance < 1 else float("nan")


def krippendorff_alpha(table: np.ndarray, level: Literal["nominal", "ordinal", "interval"] = "ordinal") -> float:
    """Alpha of values ``[raters, items]``; NaN stands for no value, and an item of one value is left out.

    Returns NaN when all values are the same: there is nothing to agree on.

    Raises:
        BadInput: fewer than two raters, an unknown level, or no item with two values.
    """
    table = _table(table)
    values = np.unique(table[~np.isnan(table)])
    counts = _counts(table)
    counts = counts[counts.sum(1) >= 2]
    if not len(counts):
        raise BadInput("alpha takes an item with the values of two raters at least")
    n = counts.sum(0)
    if level == "nominal":
        distance = 1 - np.eye(len(values))
    elif level == "interval":
        distance = np.square(values[:, None] - values)
    elif level == "ordinal":
        below = np.cumsum(n) - n / 2  # sum_{g=c..k} n_g - (n_c + n_k) / 2 is the difference of the mid-ranks
        distance = np.square(below[:, None] - below)
    else:
        raise BadInput(f"level is 'nominal', 'ordinal' or 'interval', not {level!r}")
    weight = 1 / (counts.sum(1) - 1)
    observed = (counts * weight[:, None]).T @ counts - np.diag((counts * weight[:, None]).sum(0))
    expected = (np.outer(n, n) - np.diag(n)) / (n.sum() - 1)
    by_chance = float((expected * distance).sum())
    return 1 - float((observed * distance).sum()) / by_chance if by_chance > 0 else float("nan")


def metric_correlation(metric: Sequence[float] | np.ndarray, human: Sequence[float] | np.ndarray) -> Estimate:
    """Spearman's correlation of an automatic metric with O over n images, with a 95 % interval by Fisher's z.

    The variance of z is 1.06 / (n - 3) (Fieller, Hartley, Pearson 1957).

    Raises:
        BadInput: not as many values, fewer than 4, or one value only.
    """
    a, b = numbers("metric", metric), numbers("human", human)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 4 or not np.isfinite([a, b]).all():
        raise BadInput(f"{a.shape} values of a metric and {b.shape} ratings: four pairs of numbers are needed at least")
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        raise BadInput("a metric or a rating of one value only has no correlation")
    r = float(stats.spearmanr(a, b).statistic)
    half = 1.959964 * (1.06 / (len(a) - 3)) ** 0.5
    z = float(np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12)))
    return Estimate(r, float(np.tanh(z - half)), float(np.tanh(z + half)))


def read_sheet(text: str, where: str = "sheet") -> dict[str, dict[str, tuple[float, float]]]:
    """A rater's sheet: tab-separated, images in the first column, a column a model, cells ``[SC, PQ]``.

    Cells are parsed as literals; nothing is evaluated.

    Raises:
        BadInput: no table, an image or a model twice, or a cell that is no pair of numbers (its place is named).
    """
    lines = [(at, line.split("\t")) for at, line in enumerate(text.splitlines(), 1) if line.strip()]
    if len(lines) < 2 or len(lines[0][1]) < 2:
        raise BadInput(f"{where} is no sheet: a first line of models and a line an image, parted by tabs, are needed")
    models = [name.strip() for name in lines[0][1][1:]]
    if twice := [name for name in models if models.count(name) > 1]:
        raise BadInput(f"{where}: model {twice[0]!r} has two columns")
    found: dict[str, dict[str, tuple[float, float]]] = {model: {} for model in models}
    for at, (image, *cells) in lines[1:]:
        if len(cells) != len(models):
            raise BadInput(f"{where} line {at}: {len(cells)} cells for {len(models)} models")
        if image in found[models[0]]:
            raise BadInput(f"{where} line {at}: image {image!r} comes twice")
        for model, cell in zip(models, cells, strict=True):
            found[model][image] = _pair(cell, f"{where} line {at}, {model}")
    return found


def _pair(cell: str, where: str) -> tuple[float, float]:
    try:
        sc, pq = ast.literal_eval(cell.strip())
        return float(sc), float(pq)
    except (ValueError, SyntaxError, TypeError, OverflowError, MemoryError, RecursionError) as error:
        raise BadInput(f"{where}: a cell reads [SC, PQ], not {cell.strip()[:40]!r}") from error


def _table(table: np.ndarray) -> np.ndarray:
    table = numbers("values, one of its own for each category,", table)
    if table.ndim != 2 or len(table) < 2 or not table.shape[1] or np.isinf(table).any():
        told = f"a table [raters, items] of finite values with two raters or more, not of {table.shape}"
        raise BadInput(f"agreement is of {told}")
    return table


def _counts(table: np.ndarray) -> np.ndarray:
    """How often each item has each value ``[items, values]``."""
    values = np.unique(table[~np.isnan(table)])
    counts: np.ndarray = (table.T[:, :, None] == values).sum(axis=1).astype(float)
    return counts
