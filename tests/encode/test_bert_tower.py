"""MiniLM as a module that can be tuned is MiniLM."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import handful
from handful.encode.bert_tower import BertTower
from handful.encode.minilm import MiniLM

TEXTS = ["hello there", "I lost my card and want it back please", "how do I pay?", "hello you"]


@pytest.fixture(scope="module")
def minilm() -> MiniLM:
    return MiniLM("float32")


@pytest.fixture(scope="module")
def tower(minilm: MiniLM) -> BertTower:
    return minilm.tower().eval()


def test_its_vectors_are_the_encoders(minilm: MiniLM, tower: BertTower) -> None:
    with torch.no_grad():
        found = tower(minilm.inputs(TEXTS)).numpy()
    np.testing.assert_allclose(found, minilm.encode(TEXTS, cache=False), atol=2e-6)


def test_its_names_are_those_of_transformers(tower: BertTower) -> None:
    from transformers import BertConfig, BertModel

    config = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    with torch.device("meta"):
        theirs = BertModel(config, add_pooling_layer=False)
    assert {name: p.shape for name, p in tower.named_parameters()} == {n: p.shape for n, p in theirs.named_parameters()}


def test_every_number_has_a_gradient_and_dropout_is_for_training(minilm: MiniLM, tower: BertTower) -> None:
    inputs = minilm.inputs(TEXTS[:2])
    tower(inputs)[0, 0].backward()
    assert all(p.grad is not None for p in tower.parameters())
    tower.zero_grad()
    assert torch.equal(tower(inputs), tower(inputs))
    tower.train()
    assert not torch.equal(tower(inputs), tower(inputs))
    tower.eval()


def test_other_weights_make_another_encoder(minilm: MiniLM) -> None:
    tower = minilm.tower()
    with torch.no_grad():
        tower.encoder.layer[0].output.dense.bias[0] += 1.0
    other = minilm.retuned(tower, "mark")
    assert other.identity == f"{minilm.identity}:mark"
    with torch.no_grad():
        expected = tower.eval()(minilm.inputs(TEXTS)).numpy()
    np.testing.assert_allclose(other.encode(TEXTS, cache=False), expected, atol=2e-6)
    assert np.abs(minilm.encode(TEXTS, cache=False) - expected).max() > 1e-3
    assert other.parts() == minilm.parts()  # the base's: a file keeps what was changed beside them


def test_tokens_are_cut_where_the_encoder_stops_reading(minilm: MiniLM) -> None:
    assert len(minilm.inputs(["word " * 400])[0]) == 256
    assert handful.encoder("minilm").name == "minilm"
