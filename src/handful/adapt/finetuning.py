"""Transductive fine-tuning: the support's cross-entropy and the queries' entropy, nothing against collapse.

Dhillon, Chaudhari, Ravichandran, Soatto, "A Baseline for Few-Shot Image Classification", 2020.

    L = CE(support) + mean_q H(p_q),  minimised over the prototypes by n_steps of Adam       `handful.core.information`

The paper fine-tunes the encoder too; features being frozen here, only the classifier moves, as in easyfsl 1.5, whose
numbers ``TransductiveFinetuning(norm="UN")`` gives: s_ki = -t |x_i - w_k|, t = 1, 25 steps at 5e-5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from handful.adapt.prototype_descent import Metric
from handful.adapt.tim import Descended


@dataclass(eq=False, repr=False, kw_only=True)
class TransductiveFinetuning(Descended):
    """Prototypes fine-tuned on support and queries."""

    key: ClassVar[str] = "transductive-finetuning"

    temperature: float = 1.0
    metric: Metric = "euclidean"
    n_steps: int = 25
    lr: float = 5e-5

    def weights(self, y: Tensor, real: Tensor) -> tuple[float, float, float]:
        """See `Tuned.weights`."""
        return 1.0, 0.0, 1.0
