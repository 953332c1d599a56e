"""LoRMA (193): identities, what a product keeps, and the authors' code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from handful.errors import BadInput
from handful.tune import Delta, LoRA, LoRMA, Placed, Where
from handful.tune.lorma import Inflation, LoRMARecipe, Side, roll
from handful.tune.recipes import recipe

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "lorma.json").read_text(encoding="utf-8"))
SIDES: tuple[Side, ...] = ("pre", "post")
INFLATIONS: tuple[Inflation, ...] = ("plus", "shift", "none")


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.paper(193, oracle="a")
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("inflation", ["plus", "shift"])
@pytest.mark.parametrize("alpha", [None, 4.0, 16.0])
def test_it_begins_as_the_identity(side: Side, inflation: Inflation, alpha: float | None) -> None:
    w = drawn(9, 12)
    change = LoRMA(4, alpha, side, inflation)
    t = change.begin(w, torch.Generator().manual_seed(1)).trained
    d = 9 if side == "pre" else 12
    torch.testing.assert_close(change.transform(t), torch.eye(d), atol=1e-6, rtol=0)
    torch.testing.assert_close(change.weight(w, t), w, atol=1e-6, rtol=0)


def test_without_inflation_it_begins_as_a_projector_of_its_rank() -> None:
    change = LoRMA(3, 6.0, inflation="none")
    t = change.begin(drawn(9, 12), torch.Generator().manual_seed(1)).trained
    whole = change.transform(t)
    torch.testing.assert_close(whole @ whole, whole, atol=1e-5, rtol=0)
    assert torch.linalg.matrix_rank(whole) == 3


@pytest.mark.paper(193, oracle="b")
def test_roll_turns_each_row_by_its_number() -> None:
    m = drawn(7, 7)
    turned = roll(m)
    assert torch.equal(turned, torch.stack([row.roll(i) for i, row in enumerate(m)]))
    assert torch.equal(turned.sort(1).values, m.sort(1).values)
    assert torch.equal(torch.stack([row.roll(-i) for i, row in enumerate(turned)]), m)
    product = drawn(12, 2) @ drawn(2, 12, seed=1)
    assert torch.linalg.matrix_rank(product) == 2 and torch.linalg.matrix_rank(roll(product)) == 12


@pytest.mark.paper(193, oracle="c")
def test_plus_is_lora_with_the_weight_in_one_factor() -> None:
    w, b9, a9, b5, a5 = drawn(9, 5), drawn(9, 2, seed=1), drawn(2, 9, seed=2), drawn(5, 2, seed=3), drawn(2, 5, seed=4)
    lora = LoRA(2, 3.0)
    pre = LoRMA(2, 3.0, "pre").weight(w, {"B": b9, "A": a9})
    torch.testing.assert_close(pre, lora.weight(w, {"B": b9, "A": a9 @ w}))
    post = LoRMA(2, 3.0, "post").weight(w, {"B": b5, "A": a5})
    torch.testing.assert_close(post, lora.weight(w, {"B": w @ b5, "A": a5}))


@pytest.mark.paper(193, oracle="d")
@pytest.mark.parametrize("inflation", INFLATIONS)
def test_null_spaces_stay(inflation: Inflation) -> None:
    """What the weight does not see it does not see afterwards; what it cannot give it cannot give afterwards."""
    w = drawn(8, 3) @ drawn(3, 6, seed=1)  # of rank 3
    right, left = torch.linalg.svd(w)[2][3:].mT, torch.linalg.svd(w)[0][:, 3:]
    for side, d in (("pre", 8), ("post", 6)):
        t = {"B": drawn(d, 2, seed=2), "A": drawn(2, d, seed=3)}
        changed = LoRMA(2, None, side, inflation).weight(w, t)  # type: ignore[arg-type]
        assert (changed - w).norm() > 1
        kept = changed @ right if side == "pre" else left.mT @ changed
        torch.testing.assert_close(kept, torch.zeros_like(kept), atol=1e-4, rtol=0)


@pytest.mark.paper(193, oracle="g")
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("inflation", INFLATIONS)
@pytest.mark.parametrize("mode", ["branch", "weight"])
def test_it_is_the_authors_code(side: Side, inflation: Inflation, mode: str) -> None:
    given = GOLDEN["inputs"]
    net = nn.ModuleDict({"fc1": nn.Linear(4, 6)})
    net["fc1"].weight.data, net["fc1"].bias.data = torch.tensor(given["weight"]), torch.tensor(given["bias"])
    change = LoRMA(given["rank"], given["alpha"], side, inflation)
    delta = Delta.begin(net, [Placed(change)], torch.Generator())
    h = delta.holders[0]
    h.B.data, h.A.data = torch.tensor(given[f"B_{side}"]), torch.tensor(given[f"A_{side}"])
    expected = torch.tensor(GOLDEN["expected"][f"{inflation}_{side}"])
    with delta.attached(net, mode), torch.no_grad():  # type: ignore[arg-type]
        torch.testing.assert_close(net["fc1"](torch.tensor(given["x"])), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.paper(193, oracle="h")
def test_it_learns_two_factors_of_its_side(bert: nn.Module) -> None:
    for side, d in (("pre", 32), ("post", 16)):
        made = Delta.begin(bert, [Placed(LoRMA(3, side=side), Where(("up",)))], torch.Generator())  # type: ignore[arg-type]
        assert made.trainable() == 2 * (2 * 3 * d)


@pytest.mark.paper(193, oracle="f")
@pytest.mark.parametrize("inflation", INFLATIONS)
def test_merging_and_back_is_exact_to_the_bit(bert: nn.Module, inflation: Inflation) -> None:
    delta = Delta.begin(bert, [Placed(LoRMA(2, inflation=inflation), Where(("q", "v")))], torch.Generator())
    with torch.no_grad():
        for parameter in delta.parameters():
            parameter += 0.1 * drawn(*parameter.shape)
    was = {name: tensor.clone() for name, tensor in bert.state_dict().items()}
    ids = torch.tensor([[1, 2, 3]])
    with delta.attached(bert), torch.no_grad():
        beside = bert(ids).last_hidden_state
    kept = delta.merge(bert)
    with torch.no_grad():
        torch.testing.assert_close(bert(ids).last_hidden_state, beside, atol=1e-5, rtol=0)
    kept.undo()
    assert all(torch.equal(tensor, was[name]) for name, tensor in bert.state_dict().items())


def test_dropout_acts_on_what_goes_into_the_whole_map() -> None:
    net = nn.ModuleDict({"fc1": nn.Linear(5, 6)}).train()
    x = drawn(4, 5)
    for side in SIDES:
        change = LoRMA(2, side=side, dropout=0.5)
        delta = Delta.begin(net, [Placed(change)], torch.Generator())
        with torch.no_grad():
            delta.holders[0].B += 1
        torch.manual_seed(3)
        dropped = functional.dropout(x, 0.5)
        torch.manual_seed(3)
        with delta.attached(net):
            found = net["fc1"](x)
        w = change.weight(net["fc1"].weight, delta.holders[0].tensors)
        torch.testing.assert_close(found, functional.linear(dropped, w, net["fc1"].bias), atol=1e-5, rtol=1e-5)
        with pytest.raises(BadInput, match="no weight form"), delta.attached(net, "weight"):
            pass


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(BadInput, match="all zero"):
        LoRMA(1).begin(torch.zeros(3, 3), torch.Generator())
    for words in (30_522, 28_996):  # of BERT without and with capital letters
        with pytest.raises(BadInput, match="a vocabulary"):
            LoRMA(1).begin(torch.ones(words, 2), torch.Generator())
    with pytest.raises(BadInput, match="must be positive"):
        LoRMA(2, 0.0)
    with pytest.raises(BadInput, match="side is 'pre' or 'post'"):
        LoRMA(2, side="left")  # type: ignore[arg-type]


def test_the_recipe_is_the_authors() -> None:
    made = recipe("lorma", inflation="shift")
    (placed,), (stage,) = made.changes, made.stages
    assert placed.change == LoRMA(8, None, "pre", "shift") and placed.where.roles == ("q", "v")
    assert (stage.lr, stage.warmup, stage.weight_decay, stage.rate) == (4e-4, 0.06, 0.1, "linear")
    assert LoRMARecipe().recipe().changes[0].change == LoRMA()
