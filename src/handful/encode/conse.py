"""ConSE: a network's class probabilities as a bridge from images to text.

An image becomes the mean of the text vectors of the class names it looks most like, weighted by their probabilities, so
that any words can be compared with it (Norouzi et al., Zero-Shot Learning by Convex Combination of Semantic Embeddings,
2014):  v = unit(sum_t p_t s_t)  over the T = 10 most probable of the 1,000 ImageNet classes, p summing to 1 over them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources

import numpy as np

from handful.encode.arithmetic import Precision
from handful.encode.minilm import WIDTH, MiniLM

TOP = 10


class ConSE:
    """The text tower beside an ImageNet classifier: MiniLM, and the vectors of the class names in it.

    Args:
        precision: of the text encoder.
        files: of the text encoder, as its `MiniLM.parts` gives them; by default those of the wheel.
    """

    def __init__(self, precision: Precision, files: Mapping[str, bytes] | None = None) -> None:
        self._text = MiniLM(precision, files=files)
        self._vectors: np.ndarray | None = None
        self._names = (
            resources.files("handful.encode").joinpath("imagenet_classes.txt").read_text(encoding="utf-8").splitlines()
        )

    @property
    def width(self) -> int:
        """Of the vectors."""
        return WIDTH

    @property
    def identity(self) -> str:
        """Text encoder, class names and how many of them take part."""
        return f"conse-{TOP}:{hashlib.sha256('|'.join(self._names).encode()).hexdigest()[:16]}:{self._text.identity}"

    def class_text(self, sentences: Sequence[str], *, cache: bool = True) -> np.ndarray:
        """Unit vectors [m, 384]."""
        return self._text.class_text(sentences, cache=cache)

    def parts(self) -> dict[str, bytes]:
        """Those of the text encoder."""
        return self._text.parts()

    def image_vectors(self, logits: np.ndarray, *, cache: bool = True) -> np.ndarray:
        """Unit vectors [n, 384] of images by their ImageNet logits [n, 1000]."""
        top = np.argpartition(-logits, TOP - 1, axis=1)[:, :TOP]
        values = np.take_along_axis(logits, top, axis=1)
        p = np.exp(values - values.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)  # over the ten: the softmax over all classes cancels out
        vectors = np.einsum("nt,ntd->nd", p, self._name_vectors(cache)[top])
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)

    def _name_vectors(self, cache: bool) -> np.ndarray:
        if self._vectors is None:
            self._vectors = self.class_text(self._names, cache=cache)
        return self._vectors
