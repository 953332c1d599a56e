"""What a run of DP-SGD (Abadi et al. 2016) spends: what private heads and private tuning have in common.

At each of T steps every example joins with probability q, its gradient is cut to the length C, and Gaussian noise of
deviation sigma C is added to the sum; sigma is the least for which (epsilon, delta) hold.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from handful.core.accounting import accountant, epsilon_of, noise_for
from handful.core.noise import Source
from handful.errors import BadInput

NOT_PRIVATE = "not private: the noise comes from a seed, and whoever knows it takes the noise off again"
Noise = Literal["system", "seeded"]


@dataclass(frozen=True)
class PrivacySpent:
    """What was promised, and how it was kept.

    Attributes:
        epsilon, delta: of neighbours that differ by one example more or less; ``epsilon`` is ``None`` without noise.
        n: examples, taken as known to everybody.
        sampling_rate, steps, sigma, max_grad_norm: q, T, sigma and C of the head of this file.
        noise: ``"system"`` or ``"seeded"``; with the latter nothing is promised.
        accountant: what counted, or ``None`` without noise.
    """

    epsilon: float | None
    delta: float
    n: int
    sampling_rate: float
    steps: int
    sigma: float
    max_grad_norm: float
    noise: str
    accountant: str | None

    @property
    def private(self) -> bool:
        """Whether the promise holds."""
        return self.epsilon is not None and self.noise == "system"

    @property
    def replace_one(self) -> tuple[float, float] | None:
        """Epsilon and delta of neighbours in which one example is another: twice, and ``(1 + e^epsilon)`` times."""
        if self.epsilon is None:
            return None
        return 2 * self.epsilon, min(1.0, (1 + math.exp(min(self.epsilon, 700))) * self.delta)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, with the relation in words."""
        replaced = self.replace_one
        return {
            **asdict(self),
            "relation": "one example added or removed",
            "replace_one": None if replaced is None else {"epsilon": replaced[0], "delta": replaced[1]},
            "private": self.private,
        }

    def warning(self, chosen: bool) -> str | None:
        """What is to be said of it: that nothing is promised, or little; ``chosen``, delta is not 1/n by default."""
        if self.epsilon is not None and self.noise == "seeded":
            return NOT_PRIVATE
        if self.epsilon is not None and chosen and self.delta >= 1 / self.n:
            least = f"1/n = {1 / self.n:.3g}"
            return f"delta {self.delta:g} is not below {least}: giving one example away whole would be allowed"
        return None


@dataclass(frozen=True)
class Budget:
    """How much may be spent, and in which steps.

    Args:
        epsilon: privacy budget; ``None`` adds no noise and promises nothing.
        delta: chance that the promise fails; ``"1/n"`` for n examples.
        max_grad_norm: C.
        epochs: passes over the examples, on average.
        batch_size: B, examples a step on average, q = B / n; all where there are fewer, or with ``None``.
        lr: of the optimiser.
        optimizer: ``"adam"`` or ``"sgd"``.
        noise: ``"system"`` or ``"seeded"``.

    Raises:
        BadInput: one of them is out of range.
    """

    epsilon: float | None
    delta: float | Literal["1/n"]
    max_grad_norm: float
    epochs: int
    batch_size: int | None
    lr: float
    optimizer: str
    noise: str

    def __post_init__(self) -> None:
        for name in ("epsilon", "max_grad_norm", "lr"):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (number and 0 < value < math.inf) and not (name == "epsilon" and value is None):
                raise BadInput(f"{name} must be a finite number above 0, not {value!r}")
        if self.delta != "1/n" and not (isinstance(self.delta, float) and 0 < self.delta < 1):
            raise BadInput(f"delta is a number between 0 and 1, or '1/n', not {self.delta!r}")
        for name, value, least in (("epochs", self.epochs, 0), ("batch_size", self.batch_size, 1)):
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
            if not whole and not (name == "batch_size" and value is None):
                raise BadInput(f"{name} must be a whole number from {least}, not {value!r}")
        for name, value, words in (
            ("optimizer", self.optimizer, ("adam", "sgd")),
            ("noise", self.noise, ("system", "seeded")),
        ):
            if value not in words:
                raise BadInput(f"{name} is one of {', '.join(map(repr, words))}, not {value!r}")

    def plan(self, n: int) -> PrivacySpent:
        """What learning from n examples spends; looks at nothing but n.

        Raises:
            BadInput: an epsilon too small for any noise, dp-accounting not installed.
        """
        batch = n if self.batch_size is None else min(self.batch_size, n)
        q, steps = batch / n, self.epochs * math.ceil(n / batch)
        delta = 1 / n if self.delta == "1/n" else float(self.delta)
        free = PrivacySpent(None, delta, n, q, steps, 0.0, self.max_grad_norm, self.noise, None)
        if self.epsilon is None:
            return free
        if not steps:
            return replace(free, epsilon=0.0)
        sigma = noise_for(float(self.epsilon), delta, q, steps)
        return replace(free, epsilon=epsilon_of(sigma, q, steps, delta), sigma=sigma, accountant=accountant())

    def source(self, seed: int) -> Source:
        """Where noise and coins come from; ``seed`` counts for ``"seeded"`` only."""
        return Source.system() if self.noise == "system" else Source.seeded(seed)
