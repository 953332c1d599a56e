"""Prompts tuned at test time. DiffTPT (116, Diverse Data Augmentation with Diffusions for Effective Test-time Prompt
Tuning, 2023), and TPT (Shu et al. 2022) as the case without a generator.

    prompt    four vectors that begin as "a photo of a", the towers stay as they are
    views     the image, 64 random crops, 63 variations by a generator (TPT: 63 crops alone)
    kept      the 80 % most like the image by their logits, of those the 30 % surest (TPT: the 10 % surest of all)
    steps     4 of AdamW 5e-3 on the entropy of the mean answer (TPT: 1), then the image itself; see `at_test`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from PIL import Image
from torch import Tensor

from handful.encode.two_towers import TwoTowers
from handful.protocols import Progress
from handful.tune.at_test import AtTest, at_test, select_views
from handful.tune.class_texts import PHOTO, names_only
from handful.tune.delta import Delta
from handful.tune.prompts import PromptTexts
from handful.tune.tuned import Tuned
from handful.tune.views import ImageViews, Variations


@dataclass(frozen=True)
class DiffTPT:
    """See `handful.tune.difftpt`.

    Args:
        variations: makes variations of an image; `handful.tune.views.Diffused` where there is a diffusion model.
        varied: how many.
        crops: random crops beside them.
        augmix: mix distorted crops in, as for fine-grained classes.
        rho_cos: share of the views kept for their likeness.
        rho_ent: share of those kept for their certainty.
        steps: for each image.
        lr: learning rate.
        template: what the prompt begins as.
    """

    variations: Variations | None
    varied: int = 63
    crops: int = 64
    augmix: bool = False
    rho_cos: float = 0.8
    rho_ent: float = 0.3
    steps: int = 4
    lr: float = 5e-3
    template: str = PHOTO

    def how(self, towers: TwoTowers) -> AtTest:
        """As `at_test` takes it."""
        views = ImageViews(towers, self.crops, self.augmix, self.variations, self.varied)
        select = partial(select_views, rho_cos=self.rho_cos, rho_ent=self.rho_ent)
        return AtTest(views, select, self.steps, self.lr)

    def prompted(self, towers: TwoTowers, classes: Sequence[str]) -> Tuned:
        """The towers and a prompt that has learnt nothing: zero-shot."""
        prompts = PromptTexts(self.template)
        prompts.begin(towers, names_only(classes), torch.Generator())
        return Tuned(towers, Delta.begin(towers, [], torch.Generator()), prompts.eval(), tuple(classes))

    def logits(
        self, towers: TwoTowers, images: Sequence[Image.Image], classes: Sequence[str], *, seed: int = 0,
        progress: Progress | None = None,
    ) -> Tensor:  # fmt: skip
        """``[n, C]``, each image with a prompt of its own. Raises as `at_test`."""
        return at_test(self.prompted(towers, classes), images, self.how(towers), seed=seed, progress=progress)


def tpt(augmix: bool = False, template: str = PHOTO) -> DiffTPT:
    """Test-time prompt tuning: 63 crops, the surest tenth, one step."""
    return DiffTPT(None, 0, 63, augmix, rho_cos=1.0, rho_ent=0.1, steps=1, template=template)
