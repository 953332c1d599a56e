"""Parameters of heads, checked: each refusal names the parameter, what it may be and what it was."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from handful.errors import BadInput


def finite(
    name: str, value: float, *, above: float = -math.inf, least: float = -math.inf, most: float = math.inf,
    below: float = math.inf,
) -> float:  # fmt: skip
    """``value``. Raises `BadInput` unless it is a finite number between ``above`` and ``below``, and from ``least`` to
    ``most``."""
    number = isinstance(value, Real) and not isinstance(value, bool)  # numpy's numbers too, as a grid search has them
    if number and math.isfinite(value) and above < value < below and least <= value <= most:
        return float(value)
    bounds = [f" above {above:g}"] * (above > -math.inf) + [f" from {least:g}"] * (least > -math.inf)
    bounds += [f" to {most:g}"] * (most < math.inf) + [f" and below {below:g}"] * (below < math.inf)
    raise BadInput(f"{name} must be a finite number{''.join(bounds)}, not {value!r}")


def count(name: str, value: int, least: int = 0) -> int:
    """``value``. Raises `BadInput` unless it is a whole number from ``least``."""
    if isinstance(value, Integral) and not isinstance(value, bool) and value >= least:
        return int(value)
    raise BadInput(f"{name} must be a whole number from {least}, not {value!r}")


def several(name: str, values: Any, what: str) -> list[Any]:
    """``values`` as a list. Raises `BadInput` saying ``what`` they may be, unless they are a sequence."""
    if isinstance(values, Iterable) and not isinstance(values, (str, bytes, dict)):
        return list(values)
    raise BadInput(f"{name} is {what}, not {values!r}")


def numbers(name: str, values: Any) -> np.ndarray:
    """``values`` as an array of floats. Raises `BadInput` where they are no numbers, or rows of unequal length."""
    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{name} must be numbers: {str(error).splitlines()[0]}") from error


def one_of(name: str, value: str, words: Sequence[str]) -> str:
    """``value``. Raises `BadInput` unless it is one of ``words``."""
    if value in words:
        return value
    raise BadInput(f"{name} is one of {', '.join(map(repr, words))}, not {value!r}")
