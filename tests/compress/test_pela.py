"""PELA (199): factors of linear maps, what is lost, the distillation, and the authors' code."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from handful.compress.lowrank import Factored, factors, low_rank_replace, merge_factors, rank_of
from handful.compress.pela import PELA, Features, Logits, Perturbation, compare, deviations
from handful.errors import BadInput
from handful.tune import Data, Delta, LoRA, Placed, Where, split_attention
from handful.tune.fillers import AsIs
from handful.tune.recipe import Seen

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "pela.json").read_text(encoding="utf-8"))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.ModuleList([nn.Linear(12, 16), nn.Linear(16, 14)])
        self.answer = nn.Linear(14, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return self.answer(x)  # type: ignore[no-any-return]


@pytest.fixture
def net() -> Net:
    return Net().eval()


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    """A vision transformer of two layers that answers with three logits."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=8,
        num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vit = ViTForImageClassification(config)

        def forward(self, pixels: Tensor) -> Tensor:
            return self.vit(pixels).logits  # type: ignore[no-any-return]

    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = Wrapped().eval()
        with torch.no_grad():
            for p in made.parameters():
                if p.dim() == 2:
                    p *= 10  # as spread as a trained one's
    return made


X = torch.randn(8, 12, generator=torch.Generator().manual_seed(3))


def seen(student: nn.Module, x: Tensor = X) -> Seen:
    n = len(x)
    return Seen(
        student, AsIs(), torch.arange(n), x, torch.eye(3)[torch.arange(n) % 3], torch.ones(n), 0, 1, torch.Generator()
    )


def smaller(net: nn.Module, **how: object) -> nn.Module:
    student = copy.deepcopy(net)
    low_rank_replace(student, **how)  # type: ignore[arg-type]
    return student


@pytest.mark.paper(199, oracle="a")
def test_what_is_lost_is_what_the_singular_values_say() -> None:
    w = torch.randn(20, 14, generator=torch.Generator().manual_seed(0), dtype=torch.float64).float()
    s = torch.linalg.svdvals(w.double())
    for k in (1, 5, 13):
        u, v = factors(w, k)
        lost = (u.double() @ v.double() - w.double()).square().mean()
        assert float(lost) == pytest.approx(float(s[k:].square().sum() / w.numel()), rel=1e-5)
        torch.testing.assert_close(u.mT @ u, v @ v.mT, atol=1e-5, rtol=1e-5)  # half of S on each side
        start = torch.Generator().manual_seed(k)
        for _ in range(20):  # no other product near by is better
            other = (u + 0.05 * torch.randn(u.shape, generator=start)) @ (
                v + 0.05 * torch.randn(v.shape, generator=start)
            )
            assert (other - w).square().mean() > lost
    assert torch.equal(factors(w, 5)[0], factors(w.clone(), 5)[0])


@pytest.mark.paper(199, oracle="b")
def test_at_full_rank_nothing_is_lost(net: Net) -> None:
    student = smaller(net, rank=99)
    assert [m.factors[1].shape[0] for m in student.modules() if isinstance(m, Factored)] == [12, 14]
    torch.testing.assert_close(student(X), net(X), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(merge_factors(student)(X), net(X), atol=1e-4, rtol=1e-4)
    assert {name for name, _ in student.named_parameters()} == {name for name, _ in net.named_parameters()}


@pytest.mark.paper(199, oracle="c")
@pytest.mark.parametrize("ratio", [1.5, 2.0, 3.0])
def test_a_map_has_its_share_of_numbers(net: Net, ratio: float) -> None:
    student = copy.deepcopy(net)
    done = low_rank_replace(student, ratio)
    for row in done.replaced:
        out, into = row.shape
        assert row.rank * (into + out) <= into * out / ratio < (row.rank + 1) * (into + out)
    assert done.after == sum(p.numel() for p in student.parameters())
    saved = sum(r.shape[0] * r.shape[1] - r.rank * sum(r.shape) for r in done.replaced)
    assert done.before - done.after == saved
    assert done.left == {"answer": "it has 3 outputs, fewer than 10"}


@pytest.mark.paper(199, oracle="d")
def test_weights_that_are_narrow_already_lose_nothing(net: Net) -> None:
    with torch.no_grad():
        for layer in net.layers:
            u, v = factors(layer.weight, 3)  # type: ignore[arg-type]
            layer.weight.copy_(u @ v)  # type: ignore[operator, union-attr]
    student = smaller(net, ratio=2.0)
    torch.testing.assert_close(student(X), net(X), atol=1e-5, rtol=1e-5)
    layers = ("layers.0", "layers.1")
    assert float(Features(net, layers)(seen(student)).detach()) < 1e-12
    assert float(Perturbation(net)(seen(student)).detach()) == 0
    pulled = Perturbation(net, eps=0.1, pulled=True)(seen(student))
    assert float(pulled.detach()) == pytest.approx(0.01, rel=1e-3)
    by_energy = copy.deepcopy(net)
    assert [row.rank for row in low_rank_replace(by_energy, energy=0.99999).replaced] == [3, 3]


@pytest.mark.paper(199, oracle="e")
def test_only_the_largest_deviation_is_pulled(net: Net) -> None:
    student = smaller(net, ratio=2.0)
    loss = Perturbation(net, eps=0.0)(seen(student))
    largest = torch.stack([one for _, one in deviations(net, student)])
    torch.testing.assert_close(loss, largest.square().mean())
    loss.backward()
    for name, module in student.named_modules():
        if isinstance(module, Factored):
            gap = (module.weight - net.get_submodule(name).weight).detach().abs()  # type: ignore[operator]
            row, column = divmod(int(gap.argmax()), gap.shape[1])
            u, v = module.factors
            assert u.grad is not None and v.grad is not None
            assert u.grad.abs().sum(1).nonzero().flatten().tolist() == [row]
            assert v.grad.abs().sum(0).nonzero().flatten().tolist() == [column]


@pytest.mark.paper(199, oracle="f")
def test_distillation_repairs_a_vision_transformer(vit: nn.Module) -> None:
    g = torch.Generator().manual_seed(0)
    data = Data(torch.randn(64, 3, 16, 16, generator=g), torch.arange(64) % 3)
    was = {name: p.clone() for name, p in vit.state_dict().items()}
    pela = PELA(c=0.1, task=None, epochs=15, batch=16, lr=3e-3)
    student, report, losses = pela.compress(vit, data)
    before = compare(vit, smaller(vit), data.inputs)
    after = compare(vit, student, data.inputs, replacement=report.replacement)
    assert sum(after.errors.values()) < 0.6 * sum(before.errors.values())
    each = np.array(losses).reshape(15, 4).mean(1)
    assert (np.diff(each) < 0).mean() > 0.7 and each[-1] < each[0]
    assert report.parameters[1] < 0.75 * report.parameters[0] and report.flops[1] < 0.55 * report.flops[0]
    assert len(report.errors) == 2 and min(report.seconds) > 0 and report.deviation > 0
    assert all(torch.equal(vit.state_dict()[name], p) for name, p in was.items())
    moved = [not torch.equal(p, q) for p, q in zip(student.parameters(), smaller(vit).parameters(), strict=True)]
    assert all(moved)  # the whole student learns


@pytest.mark.paper(199, oracle="g")
def test_as_the_authors_do_it() -> None:
    class Theirs(nn.Sequential):
        pass

    net = Theirs(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 14))
    net.load_state_dict({k: torch.tensor(v) for k, v in GOLDEN["inputs"]["state"].items()})
    student, expected = copy.deepcopy(net), GOLDEN["expected"]
    done = low_rank_replace(student, 2.0)
    for row in done.replaced:
        assert row.rank == expected["ranks"][row.name]
        assert row.error == pytest.approx(expected["errors"][row.name], rel=1e-4)
        whole = student.get_submodule(row.name).weight
        torch.testing.assert_close(whole, torch.tensor(expected["products"][row.name]), atol=1e-5, rtol=1e-5)
    x = torch.tensor(GOLDEN["inputs"]["x"])
    torch.testing.assert_close(student(x), torch.tensor(expected["output"]), atol=1e-5, rtol=1e-5)
    for eps, value in expected["inf_norm"].items():
        found = Perturbation(net, float(eps), pulled=True)(seen(student, x))
        assert float(found.detach()) == pytest.approx(value, rel=1e-5)


@pytest.mark.paper(199, oracle="h")
def test_low_rank_changes_begin_as_none_on_the_factors(net: Net) -> None:
    student = smaller(net, ratio=2.0)
    delta = Delta.begin(student, [Placed(LoRA(2), Where(names=r"layers\.\d\.[01]$"))], torch.Generator())
    assert [h.site for h in delta.each()] == ["layers.0.0", "layers.0.1", "layers.1.0", "layers.1.1"]
    before = student(X)
    with delta.attached(student):
        torch.testing.assert_close(student(X), before, atol=1e-6, rtol=0)
    with torch.no_grad():
        for p in delta.parameters():
            p += 0.1
    with delta.attached(student):
        changed = student(X)
    kept = delta.merge(student)
    torch.testing.assert_close(student(X), changed, atol=1e-5, rtol=1e-5)
    kept.undo()
    assert torch.equal(student(X), before)


def test_a_smaller_checkpoint_is_read_into_random_factors(net: Net) -> None:
    student = smaller(net)
    fresh = Net()
    low_rank_replace(fresh, approximate=False)
    assert (fresh(X) - student(X)).abs().max() > 0.01
    fresh.load_state_dict(student.state_dict())
    assert torch.equal(fresh(X), student(X))


def test_losses_are_their_formulas(net: Net) -> None:
    student = smaller(net)
    hidden = [torch.tanh(net.layers[0](X)), torch.tanh(student.layers[0](X))]  # type: ignore[index, operator]
    first = (net.layers[0](X) - student.layers[0](X)).square().mean()  # type: ignore[index, operator]
    second = (net.layers[1](hidden[0]) - student.layers[1](hidden[1])).square().mean()  # type: ignore[index, operator]
    found = Features(net, ("layers.0", "layers.1"), 0.1)(seen(student))
    torch.testing.assert_close(found, 0.1 * (first + second) / 2)
    calls: list[int] = []
    handle = student.register_forward_hook(lambda *args: calls.append(1))
    look = seen(student)
    Features(net, ("layers.0",))(look)
    logits = Logits(net, 2.0)(look)
    handle.remove()
    torch.testing.assert_close(logits, 2 * (student(X) - net(X)).square().mean())
    assert len(calls) == 1  # the student reads once


def test_the_built_in_sentence_encoder_is_replaced_whole() -> None:
    """Six blocks of six maps each, which their network calls one by one."""
    import handful
    from handful.tune.encoders import tunable

    made = tunable(handful.encoder("minilm"))
    teacher = made.tower()
    student = copy.deepcopy(teacher)
    done = low_rank_replace(student, 2.0)
    assert len(done.replaced) == 36 and not done.left
    report = compare(teacher, student, made.inputs(["where is my parcel", "I cannot sign in", "refund me"]))
    assert list(report.errors) == [f"encoder.layer.{i}.output.LayerNorm" for i in range(6)]
    assert report.flops[1] <= report.flops[0] / 2 and 0 < report.errors["encoder.layer.0.output.LayerNorm"] < 1


def test_what_cannot_be_replaced_is_said(net: Net) -> None:
    fused = nn.ModuleDict({"attn": nn.MultiheadAttention(16, 2), "fc": nn.Linear(16, 16)})
    done = low_rank_replace(fused)
    assert "take it apart" in done.left["attn"] and [r.name for r in done.replaced] == ["fc"]
    apart = split_attention(nn.ModuleDict({"attn": nn.MultiheadAttention(16, 2), "fc": nn.Linear(16, 16)}))
    assert len(low_rank_replace(apart).replaced) == 5
    assert rank_of(torch.zeros(16, 12), 2.0, None, None) == 3
    none = copy.deepcopy(net)
    broken, whole = Net(), Net()
    twin = nn.ModuleDict({"a": nn.Linear(12, 12), "b": nn.Linear(12, 12)})
    twin["b"].weight = twin["a"].weight
    with torch.no_grad():
        broken.layers[0].weight[0, 0] = float("nan")  # type: ignore[index, operator, union-attr]
    tiny = nn.Sequential(nn.Linear(12, 12))
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: low_rank_replace(none, 2.0, rank=3), "one of ratio, rank and energy"),
        (lambda: low_rank_replace(none, -1.0), "ratio is above 0"),
        (lambda: low_rank_replace(none, rank=0), "rank at least 1"),
        (lambda: low_rank_replace(smaller(whole), omit=("answer",)), r"replaced; layers\.0: it is two maps already"),
        (lambda: low_rank_replace(none, omit="answer"), r"give \['answer'\]"),
        (lambda: PELA(layers="layers.0"), r"layers is a tuple of names"),  # type: ignore[arg-type]
        (lambda: PELA(b=float("nan")), "must not be negative"),
        (lambda: low_rank_replace(none, energy=1.5), "energy is a share"),
        (lambda: low_rank_replace(none, energy=0.9, approximate=False), "that is approximated"),
        (lambda: low_rank_replace(none, omit=("layers", "answer")), "no linear map of the model was replaced"),
        (lambda: low_rank_replace(tiny, 1.0), "no smaller"),
        (lambda: low_rank_replace(tiny, 100.0), "too small"),
        (lambda: low_rank_replace(twin), "one weight"),
        (lambda: low_rank_replace(broken), "NaN or infinity"),
        (lambda: deviations(whole, whole), "no factored map"),
        (lambda: deviations(nn.Linear(2, 2), smaller(whole)), "a student of another"),
        (lambda: Features(tiny)(seen(smaller(tiny))), "no transformer blocks"),
        (lambda: Features(whole, ("layer.0",))(seen(smaller(whole))), "no layer 'layer.0'; did you mean"),
        (lambda: PELA(a=-1.0), "must not be negative"),
        (lambda: PELA(a=0.0, c=0.0, task=None), "there is no loss"),
    ]
    for bad, match in cases:
        with pytest.raises(BadInput, match=match):
            bad()
    with torch.no_grad():
        none.layers[1].weight[0, 0] = float("inf")  # type: ignore[index, operator, union-attr]
    with pytest.raises(BadInput, match=r"layers\.1\.weight holds NaN"):
        low_rank_replace(none)
    assert not any(isinstance(module, Factored) for module in none.modules())  # refused whole, not half replaced
