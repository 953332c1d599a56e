"""Heads that lean on class text, on CLIP's own text vectors of ImageNet classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from handful.adapt import head


@pytest.fixture(scope="module")
def made_up_images(
    shared_data: Path,
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Support, queries and the class text of 20 classes; images lie off their text, each class in its own direction."""
    draw = np.random.default_rng(0)
    vectors = np.load(shared_data / "clip_rn50_imagenet_text.npz")["vectors"].astype(np.float32)
    text = vectors[draw.choice(1000, 20, replace=False)]
    off = 0.06 * draw.normal(size=text.shape).astype(np.float32)

    def images(shots: int) -> tuple[np.ndarray, np.ndarray]:
        y = np.repeat(np.arange(20), shots)
        return text[y] + off[y] + 0.25 * draw.normal(size=(len(y), 1024)).astype(np.float32), y

    return images(8), images(20), text


@pytest.mark.parametrize("key", ["tip-x", "ape", "ape-t", "proto-clip", "real", "linear-adapter", "gda", "proker"])
def test_examples_help_class_text(made_up_images: tuple, key: str) -> None:
    (x, y), (q, truth), text = made_up_images
    given = {"text": dict(enumerate(text))}

    def right(made: str, **more: float | str) -> float:
        return float((head(made, **given, **more).fit(x, y).predict(q) == truth).mean())

    searched = {"alpha": "loo", "beta": "loo"} if key in ("tip-x", "ape", "proto-clip") else {}
    rate = {"lr": 1e-3, "epochs": 60} if key == "linear-adapter" else {}
    assert right(key, **searched, **rate) >= right("zero-shot") - 0.005
