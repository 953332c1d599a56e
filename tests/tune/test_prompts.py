"""Prompts that learn: the sentence itself at first, whichever side of the name they stand on."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from handful.encode.two_towers import TwoTowers
from handful.errors import BadInput
from handful.tune import Data, Recipe, Stage, tune
from handful.tune.class_texts import ClassTexts, names_only
from handful.tune.prompts import PromptTexts

Scenes = tuple[Tensor, Tensor, tuple[str, ...]]
CLASSES = ("red park", "old_bridge", "forest", "dark blue harbour")


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def begun(towers: TwoTowers, prompts: PromptTexts) -> PromptTexts:
    prompts.begin(towers, names_only(CLASSES), gen())
    return prompts


@torch.no_grad()
def sentences(towers: TwoTowers, template: str) -> Tensor:
    readout = ClassTexts((template,))
    readout.begin(towers, names_only(CLASSES), gen())
    return readout.vectors(towers)


@pytest.mark.parametrize("template", ["a photo of a {}.", "{} a photo.", "the old {} of a photo.", "photo {}"])
@pytest.mark.parametrize("per_class", [False, True])
def test_they_begin_as_the_template(towers: TwoTowers, template: str, per_class: bool) -> None:
    prompts = begun(towers, PromptTexts(template, per_class=per_class))
    words = len(template.replace("{}", "").replace(".", "").split())
    assert prompts.context.shape == ((len(CLASSES), words, 16) if per_class else (words, 16))
    torch.testing.assert_close(prompts.vectors(towers), sentences(towers, template), atol=1e-6, rtol=0)


def test_siglip_reads_them_too(siglip: TwoTowers) -> None:
    prompts = begun(siglip, PromptTexts("the {} of a photo."))
    torch.testing.assert_close(prompts.vectors(siglip), sentences(siglip, "the {} of a photo."), atol=1e-6, rtol=0)
    assert prompts.vectors(siglip).requires_grad


@pytest.mark.parametrize("template", ["X X {}.", "{} X X.", "X {} X."])
def test_a_vector_in_the_place_of_a_word_is_that_word(towers: TwoTowers, template: str) -> None:
    prompts = begun(towers, PromptTexts(template))
    (words,) = towers.words(["bright green"])
    with torch.no_grad():
        prompts.context.copy_(towers.model.text_model.embeddings.token_embedding.weight[words])
    spoken = template.replace("X", "bright", 1).replace("X", "green", 1)
    torch.testing.assert_close(prompts.vectors(towers), sentences(towers, spoken), atol=1e-6, rtol=0)


def test_at_random_they_begin_near_nothing_and_reset_bit_for_bit(towers: TwoTowers) -> None:
    prompts = begun(towers, PromptTexts("X " * 8 + "{}.", random=True))
    assert float(prompts.context.detach().std()) == pytest.approx(0.02, rel=0.3)
    was = prompts.context.detach().clone()
    with torch.no_grad():
        prompts.context += 1
    prompts.reset()
    assert torch.equal(prompts.context, was)


@pytest.mark.parametrize("per_class", [False, True])
def test_they_learn_with_the_towers_as_they_are(towers: TwoTowers, scenes: Scenes, per_class: bool) -> None:
    pixels, labels, classes = scenes
    weights = copy.deepcopy(towers.state_dict())
    recipe = Recipe(
        stages=(Stage(steps=60, lr=0.05, rate="cosine"),), readout=lambda: PromptTexts(per_class=per_class, scale=20.0)
    )
    tuned = tune(towers, Data(pixels, labels, classes), recipe)
    assert tuned.losses[-1] < 0.7 * tuned.losses[0]
    assert all(torch.equal(weights[name], tensor) for name, tensor in towers.state_dict().items())
    assert tuned.delta.trainable() == 0


def test_words_of_a_class_move_that_class_only(towers: TwoTowers) -> None:
    prompts = begun(towers, PromptTexts(per_class=True))
    before = prompts.vectors(towers).detach()
    with torch.no_grad():
        prompts.context[2] += torch.randn(4, 16, generator=gen())
    moved = (prompts.vectors(towers) - before).abs().amax(1) > 1e-4
    assert moved.tolist() == [False, False, True, False]


def test_prompts_that_cannot_be_are_refused(towers: TwoTowers, bert: torch.nn.Module) -> None:
    for template, message in (("{}.", "no word beside the name"), ("X " * 14 + "{}.", "longer than the 16 tokens")):
        with pytest.raises(BadInput, match=message):
            begun(towers, PromptTexts(template))
    with pytest.raises(BadInput, match=r"needs \{\} once"):
        PromptTexts("a photo")
    with pytest.raises(BadInput, match="a BertModel has none"):
        PromptTexts().begin(bert, names_only(CLASSES), gen())
