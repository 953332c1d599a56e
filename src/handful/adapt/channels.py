"""Which channels matter: how large they are, how well each tells two classes apart, and what would set that right.

Paper 019: Luo, Xu, Xu, "Channel Importance Matters in Few-Shot Image Classification", 2022. The transform that needs no
labels is `handful.adapt.transforms.ChannelPower`; what stands here is the paper's analysis of binary tasks, which looks
at many labelled examples a class.

    MMC_k = E |x_k|                                                          mean magnitude of channel k
    w_k   = 2 / (s1_k / |m1_k - m2_k| + s2_k / |m1_k - m2_k|),  |w| = 1      importance; m mean, s standard deviation
    x_k  -> x_k w_k / MMC_k                                                  the oracle transform
"""

from __future__ import annotations

import numpy as np

from handful.errors import BadInput

_TINY = 1e-12


def mean_magnitude(x: np.ndarray) -> np.ndarray:
    """Mean of the absolute value of every channel ``[d]`` of features ``[n, d]``."""
    out: np.ndarray = np.abs(_table(x)).mean(0)
    return out


def channel_importance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How well each channel tells two classes apart, a unit vector ``[d]``, from unit features ``[n, d]`` of each.

    Raises:
        BadInput: not two tables of the same width.
    """
    a, b = _pair(first, second)
    gap = np.abs(a.mean(0) - b.mean(0)) + _TINY
    importance = 2 / ((a.std(0) + _TINY) / gap + (b.std(0) + _TINY) / gap)
    out: np.ndarray = importance / max(np.linalg.norm(importance), _TINY)
    return out


def oracle_multiplier(first: np.ndarray, second: np.ndarray, *, cap: float | None = None) -> np.ndarray:
    """What to multiply the channels by ``[d]`` so that their magnitude is their importance; 0 for a channel that is
    always 0.

    ``cap`` replaces multipliers above it by 1 (the authors' appendix F: 50).

    Raises:
        BadInput: not two tables of the same width.
    """
    a, b = _pair(first, second)
    magnitude = mean_magnitude(np.concatenate([a, b]))
    multiplier = magnitude * channel_importance(a, b) / (magnitude + _TINY) ** 2
    return multiplier if cap is None else np.where(multiplier > cap, 1.0, multiplier)


def _table(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 2 or not x.size:
        raise BadInput(f"expected features [n, d], got an array of shape {x.shape}")
    if not np.isfinite(x).all():
        row, column = np.argwhere(~np.isfinite(x))[0]
        raise BadInput(f"feature at row {row}, column {column} of {x.shape} is not finite")
    return x


def _pair(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = _table(first), _table(second)
    if a.shape[1] != b.shape[1]:
        raise BadInput(f"the classes have {a.shape[1]} and {b.shape[1]} channels")
    return a, b
