"""(IA)^3 and its relatives, adapters, sparse updates: against the equations, their authors' code, and limits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from handful.errors import BadInput
from handful.tune import (
    IA3,
    Adapter,
    Change,
    Data,
    Delta,
    DoRA,
    LoRA,
    Masked,
    Own,
    Placed,
    Recipe,
    Scaling,
    Stage,
    Where,
    ia3,
    tune,
)
from handful.tune.masked import At, Others, chosen, movement

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "t_few.json").read_text(encoding="utf-8"))


def one(change: Change, weight: Tensor, bias: Tensor) -> tuple[nn.Module, Delta]:
    net = nn.ModuleDict({"fc1": nn.Linear(weight.shape[1], weight.shape[0])})
    net["fc1"].weight.data, net["fc1"].bias.data = weight.clone(), bias.clone()
    return net.requires_grad_(False), Delta.begin(net, [Placed(change)], torch.Generator().manual_seed(0))


@pytest.mark.paper(27, oracle="c")
@pytest.mark.parametrize("rank", [1, 3])
def test_scaling_is_that_of_t_fews_code(rank: int) -> None:
    given = {name: torch.tensor(value) for name, value in GOLDEN["inputs"].items()}
    net, delta = one(Scaling(rank), given["weight"], given["bias"])
    delta.holders[0].a.data, delta.holders[0].b.data = given[f"a{rank}"], given[f"b{rank}"]
    with delta.attached(net):
        torch.testing.assert_close(net["fc1"](given["x"]), torch.tensor(GOLDEN["expected"][f"scaling{rank}"]))


@pytest.mark.paper(27, oracle="c")
def test_ia3_is_that_of_t_fews_code() -> None:
    given = {name: torch.tensor(value) for name, value in GOLDEN["inputs"].items()}
    net, delta = one(IA3(), given["weight"], given["bias"])
    delta.holders[0].l.data = given["b1"][:, 0]
    for mode in ("branch", "weight"):
        with delta.attached(net, mode):  # type: ignore[arg-type]
            torch.testing.assert_close(net["fc1"](given["x"]), torch.tensor(GOLDEN["expected"]["ia3"]))


@pytest.mark.paper(27, oracle="a")
def test_ones_change_no_bit(t5: nn.Module) -> None:
    ids = torch.tensor([[3, 5, 9]])
    delta = Delta.begin(t5, ia3(t5), torch.Generator())
    with torch.no_grad():
        before = t5(input_ids=ids, decoder_input_ids=ids).logits
        for mode in ("branch", "weight"):
            with delta.attached(t5, mode):  # type: ignore[arg-type]
                assert torch.equal(t5(input_ids=ids, decoder_input_ids=ids).logits, before)


@pytest.mark.paper(27, oracle="b")
def test_the_two_forms_agree_in_a_gated_feed_forward_and_only_there(t5: nn.Module) -> None:
    from transformers import T5Config
    from transformers.models.t5.modeling_t5 import T5DenseActDense

    vector = torch.randn(24, generator=torch.Generator().manual_seed(1))
    x = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(2))

    def given(model: nn.Module, change: IA3, role: str) -> Tensor:
        delta = Delta.begin(model, [Placed(change, Where((role,)))], torch.Generator())
        for holder in delta.holders:
            holder.l.data = vector
        with delta.attached(model), torch.no_grad():
            return model(x)  # type: ignore[no-any-return]

    gated = t5.encoder.block[0].layer[1].DenseReluDense  # type: ignore[union-attr, index]
    torch.testing.assert_close(given(gated, IA3(), "up"), given(gated, IA3("in"), "down"), atol=1e-5, rtol=0)
    plain = T5DenseActDense(T5Config(d_model=16, d_ff=24, feed_forward_proj="relu", dropout_rate=0.0)).eval()
    assert (given(plain, IA3(), "up") - given(plain, IA3("in"), "down")).abs().max() > 1e-2


@pytest.mark.paper(27, oracle="d")
def test_as_many_numbers_as_the_published_vectors_of_t0_3b() -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=8, d_model=2048, d_kv=64, num_heads=32, d_ff=5120, num_layers=24, feed_forward_proj="gated-gelu"
    )
    with torch.device("meta"):
        model = T5ForConditionalGeneration(config)
    placed = ia3(model)
    many = 0
    for one_placed in placed:
        for site in one_placed.where.find(model):
            begun = one_placed.change.begin(model.get_submodule(site.name).weight, torch.Generator())  # type: ignore[arg-type]
            many += sum(tensor.numel() for tensor in begun.trained.values())
    assert many == 540_672


def test_ia3_goes_to_keys_values_and_the_feed_forward(bert: nn.Module, llama: nn.Module) -> None:
    def at(model: nn.Module) -> set[tuple[str, str]]:
        delta = Delta.begin(model, ia3(model), torch.Generator())
        return {(h.site.rpartition(".")[2], h.change.side) for h in delta.holders}

    assert at(bert) == {("key", "out"), ("value", "out"), ("dense", "in")}
    assert at(llama) == {("k_proj", "out"), ("v_proj", "out"), ("up_proj", "out")}
    with pytest.raises(BadInput, match="fits roles k, v"):
        ia3(nn.Sequential(nn.Linear(2, 2)))


def test_an_adapter_is_its_equation() -> None:
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    net, after = one(Adapter(width=3), torch.randn(6, 5), torch.randn(6))
    _, beside = one(Adapter("beside", width=3, activation="gelu", scale=4.0), net["fc1"].weight, net["fc1"].bias)
    for delta in (after, beside):
        for parameter in delta.parameters():
            parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    y = net["fc1"](x)
    h = after.holders[0]
    with after.attached(net):
        torch.testing.assert_close(net["fc1"](x), y + (h.U @ torch.relu(h.D @ y.mT + h.c[:, None])).mT + h.e)
    h = beside.holders[0]
    with beside.attached(net):
        narrow = nn.functional.gelu(h.D @ x.mT + h.c[:, None])
        torch.testing.assert_close(net["fc1"](x), y + 4 * ((h.U @ narrow).mT + h.e))
    assert after.trainable() == 6 * 3 + 3 + 3 * 6 + 6 and beside.trainable() == 5 * 3 + 3 + 3 * 6 + 6


def test_a_learnt_scale_is_one_number_more() -> None:
    _, delta = one(Adapter(reduction=2.0, scale=0.1, learn_scale=True), torch.randn(8, 4), torch.zeros(8))
    h = delta.holders[0]
    assert h.D.shape == (4, 8) and float(h.s.detach()) == pytest.approx(0.1)
    assert delta.trainable() == 2 * 8 * 4 + 4 + 8 + 1


@pytest.mark.paper(27, oracle="h")
def test_a_sparse_update_moves_the_chosen_entries_and_no_others() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    scores = {"0.weight": torch.rand(8, 6), "2.weight": torch.rand(3, 8)}
    data = Data(torch.randn(12, 6), torch.arange(12) % 3)
    keep = 0.3
    changes, start = chosen(scores, keep)
    recipe = Recipe(changes, stages=(Stage(epochs=5, lr=0.01),), start=start)
    tuned = tune(net, data, recipe)
    many = int((48 + 24) * keep)
    assert tuned.delta.trainable() == many == 21
    least = torch.cat([score.flatten() for score in scores.values()]).topk(many).values.min()
    was = {name: net.get_parameter(name).detach().clone() for name in scores}
    tuned.merge()
    for name, score in scores.items():
        moved = net.get_parameter(name) != was[name]
        assert torch.equal(moved, score >= least)


def test_a_lottery_ticket_is_where_full_tuning_moves_most(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    data = Data(torch.randn(12, 6), torch.arange(12) % 3)
    every = tuple(Placed(Own(), Where(names=".", parameter=kind)) for kind in ("weight", "bias"))
    full = tune(net, data, Recipe(every, stages=(Stage(epochs=5, lr=0.01),)))
    moved = movement(full.delta, net)
    merged = full.merge()
    after = {name: p.detach().clone() for name, p in net.named_parameters()}
    merged.undo()
    assert moved.keys() == after.keys() == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert all(torch.equal(moved[name], (after[name] - p).abs()) for name, p in net.named_parameters())
    changes, start = chosen(moved, 0.05)
    assert sum(one.change.entries for one in changes) == int(0.05 * 83) == 4  # type: ignore[attr-defined]
    ticket = tune(net, data, Recipe(changes, stages=(Stage(epochs=5, lr=0.01),), start=start))
    most = torch.cat([score.flatten() for score in moved.values()]).topk(4).values.min()
    kept, was = dict(moved), {name: p.detach().clone() for name, p in net.named_parameters()}
    ticket.merge()
    assert all(torch.equal(p != was[name], kept[name] >= most) for name, p in net.named_parameters())


def test_all_but_the_chosen_entries_learn() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    data = Data(torch.randn(12, 6), torch.arange(12) % 3)
    stay = torch.tensor([0, 7, 23])
    was = net[0].weight.detach().clone()
    placed = (Placed(Others(3), Where((), sites=("0",))),)
    stage = Stage(epochs=5, lr=0.01, weight_decay=0.1)
    tune(net, data, Recipe(placed, stages=(stage,), start=At({"0.weight": stay}))).merge()
    same = (net[0].weight == was).flatten()
    assert same.nonzero()[:, 0].tolist() == stay.tolist()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(BadInput, match="'out' or 'in'"):
        IA3("both")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="no direction"):
        one(DoRA(1), torch.zeros(2, 2), torch.zeros(2))
    with pytest.raises(BadInput, match="keep at least one"):
        chosen({"a.weight": torch.ones(3, 3)}, 0.1)
    with pytest.raises(BadInput, match="hold NaN"):
        chosen({"a.weight": torch.full((3, 3), float("nan"))}, 0.5)
    with pytest.raises(BadInput, match="5 entries cannot learn in a weight of 4"):
        one(Masked(5), torch.ones(2, 2), torch.zeros(2))
    with pytest.raises(BadInput, match="4 of the 4 entries of a weight are to stay"):
        one(Others(4), torch.ones(2, 2), torch.zeros(2))
    with pytest.raises(BadInput, match="'after' or 'beside'"):
        Adapter("before")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="dropout is a share"):
        Adapter(dropout=1.0)


def test_doras_length_is_its_vector() -> None:
    """Whatever A and B are, the rows of the changed weight are as long as m says."""
    net, delta = one(DoRA(2, 3.0), torch.randn(6, 5), torch.zeros(6))
    h = delta.holders[0]
    h.A.data, h.B.data, h.m.data = torch.randn(2, 5), torch.randn(6, 2), torch.rand(6) + 0.5
    torch.testing.assert_close(h(net["fc1"].weight).norm(dim=1), h.m.data)
    lora = LoRA(2, 3.0).weight(net["fc1"].weight, {"A": h.A, "B": h.B})
    torch.testing.assert_close(nn.functional.cosine_similarity(h(net["fc1"].weight), lora), torch.ones(6))
