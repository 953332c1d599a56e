"""Whether a card can be shown: of the right types all through, or one line that says where it is not.

A card comes out of a model file, and a file may hold anything. It is checked once, here, so that the views below need
not ask again. Parts may be missing or null; keys that no report shows are let be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from handful.errors import BadInput

Check = Callable[[Any, str], None]
"""Raises `BadInput` when a value, found at a place such as ``task.classes[3].name``, is not what it must be."""

DEEPEST = 12
LARGEST = 2**53


def check_card(card: Any) -> None:
    """Raise `BadInput` naming the first place of a card that holds something else than it must."""
    _CARD(card, "")


def _wrong(value: Any, at: str, wanted: str) -> NoReturn:
    kind = "null" if value is None else "true or false" if isinstance(value, bool) else type(value).__name__
    raise BadInput(f"the card cannot be shown: {at or 'it'} must be {wanted}, not {kind}")


def _text(value: Any, at: str) -> None:
    if not isinstance(value, str):
        _wrong(value, at, "a text")


def _flag(value: Any, at: str) -> None:
    if not isinstance(value, bool):
        _wrong(value, at, "true or false")


def _number(value: Any, at: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _wrong(value, at, "a number")
    if not -LARGEST <= value <= LARGEST:  # nor is NaN
        raise BadInput(f"the card cannot be shown: {at} is out of bounds")


def _count(value: Any, at: str) -> None:
    _number(value, at)
    if value < 0 or value != int(value):
        raise BadInput(f"the card cannot be shown: {at} counts something, so it cannot be {value:.6g}")


def _quantity(value: Any, at: str) -> None:
    """A number, or what stands for one that is not known."""
    if not (value is None or (isinstance(value, float) and not math.isfinite(value))):
        _number(value, at)


def _anything(value: Any, at: str, depth: int = 0) -> None:
    if depth > DEEPEST:
        raise BadInput(f"the card cannot be shown: {at} is nested too deep")
    if isinstance(value, Mapping):
        for key, item in value.items():
            _text(key, f"a key of {at}")
            _anything(item, at, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _anything(item, at, depth + 1)
    elif isinstance(value, int) and not isinstance(value, bool):
        _number(value, at)
    elif value is not None and not isinstance(value, str | float | bool):
        _wrong(value, at, "plain JSON")


def _maybe(check: Check) -> Check:
    return lambda value, at: None if value is None else check(value, at)


def _list(check: Check) -> Check:
    def run(value: Any, at: str) -> None:
        if not isinstance(value, list | tuple):
            _wrong(value, at, "a list")
        for i, item in enumerate(value):
            check(item, f"{at}[{i}]")

    return run


def _table(check: Check) -> Check:
    """Names to values that all pass ``check``."""

    def run(value: Any, at: str) -> None:
        if not isinstance(value, Mapping):
            _wrong(value, at, "an object")
        for key, item in value.items():
            _text(key, f"a key of {at}")
            check(item, f"{at}[{key[:40]!r}]")

    return run


def _record(must: Mapping[str, Check] | None = None, may: Mapping[str, Check] | None = None) -> Check:
    """An object with the keys ``must``, and perhaps some of ``may``, which may be null."""
    fields = {**(must or {}), **{key: _maybe(check) for key, check in (may or {}).items()}}

    def run(value: Any, at: str) -> None:
        if not isinstance(value, Mapping):
            _wrong(value, at, "an object")
        for key, check in fields.items():
            if key in value:
                check(value[key], f"{at}.{key}".lstrip("."))
            elif key in (must or {}):
                raise BadInput(f"the card cannot be shown: {at or 'it'} lacks {key!r}")

    return run


def _assessment(value: Any, at: str) -> None:
    _ASSESSMENT(value, at)
    ways, counts = len(value.get("classes") or ()), value.get("confusion") or ()
    if counts and (len(counts) != ways or any(len(row) != ways for row in counts)):
        raise BadInput(f"the card cannot be shown: {at}.confusion is not {ways} x {ways}, as its classes are")


_ESTIMATE = _record({"value": _quantity, "low": _quantity, "high": _quantity})
_TEXTS, _ROWS = _list(_text), _list(_count)
_MEASURES = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "calibration_error")
_CLASS = _record({"class": _text, "n": _count}, dict.fromkeys(("precision", "recall", "f1"), _ESTIMATE))
_PAIR = _record({"true": _text, "predicted": _text, "n": _count}, {"rate": _ESTIMATE})
_BIN = _record({"low": _number, "high": _number, "n": _count, "confidence": _number}, {"accuracy": _ESTIMATE})
_ASSESSMENT = _record(
    may={
        "n": _count,
        "groups": _count,
        "classes": _TEXTS,
        **dict.fromkeys(_MEASURES, _ESTIMATE),
        "per_class": _list(_CLASS),
        "confusion": _list(_ROWS),
        "confused": _list(_PAIR),
        "reliability": _list(_BIN),
    }
)
_SET_MEASURES = ("micro_f1", "macro_f1", "mean_average_precision", "exact_match")
_LABEL = _record(
    {"label": _text, "n": _count},
    {"said": _count, **dict.fromkeys(("precision", "recall", "f1", "average_precision"), _ESTIMATE)},
)
_SET_ASSESSMENT = _record(
    may={
        **dict.fromkeys(("n", "groups"), _count),
        "labels": _TEXTS,
        **dict.fromkeys(_SET_MEASURES, _ESTIMATE),
        **dict.fromkeys(("labels_per_item", "said_per_item"), _number),
        "per_label": _list(_LABEL),
    }
)
_TASK = _record(
    may={
        "sources": _TEXTS,
        "sha256": _table(_text),
        "modality": _text,
        "columns": _table(_anything),
        "n": _count,
        "pool": _count,
        "classes": _list(_record({"name": _text}, {"count": _count})),
        "notes": _TEXTS,
        "skipped": _TEXTS,
    }
)
_GROUPS = _record(may={"count": _count, "largest": _count, "by": _text})
_ANSWERS = _record(
    may={
        "target": _number,
        "threshold": _number,
        "coverage": _ESTIMATE,
        "precision": _ESTIMATE,
        "table": _list(_record({"threshold": _number}, {"coverage": _ESTIMATE, "precision": _ESTIMATE, "n": _count})),
        "note": _text,
    }
)
_COST = _record(may={"source": _text, "matrix": _list(_list(_number)), "mean": _ESTIMATE, "plain": _ESTIMATE})
_REJECT = _record(
    may={
        **dict.fromkeys(("kind", "other", "basis", "method", "source"), _text),
        **dict.fromkeys(("threshold", "asked"), _number),
        **dict.fromkeys(("known", "unknown"), _count),
        **dict.fromkeys(("false_alarms", "found", "auroc", "fpr95"), _ESTIMATE),
    }
)
_DOUBT = _record(
    {"given": _text, "suggested": _text},
    {"where": _text, "p_given": _number, "p_suggested": _number, "row": _count},
)
_CLASH = _record(may={"where": _TEXTS, "labels": _TEXTS, "rows": _ROWS})
_PRIVATE = _record(
    {"epsilon": _number, "delta": _number, "relation": _text},
    {
        "replace_one": _record({"epsilon": _number, "delta": _number}),
        "accountant": _text,
        "withheld": _TEXTS,
        "public": _TEXTS,
    },
)
_LABEL_SETS = _record(
    may={
        **dict.fromkeys(("separator", "none"), _text),
        "labels_per_item": _number,
        "without": _count,
        "not_judged": _TEXTS,
        "estimate": _record(
            may={
                "method": _text,
                "groups": _GROUPS,
                "quoted": _record(may=dict.fromkeys(_SET_MEASURES, _ESTIMATE)),
                "assessment": _SET_ASSESSMENT,
            }
        ),
        "test": _record(may={"source": _text, "note": _text, "assessment": _SET_ASSESSMENT}),
    }
)
_CARD = _record(
    may={
        "handful": _text,
        "seed": _anything,
        "metric": _text,
        "task": _TASK,
        "encoder": _record(may={"name": _text, "fingerprint": _text, "dim": _count, "options": _anything}),
        "head": _record(may={"key": _text, "choice": _text, "parameters": _table(_anything), "why": _text}),
        "tuning": _record(
            may={
                **dict.fromkeys(("recipe", "asked", "why", "sentence"), _text),
                **dict.fromkeys(("changed", "of"), _count),
                **dict.fromkeys(("frozen", "tuned", "seconds"), _number),
                "kept": _flag,
            }
        ),
        "label_sets": _LABEL_SETS,
        "candidates": _list(_table(_anything)),
        "class_text": _record(
            may={
                "used": _flag,
                "weight": _number,
                "reason": _text,
                "others": _record(may={"names": _TEXTS, "answered": _flag, "reason": _text}),
            }
        ),
        "unlabelled": _record(
            may={
                **dict.fromkeys(("n", "dropped", "skipped"), _count),
                "sources": _TEXTS,
                "sha256": _table(_text),
                "use": _text,
                "shares": _table(_number),
                "apart": _number,
                "warning": _text,
            }
        ),
        "population": _record(may={"kind": _text, "source": _text, "shares": _table(_number), "sentence": _text}),
        "estimate": _record(may={"method": _text, "assessment": _assessment, "accuracy": _ESTIMATE, "groups": _GROUPS}),
        "test": _record(may={"source": _text, "note": _text, "assessment": _assessment}),
        "selective": _ANSWERS,
        "cost": _COST,
        "reject": _REJECT,
        "shots_curve": _list(_record({"shots": _count, "accuracy": _ESTIMATE}, {"n": _count})),
        "suspicious": _list(_DOUBT),
        "duplicates": _record(may={"items": _count, "units": _count, "conflicts": _list(_CLASH)}),
        "blind_spots": _list(_record({"message": _text}, {"kind": _text, "n": _count, "of": _count, "where": _TEXTS})),
        "provenance": _record(may={"command": _text, "versions": _table(_text)}),
        "experiment": _record(may={"shots": _count, "note": _text}),
        "private": _PRIVATE,
        "certificate": _record(may={"statement": _text}),
        "seconds": _table(_number),
    }
)
