"""Surgical fine-tuning (184): the diagonal of the information, layers chosen by it, and the authors' code."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from handful.errors import BadInput
from handful.tune import AsIs, Data, Linear, LoRA, Placed, Readout, Where, tune
from handful.tune.information import Information
from handful.tune.masked import chosen, fisher
from handful.tune.surgical import Surgical, layer_scores, ranking_stability

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "surgical_fim.json").read_text(encoding="utf-8"))


class Blocks(nn.Module):
    """Residual blocks, and a map to classes."""

    def __init__(self, blocks: int = 3, width: int = 4, ways: int = 3, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        dense = [nn.ModuleDict({"dense": nn.Linear(width, width)}) for _ in range(blocks)]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(dense)})
        self.classifier = nn.Linear(width, ways)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.encoder["layer"]:  # type: ignore[union-attr]
            x = x + torch.tanh(block["dense"](x))
        return self.classifier(x)  # type: ignore[no-any-return]


def items(n: int = 12, width: int = 4, ways: int = 3) -> Data:
    return Data(torch.randn(n, width, generator=torch.Generator().manual_seed(1)), torch.arange(n) % ways)


@pytest.fixture
def net() -> Blocks:
    return Blocks().eval()


class Words(nn.Module):
    """The first state of a sentence of word numbers."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, ids: Tensor) -> Tensor:
        return self.bert(ids).last_hidden_state[:, 0]  # type: ignore[no-any-return]


ALL = Information(examples=None)


@pytest.mark.paper(184, oracle="a")
def test_a_linear_map_has_its_closed_form() -> None:
    torch.manual_seed(0)
    net, data = nn.ModuleDict({"fc1": nn.Linear(4, 3, bias=False)}), items()
    net.forward = lambda x: net["fc1"](x)  # type: ignore[method-assign]
    weight = {"w": net["fc1"].weight}
    x, y = data.inputs, data.targets
    p = net["fc1"](x).detach().softmax(1)
    f = ALL.diagonal(net, AsIs(), data, weight)["w"]
    torch.testing.assert_close(f, torch.einsum("nc,nj->cj", (y - p).square(), x.square()) / len(x))
    raw = Information(target="logit", examples=None)
    by_hand = torch.einsum("nc,nj->cj", y, x.square()) / len(x)
    for _ in range(2):
        torch.testing.assert_close(raw.diagonal(net, AsIs(), data, weight)["w"], by_hand)
        with torch.no_grad():
            net["fc1"].weight.mul_(-3)  # the raw logit's information does not depend on the weights


@pytest.mark.paper(184, oracle="b")
def test_items_count_one_by_one_whatever_the_batch(net: Blocks) -> None:
    data = items()
    parameters = dict(net.named_parameters())
    found = [Information(examples=None, batch=b).diagonal(net, AsIs(), data, parameters) for b in (1, 5, 16)]
    for other in found[1:]:
        for name, f in found[0].items():
            torch.testing.assert_close(other[name], f, atol=1e-6, rtol=1e-5)
    loss = (net(data.inputs).log_softmax(1) * data.targets).sum(1).mean()
    naive = torch.autograd.grad(loss, list(parameters.values()))
    assert naive[0].square().sum() < 0.5 * found[0]["encoder.layer.0.dense.weight"].sum()


@pytest.mark.paper(184, oracle="c")
def test_the_same_items_twice_are_the_same_information(net: Blocks) -> None:
    data = items()
    twice = Data(torch.cat([data.inputs] * 2), torch.cat([data.targets] * 2))  # type: ignore[list-item]
    once = layer_scores(net, AsIs(), data, information=ALL)
    assert layer_scores(net, AsIs(), twice, information=ALL) == pytest.approx(once, rel=1e-5)


@pytest.mark.paper(184, oracle="d")
@pytest.mark.parametrize("score", ["norm-sum", "trace", "mean"])
def test_a_dead_block_does_not_matter(score: Any) -> None:
    class Dead(Blocks):
        def forward(self, x: Tensor) -> Tensor:
            for number, block in enumerate(self.encoder["layer"]):  # type: ignore[arg-type, union-attr]
                x = x + torch.tanh(block["dense"](x)) * (number != 1)
            return self.classifier(x)  # type: ignore[no-any-return]

    scores = layer_scores(Dead().eval(), AsIs(), items(), score=score)
    assert scores["encoder.layer.1"] == 0 and min(scores["encoder.layer.0"], scores["encoder.layer.2"]) > 0


def test_scores_are_what_they_are_called(net: Blocks) -> None:
    data = items()
    f = ALL.diagonal(net, AsIs(), data, dict(net.named_parameters()))
    w, b = f["encoder.layer.1.dense.weight"], f["encoder.layer.1.dense.bias"]
    expected = {"norm-sum": w.norm() + b.norm(), "trace": w.sum() + b.sum(), "mean": (w.sum() + b.sum()) / 20}
    for score, value in expected.items():
        scores = layer_scores(net, AsIs(), data, information=ALL, score=score)  # type: ignore[arg-type]
        assert scores["encoder.layer.1"] == pytest.approx(float(value), rel=1e-5)


def test_drawn_labels_have_the_information_of_the_model_itself() -> None:
    """Over many draws it is E_p[(d log p)^2], here p (1 - p) x^2 for two classes."""
    net = nn.ModuleDict({"fc1": nn.Linear(1, 2, bias=False)})
    net.forward = lambda x: net["fc1"](x)  # type: ignore[method-assign]
    net["fc1"].weight.data = torch.tensor([[0.5], [-0.5]])
    data = Data(torch.ones(4000, 1), torch.zeros(4000, dtype=torch.long), ("a", "b"))
    information = Information(labels="sampled", examples=None, batch=500)
    f = information.diagonal(net, AsIs(), data, {"w": net["fc1"].weight})["w"]
    p = torch.tensor(1.0).sigmoid()
    torch.testing.assert_close(f, torch.full((2, 1), float(p * (1 - p))), atol=0.02, rtol=0)


@pytest.mark.paper(184, oracle="e")
@pytest.mark.parametrize("change", [None, LoRA(2)])
def test_only_the_chosen_layers_change(bert: nn.Module, change: Any) -> None:
    model = Words(bert).eval()
    ids = torch.randint(1, 60, (12, 5), generator=torch.Generator().manual_seed(2))
    data = Data(ids, torch.arange(12) % 2)
    was = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    surgical = Surgical(k=1, lr=1e-2, epochs=3, **({"change": change} if change else {}))
    scores = surgical.scores(model, data)
    assert set(scores) == {"bert.encoder.layer.0", "bert.encoder.layer.1"}
    tuned = surgical.fit(model, data)
    best = max(scores, key=lambda layer: scores[layer])
    assert all(h.site.startswith(f"{best}.") for h in tuned.delta.holders)
    if change is None:
        block = model.get_submodule(best)
        assert tuned.delta.trainable() == sum(p.numel() for p in block.parameters())
    kept = tuned.merge()
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, was[name])}
    assert moved and all(name.startswith(f"{best}.") for name in moved)
    kept.undo()
    assert all(torch.equal(tensor, was[name]) for name, tensor in model.state_dict().items())


def test_every_parameter_of_a_chosen_layer_learns() -> None:
    """Not those called weight and bias alone: the maps of fused attention, the scales of DINOv2's blocks."""

    class Scaled(nn.Module):
        def __init__(self, block: nn.Module) -> None:
            super().__init__()
            self.block, self.lambda1 = block, nn.Parameter(torch.ones(8))

        def forward(self, x: Tensor) -> Tensor:
            return self.lambda1 * self.block(x)  # type: ignore[no-any-return]

    class Fused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            block = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
            self.layers = nn.ModuleList([Scaled(copy.deepcopy(block)) for _ in range(2)])

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = layer(x)
            return x[:, 0]

    net = Fused().eval()
    tuned = Surgical(k=1, lr=1e-2, epochs=2, batch=4).fit(net, Data(torch.randn(8, 3, 8), torch.arange(8) % 2))
    layer = net.layers[int(tuned.delta.holders[0].site.split(".")[1])]  # type: ignore[index, union-attr, operator]
    assert tuned.delta.trainable() == sum(p.numel() for p in layer.parameters())
    was = {name: p.clone() for name, p in layer.named_parameters()}
    tuned.merge()
    assert [name for name, p in layer.named_parameters() if torch.equal(p, was[name])] == []


@pytest.mark.paper(184, oracle="g")
def test_it_is_the_authors_code_on_one_example() -> None:
    given, expected = GOLDEN["inputs"], GOLDEN["expected"]
    net = Blocks().eval()
    names = [name for name in given if name not in ("x", "label")]
    net.load_state_dict({name.removeprefix("bert."): torch.tensor(given[name]) for name in names})
    data = Data(torch.tensor(given["x"]), torch.tensor([given["label"]]))
    raw = Information(target="logit")
    f = raw.diagonal(net, AsIs(), data, dict(net.encoder.named_parameters(prefix="bert.encoder")))
    assert f.keys() == expected["fim"].keys()
    for name, tensor in f.items():
        torch.testing.assert_close(tensor, torch.tensor(expected["fim"][name]), atol=1e-6, rtol=1e-5)
    scores = layer_scores(net, AsIs(), data, information=raw)
    assert list(scores.values()) == pytest.approx(expected["layers"], rel=1e-5)


def test_rankings_are_compared_along_a_run(net: Blocks) -> None:
    surgical = Surgical(k=3, lr=1e-3, information=ALL)
    net.classifier = nn.Identity()  # type: ignore[assignment]
    recipe = surgical.recipe(net, surgical.scores(net, items()))
    stable = ranking_stability(net, items(), recipe, (1, 5), surgical)
    assert set(stable) == {1, 5} and all(-1 <= r <= 1 for r in stable.values())


@pytest.mark.paper(27, oracle="h")
def test_a_fish_mask_is_where_the_information_is(net: Blocks) -> None:
    scores = fisher(net, Where(names="dense"), AsIs(), items())
    keep = 0.2
    changes, _ = chosen(scores, keep)
    every = torch.cat([score.flatten() for score in scores.values()])
    assert every.shape == (48,)
    assert sum(one.change.entries for one in changes) == int(48 * keep)  # type: ignore[attr-defined]


def test_what_does_not_fit_is_refused(net: Blocks) -> None:
    data = items()
    with pytest.raises(BadInput, match="k is 4; the model has 3 layers"):
        Surgical(k=4).recipe(net, layer_scores(net, AsIs(), data))
    with pytest.raises(BadInput, match="k is 0"):
        Surgical(k=0).recipe(net, layer_scores(net, AsIs(), data))
    with pytest.raises(BadInput, match="no transformer blocks"):
        layer_scores(nn.Sequential(nn.Linear(4, 3)), AsIs(), data)
    with pytest.raises(BadInput, match="no layer 'encodr'"):
        layer_scores(net, AsIs(), data, layers=["encodr"])
    with pytest.raises(BadInput, match=r"encoder\.layer\.1\.dense\.bias is in encoder and in encoder\.layer\.1"):
        layer_scores(net, AsIs(), data, layers=["encoder", "encoder.layer.1"])
    with pytest.raises(BadInput, match=r"2 classes, but logits of shape \(4, 3\)"):
        layer_scores(net, AsIs(), items(ways=2))
    with pytest.raises(BadInput, match="at least 1"):
        Information(examples=0)

    class Bare(Readout):
        def forward(self, features: Tensor, model: nn.Module) -> Tensor:
            return features

    assert layer_scores(net, Bare(), data, layers=["classifier"])["classifier"] > 0
    assert tune(net, data, Surgical(k=1).recipe(net, layer_scores(net, AsIs(), data))).readout.__class__ is Linear
    assert Placed(LoRA(1)).needed
