"""How accuracy grows with training compute and with the prompt, up to where the context ends.

Paper 095: Kyle Montgomery et al., "Predicting Task Performance with Context-aware Scaling Laws", 2025.

    P(C, n, L) = [1 - exp(-A (C / C0)^alpha)] [1 - exp(-B (n / n0)^beta)] sigma((L - n) / w)

C is training compute, 6 N D floating-point operations for N parameters (without embeddings) and D tokens; n the tokens
of the prompt, L the context limit, w a width in tokens: with 1, the reference's, the last factor is nearly a step.

Only A C0^-alpha and B n0^-beta can be told from data, so that C0 and n0 are the medians of what was seen. The fit
is bounded least squares: differential evolution, then a local solver. Intervals are those of the linearised fit,
theta -+ t s sqrt(diag (J'J)^-1).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, special

from handful.core.intervals import Estimate
from handful.errors import BadInput

BOUNDS: Mapping[str, tuple[float, float]] = {
    "A": (1e-5, 1e5),
    "alpha": (0.0, 10.0),
    "B": (1e-5, 1e5),
    "beta": (0.0, 10.0),
}
"""Of the parameters, by default."""
MAXITER, POPSIZE = 1000, 15
"""Of differential evolution."""


class OneCompute(UserWarning):
    """All points have the same compute: its factor is left out."""


@dataclass(frozen=True)
class ContextLaw:
    """A fitted law.

    Attributes:
        parameters: A, alpha, B, beta with 95 % intervals; A and alpha are absent where compute did not vary.
        C0, n0: medians of compute and of tokens.
        penalty_width: w.
        r2, mae: share of variance that is explained, and mean absolute error, on the points of the fit.
        n: points.
    """

    parameters: Mapping[str, Estimate]
    C0: float
    n0: float
    penalty_width: float
    r2: float
    mae: float
    n: int
    _theta: np.ndarray
    _covariance: np.ndarray
    _freedom: int

    def predict(self, C: Any, n: Any, L: Any) -> np.ndarray:
        """Expected score for compute, tokens of the prompt and context limit; shapes are broadcast."""
        x = _inputs(C, n, L)
        return _law(self._theta, *self._scaled(x), self.penalty_width)

    def interval(self, C: Any, n: Any, L: Any) -> tuple[np.ndarray, np.ndarray]:
        """95 % interval of `predict`, of the curve itself and not of single scores, within 0 and 1."""
        x = self._scaled(_inputs(C, n, L))
        value = _law(self._theta, *x, self.penalty_width)
        slope = _jacobian(self._theta, *x, self.penalty_width)
        deviation = np.sqrt(np.maximum(np.einsum("...i,ij,...j->...", slope, self._covariance, slope), 0))
        half = _t(self._freedom) * deviation
        return np.clip(value - half, 0, 1), np.clip(value + half, 0, 1)

    def _scaled(self, x: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return np.log(x[0] / self.C0), np.log(x[1] / self.n0), x[2] - x[1]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        plain = {k: getattr(self, k) for k in ("C0", "n0", "penalty_width", "r2", "mae", "n")}
        return {**plain, "parameters": {name: value.as_dict() for name, value in self.parameters.items()}}


def fit_context_law(
    C: Sequence[float] | np.ndarray,
    n: Sequence[float] | np.ndarray,
    L: Sequence[float] | np.ndarray | float,
    score: Sequence[float] | np.ndarray,
    *,
    bounds: Mapping[str, tuple[float, float]] = BOUNDS,
    penalty_width: float = 1.0,
    seed: int = 0,
) -> ContextLaw:
    """Fit one law to the scores of one family of tasks.

    Args:
        C: training compute of each of m points; see `training_flops`.
        n: tokens of the prompt.
        L: context limit in tokens.
        score: accuracy, 0 to 1.
        bounds: of A, alpha, B, beta.
        penalty_width: w; ``inf`` leaves the limit out of account.
        seed: of differential evolution.

    Warns:
        OneCompute: compute does not vary, so that its factor is 1.

    Raises:
        BadInput: fewer points than parameters, scores in per cent, compute or tokens that are not above 0.
    """
    x = _inputs(C, n, L)
    y = np.asarray(score, float)
    if y.ndim != 1 or x[0].shape != y.shape or not np.isfinite(y).all():
        raise BadInput(f"{x[0].shape} points do not fit scores of shape {y.shape}, all of them numbers")
    if (y < 0).any() or (y > 1).any():
        hint = "; are they per cent? divide by 100" if (y >= 0).all() and y.max() <= 100 else ""
        raise BadInput(f"scores are between 0 and 1, not {y.min():g} to {y.max():g}{hint}")
    if not penalty_width > 0:
        raise BadInput(f"the width of the penalty is above 0, not {penalty_width:g}")
    names = ["B", "beta"] if len(np.unique(x[0])) < 2 else ["A", "alpha", "B", "beta"]
    if len(y) < len(names):
        raise BadInput(f"{len(y)} points do not determine {len(names)} parameters ({', '.join(names)})")
    if len(names) == 2:
        warnings.warn("all points have the same compute: its factor is taken as 1", OneCompute, 2)
    c0, n0 = float(np.median(x[0])), float(np.median(x[1]))
    inputs = np.log(x[0] / c0), np.log(x[1] / n0), x[2] - x[1]
    limits = np.array([_limits(name, bounds) for name in names])

    def residual(theta: np.ndarray) -> np.ndarray:
        out: np.ndarray = _law(theta, *inputs, penalty_width) - y
        return out

    def loss(thetas: np.ndarray) -> np.ndarray:  # [parameters, population]
        out: np.ndarray = np.square(_law(thetas.T[..., None, :], *inputs, penalty_width) - y).sum(-1)
        return out

    found = optimize.differential_evolution(
        loss,
        limits,
        maxiter=MAXITER,
        popsize=POPSIZE,
        seed=np.random.default_rng(seed),
        vectorized=True,
        updating="deferred",
        polish=False,
    )
    start = np.clip(found.x, limits[:, 0], limits[:, 1])
    best = optimize.least_squares(
        residual,
        start,
        jac=lambda theta: _jacobian(theta, *inputs, penalty_width),
        bounds=limits.T,
        xtol=1e-14,
        ftol=1e-14,
        gtol=1e-14,
    )
    theta, freedom = best.x, len(y) - len(names)
    error = residual(theta)
    variance = float(np.square(error).sum()) / freedom if freedom else np.inf
    covariance = variance * np.linalg.pinv(best.jac.T @ best.jac) if freedom else np.full((len(names),) * 2, np.inf)
    half = _t(freedom) * np.sqrt(np.maximum(np.diag(covariance), 0))
    spread = float(np.square(y - y.mean()).sum())
    parameters = {}
    for name, value, w, (low, high) in zip(names, theta, half, limits, strict=True):
        ends = [float(value), float(max(low, value - w)), float(min(high, value + w))]
        parameters[name] = Estimate(*(np.exp(ends).tolist() if name in ("A", "B") else ends))
    return ContextLaw(
        parameters=parameters,
        C0=c0,
        n0=n0,
        penalty_width=float(penalty_width),
        r2=1 - float(np.square(error).sum()) / spread if spread > 0 else float("nan"),
        mae=float(np.abs(error).mean()),
        n=len(y),
        _theta=theta,
        _covariance=covariance,
        _freedom=freedom,
    )


def training_flops(parameters: float, tokens: float) -> float:
    """C = 6 N D of N parameters without embeddings, trained on D tokens.

    Raises:
        BadInput: one of them is not above 0.
    """
    if not (parameters > 0 and tokens > 0):
        raise BadInput(f"{parameters:g} parameters and {tokens:g} tokens: both are above 0")
    return 6.0 * parameters * tokens


def _law(theta: np.ndarray, c: np.ndarray, n: np.ndarray, room: np.ndarray, width: float) -> np.ndarray:
    """P for ``theta [..., 4]`` (log A, alpha, log B, beta; the first two may be absent), log C/C0, log n/n0, L - n."""
    of_n = _saturating(theta[..., -2], theta[..., -1], n)
    of_c = _saturating(theta[..., 0], theta[..., 1], c) if theta.shape[-1] == 4 else 1.0
    out: np.ndarray = of_c * of_n * _penalty(room, width)
    return out


def _saturating(log_a: np.ndarray, exponent: np.ndarray, x: np.ndarray) -> np.ndarray:
    out: np.ndarray = -np.expm1(-np.exp(np.clip(log_a + exponent * x, -700, 50)))
    return out


def _penalty(room: np.ndarray, width: float) -> np.ndarray:
    if np.isinf(width):
        return np.ones_like(room)
    out: np.ndarray = special.expit(room / width)
    return out


def _jacobian(theta: np.ndarray, c: np.ndarray, n: np.ndarray, room: np.ndarray, width: float) -> np.ndarray:
    """Slopes ``[..., parameters]`` of `_law` in theta ``[parameters]``."""

    def part(log_a: float, exponent: float, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        u = np.exp(np.clip(log_a + exponent * x, -700, 50))
        return -np.expm1(-u), u * np.exp(-u)

    p, penalty = part(theta[-2], theta[-1], n), _penalty(room, width)
    if len(theta) == 2:
        return np.stack([p[1] * penalty, p[1] * penalty * n], axis=-1)
    q = part(theta[0], theta[1], c)
    slopes = [q[1] * p[0], q[1] * p[0] * c, q[0] * p[1], q[0] * p[1] * n]
    return np.stack([slope * penalty for slope in slopes], axis=-1)


def _inputs(C: Any, n: Any, L: Any) -> tuple[np.ndarray, ...]:
    try:
        c, tokens, limit = np.broadcast_arrays(*(np.asarray(v, float) for v in (C, n, L)))
    except ValueError as error:
        raise BadInput(f"compute, tokens and limits do not fit together: {error}") from error
    for name, values in (("compute", c), ("tokens of the prompt", tokens), ("context limit", limit)):
        wrong = values[~((values > 0) & (np.isfinite(values) | (values is limit)))]
        if wrong.size:
            hint = "; leave out the scores without a prompt, or give them one token" if name.startswith("tok") else ""
            raise BadInput(f"{name}: {wrong[0]:g} is no number above 0{hint}")
    return c, tokens, limit


def _limits(name: str, bounds: Mapping[str, tuple[float, float]]) -> tuple[float, float]:
    """Bounds of one entry of theta: of log A and log B, of alpha and beta themselves."""
    if name not in bounds:
        raise BadInput(f"bounds of {name} are missing")
    low, high = bounds[name]
    if not (0 <= low < high < np.inf and (low > 0 or name in ("alpha", "beta"))):
        raise BadInput(f"bounds {low:g} to {high:g} of {name} are not above 0 and in order")
    return (float(np.log(low)), float(np.log(high))) if name in ("A", "B") else (float(low), float(high))


def _t(freedom: int) -> float:
    return float(special.stdtrit(freedom, 0.975)) if freedom else np.inf
