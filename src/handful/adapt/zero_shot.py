"""Zero-shot: class text answers alone, no example is needed.

logit_c(q) = s cos(q, t_c),  t_c the unit mean of the class' text vectors, s CLIP's logit scale
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from torch import Tensor

from handful.adapt.base import Head
from handful.adapt.inputs import read_text
from handful.core.task import Query, State, Task
from handful.errors import BadInput
from handful.protocols import Needs


def prior_logits(prior: Tensor | None) -> Tensor:
    """The zero-shot logits; `BadInput` when there is no class text to make them from."""
    if prior is None:
        raise BadInput("no class text: give text={label: vectors}")
    return prior


@dataclass(eq=False, repr=False, kw_only=True)
class ZeroShot(Head):
    """Cosine to the class text; examples, when given, are ignored."""

    key: ClassVar[str] = "zero-shot"
    needs: ClassVar[Needs] = Needs(text=True)
    open_classes: ClassVar[bool] = True

    @property
    def directions(self) -> bool:
        """Cosines only."""
        return True

    def adapt(self, task: Task) -> State:
        """Nothing is learnt."""
        return {}

    def answer(self, state: State, query: Query) -> Tensor:
        """The zero-shot logits."""
        return prior_logits(query.prior)

    def leave_one_out(self, task: Task) -> Tensor | None:
        """Leaving an example out changes nothing."""
        return prior_logits(task.offset)

    @classmethod
    def from_text(cls, text: Mapping[Any, Any], *, logit_scale: float = 100.0, width: int | None = None) -> Self:
        """A fitted head from class text alone: ``{label: [m, dt] vectors}``.

        ``width`` is that of the features, where it is not the text's (they then need a view ``aligned``).

        Raises:
            BadInput: one class only, or vectors that cannot be used.
        """
        if len(text) < 2:
            raise BadInput("one class only: at least two classes are needed")
        head = cls(text=text, logit_scale=logit_scale)
        head.classes_ = np.unique(np.asarray(list(text)))
        head.unseen_ = head.classes_[:0]
        vectors = read_text(text, head.classes_, dtype=np.float32, every=True, device=head.device)
        head.state_ = {"text": vectors.mean}
        head.n_features_in_ = vectors.mean.shape[-1] if width is None else width
        return head
