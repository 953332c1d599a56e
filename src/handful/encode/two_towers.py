"""Two towers as one module that can be tuned: CLIP and SigLIP, images and texts in one space.

`handful.encode.hf_vision` gives features of such models; here their parameters lie open, with a gradient:

    towers = encoder("hf:openai/clip-vit-base-patch16").two_towers()
    towers.logit_scale * towers.image(pixels) @ towers.text(towers.tokens(["a photo of a cat."])).mT

Everything runs through the modules of ``transformers``, under their own names below ``model``, so that what is learnt
about one (`handful.tune.sites`) is learnt about the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.errors import BadInput


@dataclass(frozen=True)
class Tokens:
    """Sentences as a text tower takes them.

    Args:
        ids: of tokens ``[m, L]``.
        mask: 1 where there is a token ``[m, L]``; ``None`` where the tower pays attention to padding too (SigLIP).
    """

    ids: Tensor
    mask: Tensor | None = None


class TwoTowers(nn.Module):
    """CLIP or SigLIP. Called with pixels ``[n, 3, side, side]`` it gives unit vectors ``[n, d]``, as `image`.

    Args:
        model: a ``CLIPModel`` or ``SiglipModel`` of ``transformers``.
        tokenizer: of the text tower, for `tokens`.
        processor: of the image tower, for `pixels`.

    Raises:
        BadInput: the model is of another family.
    """

    def __init__(self, model: Any, tokenizer: Any = None, processor: Any = None) -> None:
        super().__init__()
        family = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
        if family not in ("clip", "siglip"):
            raise BadInput(f"two towers are those of CLIP or SigLIP, not of {family!r}")
        self.model = model
        self.projects = family == "clip"
        """Whether the last map of each tower is a matrix of its own: CLIP's are, SigLIP has none for images."""
        self._tokenizer, self._processor = tokenizer, processor

    @property
    def logit_scale(self) -> float:
        """What multiplies the cosine of an image and a text."""
        return float(self.model.logit_scale.detach().float().exp())

    @property
    def side(self) -> int:
        """Of the square of pixels that the image tower takes."""
        return int(self.model.config.vision_config.image_size)

    @property
    def most_tokens(self) -> int:
        """What the text tower reads of a sentence."""
        return int(self.model.config.text_config.max_position_embeddings)

    def forward(self, pixels: Tensor | Sequence[Tensor]) -> Tensor:
        """See `image`; pixels may be a list of images ``[3, side, side]`` too."""
        return self.image(pixels if isinstance(pixels, Tensor) else torch.stack(list(pixels)))

    def image(self, pixels: Tensor) -> Tensor:
        """Unit vectors ``[n, d]`` of pixels ``[n, 3, side, side]``."""
        return functional.normalize(self.project_image(self.image_before(pixels)), dim=-1)

    def image_before(self, pixels: Tensor) -> Tensor:
        """What the last projection of the image tower is applied to ``[n, w]``."""
        return cast(Tensor, self.model.vision_model(pixel_values=pixels).pooler_output)

    def project_image(self, before: Tensor) -> Tensor:
        """Into the space of both towers ``[…, d]``; not made unit."""
        return cast(Tensor, self.model.visual_projection(before)) if self.projects else before

    def text(self, tokens: Tokens) -> Tensor:
        """Unit vectors ``[m, d]`` of sentences."""
        return functional.normalize(self.project_text(self.text_before(tokens)), dim=-1)

    def text_before(self, tokens: Tokens) -> Tensor:
        """What the last projection of the text tower is applied to ``[m, w]``."""
        return cast(Tensor, self.model.text_model(input_ids=tokens.ids, attention_mask=tokens.mask).pooler_output)

    def project_text(self, before: Tensor) -> Tensor:
        """Into the space of both towers ``[…, d]``; not made unit."""
        return cast(Tensor, self.model.text_projection(before)) if self.projects else before

    def embed(self, tokens: Tokens) -> Tensor:
        """Vectors of the tokens ``[m, L, w]``, before places are added to them."""
        return cast(Tensor, self._words(tokens.ids))

    def text_from(self, embeddings: Tensor, tokens: Tokens) -> Tensor:
        """Unit vectors ``[m, d]`` of sentences whose words are given as vectors, such as prompts that are learnt.

        Args:
            embeddings: ``[m, L, w]``, in the place of `embed`.
            tokens: where each sentence ends, and its mask; what the other ids are makes no difference.
        """
        handle = self._words.register_forward_hook(lambda module, args, output: embeddings)
        try:
            return self.text(tokens)
        finally:
            handle.remove()

    def tokens(self, sentences: Sequence[str]) -> Tokens:
        """Sentences as tokens; what is longer than `most_tokens` is cut. Raises `BadInput` without a tokenizer."""
        # SigLIP learned from texts that are always padded to the same length, and pays attention to the padding.
        padding = "longest" if self.projects else "max_length"
        found = self._reads()(
            list(sentences), padding=padding, truncation=True, max_length=self.most_tokens, return_tensors="pt"
        )
        return Tokens(found["input_ids"], found["attention_mask"] if self.projects else None)

    def words(self, sentences: Sequence[str]) -> list[list[int]]:
        """The tokens of each sentence, without those that mark its beginning and end."""
        return [list(self._reads()(some, add_special_tokens=False)["input_ids"]) for some in sentences]

    def pixels(self, images: Sequence[Any]) -> Tensor:
        """Images (``PIL``) as the image tower takes them ``[n, 3, side, side]``. `BadInput` without processor."""
        found = self._prepares()(images=[image.convert("RGB") for image in images], return_tensors="np")
        return torch.from_numpy(np.asarray(found["pixel_values"]))

    def normalised(self, pixels: np.ndarray) -> Tensor:
        """``[n, 3, h, w]`` of RGB ``[n, h, w, 3]`` of 0 to 255, with the processor's mean and spread."""
        prepare = self._prepares()
        scaled = torch.from_numpy(np.asarray(pixels, np.float32)) / 255
        mean, spread = torch.tensor(prepare.image_mean), torch.tensor(prepare.image_std)
        return ((scaled - mean) / spread).movedim(-1, -3)

    @property
    def _words(self) -> nn.Module:
        return cast(nn.Module, self.model.text_model.embeddings.token_embedding)

    def _reads(self) -> Any:
        if self._tokenizer is None:
            raise BadInput("these towers came without a tokenizer; give one, or tokens in the place of sentences")
        return self._tokenizer

    def _prepares(self) -> Any:
        if self._processor is None:
            raise BadInput("these towers came without an image processor; give one, or pixels in the place of images")
        return self._processor
