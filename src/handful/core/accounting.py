"""How much noise a privacy budget asks for: the moments of differential privacy, by Google's dp-accounting.

The mechanism is the sum of clipped gradients with Gaussian noise, over examples that are drawn independently with
probability q at each of T steps. Its Rényi divergence at the orders below adds up over steps and becomes epsilon by
Proposition 12 of Canonne, Kamath and Steinke 2020, as dp-accounting (and Opacus) do it:

    eps = min_a  T rdp(a) - (log delta + log a) / (a - 1) + log((a - 1) / a),   rdp(a) = a / (2 sigma^2) for q = 1

Two data sets are neighbours when one is the other with one example added or removed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import version

from scipy.optimize import brentq

from handful.errors import BadInput

ORDERS = (1.01, 1.05, *(round(1.1 + k / 10, 1) for k in range(99)), *map(float, range(12, 256)))
"""Those of paper 003."""
LARGEST = 1e6
"""Noise multiplier at which the search ends."""


def accountant() -> str:
    """What counts, with its version. Raises `BadInput` where it is not installed."""
    _accounting()
    return f"Rényi moments by dp-accounting {version('dp-accounting')}"


def _accounting() -> None:
    try:
        import dp_accounting.rdp  # noqa: F401
    except ImportError as error:
        raise BadInput(
            'private learning needs the package dp-accounting; run: pip install "handful[private]"'
        ) from error


@lru_cache(maxsize=1024)
def epsilon_of(sigma: float, q: float, steps: int, delta: float) -> float:
    """Epsilon of ``steps`` steps with noise ``sigma`` times the clipping norm and sampling rate ``q``.

    Raises:
        BadInput: dp-accounting is not installed.
    """
    _accounting()
    import dp_accounting
    from dp_accounting.rdp import RdpAccountant

    step = dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(sigma))
    with _quiet():
        counted = RdpAccountant(ORDERS).compose(dp_accounting.SelfComposedDpEvent(step, steps))
        return float(counted.get_epsilon(delta))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the remark that an order does not converge: it is left out, which only makes epsilon larger."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@lru_cache(maxsize=1024)
def noise_for(epsilon: float, delta: float, q: float, steps: int, tolerance: float = 1e-3) -> float:
    """The least noise multiplier whose `epsilon_of` is at most ``epsilon``, to a share ``tolerance`` above it.

    Raises:
        BadInput: no noise up to `LARGEST` is enough, or dp-accounting is not installed.
    """
    low = high = max(q * math.sqrt(2 * steps * math.log(1 / delta)) / epsilon, 0.1)  # a usual size
    while epsilon_of(high, q, steps, delta) > epsilon:
        low, high = high, 1.5 * high
        if high > LARGEST:
            raise BadInput(
                f"epsilon {epsilon:g} with delta {delta:.3g} is too small for {steps:,} steps: no noise is enough; "
                "give a larger epsilon or delta"
            )
    while low > 1e-3 and epsilon_of(low, q, steps, delta) <= epsilon:
        low, high = low / 1.5, low

    def gap(log_sigma: float) -> float:  # nearly a line
        return math.log(max(epsilon_of(math.exp(log_sigma), q, steps, delta), 1e-12) / epsilon)

    sigma = high if low <= 1e-3 else math.exp(brentq(gap, math.log(low), math.log(high), xtol=tolerance / 4))
    while epsilon_of(sigma, q, steps, delta) > epsilon:
        sigma *= 1 + tolerance / 2
    return sigma
