"""Tuning at test time (116): the authors' choice of views, nothing left behind, and certainty that grows."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from handful.encode.two_towers import TwoTowers
from handful.errors import BadInput, HandfulError
from handful.tune import Data, Delta, LoRA, Placed, Recipe, Stage, Tuned, Where, tune
from handful.tune.at_test import AtTest, TooFewViews, at_test, marginal_entropy, select_views
from handful.tune.crops import crop_boxes
from handful.tune.difftpt import DiffTPT, tpt
from handful.tune.prompts import PromptTexts
from handful.tune.views import DISTORTIONS, Diffused, Distorted, ImageViews, distorted

Scenes = tuple[Tensor, Tensor, tuple[str, ...]]
CLASSES = ("red park", "green_forest", "blue harbour")


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def seeing(towers: TwoTowers) -> TwoTowers:
    """The towers with an image processor."""
    from transformers import CLIPImageProcessorPil

    size = {"height": 16, "width": 16}
    return TwoTowers(towers.model, towers._tokenizer, CLIPImageProcessorPil(size=size, crop_size=size)).eval()


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 256, (h, w, 3), np.uint8)) for h, w in ((30, 40), (25, 20), (16, 16))]


SMALL = DiffTPT(Distorted(), varied=7, crops=8)


@pytest.mark.paper(116, oracle="a")
@pytest.mark.parametrize("still", [{"steps": 0}, {"lr": 0.0}])
def test_without_a_step_it_is_zero_shot(seeing: TwoTowers, images: list[Image.Image], still: dict[str, Any]) -> None:
    found = replace(SMALL, **still).logits(seeing, images, CLASSES)
    one_by_one = SMALL.prompted(seeing, CLASSES).logits(seeing.pixels(images), batch=1)
    assert torch.equal(found, one_by_one)
    with torch.no_grad():
        texts = seeing.text(seeing.tokens(["a photo of a red park.", "a photo of a green forest.",
                                           "a photo of a blue harbour."]))  # fmt: skip
        expected = seeing.logit_scale * seeing.image(seeing.pixels(images)) @ texts.mT
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.paper(116, oracle="b")
def test_no_image_knows_of_another(seeing: TwoTowers, images: list[Image.Image]) -> None:
    weights = copy.deepcopy(seeing.state_dict())
    prompted, how = SMALL.prompted(seeing, CLASSES), SMALL.how(seeing)
    before = copy.deepcopy(prompted.readout.state_dict())
    both = at_test(prompted, images, how)
    assert torch.equal(at_test(prompted, images[::-1], how).flip(0), both)
    assert torch.equal(at_test(prompted, images[1:2], how), both[1:2])
    assert (both - at_test(prompted, images, replace(how, steps=0))).abs().max() > 1e-3
    assert all(torch.equal(tensor, before[key]) for key, tensor in prompted.readout.state_dict().items())
    assert all(torch.equal(tensor, weights[key]) for key, tensor in seeing.state_dict().items())
    assert all(p.requires_grad for p in seeing.parameters())


@pytest.mark.paper(116, oracle="c")
def test_the_entropy_of_the_mean_answer() -> None:
    logits = 3 * torch.randn(7, 5, generator=gen(), dtype=torch.float64)
    mean = logits.softmax(-1).mean(0)
    torch.testing.assert_close(marginal_entropy(logits), -(mean * mean.log()).sum(), atol=1e-12, rtol=0)
    assert float(marginal_entropy(torch.zeros(4, 6))) == pytest.approx(math.log(6), abs=1e-6)
    sure = torch.full((4, 6), -1e4)
    sure[:, 2] = 1e4
    assert float(marginal_entropy(sure)) == pytest.approx(0, abs=1e-6)
    sure[:2, 2], sure[:2, 3] = -1e4, 1e4  # each view is sure, but not of the same class
    assert float(marginal_entropy(sure)) == pytest.approx(math.log(2), abs=1e-6)
    assert torch.autograd.gradcheck(marginal_entropy, (logits.requires_grad_(),))


@pytest.mark.paper(116, oracle="d")
def test_views_and_entropies_are_the_authors() -> None:
    content = json.loads((Path(__file__).parents[1] / "golden" / "difftpt.json").read_text(encoding="utf-8"))
    for given, expected in zip(content["inputs"], content["expected"], strict=True):
        logits = torch.tensor(given["logits"])
        kept = select_views(logits, given["rho_cos"], given["rho_ent"])
        assert kept.tolist() == expected["kept"]
        assert float(marginal_entropy(logits[kept])) == pytest.approx(expected["entropy"], abs=1e-5)


@pytest.mark.paper(116, oracle="e")
@pytest.mark.parametrize("rho", [0.1, 0.3, 1.0])
def test_with_all_views_alike_it_is_tpt(rho: float) -> None:
    logits = 3 * torch.randn(64, 9, generator=gen(1))
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    surest = entropy.argsort()[: int(64 * rho)]
    assert set(select_views(logits, 1.0, rho).tolist()) == set(surest.tolist())
    how = tpt()
    assert (how.crops, how.varied, how.rho_cos, how.rho_ent, how.steps) == (63, 0, 1.0, 0.1, 1)


def test_too_small_a_share_keeps_the_surest_and_says_so() -> None:
    logits = torch.tensor([[0.0, 0.1], [5.0, 0.0], [0.0, 1.0]])
    with pytest.warns(TooFewViews, match=r"a share of 0.1 of 3 views is none"):
        assert select_views(logits, 1.0, 0.1).tolist() == [1]


def test_an_image_becomes_surer_of_its_answer(seeing: TwoTowers, images: list[Image.Image]) -> None:
    how = replace(SMALL, steps=20, rho_ent=1.0, rho_cos=1.0).how(seeing)
    prompted = SMALL.prompted(seeing, CLASSES)
    after = at_test(prompted, images, how)
    before = at_test(prompted, images, replace(how, steps=0))
    entropy = [torch.distributions.Categorical(logits=z).entropy().sum() for z in (before, after)]
    assert entropy[1] < 0.8 * entropy[0]


def test_steps_are_those_of_torchs_adamw(seeing: TwoTowers, images: list[Image.Image]) -> None:
    found = SMALL.logits(seeing, images[:1], CLASSES)
    prompted = SMALL.prompted(seeing, CLASSES)
    readout: Any = prompted.readout
    views = SMALL.how(seeing).views(images[0], gen())
    assert len(views) == 1 + 8 + 7
    optimiser = torch.optim.AdamW([readout.context], lr=5e-3)
    kept = None
    for _ in range(4):
        logits = readout(seeing(views).detach(), seeing)
        kept = select_views(logits.detach(), 0.8, 0.3) if kept is None else kept
        optimiser.zero_grad()
        marginal_entropy(logits[kept]).backward()
        optimiser.step()
    expected = readout(seeing(views[:1]), seeing).detach()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_a_prompt_that_has_learnt_is_where_it_goes_on(seeing: TwoTowers, images: list[Image.Image]) -> None:
    pixels = seeing.pixels(images)
    recipe = Recipe(stages=(Stage(steps=10, lr=0.05),), readout=PromptTexts)
    learnt = tune(seeing, Data(pixels, torch.arange(3), CLASSES), recipe)
    context = copy.deepcopy(learnt.readout.state_dict())
    still = at_test(learnt, images, replace(SMALL, steps=0).how(seeing))
    torch.testing.assert_close(still, learnt.logits(pixels), atol=1e-4, rtol=0)
    moved = at_test(learnt, images, SMALL.how(seeing))
    assert not torch.equal(moved, still)
    assert all(torch.equal(tensor, context[key]) for key, tensor in learnt.readout.state_dict().items())


def test_a_change_of_the_towers_can_learn_at_test_time_too(towers: TwoTowers, scenes: Scenes) -> None:
    pixels, _, classes = scenes
    readout = DiffTPT(None, 0).prompted(towers, classes).readout
    delta = Delta.begin(towers, [Placed(LoRA(2), Where(("q",), towers=("image",)))], gen())

    def jitter(item: Tensor, generator: torch.Generator) -> Tensor:
        return torch.cat([item[None], item + 0.3 * torch.randn(5, *item.shape, generator=generator)])

    tuned = Tuned(towers, delta, readout, classes)
    state = copy.deepcopy(delta.state_dict())
    how = AtTest(jitter, partial(select_views, rho_cos=1.0, rho_ent=0.5), steps=3, lr=0.01)
    found = at_test(tuned, pixels[:2], how)
    assert (found - tuned.logits(pixels[:2])).abs().max() > 1e-2
    assert all(torch.equal(tensor, state[key]) for key, tensor in delta.state_dict().items())


def test_views_are_the_image_crops_and_what_a_generator_makes(seeing: TwoTowers, images: list[Image.Image]) -> None:
    asked: list[Any] = []

    def pipeline(image: Image.Image, **settings: Any) -> Any:
        asked.append((image.size, settings["guidance_scale"], settings["num_images_per_prompt"]))
        return SimpleNamespace(images=[image.rotate(90)] * settings["num_images_per_prompt"])

    views = ImageViews(seeing, crops=4, variations=Diffused(pipeline), varied=2)(images[0], gen())
    assert views.shape == (7, 3, 16, 16) and asked == [((40, 30), 3.0, 2)]
    torch.testing.assert_close(views[0], seeing.pixels(images[:1])[0])
    torch.testing.assert_close(views[5], seeing.pixels([images[0].rotate(90)])[0])
    assert len({tuple(view.flatten()[:50].tolist()) for view in views[:5]}) == 5
    again = ImageViews(seeing, crops=4)(images[0], gen())
    assert torch.equal(again, views[:5])
    assert not torch.equal(ImageViews(seeing, crops=4)(images[0], gen(1))[1:], again[1:])


def test_crops_are_resampled_bilinearly(seeing: TwoTowers, images: list[Image.Image]) -> None:
    """As in the authors' code; torch's own resampling of the same part, which is mirrored or not."""
    for seed in range(5):
        view = ImageViews(seeing, crops=1)(images[0], gen(seed))[1]
        top, left, height, width = crop_boxes(1, 30, 40, gen(seed))[0].tolist()
        part = torch.tensor(np.asarray(images[0])).permute(2, 0, 1)[:, top : top + height, left : left + width]
        gaps = {}
        for kind in ("bilinear", "bicubic"):
            made = functional.interpolate(part[None].float(), (16, 16), mode=kind, antialias=True).clamp(0, 255).round()
            pixels = seeing.normalised(made.permute(0, 2, 3, 1).to(torch.uint8).numpy())[0]
            gaps[kind] = min(float((one - view).abs().max()) for one in (pixels, pixels.flip(-1)))
        assert gaps["bilinear"] < 0.02 < 0.2 < gaps["bicubic"]


def test_augmix_mixes_what_it_distorts_with_the_crop(seeing: TwoTowers, images: list[Image.Image]) -> None:
    plain, mixed = (ImageViews(seeing, crops=40, augmix=a)(images[0], gen())[1:] for a in (False, True))
    share = ((mixed - plain).abs().amax((1, 2, 3)) > 1e-3).float().mean()
    assert share > 0.8
    white = Image.new("RGB", (20, 20), "white")  # a mean of whites and blacks is nothing brighter or darker
    found = ImageViews(seeing, crops=20, augmix=True)(white, gen())
    low, high = seeing.normalised(np.array([[[[0] * 3]], [[[255] * 3]]], np.uint8)).amin(), found.max()
    assert found.min() >= low - 1e-4 and float(high) == pytest.approx(float(found[0].max()), abs=1e-4)


def test_every_distortion_does_something_but_not_too_much() -> None:
    ramp = Image.fromarray(np.arange(24 * 24 * 3, dtype=np.uint16).reshape(24, 24, 3).astype(np.uint8) // 2 + 20)
    for at, change in enumerate(DISTORTIONS):
        one, other = (np.asarray(change(ramp, 0.5, back)) for back in (False, True))
        assert one.shape == (24, 24, 3), at
        assert not np.array_equal(one, np.asarray(ramp)), at
        assert np.array_equal(one, other) is (at in (0, 1, 2, 4)), at  # those have no direction
    assert distorted(ramp, gen()).size == (24, 24)


def test_what_cannot_be_tuned_at_test_time_is_refused(seeing: TwoTowers, images: list[Image.Image]) -> None:
    with pytest.raises(BadInput, match="a single class, 'red park'"):
        SMALL.logits(seeing, images, CLASSES[:1])
    with pytest.raises(BadInput, match="must be a view beside the image"):
        replace(SMALL, varied=0, crops=0).logits(seeing, images, CLASSES)
    with pytest.raises(BadInput, match="7 variations of the image are asked for, but nothing"):
        replace(SMALL, variations=None).logits(seeing, images, CLASSES)
    with pytest.raises(BadInput, match="7 variations of an image were asked for, and 0 were made"):
        replace(SMALL, variations=lambda image, count, generator: []).logits(seeing, images, CLASSES)
    with pytest.raises(BadInput, match=r"from 0 to 1, not 1\.5"):
        replace(SMALL, rho_cos=1.5).logits(seeing, images, CLASSES)
    with pytest.raises(BadInput, match="views are made of images as Pillow opens them, not of str"):
        SMALL.logits(seeing, ["park.jpg"], CLASSES)  # type: ignore[list-item]
    with pytest.raises(BadInput, match="must not be negative"):
        replace(SMALL, steps=-1).how(seeing)
    prompted = SMALL.prompted(seeing, CLASSES)
    alone = AtTest(lambda item, generator: seeing.pixels([item]), partial(select_views, rho_cos=1.0, rho_ent=1.0))
    with pytest.raises(BadInput, match="item 0 has no view beside itself"):
        at_test(prompted, images, alone)
    with pytest.raises(BadInput, match="NaN or infinity"):
        select_views(torch.tensor([[float("nan"), 0.0]] * 3), 1.0, 1.0)
    broken = replace(alone, views=lambda item, generator: torch.full((3, 3, 16, 16), float("nan")))
    context = copy.deepcopy(prompted.readout.state_dict())
    with pytest.raises(HandfulError, match="item 0: its logits hold NaN"):
        at_test(prompted, images, broken)
    assert all(torch.equal(tensor, context[key]) for key, tensor in prompted.readout.state_dict().items())
    nothing = Tuned(seeing, Delta.begin(seeing, [], gen()), nn.Identity(), CLASSES)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="nothing could learn"):
        at_test(nothing, images, alone)
    assert at_test(prompted, [], alone).shape == (0, 3)
