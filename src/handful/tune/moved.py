"""Full fine-tuning told from where it began, and layers that begin anew (172, Revisiting Few-sample BERT Fine-tuning).

moved    f(W) = W + D                              D = 0 at first
         decay of D draws weights to what was pre-trained (prior weight decay):  D <- (1 - lr wd) D
mixout   in training  W' = ((1 - m) W + m (W + D) - p W) / (1 - p) = W + m D / (1 - p),  m ~ Bernoulli(1 - p)
         (Lee, Cho, Kang, Mixout, 2019)
fresh    f(W) = P                                  P drawn anew: N(0, std), ones or zeros; a `Moved` behind it learns
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from handful.errors import BadInput
from handful.tune.change import Begun, Change, Mode, Tensors, register


@register
@dataclass(frozen=True)
class Moved(Change):
    """See `handful.tune.moved`.

    Args:
        mixout: p.
        mask: m is drawn for each ``"element"``, or for each input ``"column"`` of a map, as the authors' code does.
    """

    key: ClassVar[str] = "moved"
    modes: ClassVar[frozenset[Mode]] = frozenset({"weight"})
    mixout: float = 0.0
    mask: Literal["element", "column"] = "element"

    def __post_init__(self) -> None:
        if not 0 <= self.mixout < 1:
            raise BadInput(f"mixout is a share below 1, not {self.mixout}")
        if self.mask not in ("element", "column"):
            raise BadInput(f"mask is 'element' or 'column', not {self.mask!r}")

    def begin(self, weight: Tensor, generator: torch.Generator) -> Begun:
        return Begun({"D": torch.zeros_like(weight)})

    def weight(self, w: Tensor, t: Tensors) -> Tensor:
        return w + t["D"]

    def weight_in_training(self, w: Tensor, t: Tensors) -> Tensor:
        if not self.mixout:
            return w + t["D"]
        drawn = torch.rand_like(w if self.mask == "element" or w.dim() < 2 else w[:1])
        return w + (drawn >= self.mixout) * t["D"] / (1 - self.mixout)


@register
@dataclass(frozen=True)
class Fresh(Change):
    """A parameter that begins anew; see `handful.tune.moved`.

    Args:
        begins: ``"normal"`` for maps, ``"ones"`` for the scales of norms, ``"zeros"`` for biases.
        std: of the normal; BERT's own is 0.02.
    """

    key: ClassVar[str] = "fresh"
    modes: ClassVar[frozenset[Mode]] = frozenset({"weight"})
    begins: Literal["normal", "ones", "zeros"] = "normal"
    std: float = 0.02

    def __post_init__(self) -> None:
        if self.begins not in ("normal", "ones", "zeros") or not self.std > 0:
            raise BadInput("a fresh parameter begins 'normal' with a positive std, as 'ones' or as 'zeros'")

    def begin(self, weight: Tensor, generator: torch.Generator) -> Begun:
        if self.begins == "normal":
            drawn = torch.randn(weight.shape, generator=generator) * self.std
            return Begun({}, {"P": drawn.to(weight)})
        return Begun({}, {"P": torch.full_like(weight, float(self.begins == "ones"))})

    def weight(self, w: Tensor, t: Tensors) -> Tensor:
        return t["P"]
