"""Two towers that can be tuned, against `transformers` itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image

import handful
from handful.commands import tuned as tuned_module
from handful.encode import encoder
from handful.encode.hf_vision import HubImages
from handful.encode.two_towers import Tokens, TwoTowers
from handful.errors import BadInput
from handful.tune import Delta, LoRA, Placed, Where
from handful.tune.delta_file import description, tensors
from handful.tune.encoders import encoder_with, tunable
from handful.tune.recipes import recipe

SENTENCES = ["a photo of a cat", "the card is lost"]


@pytest.fixture
def towers(two_towers: Path) -> TwoTowers:
    return cast(HubImages, encoder(f"hf:{two_towers}")).two_towers()


def test_they_give_what_the_encoder_gives(towers: TwoTowers, two_towers: Path, pictures: Sequence[Image.Image]) -> None:
    usual = encoder(f"hf:{two_towers}")
    with torch.no_grad():
        images, texts = towers(towers.pixels(pictures)), towers.text(towers.tokens(SENTENCES))
    np.testing.assert_allclose(images, usual.encode(pictures, ("aligned",), cache=False), atol=1e-5)
    np.testing.assert_allclose(texts, usual.class_text(SENTENCES), atol=1e-5)
    assert towers.logit_scale == pytest.approx(usual.logit_scale)


def test_a_sentence_from_its_own_vectors_is_the_sentence(towers: TwoTowers) -> None:
    tokens = towers.tokens(SENTENCES)
    vectors = towers.embed(tokens).detach().requires_grad_()
    found = towers.text_from(vectors, tokens)
    torch.testing.assert_close(found, towers.text(tokens), atol=0, rtol=0)
    (gradient,) = torch.autograd.grad(found[0].square().sum() + found[0, 0], vectors)
    assert gradient[0, 1].abs().max() > 0  # a word of the sentence
    assert not gradient[1].any()  # another sentence


def test_the_other_ids_make_no_difference(towers: TwoTowers) -> None:
    tokens = towers.tokens(SENTENCES)
    ids = tokens.ids.clone()
    ids[:, 1] = 9
    assert not torch.equal(towers.text(Tokens(ids, tokens.mask)), towers.text(tokens))
    found = towers.text_from(towers.embed(tokens), Tokens(ids, tokens.mask))
    torch.testing.assert_close(found, towers.text(tokens), atol=0, rtol=0)


def test_pixels_are_normalised_as_the_processor_does(towers: TwoTowers) -> None:
    raw = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    whole = towers.pixels([Image.fromarray(x) for x in raw])
    torch.testing.assert_close(towers.normalised(raw), whole, atol=1e-5, rtol=0)
    assert towers.side == 32 and towers.most_tokens == 12


def test_what_has_no_two_towers_is_refused(vision: Path, towers: TwoTowers) -> None:
    with pytest.raises(BadInput, match="has one tower"):
        cast(HubImages, encoder(f"hf:{vision}")).two_towers()
    with pytest.raises(BadInput, match="not of 'Linear'"):
        TwoTowers(torch.nn.Linear(2, 2))
    bare = TwoTowers(towers.model)
    with pytest.raises(BadInput, match="without a tokenizer"):
        bare.tokens(["a"])
    with pytest.raises(BadInput, match="without an image processor"):
        bare.pixels([])


def test_an_encoder_with_tuned_towers(two_towers: Path, pictures: Sequence[Image.Image]) -> None:
    base = cast(HubImages, encoder(f"hf:{two_towers}"))
    tower = tunable(base).tower()
    delta = Delta.begin(tower, [Placed(LoRA(2), Where(("q", "v")))], torch.Generator().manual_seed(0))
    with torch.no_grad():
        for holder in delta.each():
            holder.tensors["B"] += 3.0
    usual, words = base.encode(pictures, ("aligned",), cache=False), base.class_text(SENTENCES)
    tuned = encoder_with(base, description(delta), tensors(delta))
    assert tuned.identity != base.identity
    with delta.attached(tower), torch.no_grad():
        images, texts = tower(tunable(base).inputs(pictures)), tower.text(tower.tokens(SENTENCES))  # type: ignore[operator]
    np.testing.assert_allclose(tuned.encode(pictures, ("aligned",), cache=False), images, atol=1e-5)
    np.testing.assert_allclose(tuned.class_text(SENTENCES), texts, atol=1e-5)
    assert np.abs(images.numpy() - usual).max() > 1e-3 and np.abs(texts.numpy() - words).max() > 1e-3
    np.testing.assert_array_equal(base.encode(pictures, ("aligned",), cache=False), usual)
    np.testing.assert_array_equal(base.class_text(SENTENCES), words)


def test_fit_tunes_it_on_a_few_images(two_towers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuned_module, "recipe", lambda key: recipe(key, steps=3))
    draw = np.random.default_rng(0)
    colours = np.repeat([[200, 30, 30], [30, 30, 200]], 6, axis=0)[:, None, None]
    raw = np.clip(colours + draw.integers(-30, 30, (12, 32, 32, 3)), 0, 255).astype(np.uint8)
    images, labels = [Image.fromarray(x) for x in raw], ["cat"] * 6 + ["dog"] * 6
    model = handful.fit(images, labels, encoder=f"hf:{two_towers}", tune="lora", head="simpleshot")
    assert model.delta is not None and model.encoder is not None
    model.save(tmp_path / "m.handful")
    again = handful.load(tmp_path / "m.handful", encoder=f"hf:{two_towers}")
    np.testing.assert_array_equal(again.predict_proba(images), model.predict_proba(images))
    plain = handful.fit(images, labels, encoder=f"hf:{two_towers}", head="simpleshot")
    assert not np.array_equal(plain.predict_proba(images), model.predict_proba(images))
