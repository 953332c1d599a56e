"""Zero-shot learning judged fairly: by class, seen and unseen apart, on splits that keep apart what must be.

Paper 202: Xian, Lampert, Schiele, Akata, "Zero-Shot Learning - A Comprehensive Evaluation of the Good, the Bad and the
Ugly", 2017.

    U, S   mean over the unseen (seen) classes of the share of their items that is answered right, all classes possible
    H      2 U S / (U + S)

A classifier learnt on seen classes prefers them. Calibrated stacking (Chao et al. 2016) takes a constant from their
scores; the area under U against S over all constants does not depend on one.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from handful.errors import BadInput

PARTS = {
    "train": "train_loc",
    "val": "val_loc",
    "trainval": "trainval_loc",
    "test_seen": "test_seen_loc",
    "test_unseen": "test_unseen_loc",
}
"""Parts of a zero-shot data set, and what files of the paper's authors call them."""


class Generalised(NamedTuple):
    """U, S and H."""

    U: float
    S: float
    H: float


def per_class_accuracy(y_true: Any, y_pred: Any) -> float:
    """Mean over the classes of ``y_true [n]`` of the share of their items that ``y_pred [n]`` names right.

    Raises:
        BadInput: nothing to judge, or lengths that differ.
    """
    y_true, right = _right(y_true, y_pred)
    codes = np.unique(y_true, return_inverse=True)[1]
    return float(np.mean(np.bincount(codes, weights=right) / np.bincount(codes)))


def gzsl_scores(y_true: Any, y_pred: Any, seen: Iterable[Any]) -> Generalised:
    """U, S and H of answers ``y_pred [n]`` that could be any class; ``seen`` names the classes that had examples.

    Raises:
        BadInput: nothing to judge, lengths that differ, no item of a seen class or none of another.
    """
    y_true, _ = _right(y_true, y_pred)
    old = np.isin(y_true, np.asarray([*seen]))
    if old.all() or not old.any():
        raise BadInput(f"no item is of {'another' if old.all() else 'a seen'} class: H needs both")
    y_pred = np.asarray(y_pred)
    u, s = per_class_accuracy(y_true[~old], y_pred[~old]), per_class_accuracy(y_true[old], y_pred[old])
    return Generalised(u, s, harmonic_mean(u, s))


def harmonic_mean(u: float, s: float) -> float:
    """``2 u s / (u + s)``; 0 where both are."""
    return 2 * u * s / (u + s) if u + s else 0.0


@dataclass(frozen=True)
class SeenUnseenCurve:
    """U and S for every constant that changes an answer.

    Attributes:
        penalty: what is taken from the scores of seen classes ``[k]``, ascending.
        U, S: accuracies at it ``[k]``.
        area: under U as a function of S.
    """

    penalty: np.ndarray
    U: np.ndarray
    S: np.ndarray
    area: float

    @property
    def best(self) -> tuple[float, Generalised]:
        """The constant with the largest H, and what it reaches. Choose it on other items than you judge on."""
        total = self.U + self.S
        h = np.divide(2 * self.U * self.S, total, out=np.zeros_like(total), where=total > 0)
        i = int(h.argmax())
        return float(self.penalty[i]), Generalised(float(self.U[i]), float(self.S[i]), float(h[i]))


def seen_unseen_curve(y_true: Any, scores: Any, classes: Iterable[Any], seen: Iterable[Any]) -> SeenUnseenCurve:
    """Calibrated stacking for all constants at once.

    Args:
        y_true: true classes ``[n]``.
        scores: ``[n, C]``, for example ``head.logits(X, classes)``.
        classes: the labels of the columns.
        seen: those that had examples.

    Raises:
        BadInput: sizes that do not fit, scores that are not finite, seen or unseen classes missing among columns or
            items.
    """
    y_true, scores, columns = np.asarray(y_true), np.asarray(scores, dtype=float), np.asarray([*classes])
    if y_true.ndim != 1 or not len(y_true) or scores.shape != (len(y_true), len(columns)):
        raise BadInput(f"{len(y_true)} items and {len(columns)} classes, but scores of shape {scores.shape}")
    if not np.isfinite(scores).all():
        raise BadInput("scores must be finite")
    seen = np.asarray([*seen])
    old, of_old = np.isin(columns, seen), np.isin(y_true, seen)
    if old.all() or not old.any() or of_old.all() or not of_old.any():
        raise BadInput("the curve needs seen and unseen classes, among the columns and among the items")
    best_old, best_new = scores[:, old].max(1), scores[:, ~old].max(1)
    old_right = columns[old][scores[:, old].argmax(1)] == y_true
    new_right = columns[~old][scores[:, ~old].argmax(1)] == y_true
    gap = best_old - best_new  # an item is answered with a seen class up to this constant
    turns = np.unique(gap)
    between = (turns[1:] + turns[:-1]) / 2
    penalty = np.concatenate([[turns[0] - 1.0], between, [turns[-1] + 1.0]])
    share = {kind: _class_shares(y_true[kind == of_old]) for kind in (True, False)}
    s = _stays(gap[of_old], share[True] * old_right[of_old], penalty)
    u = share[False] @ new_right[~of_old] - _stays(gap[~of_old], share[False] * new_right[~of_old], penalty)
    u = u.clip(0.0, 1.0)
    return SeenUnseenCurve(penalty, u, s, float((-np.diff(s) * (u[1:] + u[:-1]) / 2).sum()))


def _class_shares(labels: np.ndarray) -> np.ndarray:
    """What each item counts for in a mean over classes ``[n]``."""
    codes = np.unique(labels, return_inverse=True)[1]
    n = np.bincount(codes)
    return np.asarray(1 / (len(n) * n[codes]))


def _stays(gap: np.ndarray, worth: np.ndarray, penalty: np.ndarray) -> np.ndarray:
    """Total worth of the items whose gap is above each penalty ``[k]``."""
    order = np.argsort(gap)
    left = np.concatenate([np.cumsum(worth[order][::-1])[::-1], [0.0]])
    return np.asarray(left[np.searchsorted(gap[order], penalty, side="right")])


def _right(y_true: Any, y_pred: Any) -> tuple[np.ndarray, np.ndarray]:
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    if y_true.ndim != 1 or y_true.shape != y_pred.shape or not len(y_true):
        raise BadInput(f"y_true and y_pred are two lists of one length, not {y_true.shape} and {y_pred.shape}")
    return y_true, np.asarray(y_true == y_pred)


def zsl_protocol(labels: Any, splits: Mapping[str, Any], *, names: Mapping[Any, str] | None = None) -> None:
    """Check that a split is one to trust; nothing is returned.

    Training and validation classes must differ, so that strengths are tuned as they will be used; test classes must be
    in neither; ``test_seen`` items must be of training or validation classes, and no item of two parts. A test class
    whose name is that of a class of ImageNet, on which encoders are trained, is warned of: it is not unseen.

    Args:
        labels: classes of all items ``[n]``.
        splits: indices of items by part: ``test_unseen`` and ``train``, ``val``, ``trainval``, ``test_seen`` as far as
            there are.
        names: readable names of classes, where labels are none.

    Raises:
        BadInput: a part that is unknown, missing or empty, indices out of range, an overlap.
    """
    labels = np.asarray(labels)
    if odd := sorted(splits.keys() - PARTS.keys()):
        raise BadInput(f"a split has no part {odd[0]!r}: its parts are {', '.join(PARTS)}")
    part = {name: _indices(rows, len(labels), name) for name, rows in splits.items()}
    if "test_unseen" not in part or not {"train", "trainval"} & part.keys():
        raise BadInput("a split needs test_unseen, and train or trainval")
    classes = {name: set(labels[rows].tolist()) for name, rows in part.items()}
    learnt = {name: rows for name, rows in part.items() if name in ("train", "val", "trainval")}
    of_learnt = set().union(*(classes[name] for name in learnt))
    for a, b in (("train", "val"), *((name, "test_unseen") for name in (*learnt, "test_seen"))):
        if a in classes and b in classes and (both := classes[a] & classes[b]):
            raise BadInput(f"class {min(both, key=str)!r} is in {a} and in {b}: they must share none")
    if strange := classes.get("test_seen", set()) - of_learnt:
        raise BadInput(f"class {min(strange, key=str)!r} of test_seen has no items to learn from")
    # The authors' train and val are of trainval and test_seen together; what is learnt last must be apart.
    for name in ("trainval",) if "trainval" in part else tuple(learnt):
        if "test_seen" in part and len(taught := np.intersect1d(part[name], part["test_seen"])):
            raise BadInput(f"item {taught[0]} is in {name} and in test_seen: it would be judged by what it taught")
    readable = [str((names or {}).get(c, c)) for c in sorted(classes["test_unseen"], key=str)]
    if met := [name for name in readable if _plain(name) in _imagenet()]:
        warnings.warn(
            f"test classes {', '.join(map(repr, met[:5]))} are classes of ImageNet, on which encoders are trained: "
            "they are not unseen",
            stacklevel=2,
        )


def read_splits(path: str | Path) -> tuple[dict[str, np.ndarray], dict[Any, np.ndarray]]:
    """Splits and signatures of a file of the paper's authors (``att_splits.mat``, ``sent_splits.mat``).

    Only for files you trust: SciPy reads them, and one that is made for it can crash the process.

    Returns:
        Indices of items by part, counted from 0, and the signature of each class by its number, which counts from 1 as
        the labels in ``res101.mat`` do.

    Raises:
        BadInput: it is no such file.
    """
    content = _matrices(path, (*PARTS.values(), "att"), "zero-shot splits")
    splits = {part: content[key].ravel().astype(int) - 1 for part, key in PARTS.items()}
    att = content["att"].astype(float)
    if att.ndim != 2 or any((rows < 0).any() for rows in splits.values()):
        raise BadInput(f"{path} holds no zero-shot splits: indices count from 1 and att is [attributes, classes]")
    return splits, {c + 1: att[:, c] for c in range(att.shape[1])}


def read_features(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Features ``[n, d]`` and labels ``[n]``, which count from 1, of a file of the paper's authors (``res101.mat``).

    Only for files you trust, as `read_splits`.

    Raises:
        BadInput: it is no such file.
    """
    content = _matrices(path, ("features", "labels"), "features")
    x, y = content["features"].T, content["labels"].ravel()
    if x.ndim != 2 or len(x) != len(y):
        raise BadInput(f"{path} holds {len(y)} labels, and features of shape {x.T.shape}: one column a label is meant")
    return np.ascontiguousarray(x), y.astype(int)


def _matrices(path: str | Path, names: Iterable[str], what: str) -> dict[str, np.ndarray]:
    from scipy.io import loadmat

    names = tuple(names)
    try:
        content = loadmat(str(path), variable_names=names)
    except Exception as error:  # of a damaged file SciPy raises zlib.error, IndexError, TypeError, …
        raise BadInput(f"{path} holds no {what}: {' '.join(str(error).split())}") from error
    if missing := [name for name in names if name not in content]:
        raise BadInput(f"{path} holds no {what}: it has no {missing[0]!r}")
    found = {name: np.asarray(content[name]) for name in names}
    if odd := [name for name, array in found.items() if array.dtype.kind not in "iuf"]:
        raise BadInput(f"{path} holds no {what}: {odd[0]!r} is not made of numbers")
    return found


def _indices(rows: Any, n: int, name: str) -> np.ndarray:
    rows = np.asarray(rows)
    if rows.ndim != 1 or not len(rows) or rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= n:
        raise BadInput(f"{name} must be indices of items from 0 to {n - 1}")
    return np.asarray(rows)


@cache
def _imagenet() -> frozenset[str]:
    text = resources.files("handful.encode").joinpath("imagenet_classes.txt").read_text(encoding="utf-8")
    return frozenset(_plain(name) for line in text.splitlines() for name in (line, *line.split(",")))


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").replace("+", " ").replace("-", " ").split())
