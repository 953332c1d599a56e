"""Image encoders of the Hugging Face family: CLIP and SigLIP with their text towers, DINO and other vision models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy, deepcopy
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from handful.encode.arithmetic import Arithmetic
from handful.encode.base import Batch, FeatureEncoder, Job, unit
from handful.encode.frames import WHOLE, Box, Frame
from handful.encode.hf import Source, first_line, quiet
from handful.encode.images import image_content, image_features, whole_images
from handful.encode.reading import Reading, refuse_reading
from handful.encode.two_towers import TwoTowers
from handful.errors import BadInput

BATCH = 8
LEAST = 1024
"""Pixels a side that a JPEG keeps while it is decoded: more than any of these models reads."""


def clip(model: Any, x: Tensor) -> dict[str, Tensor]:
    """Image features before (``pre``) and after the projection into the space of the texts."""
    seen = model.vision_model(pixel_values=x)
    pooled = model.visual_projection(seen.pooler_output)
    local = seen.last_hidden_state[:, 1:]
    return {"pooled": pooled, "aligned": functional.normalize(pooled), "pre": seen.pooler_output, "local": local}


def siglip(model: Any, x: Tensor) -> dict[str, Tensor]:
    """Image features are what attention over all patches gives: there is no first token and no projection."""
    seen = model.vision_model(pixel_values=x)
    return {
        "pooled": seen.pooler_output,
        "aligned": functional.normalize(seen.pooler_output),
        "local": seen.last_hidden_state,
    }


def first_token(model: Any, x: Tensor) -> dict[str, Tensor]:
    """The first token stands for the image; the registers that may follow it stand for nothing."""
    tokens = model(pixel_values=x).last_hidden_state
    return {"pooled": tokens[:, 0], "local": tokens[:, 1 + getattr(model.config, "num_register_tokens", 0) :]}


def own_pooler(model: Any, x: Tensor) -> dict[str, Tensor]:
    """The model's own summary, and its last tokens or maps place by place."""
    seen = model(pixel_values=x)
    last = seen.last_hidden_state
    local = last if last.ndim == 3 else last.flatten(2).transpose(1, 2)
    return {"pooled": seen.pooler_output.flatten(1), "local": local}


See = Callable[[Any, Tensor], dict[str, Tensor]]
"""Outputs [n, …] of a model for what its image processor made."""
# By ``model_type`` of the configuration. Checkpoints of the middle row often come without the pooler their class has.
SEE: Mapping[str, See] = {"clip": clip, "siglip": siglip} | dict.fromkeys(
    ("deit", "dinov2", "dinov2_with_registers", "dinov3_vit", "ijepa", "vit", "vit_msn"), first_token
)


class HubImages(FeatureEncoder):
    """Images to ``pooled`` [n, d], ``local`` [n, places, d'] and, with a text tower, unit ``aligned`` [n, dt].

    CLIP gives ``pre`` [n, p] too, the features before its last projection.

    Args:
        source: the model's files; its own image processor prepares the pixels.
        arithmetic: ``"float32"`` or ``"bfloat16"``.
        frame: what is shown of each image; ``local`` has the places of every square.
    """

    modality = "image"
    chunk = 256

    def __init__(self, source: Source, arithmetic: Arithmetic, frame: Frame = WHOLE) -> None:
        self.name, self.revision, self._arithmetic = source.name, source.revision, arithmetic
        self._source, self.frame, self.options = source, frame, frame.options
        self.basis = f"hf-image:{source.digest}"
        kind = str(source.config.get("model_type"))
        self._see = SEE.get(kind, own_pooler)
        self._processor = source.load("AutoImageProcessor", backend="pil")
        self._model = source.load_model(arithmetic)
        self._text = _TextTower(source, self._model) if kind in ("clip", "siglip") else None
        self.aligned = "aligned" if self._text else None
        self.logit_scale = self._text.logit_scale if self._text else 1.0
        try:
            pixels = self._pixels(Image.new("RGB", (64, 64)), [(0, 0, 64, 64)])
            probe = self._forward(pixels, None)
        except Exception as error:  # whatever a kind of model that was never tried here may raise
            raise BadInput(f"encoder {source.name!r} does not work as an image encoder: {first_line(error)}") from error
        self.side = int(min(pixels.shape[-2:]))
        joined = {
            output: frame.joined(output, np.stack([array] * frame.squares, 1)[:, None])
            for output, array in probe.items()
        }
        self.shapes = {output: array.shape[2:] for output, array in joined.items()}

    @property
    def arithmetic(self) -> str:
        return self._arithmetic

    def class_text(self, sentences: Sequence[str], *, cache: bool = True) -> np.ndarray:
        if self._text is None:
            raise BadInput(f"encoder {self.name!r} has no text side; leave class names out or choose a CLIP or SigLIP")
        return self._text(sentences)

    def two_towers(self) -> TwoTowers:
        """Its model once more, in float32, as a module that can be tuned. Raises `BadInput` without a text tower."""
        if self._text is None:
            raise BadInput(f"encoder {self.name!r} has one tower; two are those of CLIP and SigLIP")
        model = deepcopy(self._model).float().requires_grad_(True)
        return TwoTowers(model, self._text.tokenizer, self._processor)

    def tower(self) -> TwoTowers | ImageTower:
        """The network as a module that can be tuned, with numbers of its own; it takes what `inputs` gives."""
        if self._text is not None:
            return self.two_towers()
        return ImageTower(deepcopy(self._model).float().requires_grad_(True), self._see)

    def inputs(self, items: Sequence[Any]) -> Tensor:
        """Pixels ``[n, 3, h, w]`` of images, as `tower` takes them: each as a whole, cropped where asked for."""
        return torch.from_numpy(whole_images(items, self._pixels, least=LEAST, frame=self.frame))

    def retuned(self, tower: TwoTowers | ImageTower, mark: str, reading: Reading | None = None) -> HubImages:
        """This encoder with the weights of ``tower``; ``mark`` tells them from others in `identity`.

        Raises:
            BadInput: token vectors are to be read, which images have none of.
        """
        refuse_reading(reading)
        other = copy(self)
        other.basis = f"{self.basis}:{mark}"
        other._model = deepcopy(tower.model).eval().requires_grad_(False).to(self._model.dtype)
        other._text = None if self._text is None else self._text.of(other._model)
        return other

    def parts(self) -> dict[str, bytes]:
        return self._source.parts()

    def _content(self, item: Any) -> bytes:
        return image_content(item)

    def _features(self, jobs: Sequence[Job], outputs: Sequence[str], views: int, cache: bool) -> Iterator[Batch]:
        forward = partial(self._forward, outputs=outputs)
        return image_features(jobs, views, self._pixels, forward, least=LEAST, batch=BATCH, frame=self.frame)

    def _pixels(self, image: Image.Image, boxes: Sequence[Box]) -> np.ndarray:
        parts = [image.crop(cast(Box, tuple(map(round, box)))) for box in boxes]  # all of it for view 0
        return np.asarray(self._processor(images=parts, return_tensors="np")["pixel_values"])

    def _forward(self, pixels: np.ndarray, outputs: Sequence[str] | None) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            found = self._see(self._model, torch.from_numpy(pixels).to(self._model.dtype))
        return {output: found[output].float().numpy() for output in (found if outputs is None else outputs)}


class ImageTower(nn.Module):
    """A vision model of `transformers` as a module: pixels ``[n, 3, h, w]`` to ``pooled`` with a gradient."""

    def __init__(self, model: Any, see: See) -> None:
        super().__init__()
        self.model, self._see = model, see

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class."""
        return self._see(self.model, pixels)["pooled"]


class _TextTower:
    """The text side of CLIP or SigLIP."""

    def __init__(self, source: Source, model: Any) -> None:
        self.logit_scale = float(model.logit_scale.float().exp())
        self.tokenizer, self._model = source.load("AutoTokenizer"), model
        self._siglip = source.config["model_type"] == "siglip"

    def of(self, model: Any) -> _TextTower:
        """The same of another model of the family."""
        other = copy(self)
        other._model = model
        return other

    def __call__(self, sentences: Sequence[str]) -> np.ndarray:
        """Unit vectors [m, dt]."""
        if not len(sentences):
            return np.empty((0, self._model.config.text_config.hidden_size), np.float32)
        most = self._model.config.text_config.max_position_embeddings
        # SigLIP learned from texts that are always padded to the same length, and pays attention to the padding.
        padding = "max_length" if self._siglip else "longest"
        with quiet(), torch.inference_mode():
            tokens = self.tokenizer(
                list(sentences), padding=padding, truncation=True, max_length=most, return_tensors="pt"
            )
            if self._siglip:
                vectors = self._model.text_model(input_ids=tokens["input_ids"]).pooler_output
            else:
                vectors = self._model.text_projection(self._model.text_model(**tokens).pooler_output)
        return unit(vectors.float().numpy())
