"""The readout of two towers: cosine to what the text tower makes of the class names.

    z_c = s cos(f, w_c)      w_c = unit mean_t unit phi_T(template t with the name of c)

The text tower is read anew at every step, so that what is changed about it learns too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.encode.two_towers import TwoTowers
from handful.errors import BadInput
from handful.tune.recipe import Data, Readout

PHOTO = "a photo of a {}."
SCALE = 100.0
"""CLIP's own logit scale, which its training holds at most so large."""


class ClassTexts(Readout):
    """See `handful.tune.class_texts`. The model must be a `TwoTowers`; the names are those of the data.

    Args:
        templates: sentences with ``{}`` where the name goes; underscores of a name become blanks.
        scale: s; ``None`` takes the model's own.
        moves: whether the text tower changes; if not, it is read once.
    """

    words: Tensor

    def __init__(self, templates: Sequence[str] = (PHOTO,), scale: float | None = SCALE, *, moves: bool = True) -> None:
        super().__init__()
        self.templates, self.scale, self.moves = checked_templates(templates), scale, moves

    def begin(self, model: nn.Module, data: Data, generator: torch.Generator) -> None:
        """Read the names. Raises `BadInput` for a model of one tower, or a class without items."""
        towers = two_towers_of(model)
        refuse_empty(data)
        self.classes = len(data.classes)
        self.tokens = towers.tokens(
            [t.replace("{}", name.replace("_", " ")) for t in self.templates for name in data.classes]
        )
        self.own_scale = towers.logit_scale
        if not self.moves:
            with torch.no_grad():
                self.register_buffer("words", self._read(towers))

    def vectors(self, towers: TwoTowers) -> Tensor:
        """w, as the text tower is now ``[C, d]``."""
        return self._read(towers) if self.moves else self.words

    def forward(self, features: Tensor, model: nn.Module) -> Tensor:
        scale = self.own_scale if self.scale is None else self.scale
        return scale * functional.normalize(features, dim=-1) @ self.vectors(two_towers_of(model)).mT

    def _read(self, towers: TwoTowers) -> Tensor:
        each = towers.text(self.tokens).reshape(len(self.templates), self.classes, -1)
        return functional.normalize(each.mean(0), dim=-1)


def two_towers_of(model: nn.Module) -> TwoTowers:
    """``model``. Raises `BadInput` when it has no text tower."""
    if not isinstance(model, TwoTowers):
        raise BadInput(f"class names are read by a text tower, and a {type(model).__name__} has none; give a TwoTowers")
    return model


def checked_templates(templates: Sequence[str]) -> tuple[str, ...]:
    """As they are. Raises `BadInput` when there is none, or one has no ``{}``."""
    if isinstance(templates, str) or not templates:
        raise BadInput("templates are a list of sentences with {} where the name of a class goes")
    for template in templates:
        if template.count("{}") != 1:
            raise BadInput(f"template {template!r} needs {{}} once, where the name of a class goes")
    return tuple(templates)


def refuse_empty(data: Data) -> None:
    """Raise `BadInput` when there are labels, but none of some class: it would learn to be wrong."""
    if data.targets.any():
        for name, mass in zip(data.classes, data.weighted.sum(0).tolist(), strict=True):
            if not mass:
                raise BadInput(f"class {name!r} has no item to learn from; leave its name out, or add items")


def names_only(classes: Sequence[str]) -> Data:
    """Classes without items, for a readout that begins from names alone."""
    if isinstance(classes, str):
        raise BadInput(f"classes are a list of names, not the one name {classes!r}")
    if not classes:
        raise BadInput("there are no classes")
    return Data(torch.zeros(1, 0), torch.zeros(1, len(classes)), tuple(classes))
