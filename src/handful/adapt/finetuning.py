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

from handful.adapt.parameters import count, finite, one_of
from handful.adapt.prototype_descent import Likeness, Metric, descend_prototypes
from handful.adapt.tim import Tuned
from handful.core.information import Information


@dataclass(eq=False, repr=False, kw_only=True)
class TransductiveFinetuning(Tuned):
    """Prototypes fine-tuned on support and queries.

    Args:
        metric: what the logits are made of.
        n_steps: of Adam.
        lr: its rate.
    """

    key: ClassVar[str] = "transductive-finetuning"

    temperature: float = 1.0
    metric: Metric = "euclidean"
    n_steps: int = 25
    lr: float = 5e-5

    def check(self) -> None:
        """See `Tuned.check`."""
        super().check()
        one_of("metric", self.metric, ("sqeuclidean", "euclidean", "cosine"))
        count("n_steps", self.n_steps)
        finite("lr", self.lr, above=0)

    @property
    def likeness(self) -> Likeness:
        """See `Tuned.likeness`."""
        return Likeness(self.metric, self.temperature)

    def moved(self, z: Tensor, w: Tensor, y: Tensor, real: Tensor) -> Tensor:
        """See `Tuned.moved`."""
        information = Information.of(y, real, (1.0, 0.0, 1.0))
        return descend_prototypes(w, z, self.likeness, information, steps=self.n_steps, lr=self.lr)
