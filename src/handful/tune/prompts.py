"""Prompts that learn: the words around a class name are vectors, the towers stay as they are.

    z_c = s cos(f, phi_T(v_1 … v_M  name of c  .))      v [M, w], or [C, M, w] with words of its own for each class

Context optimisation (CoOp): Zhou et al., Learning to Prompt for Vision-Language Models, 2022. The template says how
many vectors there are and where the name stands: ``"a photo of a {}."`` before it, ``"{} in a photo."`` after it,
``"X X {} X X."`` on both sides; a full stop in the end stays a word. The vectors begin as the template's words, or at
random.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.encode.two_towers import Tokens, TwoTowers
from handful.errors import BadInput
from handful.tune.class_texts import PHOTO, checked_templates, refuse_empty, two_towers_of
from handful.tune.recipe import Data, Readout

SPREAD = 0.02
"""Of vectors that begin at random, as in the authors' code."""


class PromptTexts(Readout):
    """See `handful.tune.prompts`. The model must be a `TwoTowers`; the names are those of the data.

    Args:
        template: words and the place of the name, ``{}``.
        random: begin at random instead of as those words.
        per_class: vectors of its own for each class.
        scale: s; ``None`` takes the model's own.

    Attributes (after ``begin``):
        context: v, what learns.
        start: what it began as.
    """

    context: nn.Parameter
    start: Tensor
    sentences: Tensor
    places: Tensor

    def __init__(
        self, template: str = PHOTO, *, random: bool = False, per_class: bool = False, scale: float | None = None
    ) -> None:
        super().__init__()
        (self.template,) = checked_templates([template])
        self.random, self.per_class, self.scale = random, per_class, scale

    def begin(self, model: nn.Module, data: Data, generator: torch.Generator) -> None:
        """Read template and names. Raises `BadInput` for a model of one tower, or a prompt that is too long."""
        towers = two_towers_of(model)
        refuse_empty(data)
        names = [name.replace("_", " ") for name in data.classes]
        self.tokens = towers.tokens([self.template.replace("{}", name) for name in names])
        places = _places(towers, self.template, names, self.tokens)
        with torch.no_grad():
            sentences = towers.embed(self.tokens).detach()
            start = sentences[0, places[0]]
            if self.random:
                start = SPREAD * torch.randn(start.shape, generator=generator).to(start)
            if self.per_class:
                start = start.expand(len(names), *start.shape)
        self.own_scale = towers.logit_scale
        for key, tensor in (("sentences", sentences), ("places", places), ("start", start.clone())):
            self.register_buffer(key, tensor)
        self.context = nn.Parameter(start.clone())

    def reset(self) -> None:
        """Back to the beginning, bit for bit."""
        with torch.no_grad():
            self.context.copy_(self.start)

    def vectors(self, towers: TwoTowers) -> Tensor:
        """Unit vectors of the classes, with the context as it is ``[C, d]``."""
        classes, words = self.places.shape
        context = self.context.expand(classes, words, -1)
        rows = torch.arange(classes, device=context.device)[:, None]
        return towers.text_from(self.sentences.index_put((rows, self.places), context), self.tokens)

    def forward(self, features: Tensor, model: nn.Module) -> Tensor:
        scale = self.own_scale if self.scale is None else self.scale
        return scale * functional.normalize(features, dim=-1) @ self.vectors(two_towers_of(model)).mT


def _places(towers: TwoTowers, template: str, names: Sequence[str], tokens: Tokens) -> Tensor:
    """Where the words of the template stand in the sentence of each name ``[C, M]``."""
    before, after = (part.strip() for part in template.split("{}"))
    stop = "." if after.endswith(".") else ""
    after = after.removesuffix(".").rstrip()
    head, tail, end, *each = towers.words([before, after, stop, *(template.replace("{}", name) for name in names)])
    if not head and not tail:
        raise BadInput(f"template {template!r} has no word beside the name: there is nothing that could learn")
    places = []
    for name, words, row in zip(names, each, tokens.ids.tolist(), strict=True):
        first = next((at for at in (0, 1) if row[at : at + len(words)] == words), None)
        if first is None or first + len(words) + 1 > towers.most_tokens:
            raise BadInput(f"class {name!r}: the prompt is longer than the {towers.most_tokens} tokens that are read")
        last = len(words) - len(end)
        if words[: len(head)] != head or words[last - len(tail) : last] != tail:
            raise BadInput(f"class {name!r}: its name and the words of {template!r} share tokens; part them by a blank")
        places.append([*range(first, first + len(head)), *range(first + last - len(tail), first + last)])
    return torch.tensor(places)
