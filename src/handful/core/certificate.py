"""What the error on new data is at most, when one of finitely many classifiers is chosen by its errors on n examples.

With probability at least 1 - delta over n independent examples, for all M classifiers at once, the true error R of each
one with k errors is at most (r = k / n):

    binomial       the R with P(Bin(n, R) <= k) = delta / M                         (Langford 2005; the tightest)
    chernoff-kl    the largest R with kl(r || R) <= ln(M / delta) / n
    pac-bayes-kl   the largest R with kl(r || R) <= (ln M + ln(2 sqrt(n) / delta)) / n   (Maurer 2004; losses in [0, 1])
    hoeffding      r + sqrt(ln(M / delta) / (2 n))

The classifiers must not depend on these examples. Which bound is used must not either: the smallest of several needs
delta shared among them.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import betaincinv, xlogy

from handful.errors import BadInput

Bound = Literal["binomial", "chernoff-kl", "pac-bayes-kl", "hoeffding"]
BOUNDS: tuple[Bound, ...] = ("binomial", "chernoff-kl", "pac-bayes-kl", "hoeffding")


@dataclass(frozen=True)
class Certificate:
    """A bound on the true error of a chosen classifier.

    Attributes:
        risk: the error on new items of the same kind is at most this.
        delta: chance, over the examples, that it is not.
        n: examples.
        errors: what the chosen classifier got wrong on them.
        hypotheses: M, how many classifiers there were to choose from.
        bound: which.
        chance: error of guessing, ``1 - 1 / C``; ``None`` where nobody said how many classes there are.
        balanced: whether every class had as many examples.
    """

    risk: float
    delta: float
    n: int
    errors: float
    hypotheses: int
    bound: str
    chance: float | None = None
    balanced: bool = False

    @property
    def vacuous(self) -> bool:
        """Whether it says nothing at all: 1 or more."""
        return self.risk >= 1

    @property
    def worse_than_chance(self) -> bool:
        """Whether guessing does as well as what is certified."""
        return self.risk >= (1.0 if self.chance is None else self.chance)

    @property
    def statement(self) -> str:
        """In words, with what it rests on."""
        kind = "drawn like the examples, independently of each other"
        if self.balanced:
            kind += "; these were as many of each class, so it speaks of items with every class as often"
        chosen = "a classifier fixed" if self.hypotheses == 1 else f"one of {self.hypotheses:,} classifiers, all fixed"
        said = (
            f"With probability {1 - self.delta:.4g} over the draw of the {self.n:,} examples, the error on new items "
            f"is at most {100 * self.risk:.1f} % ({self.bound}; {self.errors:g} errors; {chosen} before the examples "
            f"were seen). New items must be {kind}."
        )
        if self.vacuous:
            return said + " The certificate says nothing: too few examples for so many classifiers."
        return said + " Guessing does as well as what is certified." * self.worse_than_chance

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, with the statement."""
        words = {"vacuous": self.vacuous, "worse_than_chance": self.worse_than_chance, "statement": self.statement}
        return {**asdict(self), **words}


def risk_certificate(
    errors: float,
    n: int,
    M: int = 1,
    delta: float = 0.05,
    bound: Bound = "binomial",
    *,
    classes: int | None = None,
    balanced: bool = False,
) -> Certificate:
    """The `Certificate` of a classifier with ``errors`` errors on n examples, chosen among M.

    Args:
        errors: how many; a whole number, or for ``"pac-bayes-kl"`` and ``"hoeffding"`` the sum of losses in [0, 1].
        n: examples, independent draws.
        M: classifiers to choose from, fixed before the examples were seen.
        delta: chance that the bound fails.
        bound: see the head of this file.
        classes: how many, to compare with guessing.
        balanced: whether as many examples of each class were drawn.

    Raises:
        BadInput: no examples, more errors than examples, M below 1, delta outside 0 to 1, an unknown bound, or errors
            that are no whole number with a bound that counts.
    """
    if bound not in BOUNDS:
        raise BadInput(f"bound is one of {', '.join(map(repr, BOUNDS))}, not {bound!r}")
    if not (isinstance(n, int | np.integer) and n >= 1 and isinstance(M, int | np.integer) and M >= 1):
        raise BadInput(f"a certificate needs n of at least 1 example and M of at least 1 classifier, not {n} and {M}")
    if not 0 < delta < 1:
        raise BadInput(f"delta must be between 0 and 1, not {delta}")
    if not 0 <= errors <= n:
        raise BadInput(f"errors must be from 0 to n = {n}, not {errors}: losses lie between 0 and 1")
    if bound in ("binomial", "chernoff-kl") and errors != round(errors):
        raise BadInput(f"{bound} counts errors, so they are a whole number, not {errors}; 'pac-bayes-kl' takes losses")
    risk = float(risk_bound(errors, n, M, delta, bound))
    chance = None if classes is None else 1 - 1 / classes
    return Certificate(risk, float(delta), int(n), float(errors), int(M), bound, chance, balanced)


def risk_bound(errors: Any, n: Any, M: Any, delta: Any, bound: Bound) -> np.ndarray:
    """The bound alone, for arrays that fit together; nothing is checked."""
    k, n, M, delta = np.broadcast_arrays(*(np.asarray(a, dtype=np.float64) for a in (errors, n, M, delta)))
    r, union = k / n, np.log(M) - np.log(delta)
    out: np.ndarray
    if bound == "binomial":
        # P(Bin(n, R) <= k) = 1 - I_R(k + 1, n - k); its inverse is exact in the tail through the complement
        inner = np.minimum(k, n - 1)
        out = np.where(k >= n, 1.0, 1 - betaincinv(n - inner, inner + 1, np.exp(-union)))
    elif bound == "chernoff-kl":
        out = kl_inverse(r, union / n)
    elif bound == "pac-bayes-kl":
        out = kl_inverse(r, (union + np.log(2 * np.sqrt(n))) / n)
    else:
        out = np.minimum(r + np.sqrt(union / (2 * n)), 1.0)
    return out


def kl_inverse(r: np.ndarray, most: np.ndarray) -> np.ndarray:
    """The largest R from r to 1 with ``kl(r || R) = r ln(r / R) + (1 - r) ln((1 - r) / (1 - R)) <= most``."""
    low, high = np.array(r, dtype=np.float64), np.ones_like(r, dtype=np.float64)
    constant = xlogy(r, r) + xlogy(1 - r, 1 - r)
    for _ in range(60):
        middle = (low + high) / 2
        small = constant - xlogy(r, middle) - xlogy(1 - r, 1 - middle) <= most
        low, high = np.where(small, middle, low), np.where(small, high, middle)
    return high


def smallest_n(risk: float, M: int = 1, delta: float = 0.05) -> int:
    """Examples after which a classifier without a single error is certified to err at most ``risk``: binomial.

    ``(1 - risk)^n = delta / M``. Raises `BadInput` for numbers out of range.
    """
    if not (0 < risk < 1 and 0 < delta < 1 and M >= 1):
        raise BadInput(f"risk and delta are between 0 and 1 and M at least 1, not {risk}, {delta} and {M}")
    return math.ceil((math.log(delta) - math.log(M)) / math.log1p(-risk))
