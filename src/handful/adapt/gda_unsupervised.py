"""Gaussian discriminant analysis without labels, by expectation and maximisation from the zero-shot answer.

Paper 065: Wang, Liang, Sheng, He, Wang, Tan, "A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation", 2024,
its unsupervised form. With p_i the zero-shot probabilities at first:

    M   mu_c, Sigma, and so w, b as in `gda`, of rows x_i weighted by p_ic
    E   p_i = softmax(s x_i W' + alpha (x_i w' + b))
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from torch import Tensor

from handful.adapt.gda import GDA
from handful.adapt.parameters import count
from handful.adapt.without_labels import WithoutLabels, with_pool
from handful.adapt.zero_shot import prior_logits
from handful.core.task import Query, State, Task, mask_classes
from handful.errors import BadInput
from handful.protocols import Needs, Ranges


@dataclass(eq=False, repr=False, kw_only=True)
class GDAUnsupervised(WithoutLabels, GDA):
    """Gaussian classes found without labels, from class text and items.

    Labels of examples are not looked at; ``fit_unlabelled(X)`` needs none.

    Args:
        alpha: how much of the Gaussian part is added to the zero-shot logits, in every round and in the answer; a
            number, as without labels none can be chosen.
        shrinkage, priors, normalize: as of `GDA`.
        rounds: of expectation and maximisation.
    """

    key: ClassVar[str] = "gda-unsupervised"
    needs: ClassVar[Needs] = Needs(text=True)
    ranges: ClassVar[Ranges] = {"alpha": (0.01, 100.0)}
    open_classes: ClassVar[bool] = False
    open_rows: ClassVar[tuple[str, ...]] = ()

    alpha: float | Literal["loo"] = 1.0
    rounds: int = 10

    def adapt(self, task: Task) -> State:
        """State as of `GDA`."""
        self._check()
        everything = with_pool(task)
        x, logits = everything.x, prior_logits(everything.offset)
        state: State = {}
        for _ in range(self.rounds):
            likely = mask_classes(logits, task.class_mask).softmax(-1)
            state = super().adapt(replace(everything, labels=likely))
            logits = self.answer(state, Query(x, everything.offset))
        return state

    def leave_one_out(self, task: Task) -> Tensor | None:
        """Without an item all rounds would go another way: resample instead."""
        return None

    def _check(self) -> None:
        super()._check()
        if isinstance(self.alpha, str):
            raise BadInput(f"alpha must be a number, not {self.alpha!r}: without labels none can be chosen")
        count("rounds", self.rounds, 1)
