"""How many more shots privacy costs.

Paper 003: Tobaben et al., "On the Efficacy of Differentially Private Few-shot Image Classification", 2023. The median
accuracy over seeds, interpolated linearly between the shots that were run, is read off at every whole number of shots:

    multiplier(eps, S0) = S / S0,   S the fewest shots whose accuracy at eps reaches that of S0 shots without privacy
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from handful.errors import BadInput

Curves = Mapping[float, Mapping[int, Sequence[float]]]
"""Accuracies of every seed, by epsilon (``math.inf`` for none) and shots a class."""


def shot_multipliers(accuracy: Curves, base: Sequence[int] = (5, 10)) -> dict[int, dict[float, float | None]]:
    """By base shots and epsilon, how many times the shots are needed; ``None`` where none that were run are enough.

    Args:
        accuracy: see `Curves`; it must hold ``math.inf``.
        base: shots without privacy to compare with.

    Raises:
        BadInput: no run without privacy, nothing at an epsilon, or a base outside what was run without privacy.
    """
    if math.inf not in accuracy:
        raise BadInput("shot multipliers need runs without privacy: give accuracies for epsilon math.inf")
    curves = {epsilon: _median_curve(epsilon, runs) for epsilon, runs in accuracy.items()}
    shots, plain = curves[math.inf]
    found: dict[int, dict[float, float | None]] = {}
    for s0 in base:
        if not shots[0] <= s0 <= shots[-1]:
            raise BadInput(f"{s0} shots are outside the {shots[0]} to {shots[-1]} that were run without privacy")
        wanted = plain[s0 - shots[0]]
        found[s0] = {epsilon: _first(*curve, wanted, s0) for epsilon, curve in sorted(curves.items())}
    return found


def _median_curve(epsilon: float, runs: Mapping[int, Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    if not runs or not all(len(values) for values in runs.values()):
        raise BadInput(f"no accuracies at epsilon {epsilon:g}")
    known = sorted(runs)
    every = np.arange(known[0], known[-1] + 1)
    return every, np.interp(every, known, [float(np.median(runs[s])) for s in known])


def _first(shots: np.ndarray, accuracy: np.ndarray, wanted: float, base: int) -> float | None:
    enough = np.flatnonzero(accuracy >= wanted)
    return float(shots[enough[0]] / base) if len(enough) else None
