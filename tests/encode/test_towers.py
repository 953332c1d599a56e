"""Encoders as modules that can be tuned: the tower gives the encoder's features, and other weights other features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import handful
from handful.encode.efficientnet import Lite0
from handful.errors import BadInput
from handful.tune.encoders import tunable


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)) for _ in range(2)]


def moved(tower: nn.Module) -> nn.Module:
    with torch.no_grad():
        for name, parameter in tower.named_parameters():
            if "norm" in name.lower() or "_bn" in name:
                parameter += 0.3 * torch.sin(torch.arange(len(parameter)))
    return tower


def check(encoder: Any, items: list[Any], tolerance: float) -> None:
    made = tunable(encoder)
    tower, inputs = made.tower().eval(), made.inputs(items)
    base = encoder.encode(items, cache=False)
    with torch.no_grad():
        np.testing.assert_allclose(tower(inputs).numpy(), base, atol=tolerance)
    tower(inputs).sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in tower.parameters())
    other = made.retuned(moved(tower), "mark")
    assert other.identity == f"{encoder.identity}:mark"
    found = other.encode(items, cache=False)
    with torch.no_grad():
        np.testing.assert_allclose(tower(inputs).numpy(), found, atol=tolerance)
    assert np.abs(found - base).max() > 100 * tolerance
    np.testing.assert_array_equal(encoder.encode(items, cache=False), base)


def test_lite0(images: list[Image.Image]) -> None:
    check(Lite0("float32"), images, 1e-4)


def test_lite0_keeps_its_statistics(images: list[Image.Image]) -> None:
    encoder = Lite0("float32")
    tower = encoder.tower()
    before = {name: buffer.clone() for name, buffer in tower.named_buffers()}
    tower.train()(encoder.inputs(images))
    assert all(torch.equal(buffer, before[name]) for name, buffer in tower.named_buffers())
    cropped = Lite0("float32", frame=encoder.frame.of((0.0, 0.0, 0.5, 0.5), None))
    assert not torch.equal(cropped.inputs(images), encoder.inputs(images))


def test_a_sentence_model_of_a_folder(bert: Path) -> None:
    check(handful.encoder(f"hf:{bert}"), ["the card", "lost", "where is my new refund"], 1e-5)


def test_a_vision_model_of_a_folder(vision: Path, images: list[Image.Image]) -> None:
    check(handful.encoder(f"hf:{vision}"), images, 1e-5)


def test_two_towers_of_a_folder(two_towers: Path, images: list[Image.Image]) -> None:
    encoder = handful.encoder(f"hf:{two_towers}")
    made = tunable(encoder)
    tower = made.tower().eval()
    with torch.no_grad():
        np.testing.assert_allclose(
            tower(made.inputs(images)).numpy(), encoder.encode(images, ("aligned",), cache=False), atol=1e-5
        )
    other = made.retuned(moved(tower), "mark")
    texts = ["a photo of a cat", "a dog"]
    assert np.abs(other.class_text(texts) - encoder.class_text(texts)).max() > 1e-3


def test_features_have_no_encoder_to_tune() -> None:
    with pytest.raises(BadInput, match="no encoder to tune"):
        tunable(None)
