"""EfficientNet-Lite0, the embedded image encoder: an image in, 1,280 numbers out.

Trained on ImageNet-1k by Google (Apache-2.0); the text tower beside it is ConSE.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from handful.encode.arithmetic import Arithmetic, Precision, chosen, dtype
from handful.encode.base import Batch, FeatureEncoder, Job
from handful.encode.conse import ConSE
from handful.encode.images import Box, centre_square, image_content, image_features
from handful.encode.weights import EFFICIENTNET_LITE0

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import nn

    from handful.encode.lite0 import FoldedLite0

WIDTH = 1280
MIDDLE_WIDTH = 112
SIZE = 224
SHARE = 1.0
"""Of the shorter side, what the network is shown. The margin it was published with costs few-shot accuracy."""
MEAN, SCALE = 127.0, 128.0
"""The network reads (pixel - MEAN) / SCALE."""
BATCH = 8
"""Images a batch and thread: their widest array stays in the processor's cache."""


class Lite0(FeatureEncoder):
    """Images to ``pooled`` [n, 1280], ``middle`` [n, 112], ``local`` [n, 49, 1280] (7 x 7) and ``aligned`` [n, 384].

    ``middle`` is the mean of the fifth stage, which tells textures and layouts apart that ``pooled`` no longer does;
    ``aligned`` is ConSE.

    Args:
        precision: ``"auto"`` is bfloat16 on processors that have it, where ``pooled`` keeps a cosine above 0.99 with
            that of float32.
    """

    name = "efficientnet-lite0"
    modality = "image"
    aligned = "aligned"
    logit_scale = 100.0
    chunk = 256

    def __init__(self, precision: Precision = "auto") -> None:
        self._conse = ConSE(precision)
        self._precision = precision
        self.shapes = {
            "pooled": (WIDTH,),
            "middle": (MIDDLE_WIDTH,),
            "local": (49, WIDTH),
            "aligned": (self._conse.width,),
        }
        self.identity = f"efficientnet-lite0:{EFFICIENTNET_LITE0.sha256[:16]}:whole-{SIZE}:{self._conse.identity}"

    @cached_property
    def arithmetic(self) -> Arithmetic:
        return chosen(self._precision)

    def class_text(self, sentences: Sequence[str]) -> np.ndarray:
        return self._conse.class_text(sentences)

    def _content(self, item: Any) -> bytes:
        return image_content(item)

    def _features(self, jobs: Sequence[Job], outputs: Sequence[str], views: int) -> Iterator[Batch]:
        forward = partial(self._forward, outputs=outputs)
        return image_features(jobs, views, _pixels, forward, least=2 * SIZE, batch=BATCH)

    def _forward(self, pixels: np.ndarray, outputs: Sequence[str]) -> dict[str, np.ndarray]:
        import torch

        network, classifier = self._networks
        with torch.inference_mode():
            maps, middle = network.maps((torch.from_numpy(pixels).permute(0, 3, 1, 2) - MEAN) / SCALE)
            maps = maps.float()
            pooled = maps.mean((2, 3))
            arrays = {"pooled": pooled.numpy(), "middle": middle.float().mean((2, 3)).numpy()}
            if "local" in outputs:
                arrays["local"] = maps.flatten(2).transpose(1, 2).numpy()
            if "aligned" in outputs:
                arrays["aligned"] = self._conse.image_vectors(classifier(pooled).numpy())
        return {output: arrays[output] for output in outputs}

    @cached_property
    def _networks(self) -> tuple[FoldedLite0, nn.Linear]:
        import torch

        from handful.encode.lite0 import EfficientNetLite0, FoldedLite0

        model = EfficientNetLite0()
        model.load_state_dict(torch.load(EFFICIENTNET_LITE0.path(), weights_only=True))
        return FoldedLite0(model.eval(), dtype(self.arithmetic)), model._fc


def _pixels(image: Image, boxes: Sequence[Box]) -> np.ndarray:
    return np.stack([centre_square(image, box, SIZE, SHARE) for box in boxes])
