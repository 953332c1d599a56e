"""ProLIP in the towers themselves (010): the authors' text form, the head's numbers, test time, and merging."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from handful.adapt import head
from handful.adapt.base import Features
from handful.encode.two_towers import Tokens, TwoTowers
from handful.errors import BadInput
from handful.tune import Data, Stage, load_delta, save_delta, tune
from handful.tune.at_test import at_test, marginal_entropy
from handful.tune.class_texts import ClassTexts, names_only
from handful.tune.prolip import TEMPLATES, ProLIP, TestTimeProLIP, projected

Scenes = tuple[Tensor, Tensor, tuple[str, ...]]


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def text_of(towers: TwoTowers, classes: Sequence[str], templates: Sequence[str] = ("a photo of a {}.",)) -> Tensor:
    readout = ClassTexts(templates)
    readout.begin(towers, names_only(classes), gen())
    return readout.vectors(towers).detach()


class Given(TwoTowers):
    """Towers whose features before the projections are given."""

    def __init__(self, towers: TwoTowers, before: Tensor, text: Tensor, image: Tensor) -> None:
        super().__init__(copy.deepcopy(towers.model), towers._tokenizer)
        self.known = before.flatten(0, 1)
        for name, matrix in (("text_projection", text), ("visual_projection", image)):
            linear = nn.Linear(*matrix.shape, bias=False)
            linear.weight.data = matrix.mT.contiguous()
            setattr(self.model, name, linear)

    def text_before(self, tokens: Tokens) -> Tensor:
        return self.known

    def image_before(self, pixels: Tensor) -> Tensor:
        return pixels


@pytest.mark.paper(10, oracle="f")
def test_the_text_form_is_the_authors(towers: TwoTowers) -> None:
    content: Any = json.loads((Path(__file__).parents[1] / "golden" / "prolip_text.json").read_text(encoding="utf-8"))
    given = {key: torch.tensor(value) for key, value in content["inputs"].items()}
    model = Given(towers, given["before"], given["text_projection"], given["visual_projection"])
    views, epoch = given["views"], iter(range(100))

    def view(inputs: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
        return views[(next(epoch) + 1) % len(views)][rows]  # the authors count before they look: view 0 is the last

    classes = ("red", "green", "blue", "old")
    settings = ProLIP(shots=3, epochs=7, lr=0.01, templates=("a {}.", "the {}."))
    recipe = replace(settings.recipe(), augment=(view,))
    tuned = tune(model, Data(views[0], torch.arange(12) // 3, classes), recipe)
    (holder,) = tuned.delta.holders
    torch.testing.assert_close(holder.P.mT, torch.tensor(content["expected"]["projection"]), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        tuned.logits(given["query"]), torch.tensor(content["expected"]["logits"]), atol=1e-3, rtol=0
    )


@pytest.mark.paper(10, oracle="a")
@pytest.mark.parametrize("tower", ["text", "image"])
def test_a_strong_penalty_keeps_the_projection(towers: TwoTowers, scenes: Scenes, tower: Any) -> None:
    pixels, labels, classes = scenes
    recipe = ProLIP(shots=4, tower=tower, reg=1e6, lr=1e-5, epochs=30).recipe()
    tuned = tune(towers, Data(pixels, labels, classes), recipe)
    (holder,) = tuned.delta.holders
    start = towers.get_submodule(holder.site).weight
    assert 0 < (holder.P - start).abs().max() < 1e-4
    with torch.no_grad():
        zero_shot = (towers(pixels) @ text_of(towers, classes).mT).argmax(1)
    assert torch.equal(tuned.logits(pixels).argmax(1), zero_shot)


@pytest.mark.paper(10, oracle="b")
@pytest.mark.parametrize("tower", ["text", "image"])
def test_without_a_rate_nothing_moves(towers: TwoTowers, scenes: Scenes, tower: Any) -> None:
    pixels, labels, classes = scenes
    tuned = tune(towers, Data(pixels, labels, classes), ProLIP(shots=4, tower=tower, lr=0.0, epochs=3).recipe())
    (holder,) = tuned.delta.holders
    assert torch.equal(holder.P, towers.get_submodule(holder.site).weight)
    free = tune(towers, Data(pixels, labels, classes), ProLIP(shots=4, tower=tower, lr=1e-2, reg=0.0).recipe())
    assert free.losses[-1] < 0.5 * free.losses[0]


def features(towers: TwoTowers, pixels: Tensor) -> Features:
    with torch.no_grad():
        before = towers.image_before(pixels)
        return Features(towers.project_image(before).double().numpy(), {"pre": before.double().numpy()})


def test_on_images_it_is_the_head(towers: TwoTowers, scenes: Scenes) -> None:
    pixels, labels, classes = scenes
    settings = ProLIP(shots=4, tower="image", lr=1e-2, epochs=20)
    tuned = tune(towers, Data(pixels, labels, classes), replace(settings.recipe(), augment=()))
    text = dict(zip(range(3), text_of(towers, classes).double().numpy(), strict=True))
    fitted = head("prolip", text=text, lr=1e-2, epochs=20, logit_scale=100.0)
    fitted.fit(features(towers, pixels), labels.numpy())
    (holder,) = tuned.delta.holders
    mine = (holder.P - towers.model.visual_projection.weight).mT
    torch.testing.assert_close(mine, torch.as_tensor(fitted.state_["change"]).float(), atol=1e-3, rtol=0)
    assert mine.abs().max() > 0.01


@pytest.mark.paper(10, oracle="e")
def test_merged_the_towers_give_the_heads_logits(towers: TwoTowers, scenes: Scenes, tmp_path: Path) -> None:
    pixels, labels, classes = scenes
    words = text_of(towers, classes)
    fitted = head("prolip", text=dict(zip(range(3), words.double().numpy(), strict=True)), lr=1e-2, logit_scale=100.0)
    fitted.fit(features(towers, pixels), labels.numpy())
    expected = torch.as_tensor(fitted.logits(features(towers, pixels))).float()
    weights = copy.deepcopy(towers.state_dict())
    delta = projected(towers, torch.as_tensor(fitted.state_["change"]))
    save_delta(delta, tmp_path / "prolip.safetensors")
    for one in (delta, load_delta(tmp_path / "prolip.safetensors", towers)):
        kept = one.merge(towers)
        with torch.no_grad():
            found = 100 * towers.image(pixels) @ words.mT
        kept.undo()
        torch.testing.assert_close(found / 100, expected / 100, atol=1e-4, rtol=0)
    with torch.no_grad():
        assert (100 * towers.image(pixels) @ words.mT - expected).abs().max() > 1
    assert all(torch.equal(weights[name], tensor) for name, tensor in towers.state_dict().items())


@pytest.mark.paper(10, oracle="c")
def test_the_penalty_pulls_back_and_is_nothing_at_the_start(towers: TwoTowers, scenes: Scenes) -> None:
    pixels, labels, classes = scenes

    def first(reg: float, epochs: int) -> Tensor:
        recipe = replace(ProLIP(shots=4, reg=reg, epochs=epochs, lr=1e-2).recipe(), augment=())
        recipe = replace(recipe, stages=(replace(recipe.stages[0], rate="constant"),))
        (holder,) = tune(towers, Data(pixels, labels, classes), recipe).delta.holders
        return holder.P.detach()  # type: ignore[no-any-return]

    torch.testing.assert_close(first(0.0, 1), first(100.0, 1), atol=1e-7, rtol=0)
    start = towers.model.text_projection.weight
    assert (first(100.0, 20) - start).norm() < 0.5 * (first(0.0, 20) - start).norm()


@pytest.fixture(scope="module")
def seeing(towers: TwoTowers) -> TwoTowers:
    from transformers import CLIPImageProcessorPil

    size = {"height": 16, "width": 16}
    return TwoTowers(towers.model, towers._tokenizer, CLIPImageProcessorPil(size=size, crop_size=size)).eval()


def test_at_test_time_the_projection_moves_once_and_comes_back(seeing: TwoTowers) -> None:
    draw = torch.randint(0, 256, (2, 30, 24, 3), generator=gen(), dtype=torch.uint8).numpy()
    images, classes = [Image.fromarray(x) for x in draw], ("red park", "green forest", "blue harbour")
    method = TestTimeProLIP(lr=1e-2)
    tuned, how = method.beginning(seeing, classes), method.how(seeing)
    assert how.steps == 1 and TestTimeProLIP().lr == 1e-4
    weights = copy.deepcopy(seeing.state_dict())
    found = at_test(tuned, images, how)
    assert all(torch.equal(weights[name], tensor) for name, tensor in seeing.state_dict().items())
    assert torch.equal(tuned.delta.holders[0].P, seeing.model.visual_projection.weight)
    words = text_of(seeing, classes, TEMPLATES)
    for image, mine in zip(images, found, strict=True):
        views = how.views(image, gen())
        assert len(views) == 64
        with torch.no_grad():
            before, matrix = seeing.image_before(views), seeing.model.visual_projection.weight.clone()
        matrix.requires_grad_()

        def logits(h: Tensor, p: Tensor = matrix) -> Tensor:
            return seeing.logit_scale * functional.normalize(h @ p.mT, dim=-1) @ words.mT

        entropy = torch.distributions.Categorical(logits=logits(before).detach()).entropy()
        optimiser = torch.optim.AdamW([matrix], lr=1e-2)
        marginal_entropy(logits(before)[entropy.argsort()[:6]]).backward()
        optimiser.step()
        torch.testing.assert_close(mine, logits(before[:1])[0].detach(), atol=1e-3, rtol=0)
        assert (mine - tuned.logits(views[:1])[0]).abs().max() > 0.01


def test_what_has_no_projection_or_makes_no_sense_is_refused(
    siglip: TwoTowers, towers: TwoTowers, scenes: Scenes
) -> None:
    pixels, labels, classes = scenes
    with pytest.raises(BadInput, match="fits roles projection"):
        tune(siglip, Data(pixels, labels, classes), ProLIP(tower="image").recipe())
    with pytest.raises(BadInput, match=r"a change of shape \(8, 16\) does not fit a projection \(16, 8\)"):
        projected(towers, torch.zeros(8, 16))
    for settings, message in (
        ({"reg": -1.0}, "reg is -1.0; it must not be negative"),
        ({"reg": "1/n"}, "'1/K' or '1/K2', not '1/n'"),
        ({"tower": "vision"}, "'text' or 'image', not 'vision'"),
        ({"shots": 0}, "must be at least 1"),
    ):
        with pytest.raises(BadInput, match=message):
            ProLIP(**settings)  # type: ignore[arg-type]
    assert ProLIP(shots=4).strength == 0.25 and ProLIP(shots=4, reg="1/K2").strength == 1 / 16
    (stage,) = ProLIP().recipe().stages
    assert isinstance(stage, Stage) and stage.epochs == 300
