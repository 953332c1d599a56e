"""CLIP-LoRA (006) against PEFT, PyTorch's attention and the authors' layer, and as a whole on two small towers."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.encode.two_towers import TwoTowers
from handful.errors import BadInput
from handful.tune import Data, Delta, LoRA, Own, Placed, Tuned, Where, save_delta, sites, split_attention, tune
from handful.tune.class_texts import ClassTexts, names_only
from handful.tune.clip_lora import CLIPLoRA
from handful.tune.recipe import Readout
from handful.tune.recipes import recipe

Scenes = tuple[Tensor, Tensor, tuple[str, ...]]
QUICK = CLIPLoRA(steps_per_shot=30, lr=2e-2)


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def begun(towers: nn.Module, recipe: CLIPLoRA, classes: tuple[str, ...]) -> tuple[Delta, Readout]:
    readout = recipe.readout()
    readout.begin(towers, names_only(classes), gen())
    return Delta.begin(towers, recipe.placed, gen(1)), readout


def shaken(delta: Delta) -> Delta:
    with torch.no_grad():
        for holder in delta.holders:
            holder.B += 0.3 * torch.randn(holder.B.shape, generator=gen(2))
    return delta


@torch.no_grad()
def zero_shot(towers: TwoTowers, pixels: Tensor, classes: tuple[str, ...]) -> Tensor:
    tokens = towers.tokens([f"a photo of a {name.replace('_', ' ')}." for name in classes])
    return 100 * towers.image(pixels) @ towers.text(tokens).mT


@pytest.mark.paper(6, oracle="a")
def test_it_begins_as_zero_shot(towers: TwoTowers, scenes: Scenes) -> None:
    pixels, _, classes = scenes
    expected = zero_shot(towers, pixels, classes)
    delta, readout = begun(towers, CLIPLoRA(), classes)
    found = Tuned(towers, delta, readout, classes).logits(pixels)
    torch.testing.assert_close(found / 100, expected / 100, atol=1e-6, rtol=0)
    torch.testing.assert_close(expected[:, 0], zero_shot(towers, pixels, classes[:1])[:, 0])
    assert (expected[0, 0] - expected[0, 1]).abs() > 1  # the names are told apart


@pytest.mark.paper(6, oracle="b")
def test_merged_it_gives_the_same_and_comes_apart_again(towers: TwoTowers, scenes: Scenes) -> None:
    pixels, _, classes = scenes
    delta, readout = begun(towers, CLIPLoRA(), classes)
    tuned = Tuned(towers, shaken(delta), readout, classes)
    before, weights = tuned.logits(pixels), copy.deepcopy(towers.state_dict())
    assert (before - zero_shot(towers, pixels, classes)).abs().max() > 1
    kept = tuned.merge()
    torch.testing.assert_close(zero_shot(towers, pixels, classes), before, atol=1e-4, rtol=0)  # of logits up to 100
    kept.undo()
    assert all(torch.equal(weights[name], tensor) for name, tensor in towers.state_dict().items())


@pytest.mark.paper(6, oracle="c")
def test_its_changes_are_pefts(towers: TwoTowers, scenes: Scenes) -> None:
    from peft import LoraConfig, get_peft_model

    pixels, _, classes = scenes
    config = LoraConfig(r=2, lora_alpha=1, use_rslora=True, target_modules=["q_proj", "k_proj", "v_proj"])
    theirs = get_peft_model(copy.deepcopy(towers.model), config).eval()
    delta, readout = begun(towers, CLIPLoRA(), classes)
    mine = {holder.site.removeprefix("model."): holder for holder in shaken(delta).holders}
    for name, module in theirs.named_modules():
        if hasattr(module, "lora_A"):
            holder = mine.pop(name.removeprefix("base_model.model."))
            module.lora_A["default"].weight.data = holder.A.data
            module.lora_B["default"].weight.data = holder.B.data
    assert not mine
    expected = zero_shot(TwoTowers(theirs.base_model.model, towers._tokenizer), pixels, classes)
    found = Tuned(towers, delta, readout, classes).logits(pixels)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.paper(6, oracle="d")
def test_attention_with_three_maps_is_pytorchs_with_one(towers: TwoTowers) -> None:
    layer = towers.model.text_model.encoder.layers[0].self_attn
    fused = nn.MultiheadAttention(16, 2, batch_first=True).eval()
    with torch.no_grad():
        parts = (layer.q_proj, layer.k_proj, layer.v_proj)
        fused.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        fused.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        fused.out_proj.load_state_dict(layer.out_proj.state_dict())
        x = torch.randn(3, 6, 16, generator=gen())
        causal = torch.triu(torch.full((6, 6), float("-inf")), 1)
        whole = fused(x, x, x, attn_mask=causal, need_weights=False)[0]
        torch.testing.assert_close(layer(x, attention_mask=causal[None, None])[0], whole, atol=1e-5, rtol=0)
        apart = split_attention(nn.ModuleDict({"attn": fused}))["attn"]  # type: ignore[index]
        torch.testing.assert_close(apart(x, x, x, attn_mask=causal)[0], whole, atol=1e-5, rtol=0)


@pytest.mark.paper(6, oracle="d")
def test_a_changed_attention_is_the_authors() -> None:
    content: Any = json.loads((Path(__file__).parents[1] / "golden" / "clip_lora.json").read_text(encoding="utf-8"))
    given = content["inputs"]
    fused = nn.MultiheadAttention(8, given["heads"]).eval()
    state = ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
    fused.load_state_dict({name: torch.tensor(given[name]) for name in state})
    model = split_attention(nn.ModuleDict({"attn": fused}))
    delta = Delta.begin(model, [Placed(LoRA(2, 1, 0.25, rs=True), Where(("q", "k", "v")))], gen())
    for holder in delta.holders:
        lora = given["lora"][holder.site[len("attn.")]]
        holder.load_state_dict({name: torch.tensor(lora[name]) for name in "AB"})
    x, causal = torch.tensor(given["x"]), torch.triu(torch.full((5, 5), float("-inf")), 1)
    with delta.attached(model), torch.no_grad():
        found = model["attn"](x, x, x, attn_mask=causal)[0]  # type: ignore[index]
    torch.testing.assert_close(found, torch.tensor(content["expected"]["y"]), atol=1e-4, rtol=1e-5)


@pytest.mark.paper(6, oracle="e")
def test_of_vit_b_16_as_many_numbers_learn_as_published() -> None:
    from transformers import CLIPConfig, CLIPModel

    with torch.device("meta"):
        towers = TwoTowers(CLIPModel(CLIPConfig(vision_config={"patch_size": 16})))
    count = 0
    for placed in CLIPLoRA().placed:
        for site in placed.where.find(towers):
            begun = placed.change.begin(towers.get_submodule(site.name).weight, gen())
            count += sum(tensor.numel() for tensor in begun.trained.values())
    assert count == 12 * 3 * 2 * 2 * (768 + 512) == 184_320


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ("bottom", range(4)), ("mid", range(4, 8)), ("up", range(8, 12)), ("half-bottom", range(6)),
        ("half-up", range(6, 12)), ("all", range(12)), ("top1", [11]), ("top2", [10, 11]), ("top3", [9, 10, 11]),
    ],
)  # fmt: skip
def test_every_place_the_authors_name(blocks: str, expected: range) -> None:
    from transformers import CLIPConfig, CLIPModel

    deep = {"num_hidden_layers": 12, "hidden_size": 4, "num_attention_heads": 1, "intermediate_size": 4}
    with torch.device("meta"):
        towers = TwoTowers(CLIPModel(CLIPConfig(text_config=deep, vision_config=deep)))
    found = [placed.where.find(towers) for placed in CLIPLoRA(blocks=blocks, matrices=("q", "o")).placed]
    for tower, some in zip(("text", "image"), found, strict=True):
        assert {site.tower for site in some} == {tower}
        assert [site.block for site in some] == sorted([*expected, *expected])
        assert {site.role for site in some} == {"q", "o"}


def test_training_is_the_authors(towers: TwoTowers, scenes: Scenes) -> None:
    made = recipe("clip-lora")
    (stage,), data = made.stages, Data(*scenes)
    assert made.sampler is not None and stage.epochs is not None and stage.batch == 32
    assert made.sampler.steps(data, stage.epochs, stage.batch) == 2000  # of four shots
    optimiser = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=2e-4, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 2000, eta_min=1e-6)
    from handful.tune.pace import rate_at

    for step in range(2000):
        if step % 100 == 0:
            assert rate_at(stage, 2000, step) == pytest.approx(schedule.get_last_lr()[0], rel=1e-9)
        optimiser.step()
        schedule.step()


def test_it_learns_what_zero_shot_does_not_know(towers: TwoTowers, scenes: Scenes) -> None:
    pixels, labels, classes = scenes
    before = functional.cross_entropy(zero_shot(towers, pixels, classes), labels)
    weights = copy.deepcopy(towers.state_dict())
    tuned = tune(towers, Data(pixels, labels, classes), QUICK.recipe())
    logits = tuned.logits(pixels)
    assert functional.cross_entropy(logits, labels) < 0.2 * before
    assert (logits.argmax(1) == labels).float().mean() > 0.8
    assert all(torch.equal(weights[name], tensor) for name, tensor in towers.state_dict().items())
    moved = {holder.site.split(".")[1] for holder in tuned.delta.holders if holder.B.abs().max() > 0}
    assert moved == {"text_model", "vision_model"}
    tuned.merge().undo()


@pytest.mark.parametrize("tower", ["text", "image"])
def test_one_tower_alone(towers: TwoTowers, scenes: Scenes, tower: Any) -> None:
    pixels, labels, classes = scenes
    recipe = replace(QUICK, towers=(tower,), steps_per_shot=3)
    tuned = tune(towers, Data(pixels, labels, classes), recipe.recipe())
    assert {site.tower for site in sites(towers) if site.name in {h.site for h in tuned.delta.holders}} == {tower}
    with torch.no_grad(), tuned.delta.attached(towers):
        texts = tuned.readout.vectors(towers)  # type: ignore[operator]
        images = towers.image(pixels)
    same_texts = torch.equal(texts, _vectors(towers, classes))
    assert same_texts is (tower == "image")
    with torch.no_grad():
        assert torch.equal(images, towers.image(pixels)) is (tower == "text")


@torch.no_grad()
def _vectors(towers: TwoTowers, classes: tuple[str, ...]) -> Tensor:
    readout = ClassTexts()
    readout.begin(towers, names_only(classes), gen())
    return readout.vectors(towers)


def test_templates_are_made_unit_averaged_and_made_unit_again(towers: TwoTowers, scenes: Scenes) -> None:
    classes = scenes[2]
    readout = ClassTexts(("a photo of a {}.", "the {} ."), scale=None)
    readout.begin(towers, names_only(classes), gen())
    with torch.no_grad():
        each = [towers.text(towers.tokens([f"a photo of a {c}.", f"the {c} ."])) for c in
                (name.replace("_", " ") for name in classes)]  # fmt: skip
        expected = functional.normalize(torch.stack([two.mean(0) for two in each]), dim=1)
        torch.testing.assert_close(readout.vectors(towers), expected, atol=1e-6, rtol=0)
        scaled = readout(3 * expected, towers)
    torch.testing.assert_close(scaled.diagonal(), torch.full((3,), towers.logit_scale), atol=1e-4, rtol=0)


def test_what_was_saved_answers_as_before(towers: TwoTowers, scenes: Scenes, tmp_path: Path) -> None:
    pixels, labels, classes = scenes
    quick = replace(QUICK, steps_per_shot=2)
    tuned = tune(towers, Data(pixels, labels, classes), quick.recipe())
    save_delta(tuned.delta, tmp_path / "lora.safetensors")
    again = quick.load(tmp_path / "lora.safetensors", towers, classes)
    assert torch.equal(again.logits(pixels), tuned.logits(pixels))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"rank": 4}, "has rank 2, these settings 4"),
        ({"alpha": 2.0}, "has alpha 1.0, these settings 2.0"),
        ({"rs": False}, "has rs True, these settings False"),
        ({"towers": ("image",)}, "changes the towers image, text, these settings image"),
        ({"matrices": ("q", "v")}, "changes the roles k, q, v, these settings q, v"),
        ({"blocks": "top1"}, "changes the blocks 0, 1, these settings 1"),
    ],
)
def test_a_file_of_other_settings_is_refused(
    towers: TwoTowers, tmp_path: Path, other: dict[str, Any], message: str
) -> None:
    path = tmp_path / "lora.safetensors"
    save_delta(Delta.begin(towers, CLIPLoRA().placed, gen()), path)
    with pytest.raises(BadInput, match=message):
        replace(CLIPLoRA(), **other).load(path, towers, ("red",))


def test_files_of_something_else_are_refused(towers: TwoTowers, tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save_delta(Delta.begin(towers, [Placed(Own(), Where(("q",)))], gen()), path)
    with pytest.raises(BadInput, match="by 'own', not a weight by 'lora'"):
        CLIPLoRA().load(path, towers, ("red",))
    save_delta(Delta.begin(towers, [replace(p, where=replace(p.where, blocks=b)) for p, b in
                                    zip(CLIPLoRA().placed, ((0,), (1,)), strict=True)], gen()), path)  # fmt: skip
    with pytest.raises(BadInput, match="changes 6 matrices, these settings 12"):
        CLIPLoRA().load(path, towers, ("red",))


def test_bad_input_is_one_clear_line(towers: TwoTowers, bert: nn.Module, scenes: Scenes) -> None:
    pixels, labels, classes = scenes
    for settings, message in (
        ({"rank": 0}, "rank is 0; it must be at least 1"),
        ({"rank": 17}, r"rank 17 does not fit a weight of shape \(16, 16\)"),
        ({"matrices": ("query",)}, "there is no matrix 'query'"),
        ({"matrices": ()}, "no matrix is named"),
        ({"towers": ("vision",)}, "there is no tower 'vision'; there are: image, text"),
        ({"blocks": "botom"}, "did you mean 'bottom'"),
        ({"steps_per_shot": 0}, "must be at least 1"),
        ({"template": "a photo"}, "needs {} once"),
        ({"dropout": 1.0}, "a share below 1"),
    ):
        with pytest.raises(BadInput, match=message):
            tune(towers, Data(pixels, labels, classes), CLIPLoRA(**settings).recipe())  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="2 class names, but targets of 3"):
        Data(pixels, functional.one_hot(labels).float(), classes[:2])
    with pytest.raises(BadInput, match="numbers of classes from 0 to 1"):
        Data(pixels, labels, classes[:2])
    with pytest.raises(BadInput, match="class 'bridge' has no item"):
        tune(towers, Data(pixels, labels, (*classes, "bridge")), QUICK.recipe())
    with pytest.raises(BadInput, match="a BertModel has none"):
        tune(bert, Data(pixels, labels, classes), QUICK.recipe())
    with pytest.raises(BadInput, match="there are no classes"):
        names_only(())
    with pytest.raises(BadInput, match="not the one name 'red'"):
        names_only("red")


def test_a_tower_without_attention_is_refused_and_the_other_works(towers: TwoTowers, scenes: Scenes) -> None:
    class Convolutions(nn.Module):
        """The image tower of a CLIP that is no transformer."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 16, 8, 8)

        def forward(self, pixel_values: Tensor) -> Any:
            class Seen:
                pooler_output = self.conv(pixel_values).mean((2, 3))

            return Seen

    pixels, labels, classes = scenes
    model = copy.deepcopy(towers.model)
    model.vision_model = Convolutions()
    odd = TwoTowers(model, towers._tokenizer)
    data = Data(pixels, labels, classes)
    with pytest.raises(BadInput, match="no weight of the model fits roles q, k, v"):
        tune(odd, data, QUICK.recipe())
    tuned = tune(odd, data, replace(QUICK, towers=("text",)).recipe())
    assert tuned.losses[-1] < tuned.losses[0]
