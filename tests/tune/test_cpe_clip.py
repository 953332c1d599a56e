"""CPE-CLIP: prompts in both towers, where they stand, how much they move, and the authors' logits."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.encode.two_towers import Tokens, TwoTowers
from handful.errors import BadInput
from handful.tune import Data, Linear, Recipe, Stage, tune
from handful.tune.class_texts import names_only
from handful.tune.cpe_clip import CPECLIP, Balanced, DeepPrompts, warm_restarts

Scenes = tuple[Tensor, Tensor, tuple[str, ...]]
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "cpe_clip.json").read_text(encoding="utf-8"))
CLASSES = ("red park", "old_bridge", "forest", "dark blue harbour")


def begun(towers: TwoTowers, **params: Any) -> DeepPrompts:
    prompts = DeepPrompts(**{"prompts": 2, "depth": 2, **params}).eval()
    prompts.begin(towers, names_only(CLASSES), torch.Generator().manual_seed(0))
    return prompts


def answers(prompts: DeepPrompts, towers: TwoTowers, pixels: Tensor) -> Tensor:
    with torch.no_grad():
        return prompts(prompts.look(towers, pixels), towers)


def learner(towers: TwoTowers, **params: Any) -> CPECLIP:
    how: dict[str, Any] = {"depth": 2, "epochs": 6, "batch": 4, "rate": lambda passes: 0.002}
    return CPECLIP(towers, **{**how, **params})


@pytest.mark.paper(117, oracle="a")
def test_without_prompts_it_is_clip(towers: TwoTowers, scenes: Scenes) -> None:
    tokens = towers.tokens([name.replace("_", " ") + "." for name in CLASSES])
    with torch.no_grad():
        plain = 100 * towers.image(scenes[0]) @ towers.text(tokens).mT
    torch.testing.assert_close(answers(begun(towers, prompts=0), towers, scenes[0]), plain, atol=1e-5, rtol=0)
    with_prompts = answers(begun(towers), towers, scenes[0])
    assert (with_prompts - plain).abs().max() > 1
    with torch.no_grad():  # nothing is left behind
        assert torch.equal(100 * towers.image(scenes[0]) @ towers.text(tokens).mT, plain)


@pytest.mark.paper(117, oracle="b")
@pytest.mark.parametrize("many", [1, 3])
def test_a_text_is_read_at_its_end_so_many_places_later(towers: TwoTowers, many: int) -> None:
    prompts = begun(towers, prompts=many)
    kept: list[Tensor] = []
    handle = towers.model.text_model.final_layer_norm.register_forward_hook(lambda m, a, out: kept.append(out))
    with torch.no_grad():
        prompts.g.zero_()
        got = prompts.texts(towers)
    handle.remove()
    ends = (prompts.tokens.ids == 3).int().argmax(1)
    assert kept[0].shape[1] == prompts.tokens.ids.shape[1] + many
    at_the_end = kept[0][torch.arange(len(ends)), ends + many]
    with torch.no_grad():
        want = functional.normalize(towers.project_text(at_the_end), dim=-1)
    torch.testing.assert_close(got, want)


@pytest.mark.paper(117, oracle="c")
def test_the_step_is_lambda_times_as_long(towers: TwoTowers, scenes: Scenes) -> None:
    pixels, labels, classes = scenes
    how = Stage(steps=1, lr=0.01, batch=12, rate="constant", update=lambda _: _Descent())

    def moved(share: float) -> list[Tensor]:
        prompts = DeepPrompts(depth=2)
        prompts.begin(towers, Data(pixels, labels, classes), torch.Generator().manual_seed(0))
        was = [p.detach().clone() for p in prompts.parameters()]
        tune(
            towers, Data(pixels, labels, classes), Recipe(stages=(how,), readout=lambda: prompts, step=Balanced(share))
        )
        return [p.detach() - before for p, before in zip(prompts.parameters(), was, strict=True)]

    for whole, part in zip(moved(1.0), moved(0.25), strict=True):
        assert whole.abs().max() > 1e-6
        torch.testing.assert_close(part, 0.25 * whole, atol=1e-7, rtol=1e-3)


class _Descent:
    """Plain steps."""

    def __call__(self, parameters: list[Tensor], gradients: tuple[Tensor, ...], rate: float) -> None:
        for p, g in zip(parameters, gradients, strict=True):
            p.sub_(rate * g)

    def memory(self) -> list[Tensor]:
        return []

    def recall(self, memory: list[Tensor]) -> None:
        pass


@pytest.mark.paper(117, oracle="d")
def test_only_the_prompts_and_their_map_learn(towers: TwoTowers, scenes: Scenes) -> None:
    was = copy.deepcopy(towers.state_dict())
    model = learner(towers).fit_base(Data(*scenes))
    assert all(torch.equal(t, was[name]) for name, t in towers.state_dict().items())
    prompts = model.learnt.readout
    assert sum(p.numel() for p in prompts.parameters()) == 2 * 2 * 16 + 16 * 16 + 16
    assert model.learnt.delta.trainable() == 0
    with torch.no_grad():
        fresh = begun(towers)
    assert all((a.detach() - b.detach()).abs().max() > 1e-4
               for a, b in zip(prompts.parameters(), fresh.parameters(), strict=True))  # fmt: skip


@pytest.mark.paper(117, oracle="e")
@pytest.mark.parametrize(("images", "each"), [("accumulate", (7, 9)), ("replace", (7, 7))])
def test_how_many_tokens_the_blocks_see(towers: TwoTowers, scenes: Scenes, images: Any, each: tuple[int, int]) -> None:
    counts: list[int] = []
    layers = towers.model.vision_model.encoder.layers
    handles = [
        layer.layer_norm1.register_forward_hook(lambda m, a, out: counts.append(out.shape[1])) for layer in layers
    ]
    answers(begun(towers, images=images), towers, scenes[0])
    for handle in handles:
        handle.remove()
    patches = (16 // 8) ** 2
    assert tuple(counts) == each
    if images == "accumulate":
        assert counts == [1 + patches + 2 * (i + 1) for i in range(2)]


def draw(named: Iterable[tuple[str, Tensor]]) -> None:
    """Numbers that depend on the name's length only."""
    with torch.no_grad():
        for name, p in named:
            g = torch.Generator().manual_seed(117 + len(name))
            norm = "norm" in name and name.endswith("weight")
            p.copy_((torch.rand(p.shape, generator=g) - 0.5) * (0.1 if p.dim() > 1 else 0.5) + float(norm))


def test_the_authors_logits() -> None:
    from transformers import CLIPConfig, CLIPModel

    text = {"vocab_size": 30, "hidden_size": 512, "num_hidden_layers": 3, "num_attention_heads": 8,
            "intermediate_size": 32, "max_position_embeddings": 16, "bos_token_id": 2, "eos_token_id": 29,
            "pad_token_id": 0}  # fmt: skip
    vision = {"hidden_size": 768, "num_hidden_layers": 3, "num_attention_heads": 12, "intermediate_size": 32,
              "image_size": 16, "patch_size": 8}  # fmt: skip
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).eval()
    draw(clip.named_parameters())
    towers, ids = TwoTowers(clip), torch.tensor(GOLDEN["inputs"]["ids"])
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    for case, want in zip(GOLDEN["inputs"]["cases"], GOLDEN["expected"], strict=True):
        prompts = DeepPrompts(**case).eval()
        prompts._tokens = lambda towers, classes: Tokens(ids, (ids > 0).long())  # type: ignore[method-assign]
        prompts.begin(towers, names_only(["a", "b", "c"]), torch.Generator())
        draw([("g", prompts.g), ("weight", prompts.weight), ("bias", prompts.bias)])
        torch.testing.assert_close(answers(prompts, towers, pixels), torch.tensor(want), atol=2e-3, rtol=0)


def test_it_learns_and_adds_classes(towers: TwoTowers, scenes: Scenes) -> None:
    pixels, labels, classes = scenes
    old, new = labels < 2, labels == 2
    how: dict[str, Any] = {"epochs": 40, "rate": lambda passes: 0.05}
    model = learner(towers, **how).fit_base(Data(pixels[old], labels[old], classes[:2]))
    before = model.logits(pixels)
    assert (before[old].argmax(1) == labels[old]).all()
    model.grow_epochs = 40
    model.partial_fit(Data(pixels[new], labels[new] - 2, classes[2:]))
    assert model.classes == classes and model.logits(pixels).shape == (12, 3)
    assert model.predict(pixels[:1])[0] in classes
    again = learner(towers, **how).fit_base(Data(pixels[old], labels[old], classes[:2]))
    assert torch.equal(again.logits(pixels), before)


def test_classes_seen_before_are_left_out_of_the_loss_only(towers: TwoTowers, scenes: Scenes) -> None:
    prompts = begun(towers)
    prompts.seen = 3
    features = prompts.look(towers, scenes[0])
    assert (prompts(features, towers)[:, :3] > -200).all()
    prompts.train()
    logits = prompts(features, towers)
    assert (logits[:, :3] == -9999).all() and (logits[:, 3:] > -200).all()
    # One new class leaves nothing to tell apart: the loss is zero, and nothing moves.
    model = learner(towers, weight_decay=0.0).fit_base(Data(scenes[0], scenes[1], scenes[2]))
    was = [p.detach().clone() for p in model.learnt.readout.parameters()]
    model.partial_fit(Data(scenes[0][:2], torch.zeros(2, dtype=torch.long), ("old bridge",)))
    assert all(torch.equal(a, b) for a, b in zip(model.learnt.readout.parameters(), was, strict=True))


def test_the_rate_is_that_of_the_authors_schedule() -> None:
    """Five passes of its warm-up, its top, and where it begins anew."""
    assert [round(warm_restarts(p), 5) for p in (0, 0.9, 1, 4)] == [0.001, 0.001, 0.00298, 0.00892]
    assert warm_restarts(50) == pytest.approx(0.1) and warm_restarts(200) == 0.001
    assert warm_restarts(125) == pytest.approx(0.0505)
    rates: list[float] = []

    class Watched(_Descent):
        def __call__(self, parameters: list[Tensor], gradients: tuple[Tensor, ...], rate: float) -> None:
            rates.append(rate)

    net = nn.Linear(2, 2)
    stage = Stage(epochs=3, batch=2, rate=warm_restarts, update=lambda _: Watched())
    tune(net, Data(torch.randn(4, 2), torch.tensor([0, 1, 0, 1])), Recipe(stages=(stage,), readout=Linear))
    assert [round(rate, 5) for rate in rates] == [0.001, 0.001, 0.00298, 0.00298, 0.00496, 0.00496]
    with pytest.raises(BadInput, match="needs epochs"):
        Stage(steps=3, rate=warm_restarts)


def test_bad_input(towers: TwoTowers, siglip: TwoTowers, scenes: Scenes) -> None:
    data = Data(*scenes)
    for wrong, complaint in (
        ({"n_prompts": -1}, "prompts are at least 0"),
        ({"depth": 0}, "blocks at least 1"),
        ({"depth": 9}, "a tower has 2: lower depth"),
        ({"vision_mode": "pile"}, "images is 'accumulate'"),
        ({"n_prompts": 14}, "shorten the name"),
        ({"template": "no place"}, "where the name of a class goes"),
    ):
        with pytest.raises(BadInput, match=complaint):
            learner(towers, **wrong).fit_base(data)
    with pytest.raises(BadInput, match="give a CLIP"):
        learner(siglip).fit_base(data)
    with pytest.raises(BadInput, match="is there twice"):
        learner(towers).fit_base(Data(scenes[0], scenes[1], ("red park", "red_park", "forest")))
    with pytest.raises(BadInput, match="name of a class is empty"):
        learner(towers).fit_base(Data(scenes[0], scenes[1], ("red park", " ", "forest")))
    with pytest.raises(BadInput, match="call fit_base first"):
        learner(towers).partial_fit(data)
    with pytest.raises(BadInput, match="call fit_base first"):
        learner(towers).predict(scenes[0])
    fitted = learner(towers, epochs=1).fit_base(data)
    with pytest.raises(BadInput, match="'blue harbour' is known already"):
        fitted.partial_fit(data)
    with pytest.raises(BadInput, match="no item to learn from"):
        fitted.partial_fit(Data(scenes[0], scenes[1], ("a", "b", "c", "d")))
    assert fitted.classes == data.classes
