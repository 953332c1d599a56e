"""Encoders whose token vectors are read otherwise than by their mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import handful
from handful.encode.hf_text import HubText
from handful.encode.minilm import MiniLM
from handful.encode.reading import LateInteraction
from handful.protocols import Encoder

TEXTS = ["my card is lost", "the cat", "where is my new card"]


def reading(width: int) -> LateInteraction:
    g = torch.Generator().manual_seed(0)
    documents = functional.normalize(torch.randn(2, 3, 5, generator=g), dim=2)
    return LateInteraction(torch.randn(5, width, generator=g), documents, torch.tensor([[1.0, 1, 1], [1, 0, 0]]))


def by_hand(read: LateInteraction, states: Tensor) -> np.ndarray:
    """The mean over tokens of the nearest class token, for one text ``[T, d]``."""
    tokens = functional.normalize(states @ read.projection.mT, dim=1)
    out = []
    for document, mask in zip(read.documents, read.mask, strict=True):
        nearest = (tokens @ document[mask.bool()].mT).amax(1)
        out.append((nearest.clamp_min(0) if mask.min() == 0 else nearest).mean())
    return torch.stack(out).numpy()


@pytest.fixture(params=["minilm", "hub"])
def encoder(request: pytest.FixtureRequest, bert: Path) -> Encoder:
    return MiniLM("float32") if request.param == "minilm" else handful.encoder(f"hf:{bert}")


def test_token_vectors_make_the_usual_vector(encoder: MiniLM | HubText) -> None:
    tower = encoder.tower().eval()
    inputs = encoder.inputs(TEXTS)
    with torch.no_grad():
        states, mask = tower.tokens(inputs)  # type: ignore[arg-type]
        mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    want = encoder.encode(TEXTS, cache=False)
    np.testing.assert_allclose(functional.normalize(mean, dim=1), functional.normalize(torch.tensor(want)), atol=1e-5)


def test_a_reading_is_what_the_encoder_gives(encoder: MiniLM | HubText) -> None:
    tower = encoder.tower().eval()
    read = reading(encoder.dim)
    other = encoder.retuned(tower, "mark", read)  # type: ignore[arg-type]
    assert other.dim == 2 and other.aligned is None and encoder.aligned == "pooled"
    assert other.identity != encoder.identity
    found = other.encode(TEXTS, cache=False)
    with torch.no_grad():
        for row, text in zip(found, encoder.inputs(TEXTS), strict=True):
            np.testing.assert_allclose(row, by_hand(read, tower.tokens([text]).states[0]), atol=1e-5)  # type: ignore[list-item]
    np.testing.assert_allclose(other.encode(TEXTS[:1], cache=False), found[:1], atol=1e-6)


def test_a_long_text_is_the_mean_of_its_windows() -> None:
    encoder = MiniLM("float32", long="mean")
    tower, read = encoder.tower().eval(), reading(384)
    other = encoder.retuned(tower, "mark", read)
    text = "the cat lost my card " * 80
    windows = [w.ids for t in encoder._tokens([text]) for w in (t, *t.overflowing)]
    assert len(windows) > 1
    with torch.no_grad():
        scores = np.stack([by_hand(read, tower.tokens([w]).states[0]) for w in windows])
    want = np.average(scores, axis=0, weights=[len(w) for w in windows])
    np.testing.assert_allclose(other.encode([text], cache=False)[0], want, atol=1e-5)
