"""CPE-CLIP: classes added to a frozen CLIP by their names and a few images, through prompts in both towers.

Paper 117: D'Alessandro, Alonso, Calabrés, Galar, "Multimodal Parameter-Efficient Few-Shot Class Incremental Learning",
2023. What learns is g [D, L, w_text], L prompts for each of D blocks, and a linear map A of the texts' width to the
images':

    texts    g_0 after the start token, before places are added; in blocks 1 .. D-1 g_i takes the place of what came
             out of those L tokens.  The feature is that of the end token, L places later than without prompts
    images   A g_0 after the patches, before the first norm; in blocks 1 .. D-1 what came out of the prompts stays and
             L more, A g_i, are put behind it ("replace": they take its place).  The feature is the class token's
    logits   100 cos(image, text of "name.");  in training the classes seen before have -9999
    later    every gradient times lambda = new classes / all classes seen so far
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.core.train import SGD, cosine
from handful.encode.two_towers import Tokens, TwoTowers
from handful.errors import BadInput
from handful.tune.class_texts import SCALE, checked_templates, refuse_empty, two_towers_of
from handful.tune.later import refuse_later
from handful.tune.loop import tune
from handful.tune.recipe import Closures, Data, Readout, Recipe, Stage
from handful.tune.tuned import Tuned

SEEN = -9999.0
"""Logit of a class seen before, in training."""


def warm_restarts(passes: float) -> float:
    """The authors' rate after so many passes: from 0.001 to 0.1 in 50, then back along a cosine, anew every 200."""
    at = int(passes) % 200
    return 0.001 + 0.099 * at / 50 if at < 50 else cosine(0.1, 150, last=0.001)(at - 50)


class DeepPrompts(Readout):
    """See `handful.tune.cpe_clip`. The model must be a `TwoTowers` of the CLIP family.

    Args:
        prompts: L.
        depth: D.
        images: whether prompts of images ``"accumulate"`` or ``"replace"`` each other.
        template: with ``{}`` where the name of a class goes.

    Attributes (after ``begin``):
        g: ``[D, L, w_text]``.
        weight, bias: of A, ``[w_image, w_text]`` and ``[w_image]``.
        seen: how many of the classes, the first, were seen before.
    """

    g: nn.Parameter
    weight: nn.Parameter
    bias: nn.Parameter

    def __init__(
        self,
        prompts: int = 2,
        depth: int = 12,
        images: Literal["accumulate", "replace"] = "accumulate",
        template: str = "{}.",
    ) -> None:
        super().__init__()
        if prompts < 0 or depth < 1:
            raise BadInput(f"{prompts} prompts in {depth} blocks: prompts are at least 0, blocks at least 1")
        if images not in ("accumulate", "replace"):
            raise BadInput(f"images is 'accumulate' or 'replace', not {images!r}")
        (self.template,) = checked_templates([template])
        self.prompts, self.depth, self.images, self.seen = prompts, depth, images, 0
        self.begun = False

    def begin(self, model: nn.Module, data: Data, generator: torch.Generator) -> None:
        """Read the names; the numbers are made at the first time and go on from where they are later.

        Raises:
            BadInput: another model; more blocks than it has; a name that is empty, there twice or too long.
        """
        towers = _clip_of(model)
        self.tokens = self._tokens(towers, data.classes)
        if self.begun:
            return
        sides = [towers.model.text_model, towers.model.vision_model]
        fewest = min(len(side.encoder.layers) for side in sides)
        if self.depth > fewest:
            raise BadInput(f"prompts in {self.depth} blocks, but a tower has {fewest}: lower depth")
        text, image = (int(side.config.hidden_size) for side in sides)

        def uniform(bound: float, *shape: int) -> nn.Parameter:
            return nn.Parameter((2 * torch.rand(shape, generator=generator) - 1) * bound)

        self.g = uniform(math.sqrt(6 / ((self.depth + self.prompts) * text)), self.depth, self.prompts, text)  # Xavier
        self.weight, self.bias = uniform(text**-0.5, image, text), uniform(text**-0.5, image)
        self.begun = True

    def look(self, model: nn.Module, inputs: Any) -> Tensor:
        """Unit vectors ``[n, d]`` of pixels, with the prompts in the image tower."""
        towers = two_towers_of(model)
        with self._in_images(towers.model.vision_model):
            return towers(inputs)  # type: ignore[no-any-return]

    def texts(self, towers: TwoTowers) -> Tensor:
        """Unit vectors ``[C, d]`` of the classes, with the prompts in the text tower."""
        ids, many = self.tokens.ids, self.prompts
        start = ids[:, :1]
        longer = Tokens(torch.cat([start, start.expand(-1, many), ids[:, 1:]], 1), _longer(self.tokens.mask, many))
        words = towers.embed(longer)
        words = torch.cat([words[:, :1], self.g[0].expand(len(ids), -1, -1), words[:, 1 + many :]], 1)

        def put(g: Tensor, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            h = args[0]
            return (torch.cat([h[:, :1], g.expand(len(h), -1, -1), h[:, 1 + many :]], 1), *args[1:])

        with _before(towers.model.text_model.encoder.layers, [partial(put, g) for g in self.g[1:]]):
            return towers.text_from(words, longer)

    def forward(self, features: Tensor, model: nn.Module) -> Tensor:
        logits = SCALE * features @ self.texts(two_towers_of(model)).mT
        if not self.training or not self.seen:
            return logits
        return torch.cat([torch.full_like(logits[:, : self.seen], SEEN), logits[:, self.seen :]], 1)

    @contextmanager
    def _in_images(self, tower: nn.Module) -> Iterator[None]:
        each: Tensor = functional.linear(self.g, self.weight, self.bias)  # [D, L, w_image]
        patches = (int(tower.config.image_size) // int(tower.config.patch_size)) ** 2  # type: ignore[union-attr, arg-type]

        def first(module: nn.Module, args: Any, h: Tensor) -> Tensor:
            return torch.cat([h, each[0].expand(len(h), -1, -1)], 1)

        def more(g: Tensor, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            h = args[0] if self.images == "accumulate" else args[0][:, : 1 + patches]
            return (torch.cat([h, g.expand(len(h), -1, -1)], 1), *args[1:])

        handle = tower.embeddings.register_forward_hook(first)  # type: ignore[union-attr]
        try:
            with _before(tower.encoder.layers, [partial(more, g) for g in each[1:]]):  # type: ignore[union-attr]
                yield
        finally:
            handle.remove()

    def _tokens(self, towers: TwoTowers, classes: Sequence[str]) -> Tokens:
        names = [name.replace("_", " ") for name in classes]
        if not all(name.strip() for name in names):
            raise BadInput("the name of a class is empty; the text tower reads it: give it one")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise BadInput(f"class {twice!r} is there twice; the text tower could not tell them apart")
        sentences = [self.template.replace("{}", name) for name in names]
        for name, words in zip(names, towers.words(sentences), strict=True):
            if len(words) + 2 + self.prompts > towers.most_tokens:
                raise BadInput(
                    f"class {name!r}: {len(words) + 2} tokens and {self.prompts} prompts are more than the "
                    f"{towers.most_tokens} places of the text tower; shorten the name"
                )
        return towers.tokens(sentences)


@contextmanager
def _before(blocks: Any, puts: Sequence[Callable[..., Any]]) -> Iterator[None]:
    """Blocks 1, 2, … with what ``puts`` make of their input."""
    handles = [block.register_forward_pre_hook(put) for block, put in zip(list(blocks)[1:], puts, strict=False)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _longer(mask: Tensor | None, many: int) -> Tensor | None:
    return None if mask is None else torch.cat([torch.ones_like(mask[:, :1]).expand(-1, many), mask], 1)


def _clip_of(model: nn.Module) -> TwoTowers:
    towers = two_towers_of(model)
    if not towers.projects:
        raise BadInput("these prompts stand behind the start token of a text, which SigLIP has not; give a CLIP")
    return towers


@dataclass(frozen=True)
class Balanced:
    """A step whose gradients are all multiplied by ``share``, before the optimiser sees them."""

    share: float

    def __call__(
        self, closures: Closures, parameters: Sequence[Tensor], update: Callable[[Sequence[Tensor]], None]
    ) -> Tensor:
        """See `handful.tune.recipe.Step`."""
        loss = closures["loss"]()
        update([self.share * g for g in torch.autograd.grad(loss, parameters)])
        return loss.detach()


@dataclass
class CPECLIP:
    """A CLIP that learns base classes, then further ones from their names and a few images; see the head of this file.

    Args:
        towers: CLIP; it stays as it is.
        n_prompts, depth, vision_mode, template: see `DeepPrompts`.
        epochs, batch: of the base classes, as for CIFAR-100 and mini-ImageNet; 6 and 4 for CUB.
        grow_epochs, grow_batch: of later classes.
        rate: of the passes done; see `warm_restarts`.
        weight_decay: of all steps; momentum is 0.9.
        seed: of every draw.

    Attributes (after ``fit_base``):
        classes: names of all classes seen.
        learnt: the prompts, and how they answer.
    """

    towers: TwoTowers
    n_prompts: int = 2
    depth: int = 12
    vision_mode: Literal["accumulate", "replace"] = "accumulate"
    template: str = "{}."
    epochs: int = 5
    batch: int = 32
    grow_epochs: int = 5
    grow_batch: int = 4
    rate: Callable[[float], float] = warm_restarts
    weight_decay: float = 1e-5
    seed: int = 0
    classes: tuple[str, ...] = ()
    learnt: Tuned = field(init=False)

    def fit_base(self, data: Data) -> CPECLIP:
        """Learn the base classes from pixels ``[n, 3, side, side]``.

        Raises:
            BadInput: see `DeepPrompts.begin`; a class without an image.
        """
        refuse_empty(data)
        fresh = DeepPrompts(self.n_prompts, self.depth, self.vision_mode, self.template)
        return self._learn(data, fresh, self._stage(self.epochs, self.batch), 1.0)

    def partial_fit(self, data: Data) -> CPECLIP:
        """Learn further classes; images of those before are not needed.

        Raises:
            BadInput: there are no base classes; a class is known already, or has no image; see `DeepPrompts.begin`.
        """
        refuse_later(self.classes, data)
        before = len(self.classes)
        behind = functional.pad(data.targets, (before, 0))
        every = Data(data.inputs, behind, self.classes + data.classes, data.weight)
        further = copy.deepcopy(self.learnt.readout)
        assert isinstance(further, DeepPrompts)
        further.seen = before
        share = len(data.classes) / len(every.classes)
        return self._learn(every, further, self._stage(self.grow_epochs, self.grow_batch), share)

    def logits(self, pixels: Tensor, batch: int = 64) -> Tensor:
        """``[n, C]`` for all classes seen. Raises `BadInput` before ``fit_base``."""
        if not self.classes:
            raise BadInput("there are no classes yet: call fit_base first")
        return self.learnt.logits(pixels, batch)

    def predict(self, pixels: Tensor) -> list[str]:
        """The name of the likeliest class of each image."""
        return [self.classes[c] for c in self.logits(pixels).argmax(1).tolist()]

    def _learn(self, data: Data, prompts: DeepPrompts, stage: Stage, share: float) -> CPECLIP:
        recipe = Recipe(stages=(stage,), readout=lambda: prompts, step=Balanced(share))
        self.learnt = tune(self.towers, data, recipe, seed=self.seed + prompts.seen)
        self.classes = data.classes
        return self

    def _stage(self, epochs: int, batch: int) -> Stage:
        return Stage(epochs=epochs, batch=batch, rate=self.rate, update=lambda _: SGD(0.9, self.weight_decay))
