"""From what callers hand over to arrays and tensors that heads can trust; each refusal is one clear line."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data
from torch import Tensor

from handful.core.distances import unit
from handful.core.task import Background, ClassText
from handful.errors import BadInput

PLACES = {"local": 9, "crops": 9}
"""Views with several rows an item, ``[n, places, d]``; and how many there are where an item is made up."""
TABLES = ("aligned", "aux", "description", "middle", "pre")
"""Views with one row an item, ``[n, d]``; others may have any axes."""


@dataclass(frozen=True)
class Features:
    """Features of n items in several views; ``x`` is what heads learn from.

    Args:
        x: ``[n, d]``.
        views: further arrays ``[n, …]`` by name; ``aligned [n, dt]`` is the item in the space of class text.
        items: which rows show the same item, integers ``[n]``: they leave together in leave-one-out. ``None``: all
            rows are items of their own.
    """

    x: np.ndarray
    views: Mapping[str, np.ndarray]
    items: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: Any) -> Features:
        """The rows at ``index``."""
        items = None if self.items is None else self.items[index]
        return Features(self.x[index], {name: view[index] for name, view in self.views.items()}, items)


def read_rows(
    estimator: BaseEstimator, X: Any, *, reset: bool, directions: bool
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The features ``[n, d]`` and views of ``X``, an array or `Features`.

    Raises:
        BadInput: not a table, no rows, another width than was learnt, NaN or infinity, views of another length or with
            other axes than theirs; with ``directions`` a row of length zero.
    """
    given: Mapping[str, np.ndarray] = {}
    if isinstance(X, Features):
        X, given = X.x, X.views
    try:
        x = validate_data(estimator, X, reset=reset, dtype=[np.float64, np.float32], ensure_all_finite=False)
    except ValueError as error:
        raise BadInput(_one_line(str(error))) from error
    _refuse_unbounded(x, "feature")
    if directions:
        _refuse_zero(x, "features")
    views = {}
    for name, view in given.items():
        views[name] = _read_view(name, view, len(x))
    return x, views


def _read_view(name: str, given: Any, n: int) -> np.ndarray:
    try:
        view = np.asarray(given)
    except ValueError as error:
        raise BadInput(f"view {name!r} must be an array of numbers: {_one_line(str(error))}") from error
    if not view.ndim or len(view) != n:
        raise BadInput(f"view {name!r} has {len(view) if view.ndim else 0} rows but the features have {n}")
    axes = "[n, places, d]" if name in PLACES else "[n, d]" if name in TABLES else "[n, ...]"
    other = axes != "[n, ...]" and view.ndim != axes.count(",") + 1
    if other or not view.size or view.dtype.kind not in "biuf":
        raise BadInput(f"view {name!r} holds numbers {axes}, not {view.dtype} of shape {view.shape}")
    _refuse_unbounded(view, f"view {name!r}")
    return view


def read_items(X: Any, n: int) -> np.ndarray:
    """Which rows show the same item ``[n]``. Raises `BadInput` for another number of them."""
    items = X.items if isinstance(X, Features) else None
    if items is None:
        return np.arange(n)
    if np.shape(items) != (n,):
        raise BadInput(f"{n} rows of features but items of shape {np.shape(items)}")
    return np.unique(np.asarray(items), return_inverse=True)[1]


def read_labels(y: Any, n: int) -> np.ndarray:
    """Labels ``[n]``. Raises `BadInput` for another number of them or labels that are no classes."""
    if y is None:
        raise BadInput("a head requires y to be passed, but the target y is None")
    try:
        y = column_or_1d(y, warn=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # one example a class is no regression problem
            check_classification_targets(y)
        np.unique(y)
    except ValueError as error:
        raise BadInput(_one_line(str(error))) from error
    except TypeError as error:
        raise BadInput(f"labels of different kinds cannot be told apart ({error}): make them all text") from error
    if len(y) != n:
        raise BadInput(f"{n} rows of features but {len(y)} labels")
    return np.asarray(y)


def read_label_sets(y: Any, n: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Which labels each row has ``[n, L]``, 0 or 1, and the L labels; ``None`` where rows have one label each.

    Several labels a row are an indicator matrix of 0 and 1, whose labels are its column numbers (its column names, for
    a data frame), or one set, list or tuple of labels a row. A row may have none.

    Raises:
        BadInput: a number that is neither 0 nor 1, another number of rows, fewer than two labels, a label that no row
            has, labels of different kinds.
    """
    rows = y.toarray() if hasattr(y, "toarray") else y
    if _are_sets(rows):
        try:
            labels = np.array(sorted({label for row in rows for label in row}))
        except TypeError as error:
            raise BadInput(f"labels of different kinds cannot be told apart ({error}): make them all text") from error
        place = {label: i for i, label in enumerate(labels.tolist())}
        table = np.zeros((len(rows), len(labels)), dtype=int)
        for i, row in enumerate(rows):
            table[i, [place[label] for label in row]] = 1
    else:
        try:
            table = np.asarray(rows)
        except ValueError:
            return None
        if table.ndim != 2 or table.shape[1] < 2:
            return None
        bad = (table != 0) & (table != 1) if table.dtype.kind in "biuf" else np.ones(table.shape, dtype=bool)
        if bad.any():
            at, column = np.argwhere(bad)[0].tolist()
            raise BadInput(f"the label matrix has {table[at, column]} at row {at}, column {column}: it takes 0 and 1")
        labels = np.asarray(y.columns) if hasattr(y, "columns") else np.arange(table.shape[1])
    if len(table) != n:
        raise BadInput(f"{n} rows of features but {len(table)} rows of labels")
    if len(labels) < 2:
        raise BadInput(f"{len(labels)} labels in all: at least two are needed")
    if not table.any(0).all():
        raise BadInput(f"no row has the label {labels.tolist()[table.any(0).argmin()]!r}: every label needs examples")
    return table.astype(int), labels


def _are_sets(rows: Any) -> bool:
    """Whether these are sets of labels; lists and tuples are, unless they are rows of a matrix of numbers."""
    if not isinstance(rows, (list, tuple)) or not all(isinstance(row, (set, frozenset, list, tuple)) for row in rows):
        return False
    words = any(isinstance(row, (set, frozenset)) or any(isinstance(label, str) for label in row) for row in rows)
    return words or len({len(row) for row in rows}) > 1


def read_text(text: Mapping[Any, Any], classes: np.ndarray, *, dtype: Any, every: bool, device: str) -> ClassText:
    """Class text as unit vectors ``[C, M, Dt]`` in the order of ``classes``.

    Raises:
        BadInput: sentences instead of vectors, text for none of the classes (with ``every``: not for all), vectors of
            different widths, of length zero or not finite.
    """
    known = {c: _vectors(text[c], c, dtype) for c in classes.tolist() if c in text}
    missing = [str(c) for c in classes.tolist() if c not in known]
    if not known:
        raise BadInput(
            f"class text for none of the labels {', '.join(missing[:3])}: it names {', '.join(map(str, [*text][:3]))}"
        )
    if missing and every:
        raise BadInput(f"no class text for {', '.join(missing[:5])}")
    width = next(iter(known.values())).shape[1]
    vectors = np.zeros((len(classes), max(map(len, known.values())), width), dtype=dtype)
    mask = np.zeros(vectors.shape[:2], dtype=bool)
    for i, label in enumerate(classes.tolist()):
        if (rows := known.get(label)) is not None:
            if rows.shape[1] != width:
                raise BadInput(f"class text of {label!r} has width {rows.shape[1]}, that of others {width}")
            vectors[i, : len(rows)], mask[i, : len(rows)] = rows, True
    return ClassText(unit(torch.as_tensor(vectors, device=device)), torch.as_tensor(mask, device=device))


def read_other_text(
    text: Mapping[Any, Any], classes: np.ndarray, *, dtype: Any, device: str
) -> tuple[np.ndarray, ClassText | None]:
    """Labels with class text that are none of ``classes``, sorted, and their text, if there are any.

    Raises:
        BadInput: as `read_text`; vectors of another width than those of ``classes``.
    """
    known = classes.tolist()
    labels = np.unique(np.asarray([label for label in text if label not in known] or known[:0]))
    if not len(labels):
        return classes[:0], None
    width = next((_vectors(text[c], c, dtype).shape[1] for c in known if c in text), None)
    found = read_text(text, labels, dtype=dtype, every=True, device=device)
    if width is not None and found.vectors.shape[-1] != width:
        first = labels.tolist()[0]
        raise BadInput(f"class text of {first!r} has width {found.vectors.shape[-1]}, that of others {width}")
    return labels, found


def read_more(given: Any, support: Tensor, what: str) -> Tensor:
    """Further features ``[m, D]`` like those of ``support [N, D]``.

    Raises:
        BadInput: not a table of numbers, another width, NaN or infinity.
    """
    try:
        x = np.asarray(given.x if isinstance(given, Features) else given, dtype=float)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{what} must be features [m, {support.shape[-1]}]: {_one_line(str(error))}") from error
    if x.ndim != 2 or not len(x) or x.shape[1] != support.shape[-1]:
        raise BadInput(f"{what} must be features [m, {support.shape[-1]}], not an array of shape {x.shape}")
    _refuse_unbounded(x, f"{what} feature")
    return torch.as_tensor(x, dtype=support.dtype, device=support.device)


def read_background(given: Any, support: Tensor) -> Background | None:
    """Items of base classes from features, or ``(features, labels)``.

    Raises:
        BadInput: as `read_more`, and views of another length or that are no finite numbers.
    """
    if given is None:
        return None
    x, y = given if isinstance(given, tuple) else (given, None)
    rows = read_more(x, support, "background")
    views = {name: np.asarray(view) for name, view in x.views.items()} if isinstance(x, Features) else {}
    for name, view in views.items():
        if len(view) != len(rows):
            raise BadInput(f"view {name!r} has {len(view)} rows but the background has {len(rows)}")
        if view.dtype.kind not in "biuf":
            raise BadInput(f"view {name!r} of the background must be an array of numbers, not of {view.dtype}")
        _refuse_unbounded(view, f"view {name!r} of the background")
    tensors = {name: to_tensor(view, str(support.device)) for name, view in views.items()}
    if y is None:
        return Background(rows, views=tensors)
    codes = np.unique(read_labels(y, len(rows)), return_inverse=True)[1]
    return Background(rows, torch.as_tensor(codes, dtype=torch.long, device=support.device), tensors)


def zero_shot_logits(x: Tensor, views: Mapping[str, Tensor], text: Tensor, scale: float) -> Tensor:
    """``scale cos(x, t_c)`` ``[n, C]`` for the unit class text ``text [C, Dt]``; x is the view ``aligned`` where there
    is one.

    A class without text (a zero vector) gets the mean over the classes that have some: neither for it nor against it.

    Raises:
        BadInput: widths differ.
    """
    x = views.get("aligned", x).to(text.dtype)
    if x.shape[-1] != text.shape[-1]:
        raise BadInput(
            f"class text has width {text.shape[-1]} but the features have {x.shape[-1]}; "
            "give features with a view 'aligned' of the text's width"
        )
    logits = scale * unit(x) @ text.mT
    known = text.square().sum(-1) > 0
    mean = logits[..., known].mean(-1, keepdim=True)
    return torch.where(known, logits, mean)


def to_tensor(x: np.ndarray, device: str, dtype: torch.dtype | None = None) -> Tensor:
    """The array as a tensor; copied where it may only be read (a memory map, a frame's column)."""
    return torch.as_tensor(x if x.flags.writeable else x.copy(), device=device, dtype=dtype)


def check_device(device: str) -> str:
    """The device. Raises `BadInput` when there is none of that name here."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BadInput(f"no device {device!r} here: {_one_line(str(error))}") from error
    return device


def _vectors(rows: Any, label: Any, dtype: Any) -> np.ndarray:
    try:
        out = np.atleast_2d(np.asarray(rows, dtype=dtype))
    except (TypeError, ValueError) as error:
        raise BadInput(
            f"class text of {label!r} must be vectors [m, dt]; sentences go through Encoder.class_text first"
        ) from error
    if out.ndim != 2 or not out.size:
        raise BadInput(f"class text of {label!r} must be vectors [m, dt], not an array of shape {out.shape}")
    _refuse_unbounded(out, f"class text of {label!r}")
    _refuse_zero(out, f"class text of {label!r}")
    return out


def _refuse_unbounded(x: np.ndarray, what: str) -> None:
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(x))[0])
        value = "NaN" if np.isnan(x[place]) else "infinity (inf)"
        raise BadInput(f"{what} at row {place[0]}, column {place[-1]} of {x.shape} is {value}")


def _refuse_zero(x: np.ndarray, what: str) -> None:
    empty = np.flatnonzero(~x.any(axis=1))
    if len(empty):
        raise BadInput(f"row {empty[0]} of {what} {x.shape} is all zeros: it has no direction")


def _one_line(message: str, limit: int = 400) -> str:
    line = " ".join(message.split())
    return line if len(line) <= limit else f"{line[: limit // 2]} … {line[-limit // 2 :]}"
